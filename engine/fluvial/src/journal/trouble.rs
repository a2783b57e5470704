//! Categories of failures of the store, and what a person can do about each.

use std::error::Error;
use std::io;

use fluvial_connector::{ErrorKind, too_many_files};
use rustix::io::Errno;

/// The category of a failed call to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An outage that may end without intervention.
    Unavailable,
    /// The store is full; it works again when a person has freed space.
    Full,
    /// A permission is missing, which a person must grant.
    Forbidden,
    /// This process has reached its limit of open files.
    TooManyFiles,
}

impl Trouble {
    /// Returns the category of an error of the store.
    #[must_use]
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let error_of_system = error.downcast_ref::<io::Error>();
            if error_of_system.and_then(io::Error::raw_os_error) == Some(Errno::MFILE.raw_os_error()) {
                return Self::TooManyFiles;
            }
            match error_of_system.map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => return Self::Forbidden,
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => return Self::Full,
                _ => next = error.source(),
            }
        }
        Self::Unavailable
    }

    /// Returns what the caller should do.
    #[must_use]
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::Unavailable | Self::Full => ErrorKind::Retry,
            Self::Forbidden | Self::TooManyFiles => ErrorKind::Configuration,
        }
    }

    /// Returns what a person should do, as a suffix for the error message.
    #[must_use]
    pub(crate) fn cure(self) -> String {
        match self {
            Self::Unavailable => String::new(),
            Self::Full => " (the store is full: free some space)".to_owned(),
            Self::Forbidden => " (let the user that runs the job read and write there)".to_owned(),
            Self::TooManyFiles => format!(" ({})", too_many_files()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_need_change_is_waited_out() {
        for (code, expected) in [
            (rustix::io::Errno::MFILE, Trouble::TooManyFiles),
            (rustix::io::Errno::NOSPC, Trouble::Full),
            (rustix::io::Errno::DQUOT, Trouble::Full),
            (rustix::io::Errno::ACCESS, Trouble::Forbidden),
            (rustix::io::Errno::PERM, Trouble::Forbidden),
            (rustix::io::Errno::ROFS, Trouble::Forbidden),
            (rustix::io::Errno::IO, Trouble::Unavailable),
            (rustix::io::Errno::NOTDIR, Trouble::Unavailable),
        ] {
            let source = Box::new(io::Error::from(code));
            let error = object_store::Error::Generic { store: "local", source };
            assert_eq!(Trouble::of(&error), expected, "{code:?}");
        }
    }
}
