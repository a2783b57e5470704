//! How many connections to brokers a client has, and when it has been without any for so long that it must be told its
//! bootstrap brokers again.
//!
//! librdkafka 2.12.1 can lose all its brokers for ever. A KRaft broker that has just started may answer a metadata request
//! with topics and no broker, itself not included. librdkafka believes that (`rd_kafka_parse_Metadata` rejects only an answer
//! without brokers *and* topics) and removes every broker, those of `bootstrap.servers` included. The last one that goes
//! schedules that they are added again, but the same answer counts as a success, and so cancels what has been
//! scheduled; `rk_rebootstrap_in_progress` stays set, and with it nothing is scheduled ever again
//! (confluentinc/librdkafka#5301). No answer can be changed before librdkafka reads it, and a client has state that its
//! users rely on, so that it cannot simply be recreated: instead it is told its bootstrap brokers by
//! `rd_kafka_brokers_add`, whose effect does not depend on that flag.
//!
//! Whether a client still has brokers cannot be asked, so this counts the connections that are up. During an outage a client
//! has none either; then it knows its bootstrap brokers already, and the call changes nothing. But librdkafka keeps each list
//! that it is told, so that the pauses between two calls double up to a minute. The call is repeated because the broker that
//! it adds can be removed by another answer of that kind.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a client is without a connection before it is told its brokers the first time. librdkafka itself needs less than
/// that to connect to a broker that has closed its connections and takes new ones.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between two times.
const LAST_PAUSE: Duration = Duration::from_secs(60);

thread_local! {
    /// Whether the broker that this thread of librdkafka serves is connected: a broker's state changes on its own thread
    /// only. The names of two brokers of one client may be the same, so they cannot be told apart otherwise.
    static IS_UP: Cell<bool> = const { Cell::new(false) };
}

/// The connections of one client. Coordinators, to which librdkafka has connections of their own, are not counted: it asks
/// them nothing about the cluster.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    up: u32,
    /// If none is up and one has been: when the brokers are to be told, and the pause before that.
    due: Option<(Instant, Duration)>,
}

impl Connections {
    /// Notes a broker's new state, on the thread of that broker. librdkafka holds locks meanwhile: nothing of it may be
    /// called.
    pub(super) fn changed(&self, is_up: bool, now: Instant) {
        let was_up = IS_UP.replace(is_up);
        if was_up == is_up {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.up = if is_up { state.up + 1 } else { state.up.saturating_sub(1) };
        state.due = (state.up == 0).then_some((now + FIRST_PAUSE, FIRST_PAUSE));
    }

    /// Whether the client must be told its brokers now; saying so begins the next pause.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.due {
            Some((at, pause)) if *at <= now => {
                *pause = (*pause * 2).min(LAST_PAUSE);
                *at = now + *pause;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Each broker has a thread of its own.
    fn change(connections: &Connections, states: &[bool], now: Instant) {
        std::thread::scope(|scope| {
            scope.spawn(|| states.iter().for_each(|is_up| connections.changed(*is_up, now)));
        });
    }

    #[test]
    fn a_client_without_a_connection_is_told_its_brokers_again_after_longer_and_longer_pauses() {
        let (connections, now) = (Connections::default(), Instant::now());
        let is_due = |seconds: u64| connections.are_due(now + Duration::from_secs(seconds));
        // What has never been connected knows its brokers.
        change(&connections, &[false, false], now);
        assert!(!is_due(100));
        // One of two connections is still up.
        let first_is_up = Barrier::new(2);
        let checked = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                connections.changed(true, now);
                first_is_up.wait();
                checked.wait();
                connections.changed(false, now);
            });
            first_is_up.wait();
            change(&connections, &[true, false, false], now);
            assert!(!is_due(100));
            checked.wait();
        });
        let told: Vec<u64> = (0..=200).filter(|second| is_due(*second)).collect();
        assert_eq!(told, [2, 6, 14, 30, 62, 122, 182]);
        change(&connections, &[true], now);
        assert!(!is_due(1000));
    }
}
