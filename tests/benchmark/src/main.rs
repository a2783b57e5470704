//! What Fluvial costs, each figure beside that of the least that does the same work, in the same run.
//!
//! ```text
//!   fluvial-benchmark ──starts──► Apache Kafka                      (tests/kafka-apache)
//!      │   figures/…  ──starts──► this binary as a job               (subject/job.rs: the engine's own command line)
//!      │              ──starts──► this binary as what is compared    (subject/bare_*.rs)
//!      └─ prints: ours, theirs, ratio, aim, whether it was met
//! ```
//!
//! Whatever is measured runs in processes of its own, so that its CPU time and memory are its own.

mod figures;
mod kafka;
mod report;
mod running;
mod subject;

use std::process::ExitCode;

use clap::Parser;

use crate::figures::Figure;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure what Fluvial costs, each figure beside that of the least that does the same work in the same run.
///
/// Takes about fifteen minutes for all figures and wants a machine that does nothing else. Apache Kafka is started on this
/// machine where a figure needs it (Java 17 and Maven).
#[derive(Debug, Parser)]
#[command(name = "fluvial-benchmark", version)]
struct Options {
    /// Which figures to measure [default: all]
    #[arg(value_enum, value_name = "FIGURE")]
    figures: Vec<Figure>,
}

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // The processes of a measurement are this binary too.
    if let Some(subject) = arguments.first().and_then(|first| first.to_str()).and_then(subject::named) {
        return subject(std::mem::take(&mut arguments));
    }
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let figures = if options.figures.is_empty() { Figure::ALL.to_vec() } else { options.figures.clone() };
    for figure in figures {
        eprintln!("measuring: {figure}");
        println!("{}", figure.measure()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_is_taken_for_a_subject() {
        for figure in Figure::ALL {
            assert!(subject::named(&figure.to_string()).is_none(), "{figure}");
        }
    }
}
