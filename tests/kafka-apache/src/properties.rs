//! The settings of one server process.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::Options;
use crate::secured::{Listener, Secured};

/// Where one server listens.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// For clients.
    pub(crate) client: u16,
    /// For the controllers: each server is one, as a cluster that is to survive the loss of any needs it.
    pub(crate) controller: u16,
    /// For the proxy, if there is one.
    pub(crate) behind_proxy: u16,
    /// For each of [`Listener::ALL`], where Kafka is secured.
    pub(crate) secured: Vec<u16>,
}

/// The text of `server.properties` for the server `index`. Later lines win, so the caller's own come last.
pub(crate) fn server(
    options: &Options,
    ports: &[Ports],
    secured: Option<&Secured>,
    index: usize,
    data: &Path,
) -> Result<String> {
    let own = &ports[index];
    let (replicas, in_sync) = if ports.len() >= 3 { (3, 2) } else { (1, 1) };
    let mut lines = Vec::new();
    lines.push("process.roles=broker,controller".to_owned());
    // Where each listener listens, and where clients that have come by it are told to come again.
    let mut listeners = vec![("PLAINTEXT", own.client, Some(own.client))];
    listeners.extend(options.proxy.map(|proxy| ("PROXIED", own.behind_proxy, Some(proxy))));
    listeners.extend(Listener::ALL.iter().zip(&own.secured).map(|(at, port)| (at.name(), *port, Some(*port))));
    listeners.push(("CONTROLLER", own.controller, None));
    let at = |(name, port): (&str, u16)| format!("{name}://{}:{port}", options.host);
    let listen: Vec<_> = listeners.iter().map(|(name, port, _)| at((name, *port))).collect();
    let advertise = listeners.iter().filter_map(|(name, _, advertised)| Some(at((name, (*advertised)?))));
    let advertise: Vec<_> = advertise.collect();
    let plain = ["PLAINTEXT", "PROXIED", "CONTROLLER"].map(|name| format!("{name}:PLAINTEXT"));
    let asking = Listener::ALL.map(|listener| format!("{}:{}", listener.name(), listener.protocol()));
    let protocols = [&plain[..], &asking[..]].concat();
    lines.push(format!("listeners={}", listen.join(",")));
    lines.push(format!("advertised.listeners={}", advertise.join(",")));
    lines.push(format!("listener.security.protocol.map={}", protocols.join(",")));
    lines.push(format!("node.id={}", index + 1));
    let voters =
        ports.iter().enumerate().map(|(voter, of)| format!("{}@{}:{}", voter + 1, options.host, of.controller));
    lines.push(format!("controller.quorum.voters={}", voters.collect::<Vec<_>>().join(",")));
    lines.push("controller.listener.names=CONTROLLER".to_owned());
    lines.push("inter.broker.listener.name=PLAINTEXT".to_owned());
    lines.push(format!("log.dirs={}", data.display()));
    for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
        lines.push(format!("{topic}.replication.factor={replicas}"));
    }
    lines.push(format!("default.replication.factor={replicas}"));
    lines.push(format!("min.insync.replicas={in_sync}"));
    lines.push(format!("transaction.state.log.min.isr={in_sync}"));
    lines.push(format!("share.coordinator.state.topic.min.isr={in_sync}"));
    lines.push("offsets.topic.num.partitions=3".to_owned());
    lines.push("transaction.state.log.num.partitions=3".to_owned());
    lines.push("group.initial.rebalance.delay.ms=0".to_owned());
    // A test that lets a transaction time out need not wait ten seconds for the broker to look.
    lines.push("transaction.abort.timed.out.transaction.cleanup.interval.ms=500".to_owned());
    lines.push("auto.create.topics.enable=false".to_owned());
    lines.push("log.cleaner.backoff.ms=500".to_owned());
    lines.push("num.network.threads=2".to_owned());
    lines.push("num.io.threads=4".to_owned());
    lines.extend(secured.map(Secured::properties).transpose()?.into_iter().flatten());
    lines.extend(options.properties.iter().map(|(key, value)| format!("{key}={value}")));
    Ok(lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    }))
}
