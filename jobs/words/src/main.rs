//! Counts words.

use fluvial::connector::format::{Json, Text};
use fluvial::{App, Count, Job};
use fluvial_kafka::KafkaOptions;

#[derive(Clone, clap::Args)]
struct Options {
    #[command(flatten)]
    kafka: KafkaOptions,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct WordCount {
    word: String,
    count: u64,
}

fn build(job: &mut Job<'_>, options: &Options) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let lines = job.source("lines", kafka.source("lines")).format(Text).stream::<String>();
    let words = lines.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let counts = words.key_by(|word| word.clone()).aggregate("counts", Count);
    let rows = counts.map(|(word, count)| (word.clone(), WordCount { word, count }));
    job.output(kafka.upsert("counts")).format((Text, Json)).write(rows);
    Ok(())
}

fn main() -> std::process::ExitCode {
    App::new("words", build).about("Counts words").main()
}
