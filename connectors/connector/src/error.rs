//! One error for both directions, whose kind says what the caller should do.

use std::fmt;

/// Any error of the system underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The same call may succeed later: the system is unreachable or busy. It may also have *happened*.
    Retry,
    /// This client is of no further use; a new generation may succeed.
    Restart,
    /// A newer writer has taken over. The journal decides whether it is a newer generation.
    Fenced,
    /// A person must change a setting: an unknown topic, refused credentials.
    Configuration,
    /// A person must change something on this host, such as its clock. The same call may succeed on another host.
    Host,
    /// The data is not what it must be: lost offsets, a recreated topic.
    Data,
    /// A fault in the engine or the connector.
    Bug,
}

/// An error of an external system: what was being done to which object, and why it failed.
#[derive(Debug)]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    what: String,
    source: Option<BoxError>,
}

impl Error {
    /// An error that stands for itself; `what` names the operation, the object and, where there is one, the cure.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// An error with the one that caused it.
    pub fn caused(kind: ErrorKind, what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self { kind, what: what.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

/// What a person should do where this process may open no more files, with the limit that it has.
#[must_use]
pub fn too_many_files() -> String {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.map_or_else(|| "too few".to_owned(), |most| most.to_string());
    format!("this process may have {most} files open, which is not enough: raise the limit, `ulimit -n`")
}
