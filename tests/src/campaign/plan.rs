//! What is done to a job, from a seed.

use std::time::Duration;

use fluvial::FailPoint;
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use crate::proxy::Fault;

/// Places that a generation passes in every run, and how often there it may wait for the next time.
const POINTS: [(FailPoint, u32); 16] = [
    (FailPoint::AfterClaiming, 1),
    (FailPoint::BeforeFencing, 2),
    (FailPoint::DuringRestore, 3),
    (FailPoint::AfterFencing, 1),
    (FailPoint::AfterAllFenced, 2),
    (FailPoint::AfterProgress, 2),
    (FailPoint::BeforeReady, 2),
    (FailPoint::AfterMinting, 60),
    (FailPoint::AfterSealing, 60),
    (FailPoint::BetweenDataAndProgress, 30),
    (FailPoint::BeforeCommit, 30),
    (FailPoint::AfterCommit, 30),
    (FailPoint::DuringUpload, 4),
    (FailPoint::AfterManifest, 3),
    (FailPoint::DuringMerge, 2),
    (FailPoint::DuringDeletion, 3),
];

/// Which processes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// One of the generation; `run` must start the next one by itself.
    One(usize),
    /// The one that was started; the others must follow by themselves.
    First,
    /// All.
    All,
}

/// Something that is done to a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9` at some moment.
    Kill(Whom),
    /// `kill -9` at a fail point, the how many-th time that it is reached: of the process that reaches it, or of all
    /// while that one stands still there. Given when the run starts.
    KillAt(FailPoint, u32, Whom),
    /// The end of a transaction is cut or held.
    EndTxn(Fault),
    /// A broker is stopped and started again.
    RestartBroker,
    /// `kill -9` of a broker, which is then started again.
    KillBroker,
    /// SIGTERM; it must end with everything committed and exit 0, or say that it had not begun.
    Stop,
}

impl Blow {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> String {
        let of = |whom| match whom {
            Whom::One(_) => "one process",
            Whom::First => "the first process",
            Whom::All => "all processes",
        };
        match self {
            Self::Kill(whom) => format!("kill -9 of {}", of(whom)),
            Self::KillAt(point, _, whom) => format!("kill -9 of {} at {}", of(whom), point.name()),
            Self::EndTxn(fault) => fault.name().to_owned(),
            Self::RestartBroker => "broker restarted".to_owned(),
            Self::KillBroker => "kill -9 of the broker".to_owned(),
            Self::Stop => "SIGTERM".to_owned(),
        }
    }

    /// Whether the job has to be started again after it.
    #[must_use]
    pub fn ends_the_run(self) -> bool {
        matches!(self, Self::Kill(Whom::First | Whom::All) | Self::KillAt(_, _, Whom::All) | Self::Stop)
    }
}

/// One run of the job, until a blow ends it.
#[derive(Clone, Debug)]
pub struct Round {
    /// How many processes.
    pub processes: u32,
    /// How many workers in all.
    pub workers: u32,
    /// What is done first, if it is something at a fail point.
    pub at_point: Option<Blow>,
    /// What is done then, each when this many more output records are visible and so much time has passed. The last one
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
    /// The plan of a seed, with so many runs that end badly. Runs have fewer workers than the input has partitions, and
    /// more, in turn.
    #[must_use]
    pub fn new(seed: u64, rounds: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let random = &mut random;
        let rounds = (0..rounds).map(|number| {
            let (processes, workers) = size(number, random);
            let at_point = (random.random_range(0..3) > 0).then(|| at_point(random));
            let mut blows = Vec::new();
            loop {
                let blow = blow(random);
                // At times while it still starts, at times after much has gone through.
                let records = *[0, 1, 50, 400].choose(random).unwrap_or(&1);
                let pause = [0..200, 0..1_500, 1_000..4_000].choose(random).cloned().unwrap_or(0..1);
                let pause = Duration::from_millis(random.random_range(pause));
                blows.push((records, pause, blow));
                if blow.ends_the_run() {
                    return Round { processes, workers, at_point, blows };
                }
            }
        });
        let rounds: Vec<_> = rounds.collect();
        let last = size(rounds.len(), random);
        Self { seed, input_partitions: random.random_range(3..=4), rounds, last }
    }

