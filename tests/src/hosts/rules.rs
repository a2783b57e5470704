//! Which packets the switch drops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The faults of a network that are rules of nftables in its switch.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// From the one to the other nothing passes.
    pub(super) cuts: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// Nothing passes from or to these.
    pub(super) isolated: BTreeSet<Ipv4Addr>,
    /// The share of the packets from and to these that vanishes, in percent.
    pub(super) losses: BTreeMap<Ipv4Addr, u8>,
    /// The connections of a host to an address, by the host's ports, whose packets vanish.
    pub(super) dropped: Vec<(Ipv4Addr, SocketAddrV4, Vec<u16>)>,
}

impl Rules {
    /// All of them, in place of those before, as one transaction of `nft`.
    pub(super) fn text(&self) -> String {
        let mut rules = String::new();
        let mut rule = |rule: String| rules.push_str(&format!("{rule} drop\n"));
        for (from, to) in &self.cuts {
            rule(format!("ip saddr {from} ip daddr {to}"));
        }
        for place in &self.isolated {
            rule(format!("ip saddr {place}"));
            rule(format!("ip daddr {place}"));
        }
        for (place, percent) in &self.losses {
            rule(format!("ip saddr {place} numgen random mod 100 < {percent}"));
            rule(format!("ip daddr {place} numgen random mod 100 < {percent}"));
        }
        for (from, to, ports) in &self.dropped {
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let (host, port) = (to.ip(), to.port());
            rule(format!("ip saddr {from} ip daddr {host} tcp sport {{ {ports} }} tcp dport {port}"));
            rule(format!("ip saddr {host} ip daddr {from} tcp sport {port} tcp dport {{ {ports} }}"));
        }
        // The first line is for the second: a table that is not there cannot be deleted.
        format!(
            "table bridge faults {{ }}
delete table bridge faults
table bridge faults {{
chain forward {{
type filter hook forward priority 0; policy accept;
{rules}}}
}}
"
        )
    }
}
