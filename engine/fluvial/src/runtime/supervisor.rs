//! The supervisor: the `run` process itself, which starts one generation after the other and holds no dataflow.
//!
//! Every generation begins with fresh processes, so nothing of the old one can leak into the new. [`keeper`](super::keeper)
//! starts and watches them, and [`Decisions`] says what follows when they have ended.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use fluvial_protocol::{Decisions, Exit, Next};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::ambient;
use super::keeper::{Event, Processes};
use super::peer::Succession;
use crate::fail_point::Doom;

/// The options of a supervisor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supervision {
    /// How many processes a generation has.
    pub processes: usize,
    /// Whether to start the next generation when a restart may mend what ended the last one.
    pub restart: bool,
    /// The fail point at which the processes of the first generation end or pause.
    pub fail_point: Option<Doom>,
    /// Whether their logs have colours.
    pub ansi: bool,
}

/// Runs generations until one ends for good. Returns how, and why.
///
/// # Errors
/// The processes cannot be started at all.
pub(crate) fn supervise(supervision: Supervision) -> anyhow::Result<(Exit, String)> {
    let (events, inbox) = channel();
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot watch for signals")?;
    let on_signal = events.clone();
    thread("signals", move || {
        for _ in signals.forever() {
            if on_signal.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    let mut decisions = Decisions::new(supervision.restart);
    let mut succession = Succession { run: ambient::nonce() as u32, attempt: 0, follows: None };
    for number in 0.. {
        let ended = Processes::start(&supervision, succession, number, &events)?.run(&inbox);
        succession.attempt += 1;
        succession.follows = ended.number.or(succession.follows);
        let Next::Start { pause_ms } = decisions.after(&ended.end) else {
            return Ok((ended.end.exit, ended.end.why));
        };
        tracing::warn!(why = ended.end.why, pause_ms, "the generation ended; starting the next one");
        if signalled_within(&inbox, Duration::from_millis(pause_ms)) {
            return Ok((Exit::StoppedUncommitted, "stopped while waiting to restart".to_owned()));
        }
    }
    unreachable!("generations follow each other until one is the last")
}

pub(super) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn signalled_within(inbox: &Receiver<Event>, pause: Duration) -> bool {
    let until = ambient::instant() + pause;
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(ambient::instant())) {
            Ok(Event::Signal) => return true,
            Ok(Event::Process { .. }) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
    }
}
