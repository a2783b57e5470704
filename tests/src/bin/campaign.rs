//! Sieges for as long as one likes: both jobs in turn on real Kafka, struck by every kind of fault, each compared with an
//! undisturbed replay, a naive model and consistent cuts.
//!
//! ```text
//! cargo run --release -p fluvial-tests --bin campaign -- --seed 7 --minutes 30
//! ```
//!
//! On stdout, at the end, a table of what each fault did. Exit code 1 if anything was lost, doubled or wrong, or if a job or
//! the campaign itself failed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use fluvial_tests::apache::SURVIVES_A_KILL;
use fluvial_tests::campaign::{Ground, Ledger, Plan, Siege, Subject};

/// Puts both jobs under fire, and shows what came of it.
#[derive(Debug, Parser)]
struct Options {
    /// The first siege's seed; each later one's is one higher
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// No siege begins after so many minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,

    /// How many runs of a siege end badly
    #[arg(long, default_value_t = 4)]
    rounds: usize,

    /// The version of Apache Kafka. The default survives to be killed; where another would be killed, it is stopped well
    #[arg(long, default_value = SURVIVES_A_KILL)]
    kafka: String,

    /// Where stores and logs of failed sieges are left
    #[arg(long, value_name = "FOLDER")]
    evidence: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let mut sieges = 0;
    while sieges == 0 || start.elapsed() < Duration::from_secs(60 * options.minutes) {
        // A broker of its own, so that no siege's leavings slow down another.
        let seed = options.seed + sieges;
        let ground = match Ground::new(&options.kafka) {
            Ok(ground) => ground,
            Err(error) => {
                eprintln!("FAILED: {error:#}\n");
                ledger.enter_failure(&[]);
                break;
            }
        };
        let subject = if seed.is_multiple_of(2) { Subject::Bank } else { Subject::Orders };
        sieges += 1;
        let siege = Siege::new(&ground, subject, ground.fit(Plan::new(seed, options.rounds)))?;
        let clean = match siege.run() {
            Ok(report) => {
                eprintln!("seed {seed}, {}: {report}\n", subject.binary());
                ledger.enter(&report);
                report.is_clean()
            }
            Err(error) => {
                eprintln!("FAILED: {error:#}\n");
                ledger.enter_failure(&siege.struck());
                false
            }
        };
        if let (false, Some(folder)) = (clean, &options.evidence) {
            std::fs::create_dir_all(folder)?;
            siege.keep_evidence(&folder.join(format!("seed-{seed}")))?;
        }
    }
    println!("{sieges} sieges, seeds from {}", options.seed);
    println!("{:<60} {:>6} {:>6} {:>6} {:>6} {:>6}", "fault", "count", "lost", "twice", "wrong", "failed");
    for (fault, outcome) in ledger.rows() {
        let [count, lost, twice, wrong, failed] =
            [outcome.count, outcome.lost, outcome.twice, outcome.wrong, outcome.failed];
        println!("{fault:<60} {count:>6} {lost:>6} {twice:>6} {wrong:>6} {failed:>6}");
    }
    Ok(if ledger.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
