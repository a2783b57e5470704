//! Appending to the journal: one record under way, one begun each `every_ms` at the most; everything else gathers for the
//! next.

use std::sync::Arc;

use super::claim::{Claim, Claimed};
use super::rules::Rules;
use super::store::{Answer, Call, Identity, Verdict};
use super::{Ended, Rule};
use crate::journal::{Entry, JournalRecord, Seq};

/// Appends entries at the journal's end, in the order in which they come.
///
/// Guarantees that an entry is reported as durable only when the record that holds it stands in the journal, and that
/// nothing is appended any more once another generation's record stands in the way.
#[derive(Debug)]
pub(crate) struct Appender {
    me: Identity,
    next: Seq,
    gathered: Vec<Entry>,
    claim: Option<Claim>,
    /// The least time between the beginnings of two records.
    every_ms: u64,
    /// When the next record may begin.
    next_at_ms: u64,
    rules: Rules,
}

/// A record that has become durable.
#[derive(Debug)]
pub(crate) struct Appended {
    /// The position of the record.
    pub seq: Seq,
    /// The record, whose entries are in order.
    pub record: Arc<JournalRecord>,
}

impl Appender {
    /// Appends from `next` on, a record each `every_ms` at the most.
    pub(crate) fn new(me: Identity, next: Seq, every_ms: u64, rules: Rules) -> Self {
        Self { me, next, gathered: Vec::new(), claim: None, every_ms, next_at_ms: 0, rules }
    }

    /// Hands in an entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.gathered.push(entry);
    }

    /// Whether everything handed in is durable.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.claim.is_none() && self.gathered.is_empty()
    }

    /// When the next record begins, if one is waiting for that.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        (self.claim.is_none() && !self.gathered.is_empty()).then_some(self.next_at_ms)
    }

    /// The next call to the store, if there is one to make.
    pub(crate) fn next_call(&mut self, now_ms: u64) -> Option<Call> {
        if self.deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            self.next_at_ms = now_ms + self.every_ms;
            let record = self.me.record(std::mem::take(&mut self.gathered));
            self.claim = Some(Claim::new(self.next, record, self.rules));
        }
        let claim = self.claim.as_mut()?;
        if !self.rules.has(Rule::SameBytesAgain) && claim.puts() && !self.gathered.is_empty() {
            let mut entries = claim.entries().to_vec();
            entries.append(&mut self.gathered);
            claim.replace(self.me.record(entries));
        }
        claim.call()
    }

    /// Takes the store's answer; returns what has become durable by it.
    ///
    /// # Errors
    /// [`Ended::Fenced`] where a newer generation's record stands in the way.
    pub(crate) fn on(&mut self, answer: Answer) -> Result<Option<Appended>, Ended> {
        let Some(claim) = &mut self.claim else {
            return Err(Ended::Bug("the store answered an append that was not made".to_owned()));
        };
        match claim.on(answer) {
            Claimed::NotYet => Ok(None),
            Claimed::Mine => {
                let appended = Appended { seq: claim.seq(), record: Arc::clone(claim.record()) };
                self.next = self.next.next();
                self.claim = None;
                Ok(Some(appended))
            }
            Claimed::Others(record) => match self.me.judge(claim.seq(), &record)? {
                Verdict::Newer(by) => Err(Ended::Fenced { by }),
                Verdict::Mine | Verdict::Older => Err(lost_the_race(claim.seq())),
            },
            #[cfg(test)]
            Claimed::Unread => Err(Ended::Fenced { by: self.me.generation }),
        }
    }
}

/// An older generation that lost the race to open has a record where only newer ones may be.
pub(crate) fn lost_the_race(seq: Seq) -> Ended {
    Ended::LostRace { at: seq }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Generation, Incarnation, Tick};
    use uuid::Uuid;

    use super::*;
    use crate::journal::Nonce;
    use crate::store::PutOutcome::{AlreadyExists, Created, Unknown};

    const ME: Identity = Identity { incarnation: Incarnation(Uuid::nil()), generation: Generation(2), nonce: Nonce(7) };

    fn entry(tick: u64) -> Entry {
        Entry::Reconciled { tick: Tick(tick), rewound: Vec::new(), recreated: Vec::new() }
    }

    fn of(generation: u64, nonce: u64) -> Answer {
        let who = Identity { generation: Generation(generation), nonce: Nonce(nonce), ..ME };
        Answer::Records(vec![(Seq(5), Some((*who.record(vec![entry(1)])).clone()))])
    }

    fn absent() -> Answer {
        Answer::Records(vec![(Seq(5), None)])
    }

    /// What an append at 5 does with the answers: `P` put, `G` get, then how it ended.
    fn check(answers: Vec<Answer>, expected: &str) {
        let mut appender = Appender::new(ME, Seq(5), 0, Rules::default());
        appender.push(entry(1));
        let mut seen = String::new();
        for answer in answers {
            match appender.next_call(0).unwrap() {
                Call::Put(Seq(5), _) => seen.push('P'),
                Call::Get(_) => seen.push('G'),
                other => panic!("{other:?}"),
            }
            match appender.on(answer) {
                Ok(None) => {}
                Ok(Some(done)) => seen.push_str(&format!(" durable {}", done.seq)),
                Err(Ended::Fenced { by }) => seen.push_str(&format!(" fenced {by}")),
                Err(Ended::LostRace { .. }) => seen.push_str(" restart"),
                Err(other) => seen.push_str(&format!(" {other}")),
            }
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_append_is_durable_only_when_its_record_is_there() {
        let put = Answer::Put;
        check(vec![put(Created)], "P durable 5");
        check(vec![put(AlreadyExists), of(2, 7)], "PG durable 5");
        check(vec![put(Unknown), of(2, 7)], "PG durable 5");
        check(vec![put(Unknown), absent(), put(Created)], "PGP durable 5");
        check(vec![put(AlreadyExists), absent(), put(AlreadyExists), of(2, 7)], "PGPG durable 5");
        check(vec![put(AlreadyExists), of(3, 1)], "PG fenced 3");
        check(vec![put(Unknown), of(2, 8)], "PG fenced 2");
        check(vec![put(Unknown), of(1, 1)], "PG restart");
    }

    #[test]
    fn entries_gather_while_an_append_is_under_way_and_for_a_while_after_it_began() {
        let mut appender = Appender::new(ME, Seq(0), 4, Rules::default());
        appender.push(entry(1));
        assert!(matches!(appender.next_call(100), Some(Call::Put(Seq(0), _))));
        appender.push(entry(2));
        assert_eq!((appender.next_call(101), appender.deadline_ms()), (None, None));
        assert!(appender.on(Answer::Put(Created)).unwrap().is_some());
        assert_eq!((appender.next_call(103), appender.deadline_ms()), (None, Some(104)));
        appender.push(entry(3));
        let Some(Call::Put(Seq(1), record)) = appender.next_call(104) else { panic!("the next append is due") };
        assert_eq!(record.entries, vec![entry(2), entry(3)]);
    }
}
