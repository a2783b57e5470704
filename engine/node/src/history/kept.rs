//! What a node knows, with a number for each thing that says in which order it learnt of it.

use std::collections::BTreeMap;

use fluvial_protocol::group::{Attempt, Outcome};

use super::carried::Item;
use super::{EVERY_MS, MOST_ATTEMPTS, PastAttempt, Sample};
use crate::status::{began_because, ended_because};

/// The most jobs of which anything is kept.
const MOST_JOBS: usize = 2000;

/// The longest reason that is kept, in characters. The status of the job has the whole of the newest one.
const LONGEST_REASON: usize = 2000;

fn short(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST_REASON) {
        Some((at, _)) => format!("{}…", &reason[..at]),
        None => reason.to_owned(),
    }
}

/// Samples and attempts.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The number of what was learnt last.
    number: u64,
    /// The number of what this node found out itself last.
    own: u64,
    jobs: BTreeMap<String, OfJob>,
}

#[derive(Debug, Default)]
struct OfJob {
    /// By time, in units of the time between two samples.
    samples: BTreeMap<u64, Numbered<Sample>>,
    attempts: BTreeMap<u64, Numbered<PastAttempt>>,
}

#[derive(Debug)]
struct Numbered<T> {
    number: u64,
    /// Whether this node has found it out itself.
    own: bool,
    value: T,
}

impl Kept {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// Keeps what this node has found out.
    pub(super) fn sample(&mut self, job: &str, slot: u64, sample: Sample) {
        self.put_sample(job, slot, sample, true);
    }

    fn put_sample(&mut self, job: &str, slot: u64, value: Sample, own: bool) {
        self.number += 1;
        let number = self.number;
        let Some(of_job) = self.of_job(job) else { return };
        if !own && of_job.samples.get(&slot).is_some_and(|known| known.own || known.value == value) {
            return;
        }
        of_job.samples.insert(slot, Numbered { number, own, value });
        if own {
            self.own = number;
        }
    }

    /// Takes the newest attempt of a job as the record of the group says it.
    pub(super) fn attempt(
        &mut self,
        job: &str,
        now_ms: u64,
        attempt: &Attempt,
        generation: Option<u64>,
        outcome: Option<&Outcome>,
    ) {
        let number = attempt.number.0;
        let known = self.jobs.get(job).map(|of_job| &of_job.attempts);
        let value = known.and_then(|known| known.get(&number)).map(|known| known.value.clone());
        let mut value = value.unwrap_or_else(|| PastAttempt {
            number,
            generation: None,
            why: short(began_because(attempt)),
            version: attempt.version.clone(),
            workers: attempt.layout().workers,
            nodes: attempt.placement.places.iter().map(|(node, _)| node.address.clone()).collect(),
            began_ms: now_ms,
            ended_ms: None,
            ended: None,
        });
        value.generation = generation.or(value.generation);
        if let (None, Some(outcome)) = (&value.ended, outcome) {
            (value.ended_ms, value.ended) = (Some(now_ms), Some(short(&ended_because(outcome))));
        }
        let open = |(earlier, of): (&u64, &Numbered<PastAttempt>)| {
            (*earlier < number && of.value.ended.is_none()).then(|| of.value.clone())
        };
        let earlier: Vec<_> = known.into_iter().flatten().filter_map(open).collect();
        for mut earlier in earlier {
            (earlier.ended_ms, earlier.ended) = (Some(value.began_ms), Some(value.why.clone()));
            self.put_attempt(job, earlier, true);
        }
        self.put_attempt(job, value, true);
    }

    fn put_attempt(&mut self, job: &str, mut value: PastAttempt, mut own: bool) {
        let number = self.number + 1;
        let Some(of_job) = self.of_job(job) else { return };
        if let Some(known) = of_job.attempts.get(&value.number) {
            // Each of several coordinators has known a part of it.
            let known = &known.value;
            let told = value.clone();
            value.began_ms = value.began_ms.min(known.began_ms);
            value.generation = value.generation.max(known.generation);
            if let (None, Some(_)) = (&value.ended, &known.ended) {
                (value.ended_ms, value.ended) = (known.ended_ms, known.ended.clone());
            }
            if value == *known {
                return;
            }
            // Nobody else knows both parts, so this node tells them.
            own |= value != told;
        }
        of_job.attempts.insert(value.number, Numbered { number, own, value });
        while of_job.attempts.len() > MOST_ATTEMPTS {
            of_job.attempts.pop_first();
        }
        self.number = number;
        if own {
            self.own = number;
        }
    }

    /// Keeps what another node has told.
    pub(super) fn take(&mut self, item: Item) {
        match item {
            Item::Sample { job, slot, sample } => self.put_sample(&job, slot, sample, false),
            Item::Attempt { job, attempt } => self.put_attempt(&job, attempt, false),
        }
    }

    fn of_job(&mut self, job: &str) -> Option<&mut OfJob> {
        if !self.jobs.contains_key(job) {
            if self.jobs.len() >= MOST_JOBS {
                return None;
            }
            self.jobs.insert(job.to_owned(), OfJob::default());
        }
        self.jobs.get_mut(job)
    }

    pub(super) fn forget_before(&mut self, slot: u64) {
        for of_job in self.jobs.values_mut() {
            of_job.samples = of_job.samples.split_off(&slot);
        }
        self.jobs.retain(|_, of_job| !of_job.samples.is_empty() || !of_job.attempts.is_empty());
    }

    pub(super) fn forget_jobs(&mut self, is_there: impl Fn(&str) -> bool) {
        self.jobs.retain(|job, _| is_there(job));
    }

    /// What has a number above `after`, in the order of the numbers: what this node has found out itself, and of what others have
    /// told what is not above `of_others`.
    pub(super) fn after(&self, after: u64, of_others: u64) -> Vec<(u64, Item)> {
        let wanted = |number: u64, own: bool| number > after && (own || number <= of_others);
        let mut items = Vec::new();
        for (job, of_job) in &self.jobs {
            let samples = of_job.samples.iter().filter(|(_, of)| wanted(of.number, of.own));
            items.extend(samples.map(|(slot, of)| {
                (of.number, Item::Sample { job: job.clone(), slot: *slot, sample: of.value.clone() })
            }));
            let attempts = of_job.attempts.values().filter(|of| wanted(of.number, of.own));
            items.extend(attempts.map(|of| (of.number, Item::Attempt { job: job.clone(), attempt: of.value.clone() })));
        }
        items.sort_by_key(|(number, _)| *number);
        items
    }

    pub(super) fn samples(&self, from: u64) -> BTreeMap<String, Vec<(u64, Sample)>> {
        let of_job = |(job, of_job): (&String, &OfJob)| {
            let samples = of_job.samples.range(from..).map(|(slot, of)| (slot * EVERY_MS, of.value.clone()));
            (job.clone(), samples.collect())
        };
        self.jobs.iter().map(of_job).collect()
    }

    pub(super) fn attempts(&self, job: &str) -> Vec<PastAttempt> {
        let attempts = self.jobs.get(job).into_iter().flat_map(|of_job| of_job.attempts.values().rev());
        attempts.map(|of| of.value.clone()).collect()
    }
}
