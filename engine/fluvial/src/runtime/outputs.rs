//! Looks at the outputs beside the job: what a person should know of them when it starts, and whether they are still the
//! same while it runs.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use fluvial_connector::{Error, SinkSession, SinkStatus};

/// How often the outputs are looked at while they are written. A write that fails looks at them at once.
const EVERY: Duration = Duration::from_secs(15);

/// The thread that looks at the outputs. It ends when this is dropped and its last question is answered.
pub(crate) struct OutputWatch(#[allow(dead_code, reason = "the thread ends when it is dropped")] Sender<()>);

impl OutputWatch {
    /// Begins to look. What the sink says goes to `told`, until that gives `false`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(
        session: Arc<dyn SinkSession>,
        mut told: impl FnMut(SinkStatus) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (alive, ended) = channel::<()>();
        let watch = move || {
            match session.warnings() {
                Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
                // Who may write a topic may not always see its settings.
                Err(error) => tracing::debug!(error = chain(error), "the settings of the outputs are not known"),
            }
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                match session.status() {
                    Ok(status) => {
                        if !told(status) {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(error = chain(error), "could not look at the outputs"),
                }
            }
        };
        std::thread::Builder::new().name("outputs".to_owned()).spawn(watch).map(|_| Self(alive))
    }
}

fn chain(error: Error) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
