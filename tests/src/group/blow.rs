//! What happens to the hosts of a group, and what the group has to make of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fluvial_s3::{Fault, Message};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::{GROUP_MOST, Group, Store};
use crate::hosts::Place;

/// How long something is stopped or unavailable that is meant to be missed: longer than every time by which a group notices.
const MISSED: Duration = Duration::from_secs(12);

/// How long a host is stopped: longer than every timeout of a group and of its job, so that all of them have expired when the
/// host goes on. A node, a process, or the store of a coordinator may be silent for 5 s; processes meet within 20 s; a process
/// waits for brokers and store for the `--patience` of 20 s; and a node has to begin an attempt within 30 s. The broker's
/// transaction timeout of 60 s does not count, because the next generation ends open transactions.
const PAST_ALL_TIMEOUTS: Duration = Duration::from_secs(35);

const A_MINUTE: Duration = Duration::from_secs(60);

/// How many records have to come through while links are bad.
const OVER_BAD_LINKS: u64 = 2_000;

/// Which host is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The one whose copy coordinates.
    Coordinator,
    /// Another one.
    Other,
}

/// A blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9` of one process of the job.
    KillProcess(Role),
    /// `kill -9` of a copy; it is started again when the job runs without it.
    KillCopy(Role),
    /// `kill -9` of all copies; they are started again.
    KillAll,
    /// A host loses its power; it comes back when the job runs without it.
    CutPower(Role),
    /// Nothing passes between the coordinator's host and another, while both reach broker and store.
    CutPair,
    /// Nothing passes between two hosts that do not coordinate.
    CutOthers,
    /// Nothing passes from the coordinator's host to another; the other direction works.
    CutOneWay,
    /// A host does not reach the broker.
    CutFromBroker(Role),
    /// A host does not reach the store.
    CutFromStore(Role),
    /// A host reaches nothing, and is reached again when its work was moved.
    Isolate(Role),
    /// SIGSTOP of one process of the job. Its node misses it and kills it, so it gets no SIGCONT.
    StopProcess(Role),
    /// SIGSTOP of a copy alone, and SIGCONT when it was missed.
    StopCopy(Role),
    /// SIGSTOP of a copy and its processes, and SIGCONT when all their timeouts have expired.
    StopHost(Role),
    /// The packets of a host are lost, one of a hundred, and those of another take 50 ms longer.
    BadLinks,
    /// SIGTERM of a copy; it is started again when the job runs without it.
    Leave(Role),
    /// The store answers nothing for some seconds, which the job survives.
    StoreAway,
    /// The store answers nothing for a minute, which no generation of the job survives. Short campaigns do not have it.
    StoreAwayForAMinute,
}

