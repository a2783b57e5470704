//! The limit on the number of files that this process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit, because connections to brokers, files of the store and pipes need one file each.
/// The soft limit is often 1024, for the sake of programs that use `select`, which this one does not. Child processes
/// inherit the raised limit.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}
