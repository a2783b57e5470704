//! What store and sink make of what is asked of them: they do it, or not, or late, or twice, and say so or do not.

use fluvial_connector::{Offset, SinkStatus};

use super::Violation;
use super::generation::Incoming;
use super::kafka::{Body, Refusal};
use super::store::Counts;
use super::worker::{Back, Task};
use super::world::{Step, World};
use super::{OUTPUT_PARTITIONS, PROGRESS_PARTITIONS};
use crate::rules::Rule;
use crate::{Answer, Call, Done, Failure, HeldRecords, Part, PutOutcome, Report, Tail};

impl World {
    /// A call to the store is carried out, or goes wrong.
    pub(super) fn step_call(&mut self, part: Part, call: &mut Call) -> Result<Step, Violation> {
        if let Call::Delete(objects) = call {
            // One by one: a crash may come in between.
            if let Some(object) = objects.pop() {
                self.store.execute(&Call::Delete(vec![object]))?;
                return Ok(Step::Again);
            }
        }
        let creates = matches!(call, Call::Put(..) | Call::PutManifest(..));
        let faulty = creates && !self.calm && self.dice.one_in(self.weather.store_fault);
        let unknown = Answer::Put(PutOutcome::Unknown);
        let answer = match self.dice.below(if faulty { 4 } else { 1 }) {
            // The request is lost; its answer is; it comes late; it comes twice.
            _ if !faulty => self.store.execute(call)?,
            0 => unknown,
            1 => {
                self.store.execute(call)?;
                unknown
            }
            2 => {
                self.late_calls.push(call.clone());
                unknown
            }
            _ => {
                self.store.execute(call)?;
                self.store.execute(call)?
            }
        };
        Ok(Step::Back(Incoming::Store(part, answer)))
    }

    /// A worker's task makes a step.
    pub(super) fn step_task(&mut self, generation: usize, process: usize, task: &mut Task) -> Result<Step, Violation> {
        let done = match task {
            Task::Fence { id, own, opening } => {
                let old = own.and_then(|turn| self.generations[generation].workers[process].turns[turn as usize].old);
                let fresh = match old.filter(|_| !*opening && !self.rules.has(Rule::NewEpochAfterUnknown)) {
                    Some(producer) => self.kafka.abort(*id, producer).map(|()| producer),
                    None => self.kafka.init(*id, self.now),
                };
                let producer = match fresh {
                    Ok(producer) => producer,
                    Err(Refusal::Busy) => return Ok(Step::Again),
                    Err(_) => {
                        self.generations[generation].workers[process].turns[own.unwrap_or(0) as usize].old = None;
                        return Ok(Step::Again);
                    }
                };
                self.say(|| format!("g{generation}/{process} fences {id:?}"));
                if let Some(turn) = own {
                    self.generations[generation].workers[process].turns[*turn as usize].producer = Some(producer);
                }
                match own {
                    Some(turn) => Done::Fenced { turn: *turn },
                    None => return Ok(Step::Back(Incoming::Back(Back::OtherFenced))),
                }
            }
            Task::Restore { next } => return self.restore(generation, process, *next),
            Task::Store { name, file, report } => {
                if let Report::Merged { removed, .. } = &report {
                    let Some(merged) = self.merge(removed) else { return Ok(Step::Gone) };
                    *file = merged;
                }
                self.store.put_file(name, file);
                return Ok(Step::Back(Incoming::Back(Back::Stored(report.clone()))));
            }
            Task::Journal => {
                let me = self.generations[generation].workers[process].identity();
                Done::Journal(self.store.newest(&me.expect("only who has opened asks")))
            }
            Task::Progress { ends } => {
                let partitions = OUTPUT_PARTITIONS..OUTPUT_PARTITIONS + PROGRESS_PARTITIONS;
                if ends.is_empty() && self.rules.has(Rule::ProgressToHighWatermark) {
                    ends.extend(partitions.clone().map(|partition| self.kafka.end(partition)));
                }
                if partitions.zip(ends.iter()).any(|(partition, end)| self.kafka.stable(partition) < *end) {
                    return Ok(Step::Again);
                }
                Done::Progress(self.progress(), SinkStatus::default())
            }
            Task::Tails { left, end: known, found } => {
                let Some((at, from)) = left.front() else {
                    return Ok(Step::Back(Incoming::Back(Back::Sink(Done::Tails(std::mem::take(found))))));
                };
                let partition = at.partition as usize;
                let end = *known.get_or_insert_with(|| self.kafka.end(partition));
                let (mut records, mut aborted) = (Vec::new(), None);
                if let Some(from) = from {
                    if self.kafka.stable(partition) < end {
                        return Ok(Step::Again);
                    }
                    let before = from.0.checked_sub(1).map(Offset);
                    aborted = before.filter(|before| self.kafka.is_aborted(partition, *before));
                    let tail = self.kafka.read(partition, from.0 as usize, end);
                    records.extend(tail.filter_map(|(offset, body)| match body {
                        Body::Record(record) => Some((offset, record.clone())),
                        _ => None,
                    }));
                    if !records.is_empty() {
                        self.say(|| format!("g{generation}/{process} finds records in {at} after {from}: {records:?}"));
                    }
                }
                found.push(Tail { records, end: Offset(end as u64), aborted });
                left.pop_front();
                *known = None;
                return Ok(Step::Again);
            }
            Task::ReadBack { at, end } => {
                let partition = at.partition as usize;
                let end = *end.get_or_insert_with(|| self.kafka.end(partition));
                if self.kafka.stable(partition) < end {
                    return Ok(Step::Again);
                }
                let found = self.kafka.read(partition, 0, end).filter_map(|(offset, body)| match body {
                    Body::Record(record) => Some((offset, record.clone())),
                    _ => None,
                });
                Done::ReadBack(vec![HeldRecords { at: at.clone(), earliest: Offset(0), records: found.collect() }])
            }
            Task::Write { turn } => {
                let turn = *turn;
                let worker = &mut self.generations[generation].workers[process];
                let id = worker.id(turn);
                let lost = !self.calm && self.dice.one_in(self.weather.write_fault);
                let result = worker.turns[turn as usize].step(id, &mut self.kafka, self.now);
                let result = if lost { Some(Err(worker.turns[turn as usize].fail())) } else { result };
                let Some(result) = result else { return Ok(Step::Again) };
                self.say(|| format!("g{generation}/{process} turn {turn} has prepared: {result:?}"));
                Done::Prepared { turn, result }
            }
            Task::Commit { turn } => return Ok(self.commit(generation, process, *turn)),
        };
        Ok(Step::Back(Incoming::Back(Back::Sink(done))))
    }

