//! What any broker must do, as observations that can be compared.
//!
//! A check makes topics of its own on the broker that it is given, does something with rdkafka, and notes what it sees:
//! codes of errors, visible records, offsets. What must be seen is written beside it, so that two brokers that agree are
//! also right. The checks are the parts of Kafka's behaviour that exactly-once rests on; they are no test of speed.

mod fencing;
mod groups;
mod records;
mod topics;
mod transactions;

use anyhow::Result;

use crate::client::Endpoint;

/// What a check has seen, in order.
pub type Observations = Vec<String>;

/// One thing that a broker must do.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// A sentence.
    pub name: &'static str,
    /// Does it, and says what was seen.
    pub run: fn(&Endpoint) -> Result<Observations>,
    /// What must be seen.
    pub expected: &'static [&'static str],
}

/// What every broker of ours must do.
pub const ALL: &[&[Check]] = &[topics::CHECKS, records::CHECKS, transactions::CHECKS, fencing::CHECKS, groups::CHECKS];

/// What only Apache Kafka must do: the embedded broker keeps every record until it is deleted, and says so.
pub const APACHE_ONLY: &[Check] = &[topics::COMPACTION];

/// Notes, in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct Notes(Observations);

impl Notes {
    /// Notes `what: seen`.
    pub(crate) fn note(&mut self, what: &str, seen: impl std::fmt::Display) {
        self.0.push(format!("{what}: {seen}"));
    }

    /// Notes `what: ok`, or the error's code.
    pub(crate) fn result<T>(&mut self, what: &str, result: &Result<T, rdkafka::error::KafkaError>) {
        match result {
            Ok(_) => self.note(what, "ok"),
            Err(error) => self.note(what, crate::client::code(error)),
        }
    }

    /// Notes `what: a, b, …`.
    pub(crate) fn list(&mut self, what: &str, seen: &[String]) {
        self.note(what, seen.join(", "));
    }

    /// All of them.
    pub(crate) fn all(self) -> Result<Observations> {
        Ok(self.0)
    }
}
