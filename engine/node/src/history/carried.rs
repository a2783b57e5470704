//! What nodes tell each other of the last hour, and how far each of them has been told.

use std::collections::BTreeMap;

use fluvial_protocol::group::NodeId;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::{PastAttempt, Sample};

/// The most bytes that one message carries, about. A quarter of the longest line of a link: the message itself has to fit, too.
const MOST_BYTES: usize = 1 << 20;
/// How many nodes are remembered. A node that was started again is another one.
const MOST_PEERS: usize = 1024;

/// What one node tells another with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The sender has told everything up to this number of its own.
    through: u64,
    /// The sender has everything up to this number of the receiver's.
    has: u64,
    /// What is new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<Item>,
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Item {
    Sample {
        job: String,
        /// Its time, in units of the time between two samples.
        slot: u64,
        sample: Sample,
    },
    Attempt {
        job: String,
        attempt: PastAttempt,
    },
}

impl Item {
    /// How long it is as JSON, about.
    fn encoded_len(&self) -> usize {
        match self {
            Self::Sample { job, .. } => job.len() + 250,
            Self::Attempt { job, attempt } => {
                let nodes = attempt.nodes.iter().map(|node| node.len() + 3).sum::<usize>();
                let texts = attempt.why.len() + attempt.ended.as_ref().map_or(0, String::len);
                // A byte of a text needs up to six of JSON.
                job.len() + 6 * texts + nodes + 350
            }
        }
    }
}

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<NodeId, Peer>);

/// Another node, of which this node perhaps knows nothing but its name.
#[derive(Debug)]
pub(super) struct Peer {
    /// It has everything up to this number of this node's.
    has: u64,
    /// It is told what others have found out up to this number: the rest they tell it themselves.
    of_others: u64,
    /// This node has everything up to this number of its.
    heard: u64,
    /// Whether it has to be told so.
    thanks: bool,
}

impl Peers {
    pub(super) fn of(&mut self, node: &NodeId, kept: &Kept) -> &mut Peer {
        if self.0.len() >= MOST_PEERS && !self.0.contains_key(node) {
            // Those that are still there are told the hour once more.
            self.0.clear();
        }
        let of_others = kept.number();
        self.0.entry(node.clone()).or_insert(Peer { has: 0, of_others, heard: 0, thanks: false })
    }
}

impl Peer {
    pub(super) fn tell(&mut self, kept: &Kept) -> Option<Carried> {
        let has = self.heard;
        // Whether something is new is asked with each heartbeat, so it must cost nothing.
        let nothing = self.has >= kept.own().max(self.of_others);
        if nothing && !self.thanks {
            return None;
        }
        self.thanks = false;
        if nothing {
            return Some(Carried { through: self.has, has, items: Vec::new() });
        }
        let mut items = kept.after(self.has, self.of_others);
        let mut bytes = 0;
        let fits = items.iter().take_while(|(_, item)| {
            bytes += item.encoded_len();
            bytes <= MOST_BYTES
        });
        // One always fits, because the texts of an attempt are bounded.
        let fits = fits.count().max(1);
        let cut = items.len() > fits;
        items.truncate(fits);
        let through = items.last().filter(|_| cut).map_or(kept.number(), |(number, _)| *number);
        Some(Carried { through, has, items: items.into_iter().map(|(_, item)| item).collect() })
    }

    pub(super) fn hear(&mut self, carried: Carried, kept: &mut Kept) {
        let Carried { through, has, items } = carried;
        // A message that comes late knows less.
        self.has = self.has.max(has.min(kept.number()));
        // What is told again was not thanked for.
        self.thanks |= !items.is_empty() || through > self.heard;
        self.heard = self.heard.max(through);
        items.into_iter().for_each(|item| kept.take(item));
    }
}
