//! Who else writes an output.
//!
//! Records do not say who wrote them: a header on each would halve the rate of librdkafka. But every job names the output
//! partitions that it writes in a progress topic, which is called after the job. So the progress topics of all other jobs
//! are looked into, when somebody has to be told.

use std::time::{Duration, Instant};

use fluvial_connector::{Error, SinkContext};

use crate::kafka::Kafka;
use crate::progress::{self, job_of};

/// How long one progress topic is read at the most.
const PATIENCE: Duration = Duration::from_secs(3);

/// The jobs other than `job` that have progress for this output, in a few words each. Waits no longer than `patience`.
pub(crate) fn of_output(kafka: &Kafka, job: &str, output: &str, patience: Duration) -> Result<Vec<String>, Error> {
    let deadline = Instant::now() + patience;
    let topics = kafka.questions()?.topics(deadline)?;
    let mut writers = Vec::new();
    for other in topics.iter().filter_map(|topic| job_of(topic)).filter(|other| *other != job) {
        let left = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        // Others' topics may be closed to this job, or held up: what the rest says is worth telling all the same.
        let Ok(progress) = progress::read(kafka, &SinkContext::new(other, left)) else { continue };
        let newest = progress.iter().filter(|(at, _)| at.output == output).map(|(_, progress)| progress.tick).max();
        if let Some(tick) = newest {
            writers.push(format!(
                "job '{other}' writes to it too, last at tick {tick} according to that job's \
                 progress topic"
            ));
        }
    }
    Ok(writers)
}
