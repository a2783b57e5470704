//! Categories of failures of a store, and what a person can do about each.

use std::error::Error;
use std::io;

use fluvial_connector::{ErrorKind, too_many_files};
use object_store::client::HttpError;
use rustix::io::Errno;

use crate::http::Refusal;

/// The category of a failed call to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An outage that may end without intervention. Also a conflict with another request that was under way at the same time.
    Unavailable,
    /// The store asks for fewer requests.
    Throttled,
    /// The store is full; it works again when a person has freed space.
    Full,
    /// This user may not read or write the folder.
    Forbidden,
    /// The store refuses the credentials, or they lack a permission.
    Denied,
    /// The bucket does not exist.
    NoBucket,
    /// The store lacks a function that a job needs.
    Unsupported,
    /// The store refuses the request as wrong: another region or endpoint, for example.
    Misdirected,
    /// This process has reached its limit of open files.
    TooManyFiles,
}

impl Trouble {
    /// Returns the category of an error of a store.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut on_the_network = false;
        for error in chain(error) {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Self::of_refusal(refusal);
            }
            on_the_network |= error.is::<HttpError>();
            let error_of_system = error.downcast_ref::<io::Error>();
            if error_of_system.and_then(io::Error::raw_os_error) == Some(Errno::MFILE.raw_os_error()) {
                return Self::TooManyFiles;
            }
            match error_of_system.map(io::Error::kind) {
                // A packet filter that refuses a connection says the same as a file system.
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) if !on_the_network => {
                    return Self::Forbidden;
                }
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => return Self::Full,
                _ => {}
            }
        }
        Self::Unavailable
    }

    fn of_refusal(refusal: &Refusal) -> Self {
        match (refusal.status, refusal.code.as_str()) {
            (404, "NoSuchBucket" | "ContainerNotFound") => Self::NoBucket,
            (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") | (401 | 403, _) => Self::Denied,
            (429, _) | (_, "SlowDown" | "TooManyRequests" | "ServerBusy") => Self::Throttled,
            (501, _) => Self::Unsupported,
            (507, _) => Self::Full,
            (_, "RequestTimeout") | (408 | 409 | 500.., _) => Self::Unavailable,
            _ => Self::Misdirected,
        }
    }

    /// Returns what the caller should do.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Unavailable | Self::Throttled | Self::Full => ErrorKind::Retry,
            Self::Forbidden | Self::Denied | Self::NoBucket | Self::Unsupported | Self::Misdirected => {
                ErrorKind::Configuration
            }
            Self::TooManyFiles => ErrorKind::Host,
        }
    }

    /// Returns what a person should do, as a suffix for the error message.
    #[must_use]
    pub fn cure(self) -> String {
        match self {
            Self::Unavailable => String::new(),
            Self::Throttled => " (the store asks for fewer requests: a larger --append-every makes fewer)".to_owned(),
            Self::Full => " (the store is full: free some space)".to_owned(),
            Self::Forbidden => " (let the user that runs the job read and write there)".to_owned(),
            Self::Denied => {
                " (the store refuses the job's credentials, or they do not let it list, read, create and delete objects \
                 there)"
                    .to_owned()
            }
            Self::NoBucket => " (the bucket does not exist: create it, or correct --store)".to_owned(),
            Self::Unsupported => {
                " (the store lacks a function that a job needs, such as conditional creates: use another store)"
                    .to_owned()
            }
            Self::Misdirected => " (is --store right, and are the region and the endpoint?)".to_owned(),
            Self::TooManyFiles => format!(" ({})", too_many_files()),
        }
    }
}

/// Returns what a store's error says, in one line.
pub(crate) fn said_by(error: &(dyn Error + 'static)) -> String {
    let Some(on_the_network) = chain(error).find(|error| error.is::<HttpError>()) else {
        // Its text holds its sources' already.
        return error.to_string();
    };
    let mut parts: Vec<String> = Vec::new();
    for part in chain(on_the_network).skip(1).map(ToString::to_string) {
        // Some errors repeat their source's text.
        parts.retain(|earlier| !earlier.contains(&part));
        parts.push(part);
    }
    parts.join(": ")
}

/// An error and its sources, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpErrorKind;

    use super::*;

    #[test]
    fn only_what_nobody_need_change_is_waited_out() {
        for (code, expected) in [
            (Errno::MFILE, Trouble::TooManyFiles),
            (Errno::NOSPC, Trouble::Full),
            (Errno::DQUOT, Trouble::Full),
            (Errno::ACCESS, Trouble::Forbidden),
            (Errno::PERM, Trouble::Forbidden),
            (Errno::ROFS, Trouble::Forbidden),
            (Errno::IO, Trouble::Unavailable),
            (Errno::NOTDIR, Trouble::Unavailable),
        ] {
            let source = Box::new(io::Error::from(code));
            let error = object_store::Error::Generic { store: "local", source };
            assert_eq!(Trouble::of(&error), expected, "{code:?}");
        }
    }

    #[test]
    fn a_refusal_of_a_store_on_the_network_is_sorted_by_its_code() {
        for (status, code, expected) in [
            (401, "", Trouble::Denied),
            (403, "AccessDenied", Trouble::Denied),
            (400, "ExpiredToken", Trouble::Denied),
            (404, "NoSuchBucket", Trouble::NoBucket),
            (429, "", Trouble::Throttled),
            (503, "SlowDown", Trouble::Throttled),
            (503, "ServiceUnavailable", Trouble::Unavailable),
            (500, "InternalError", Trouble::Unavailable),
            (501, "NotImplemented", Trouble::Unsupported),
            (507, "XMinioStorageFull", Trouble::Full),
            (409, "ConditionalRequestConflict", Trouble::Unavailable),
            (400, "RequestTimeout", Trouble::Unavailable),
            (400, "AuthorizationHeaderMalformed", Trouble::Misdirected),
            (301, "PermanentRedirect", Trouble::Misdirected),
        ] {
            let refusal = Refusal::new(status, &format!("<Error><Code>{code}</Code><Message>m</Message></Error>"));
            let source = Box::new(HttpError::new(HttpErrorKind::Unknown, refusal));
            let error = object_store::Error::Generic { store: "S3", source };
            assert_eq!(Trouble::of(&error), expected, "{status} {code}");
            assert_eq!(said_by(&error), format!("the store answered {status} {code}: m"));
        }
    }

    #[test]
    fn a_packet_filter_is_no_missing_permission() {
        let source = Box::new(HttpError::new(HttpErrorKind::Connect, io::Error::from(Errno::PERM)));
        let error = object_store::Error::Generic { store: "S3", source };
        assert_eq!(Trouble::of(&error), Trouble::Unavailable);
    }
}
