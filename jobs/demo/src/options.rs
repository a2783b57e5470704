//! What a demo can be told.

use std::time::Duration;

/// How `--help` explains what is measured.
pub(crate) const ABOUT_FIGURES: &str = "\
The figures of the summary:
  records in         records of the input topic, as a consumer counts them at the end
  updates out        records of the output topics, counted in the same way
  records/s          records in, over the time from the first to the moment all output was visible
  produce to visible every 5 ms a probe is put in among the records, in one input partition after the other. Its time
                     runs from the moment before it is handed to the generator's producer (which lingers up to 1 ms)
                     to the moment when a plain read_committed consumer of the output has the first record whose count
                     includes it. Probes count in totals, and are not in the table
  totals             each row of each output, as a plain read_committed consumer finds it in the end, against a
                     recomputation from the input topic with a plain hash map; the consistent cuts behind the live
                     table are compared as well

Broker, generator, job and consumers share this machine. The job runs as `run` does, with a store that syncs to disk.

Exit codes: 0 the totals are equal, 1 they are not or something failed, 2 wrong usage.";

/// How a demo runs.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = ABOUT_FIGURES)]
pub struct DemoOptions {
    /// How long records are produced
    #[arg(long = "for", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub lasting: Duration,

    /// How many records are produced each second
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub rate: u32,

    /// How many workers the job has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,

    /// What the generated records follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| format!("{e}; write 500ms, 15s or 2m"))?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(24 * 3600)).contains(&duration);
    if fits { Ok(duration) } else { Err("a demo lasts at least 100ms and at most a day".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_unit_or_out_of_range_is_refused() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        for wrong in ["15", "0s", "2d", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