    fn commit(&mut self, generation: usize, process: usize, turn: u32) -> Step {
        let worker = &mut self.generations[generation].workers[process];
        let (id, producer) = (worker.id(turn), worker.turns[turn as usize].producer);
        let Some(producer) = producer else { return Step::Gone };
        let faulty = !self.calm && self.dice.one_in(self.weather.commit_fault);
        // The request is lost; it comes late; its answer is lost.
        let fate = if faulty { [1, 2, 2, 3][self.dice.below(4)] } else { 0 };
        let mut result = match fate {
            1 | 2 => Err(Failure::Unknown(String::new())),
            _ => match self.kafka.commit(id, producer) {
                Ok(()) => Ok(()),
                Err(Refusal::Busy) => return Step::Again,
                Err(Refusal::Fenced) => Err(Failure::Fenced(String::new())),
                Err(Refusal::Invalid) => Err(Failure::Unknown(String::new())),
            },
        };
        match fate {
            2 => self.late_commits.push((id, producer)),
            3 if result.is_ok() => result = Err(Failure::Unknown(String::new())),
            0 if result.is_ok() && !self.calm && self.weather.stale_commits => self.late_commits.push((id, producer)),
            _ => {}
        }
        if result.is_err() {
            let _ = self.generations[generation].workers[process].turns[turn as usize].fail();
        }
        self.say(|| format!("g{generation}/{process} turn {turn} commits: {result:?}, fate {fate}"));
        Step::Back(Incoming::Back(Back::Sink(Done::Committed { turn, result })))
    }

    fn restore(&mut self, generation: usize, process: usize, next: usize) -> Result<Step, Violation> {
        let worker = &self.generations[generation].workers[process];
        let file = match worker.chain().get(next) {
            None => Counts::new(),
            Some(file) => match self.store.file(&file.object) {
                Some(found) => Counts::clone(found),
                None => {
                    let me = worker.identity().expect("restoring comes after the opening");
                    if !self.store.has_newer(&me) {
                        return Err(Violation(format!("g{generation}/{process} misses the file {}", file.object)));
                    }
                    let ended = &mut self.generations[generation].over;
                    ended.get_or_insert_with(|| "misses a file, after it was fenced".to_owned());
                    return Ok(Step::Gone);
                }
            },
        };
        let next = (next + 1).min(worker.chain().len());
        Ok(Step::Back(Incoming::Back(Back::Restored { file, next })))
    }

    fn merge(&self, removed: &[String]) -> Option<Counts> {
        let mut merged = Counts::new();
        for name in removed {
            merged.extend(self.store.file(name)?.iter().map(|(key, count)| (*key, *count)));
        }
        Some(merged)
    }
}