impl Blow {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::KillAll, Self::CutPair, Self::CutOthers, Self::CutOneWay, Self::BadLinks];
        all.extend([Self::StoreAway, Self::StoreAwayForAMinute]);
        for role in [Role::Coordinator, Role::Other] {
            all.extend([
                Self::KillProcess(role),
                Self::KillCopy(role),
                Self::CutPower(role),
                Self::CutFromBroker(role),
                Self::CutFromStore(role),
                Self::Isolate(role),
                Self::StopProcess(role),
                Self::StopCopy(role),
                Self::StopHost(role),
                Self::Leave(role),
            ]);
        }
        all
    }

    /// One of those that can happen to a group of so many hosts with such a store, if there is enough time.
    pub fn random(random: &mut ChaCha8Rng, store: Store, hosts: u8, in_a_hurry: bool) -> Self {
        let mut all = Self::all();
        all.retain(|blow| blow.fits(store) && (hosts > 2 || *blow != Self::CutOthers));
        all.retain(|blow| !in_a_hurry || *blow != Self::StoreAwayForAMinute);
        all.swap_remove(random.random_range(0..all.len()))
    }

    /// Whether it can happen to a group with such a store: a folder is on every host.
    #[must_use]
    pub fn fits(self, store: Store) -> bool {
        store == Store::Bucket || !matches!(self, Self::CutFromStore(_) | Self::StoreAway | Self::StoreAwayForAMinute)
    }

    /// Strikes a group whose job runs on all hosts, waits until the job runs in spite of it, takes the fault away, and waits
    /// until the job runs on all hosts again.
    ///
    /// # Errors
    /// The group does not do what it must.
    pub fn strike(self, group: &Group, options: &str) -> Result<()> {
        let before = group.record().context("the group has no record")?;
        let coordinator = group.coordinator()?;
        // The host of the last process comes first: there are so few output partitions that this process only reads.
        let places = before.places.iter().rev().filter_map(|(address, _)| group.host_at(address));
        let others: Vec<u8> = places.filter(|host| *host != coordinator).collect();
        let host = |role| if role == Role::Coordinator { coordinator } else { others[0] };
        let place = |role| Place::Host(host(role));
        let network = group.network();
        let all: Vec<u8> = group.hosts().collect();
        let without = |role| all.iter().copied().filter(|other| *other != host(role)).collect::<Vec<_>>();
        match self {
            Self::KillProcess(role) => {
                ensure!(group.copy(host(role))?.job().kill_peer(0)?, "no process of the job runs on {:?}", place(role));
                self.next_attempt(group, &before)?;
            }
            Self::KillCopy(role) => {
                group.copy(host(role))?.job().kill_first(GROUP_MOST)?;
                group.wait_until_on(&without(role))?;
                group.start(host(role), options)?;
            }
            Self::KillAll => {
                // One after the other within milliseconds; each takes its processes with it.
                for host in group.hosts() {
                    group.copy(host)?.job().kill_first(GROUP_MOST)?;
                }
                group.start_all(options)?;
                self.next_attempt(group, &before)?;
            }
            Self::CutPower(role) => {
                network.cut_power(place(role))?;
                group.wait_until_on(&without(role))?;
                network.restore_power(place(role))?;
                group.start(host(role), options)?;
            }
            Self::CutPair => {
                network.cut(Place::Host(coordinator), place(Role::Other))?;
                group.wait_until_on(&without(Role::Other))?;
                network.heal()?;
            }
            Self::CutOthers => {
                network.cut(Place::Host(others[0]), Place::Host(others[1]))?;
                self.next_attempt(group, &before)?;
                network.heal()?;
            }
            Self::CutOneWay => {
                network.cut_one_way(Place::Host(coordinator), place(Role::Other))?;
                self.next_attempt(group, &before)?;
                network.heal()?;
            }
            Self::CutFromBroker(role) => {
                network.cut(place(role), Place::Broker)?;
                group.wait_until_on(&without(role))?;
                group.check_health(&[host(role)])?;
                let process = before.places.iter().position(|(at, _)| group.host_at(at) == Some(host(role)));
                let said =
                    || anyhow::Ok(group.copy(host(role))?.process().log_holds("has received nothing from the source"));
                // The first two processes write, and may miss the broker by that.
                ensure!(process < Some(2) || said()?, "the process that only reads has not said why it ended");
                network.heal()?;
            }
            Self::CutFromStore(role) => {
                network.cut(place(role), Place::Store)?;
                if role == Role::Coordinator {
                    group.wait_until("new coordinator", || {
                        Ok(group.record().is_some_and(|record| record.term > before.term))
                    })?;
                }
                self.next_attempt(group, &before)?;
                network.heal()?;
            }
            Self::Isolate(role) => {
                network.isolate(place(role))?;
                group.wait_until_on(&without(role))?;
                network.heal()?;
            }
            Self::StopProcess(role) => {
                let copy = group.copy(host(role))?;
                copy.signal_peer(0, Signal::STOP)?;
                // It is killed, which works on stopped processes, too.
                self.next_attempt(group, &before)?;
            }
            Self::StopCopy(role) => {
                let copy = group.copy(host(role))?;
                copy.process().signal(Signal::STOP)?;
                let stopped = Instant::now();
                group.wait_until_on(&without(role))?;
                std::thread::sleep(MISSED.saturating_sub(stopped.elapsed()));
                copy.process().signal(Signal::CONT)?;
            }
            Self::StopHost(role) => {
                network.signal(place(role), Signal::STOP)?;
                let stopped = Instant::now();
                group.wait_until_on(&without(role))?;
                std::thread::sleep(PAST_ALL_TIMEOUTS.saturating_sub(stopped.elapsed()));
                network.signal(place(role), Signal::CONT)?;
            }
            Self::BadLinks => {
                network.lose(Place::Host(coordinator), 1)?;
                network.delay(place(Role::Other), Duration::from_millis(50))?;
                group.wait_for_output(group.output().records() + OVER_BAD_LINKS, "over bad links")?;
                network.heal()?;
            }
            Self::Leave(role) => {
                let copy = group.copy(host(role))?;
                let finished = copy.terminate(GROUP_MOST)?;
                ensure!(finished.code == Some(0), "it left with {:?}:\n{}", finished.code, finished.said);
                let left = network.pids(place(role))?;
                ensure!(left.is_empty(), "it has left, and processes {left:?} run on its host");
                group.wait_until_on(&without(role))?;
                group.start(host(role), options)?;
            }
            Self::StoreAway | Self::StoreAwayForAMinute => {
                let any: fn(&Message) -> bool = |_| true;
                group.stage().front().arm(any, Fault::Close, usize::MAX);
                group.stage().front().wait_until_met(50, GROUP_MOST)?;
                std::thread::sleep(if self == Self::StoreAway { MISSED } else { A_MINUTE });
                group.check_health(&all)?;
                group.stage().front().calm();
            }
        }
        group.wait_until_on(&all)?;
        let after = group.record().context("the group has no record")?;
        self.judge(&before, &after).with_context(|| group.logs())
    }

    /// Waits until a later attempt than that of `before` says something.
    fn next_attempt(self, group: &Group, before: &super::Record) -> Result<()> {
        group.wait_until(&format!("attempt after {self:?}"), || {
            Ok(group.record().is_some_and(|record| record.attempt > before.attempt))
        })?;
        group.wait_for_more(&format!("after {self:?}"))
    }

    /// Whether the coordinator is another than before exactly where that had to be.
    fn judge(self, before: &super::Record, after: &super::Record) -> Result<()> {
        use Role::{Coordinator, Other};
        let later = after.term > before.term;
        let says = format!("the term was {} before {self:?} and is {} after it", before.term, after.term);
        match self {
            Self::KillCopy(Coordinator)
            | Self::KillAll
            | Self::CutPower(Coordinator)
            | Self::CutFromStore(Coordinator)
            | Self::Isolate(Coordinator)
            | Self::StopCopy(Coordinator)
            | Self::StopHost(Coordinator)
            | Self::Leave(Coordinator) => ensure!(later, "{says}"),
            Self::KillProcess(_)
            | Self::KillCopy(Other)
            | Self::CutPower(Other)
            | Self::CutPair
            | Self::CutOthers
            | Self::CutOneWay
            | Self::CutFromBroker(_)
            | Self::CutFromStore(Other)
            | Self::StopProcess(_)
            | Self::StopCopy(Other)
            | Self::StopHost(Other)
            | Self::BadLinks
            | Self::Leave(Other) => ensure!(!later, "{says}"),
            // One that reaches the store and no other host claims the next term.
            Self::Isolate(Other) | Self::StoreAwayForAMinute => {}
            // Whoever reaches the store first when it is back may coordinate; the job runs on.
            Self::StoreAway => ensure!(after.attempt == before.attempt, "{before:?}, and after {self:?} {after:?}"),
        }
        Ok(())
    }
}
