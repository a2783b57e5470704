//! A source as a job declares it.

use std::sync::Arc;

use fluvial_connector::Source;

use super::input::SourceInput;

/// What to do with a record that cannot be decoded. As an option of a job's command line it reads `fail` and `skip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnMalformed {
    /// End with an error that names topic, partition, offset and cause.
    #[default]
    Fail,
    /// Leave the record out, count it and log it.
    Skip,
}

/// One source as the job declared it.
pub(crate) struct DeclaredSource {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) input: Box<dyn SourceInput>,
    pub(crate) on_malformed: OnMalformed,
    /// Whether only the newest record of each key counts, whatever the job makes of it.
    pub(crate) only_newest: bool,
}
