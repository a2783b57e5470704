//! What is done to a job, from a seed.

use std::time::Duration;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `jobs/orders`.
    Orders,
    /// `jobs/bank`.
    Bank,
}

impl Subject {
    /// The binary's name.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Bank => "bank",
        }
    }
}

/// Something that is done to a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9` of one process of the generation; `run` must start the next one by itself.
    KillPeer(usize),
    /// `kill -9` of the first process; the others must follow by themselves.
    KillFirst,
    /// `kill -9` of all.
    KillAll,
    /// SIGTERM; it must end with everything committed and exit 0, or say that it had not begun.
    Stop,
}

impl Blow {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillPeer(_) => "kill -9 of one process",
            Self::KillFirst => "kill -9 of the first process",
            Self::KillAll => "kill -9 of all processes",
            Self::Stop => "SIGTERM",
        }
    }

    /// Whether the job has to be started again after it.
    #[must_use]
    pub fn ends_the_run(self) -> bool {
        !matches!(self, Self::KillPeer(_))
    }
}

/// One run of the job, until a blow ends it.
#[derive(Clone, Debug)]
pub struct Round {
    /// How many processes.
    pub processes: u32,
    /// How many workers in all.
    pub workers: u32,
    /// What is done, each when this many more output records are visible and so much time has passed. The last one
    /// ends the run.
    pub blows: Vec<(u64, Duration, Blow)>,
}

/// All that happens to a job.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// The input topic's partitions.
    pub input_partitions: i32,
    /// The runs, in order; a last one, undisturbed, follows them.
    pub rounds: Vec<Round>,
    /// The processes and workers of the last run.
    pub last: (u32, u32),
}

impl Plan {
    /// The plan of a seed, with so many runs that end badly.
    #[must_use]
    pub fn new(seed: u64, rounds: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let size = |random: &mut ChaCha8Rng| {
            // Fewer workers than partitions, as many, and more.
            let processes = *[2, 2, 2, 3].choose(random).unwrap_or(&2);
            (processes, processes * random.random_range(1..=3))
        };
        let rounds = (0..rounds).map(|_| {
            let (processes, workers) = size(&mut random);
            let mut blows = Vec::new();
            loop {
                let blow = match random.random_range(0..8) {
                    0..=3 => Blow::KillPeer(random.random_range(0..3)),
                    4 | 5 => Blow::KillFirst,
                    6 => Blow::KillAll,
                    _ => Blow::Stop,
                };
                // At times while it still starts, at times after much has gone through.
                let records = *[0, 1, 50, 400].choose(&mut random).unwrap_or(&1);
                let pause = [0..200, 0..1_500, 1_000..4_000].choose(&mut random).cloned().unwrap_or(0..1);
                let pause = Duration::from_millis(random.random_range(pause));
                blows.push((records, pause, blow));
                if blow.ends_the_run() {
                    return Round { processes, workers, blows };
                }
            }
        });
        let rounds = rounds.collect();
        let last = size(&mut random);
        Self { seed, input_partitions: random.random_range(1..=4), rounds, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        assert_eq!(format!("{:?}", Plan::new(7, 5)), format!("{:?}", Plan::new(7, 5)));
        assert_ne!(format!("{:?}", Plan::new(7, 5)), format!("{:?}", Plan::new(8, 5)));
    }

    #[test]
    fn every_run_but_the_last_is_ended_by_its_last_blow() {
        for seed in 0..100 {
            for round in Plan::new(seed, 4).rounds {
                let ending = round.blows.iter().position(|(_, _, blow)| blow.ends_the_run());
                assert_eq!(ending, Some(round.blows.len() - 1));
                assert_eq!(round.workers % round.processes, 0);
            }
        }
    }
}