    /// One run, in which the brokers are taken down one after the other, each when the one before is back, so many times.
    #[must_use]
    pub fn rolling(seed: u64, blow: Blow, times: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut blows: Vec<_> =
            (0..times).map(|_| (50, Duration::from_millis(random.random_range(0..2_000)), blow)).collect();
        blows.push((50, Duration::ZERO, Blow::Stop));
        let rounds = vec![Round { processes: 2, workers: 2, at_point: None, blows }];
        Self { seed, input_partitions: 4, rounds, last: (2, 2) }
    }

    /// The same with brokers that are stopped, or killed in turn, wherever something would be done to a request.
    #[must_use]
    pub fn sparing_requests(mut self) -> Self {
        let struck = self.rounds.iter_mut().flat_map(|round| &mut round.blows);
        let requests = struck.filter(|(.., blow)| matches!(blow, Blow::EndTxn(_)));
        for (number, (.., blow)) in requests.enumerate() {
            *blow = if number.is_multiple_of(2) { Blow::RestartBroker } else { Blow::KillBroker };
        }
        self
    }

    /// The same with a broker that is stopped well wherever it would be killed.
    ///
    /// Apache Kafka 4.3 may forget a transaction when a partition's last broker dies (KAFKA-20734). One that was decided
    /// and not yet marked in its partitions is called complete by the broker that starts again, without the markers, if
    /// it tries to write them while the partitions have no leader. They are then held up until the same producer ends
    /// another transaction there. A job cannot go on without knowing what is committed, so it waits, and says what a
    /// person can do. Kafka 4.2.0 keeps the markers for later.
    #[must_use]
    pub fn sparing_the_broker(mut self) -> Self {
        for (_, _, blow) in self.rounds.iter_mut().flat_map(|round| &mut round.blows) {
            if *blow == Blow::KillBroker {
                *blow = Blow::RestartBroker;
            }
        }
        self
    }
}

/// Processes and workers.
fn size(number: usize, random: &mut ChaCha8Rng) -> (u32, u32) {
    let processes = *[2, 2, 3].choose(random).unwrap_or(&2);
    if number.is_multiple_of(2) { (2, 2) } else { (processes, 6) }
}

fn at_point(random: &mut ChaCha8Rng) -> Blow {
    let (point, most) = *POINTS.choose(random).unwrap_or(&POINTS[0]);
    let whom = if random.random_range(0..3) == 0 { Whom::All } else { Whom::One(0) };
    Blow::KillAt(point, random.random_range(1..=most), whom)
}

fn blow(random: &mut ChaCha8Rng) -> Blow {
    let mut time = |most| Duration::from_millis(random.random_range(10..most));
    let faults = [
        Fault::LoseRequest,
        Fault::LoseAnswer,
        Fault::HoldRequest(time(3_000)),
        Fault::HoldAnswer(time(3_000)),
        Fault::DeliverLate(time(2_000)),
        Fault::DeliverLate(time(200)),
    ];
    match random.random_range(0..14) {
        0..=2 => Blow::Kill(Whom::One(random.random_range(0..3))),
        3 | 4 => Blow::Kill(Whom::First),
        5 => Blow::Kill(Whom::All),
        6 => Blow::Stop,
        7..=11 => Blow::EndTxn(*faults.choose(random).unwrap_or(&Fault::LoseRequest)),
        12 => Blow::RestartBroker,
        _ => Blow::KillBroker,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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

    #[test]
    fn each_plan_has_several_processes_and_both_fewer_and_more_workers_than_splits() {
        for seed in 0..100 {
            let plan = Plan::new(seed, 2);
            let splits = plan.input_partitions.unsigned_abs();
            assert!(plan.rounds.iter().all(|round| round.processes >= 2));
            assert!(plan.rounds.iter().any(|round| round.workers < splits));
            assert!(plan.rounds.iter().any(|round| round.workers > splits));
        }
    }

    #[test]
    fn every_fail_point_is_in_some_plan() {
        let plans = (0..200).map(|seed| Plan::new(seed, 4));
        let blows: Vec<Blow> = plans.flat_map(|plan| plan.rounds).filter_map(|round| round.at_point).collect();
        let met = |all| -> BTreeSet<FailPoint> {
            let of = |blow: &Blow| match blow {
                Blow::KillAt(point, _, whom) if (*whom == Whom::All) == all => Some(*point),
                _ => None,
            };
            blows.iter().filter_map(of).collect()
        };
        assert_eq!(met(false).len(), FailPoint::ALL.len());
        assert_eq!(met(true).len(), FailPoint::ALL.len());
    }
}
