//! What happens to the hosts of a cluster, and when it is over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::Cluster;
use crate::group::{Role, Store};
use crate::hosts::Place;
use crate::s3::{Fault, Message};

/// How long something is stopped or unavailable that is meant to be missed: longer than every time by which nodes notice.
const MISSED: Duration = Duration::from_secs(12);

/// A blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9` of a node.
    Kill(Role),
    /// `kill -9` of all nodes.
    KillAll,
    /// A host loses its power.
    CutPower(Role),
    /// A host reaches nothing.
    Isolate(Role),
    /// Nothing passes between the coordinator's host and another, while both reach broker and store.
    CutPair,
    /// Nothing passes from the coordinator's host to another; the other direction works.
    CutOneWay,
    /// SIGSTOP of a node and its processes, and SIGCONT when they were missed.
    Stop(Role),
    /// A host does not reach the store.
    CutFromStore(Role),
    /// A host does not reach the broker.
    CutFromBroker(Role),
    /// The store answers nothing for some seconds.
    StoreAway,
    /// Apache Kafka is restarted.
    RestartKafka,
    /// SIGTERM of a node, which is started again when it has left.
    Leave(Role),
}

impl Blow {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::KillAll, Self::CutPair, Self::CutOneWay, Self::StoreAway, Self::RestartKafka];
        for role in [Role::Coordinator, Role::Other] {
            all.extend([
                Self::Kill(role),
                Self::CutPower(role),
                Self::Isolate(role),
                Self::Stop(role),
                Self::CutFromStore(role),
                Self::CutFromBroker(role),
                Self::Leave(role),
            ]);
        }
        all
    }

    /// One of those that can happen to a cluster with such a store: a folder is on every host.
    pub fn random(random: &mut ChaCha8Rng, store: Store) -> Self {
        let mut all = Self::all();
        all.retain(|blow| store == Store::Bucket || !matches!(blow, Self::CutFromStore(_) | Self::StoreAway));
        all.swap_remove(random.random_range(0..all.len()))
    }

    /// Strikes, calls `meanwhile` while the fault lasts, and takes it away.
    ///
    /// # Errors
    /// The cluster does not do what it must.
    pub fn strike(self, cluster: &Cluster, coordinator: u8, meanwhile: impl Fn() -> Result<()>) -> Result<()> {
        let other = cluster.hosts().find(|host| *host != coordinator).context("there is another host")?;
        let host = |role| if role == Role::Coordinator { coordinator } else { other };
        let place = |role| Place::Host(host(role));
        let network = cluster.network();
        match self {
            Self::Kill(role) => {
                cluster.kill_node(host(role))?;
                meanwhile()?;
                cluster.start_node(host(role))?;
            }
            Self::KillAll => {
                cluster.hosts().try_for_each(|host| cluster.kill_node(host))?;
                cluster.hosts().try_for_each(|host| cluster.start_node(host))?;
            }
            Self::CutPower(role) => {
                network.cut_power(place(role))?;
                meanwhile()?;
                network.restore_power(place(role))?;
                cluster.start_node(host(role))?;
            }
            Self::Isolate(role) => {
                cluster.does_not_answer(host(role));
                network.isolate(place(role))?;
                meanwhile()?;
                network.heal()?;
            }
            Self::CutPair => {
                // A node that does not reach the coordinator cannot answer for it.
                cluster.does_not_answer(other);
                network.cut(Place::Host(coordinator), Place::Host(other))?;
                meanwhile()?;
                network.heal()?;
            }
            Self::CutOneWay => {
                cluster.does_not_answer(other);
                network.cut_one_way(Place::Host(coordinator), Place::Host(other))?;
                meanwhile()?;
                network.heal()?;
            }
            Self::Stop(role) => {
                cluster.does_not_answer(host(role));
                network.signal(place(role), Signal::STOP)?;
                let stopped = Instant::now();
                meanwhile()?;
                std::thread::sleep(MISSED.saturating_sub(stopped.elapsed()));
                network.signal(place(role), Signal::CONT)?;
            }
            Self::CutFromStore(role) => {
                cluster.does_not_answer(host(role));
                network.cut(place(role), Place::Store)?;
                meanwhile()?;
                network.heal()?;
            }
            Self::CutFromBroker(role) => {
                cluster.does_not_answer(host(role));
                network.cut(place(role), Place::Broker)?;
                meanwhile()?;
                network.heal()?;
            }
            Self::StoreAway => {
                let any: fn(&Message) -> bool = |_| true;
                cluster.front().arm(any, Fault::Close, usize::MAX);
                std::thread::sleep(MISSED);
                cluster.front().calm();
            }
            Self::RestartKafka => cluster.restart_kafka()?,
            Self::Leave(role) => {
                cluster.does_not_answer(host(role));
                cluster.stop_node(host(role))?;
                meanwhile()?;
                cluster.start_node(host(role))?;
            }
        }
        cluster.answers_again();
        Ok(())
    }
}
