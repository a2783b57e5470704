//! This process as one of a generation: it joins the others, and hears from its node when to stop.

use std::io::BufReader;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use fluvial_node::process_link::{FromProcess, Invited, MeshPlace, NodeLink, Succession, ToProcess, read_line};
use fluvial_protocol::Exit;

use super::beat::Beats;
use super::failure::Failure;
use super::mesh::{self, Socket};

/// This process as one of a generation.
pub(crate) struct Peer {
    /// Which process it is.
    pub index: usize,
    /// The sockets to the others.
    pub sockets: Vec<Option<Socket>>,
    /// After which generation this one comes.
    pub succession: Succession,
    /// Receives the node's request to stop.
    pub stop: Receiver<()>,
    /// The way to tell the node.
    pub node: NodeLink,
    /// What it tells the node each second.
    pub beats: Beats,
}

impl Peer {
    /// Joins the generation for which a node has started this process.
    ///
    /// # Errors
    /// The node or a peer is gone.
    pub(crate) fn join(invited: Invited) -> Result<Self, Failure> {
        let Invited { invitation, node, mut lines } = invited;
        let MeshPlace { listen, host, identity } = invitation.mesh;
        let index = invitation.index as usize;
        let listener = mesh::listen(listen).map_err(Failure::of_host)?;
        let port = listener.local_addr().map_err(Failure::of_host)?.port();
        node.say(&FromProcess::Listens(address(&host, port)));
        let beats = Beats::start(node.clone()).map_err(Failure::of_host)?;
        let lost = |why: &'static str| Failure::new(Exit::GenerationLost, anyhow::anyhow!(why));
        let addresses = match read_line(&mut lines) {
            Ok(Some(ToProcess::Peers(addresses))) => addresses,
            Ok(Some(ToProcess::Stop)) => {
                let error = anyhow::anyhow!("stopped before the processes of the job had met");
                return Err(Failure::new(Exit::StoppedUncommitted, error));
            }
            Ok(None) | Err(_) => return Err(lost("the node is gone")),
        };
        let sockets = mesh::connect(&listener, &addresses, index, &identity).map_err(|error| {
            let error = anyhow::Error::new(error).context("cannot connect the processes of the job with each other");
            Failure::new(Exit::GenerationLost, error)
        })?;
        let (asked, stop) = channel();
        std::thread::Builder::new()
            .name("node-link".to_owned())
            .spawn(move || follow(lines, &asked))
            .map_err(Failure::of_host)?;
        Ok(Self { index, succession: invitation.succession, sockets, stop, node, beats })
    }
}

/// The `host:port` at which others reach a port of this host.
fn address(host: &str, port: u16) -> String {
    match host.parse() {
        // One of IP version 6 is written in brackets.
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Reads what the node says; its silence for good ends the process.
fn follow(mut lines: BufReader<UnixStream>, stop: &Sender<()>) {
    loop {
        match read_line(&mut lines) {
            Ok(Some(ToProcess::Stop)) => {
                // Nobody waiting any more means that the process is ending already.
                let _ = stop.send(());
            }
            Ok(Some(ToProcess::Peers(_))) => {}
            Ok(None) | Err(_) => std::process::exit(i32::from(Exit::GenerationLost.code())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_where_it_listens_so_that_others_can_connect_there() {
        for (host, said) in [("host-a", "host-a:7"), ("10.0.0.1", "10.0.0.1:7"), ("fd00::1", "[fd00::1]:7")] {
            assert_eq!(address(host, 7), said);
        }
    }
}
