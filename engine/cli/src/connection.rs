//! Which node a command speaks with, how it knows that node, and what it shows of its user.
//!
//! | what | comes from the first of these |
//! | --- | --- |
//! | address | `--addr`, `FLUVIAL_ADDR`, the last `fluvial login`, `127.0.0.1:7400` |
//! | authority that vouches for nodes | the cluster key, `--ca`, what was pinned at the login to that address |
//! | token | `--token-file`, `FLUVIAL_TOKEN`, the cluster key, the login to that address |
//!
//! Without an authority a command speaks plain HTTP, which it does on the loopback interface alone. A token is only sent by TLS,
//! to a node for which the authority vouches.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fluvial_node::access::Token;
use fluvial_node::trust::{ClusterKeys, of_users};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use crate::contexts::Contexts;
use crate::node;
use crate::pinned::Pinned;

/// The port of the API, where an address names none.
const PORT: &str = "7400";
/// The environment variable that holds a token.
const TOKEN: &str = "FLUVIAL_TOKEN";

/// How a command reaches a cluster.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "How to reach the cluster")]
pub(crate) struct ConnectionOptions {
    /// The address of a node's API [default: that of the last login, or 127.0.0.1:7400]
    #[arg(long, global = true, env = "FLUVIAL_ADDR", value_name = "HOST:PORT")]
    pub(crate) addr: Option<String>,

    /// A file with a token, instead of the one of the login or in the environment variable FLUVIAL_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The certificates of the authorities that vouch for the nodes, in PEM format, instead of the one pinned at the login
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// The file of the cluster key. Who has it is an operator, and needs neither a login nor a token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cluster_key_file: Option<PathBuf>,
}

/// A node's API, and how to speak with it.
pub(crate) struct Connection {
    /// Its `host:port`.
    pub(crate) addr: String,
    pub(crate) security: Security,
    /// What a login has pinned, if the node is known by that.
    pub(crate) pinned: Option<Pinned>,
}

/// What protects a connection.
pub(crate) enum Security {
    /// Nothing.
    Plain,
    Tls {
        /// It accepts nodes of the cluster only.
        tls: Box<ClientConfig>,
        token: Option<String>,
    },
}

impl ConnectionOptions {
    /// Finds out how to reach the cluster.
    ///
    /// # Errors
    /// A file cannot be used, or others could read what is sent.
    pub(crate) fn resolve(&self) -> anyhow::Result<Connection> {
        let contexts = Contexts::read()?;
        let addr = self.addr.as_deref().or(contexts.current.as_deref()).unwrap_or(node::API);
        let addr = with_port(addr);
        let context = contexts.contexts.get(&addr);
        let given = self.authorities()?;
        let pinned = context.filter(|_| given.is_none());
        let pinned = pinned.map(|context| Pinned { addr: addr.clone(), authorities: context.authorities.clone() });
        let authorities = match (given, &pinned) {
            (Some(authorities), _) => Some(authorities),
            (None, pinned) => pinned
                .as_ref()
                .map(|pinned| of_users::certificates(&pinned.authorities))
                .transpose()
                .with_context(|| format!("the authority of {addr} in {}", Contexts::shown()))?,
        };
        let Some(authorities) = authorities else {
            if !is_loopback(&addr) {
                bail!(
                    "it is not known how the nodes at {addr} prove who they are: `fluvial login {addr}` first, or give --ca or --cluster-key-file"
                );
            }
            return Ok(Connection { addr, security: Security::Plain, pinned: None });
        };
        let token = match self.token()? {
            Some(token) => Some(token),
            None => context.map(|context| context.token.clone()),
        };
        Ok(Connection { addr, security: Security::Tls { tls: Box::new(tls(&authorities)?), token }, pinned })
    }

    /// The authorities that the options name.
    pub(crate) fn authorities(&self) -> anyhow::Result<Option<Vec<CertificateDer<'static>>>> {
        Ok(match (&self.cluster_key_file, &self.ca) {
            (Some(key), _) => Some(ClusterKeys::read(key)?.authorities()),
            (None, Some(file)) => {
                let text = read(file)?;
                let found = of_users::certificates(&text);
                Some(found.with_context(|| format!("'{}' holds no certificates in PEM format", file.display()))?)
            }
            (None, None) => None,
        })
    }

    /// The token that the options, the environment or the cluster key give.
    fn token(&self) -> anyhow::Result<Option<String>> {
        if let Some(token) = self.given_token()? {
            return Ok(Some(token));
        }
        let keys = self.cluster_key_file.as_deref().map(ClusterKeys::read).transpose()?;
        Ok(keys.map(|keys| keys.first().root_token().to_text()))
    }

    /// The token that the options or the environment give.
    pub(crate) fn given_token(&self) -> anyhow::Result<Option<String>> {
        let (text, from) = match (&self.token_file, std::env::var(TOKEN)) {
            (Some(file), _) => (read(file)?, format!("'{}'", file.display())),
            (None, Ok(text)) if !text.trim().is_empty() => (text, TOKEN.to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(is_token(&text).with_context(|| format!("{from} holds no token"))?))
    }
}

/// The token in a text.
pub(crate) fn is_token(text: &str) -> anyhow::Result<String> {
    let token: Token = text.trim().parse()?;
    Ok(token.to_text())
}

/// How to connect to nodes for which these authorities vouch.
pub(crate) fn tls(authorities: &[CertificateDer<'static>]) -> anyhow::Result<ClientConfig> {
    of_users::client(authorities).context("the authorities' certificates cannot be used")
}

/// An address with the port of the API, if it has none.
pub(crate) fn with_port(addr: &str) -> String {
    let has_port = if addr.starts_with('[') { addr.contains("]:") } else { addr.contains(':') };
    if has_port { addr.to_owned() } else { format!("{addr}:{PORT}") }
}

fn is_loopback(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read '{}'", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_only_this_host_is_spoken_to_in_clear() {
        for (addr, full, loopback) in [
            ("localhost", "localhost:7400", true),
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("[::1]", "[::1]:7400", true),
            ("[::1]:5", "[::1]:5", true),
            ("host-a", "host-a:7400", false),
            ("localhost.example:7400", "localhost.example:7400", false),
            ("10.0.0.1:7400", "10.0.0.1:7400", false),
        ] {
            assert_eq!(with_port(addr), full);
            assert_eq!(is_loopback(full), loopback, "{addr}");
        }
    }
}
