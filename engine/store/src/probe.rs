//! Whether a store honours the condition of a conditional create.

use bytes::Bytes;
use fluvial_connector::{Error, ErrorKind};
use object_store::path::Path;

use crate::{Created, Store};

/// What two attempts to create one object say about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Honours,
    Ignores,
    Unclear,
}

/// A create may have been repeated below, so the object may exist by an earlier one of its tries.
fn judge(first: Created, second: Created) -> Verdict {
    match (first, second) {
        (_, Created::AlreadyExists) => Verdict::Honours,
        (Created::Created, Created::Created) => Verdict::Ignores,
        // Something deleted the object in between, or the first answer was about something else.
        (Created::AlreadyExists, Created::Created) => Verdict::Unclear,
    }
}

impl Store {
    /// Creates the object `name`, which must not have been used before, a second time, which must fail, and deletes it.
    /// A local folder is not probed: the kernel's `link` honours the condition.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a store that ignores the condition; [`ErrorKind::Retry`] if the answers were not
    /// clear, to be tried again with another name; otherwise the error of the store.
    pub async fn probe(&self, name: &Path) -> Result<(), Error> {
        if !self.is_remote() {
            return Ok(());
        }
        let failed = |error| self.failed("create", name, error);
        let first = self.create(name, Bytes::from_static(b"first")).await.map_err(failed)?;
        let second = self.create(name, Bytes::from_static(b"second")).await.map_err(failed)?;
        self.delete(name).await?;
        match judge(first, second) {
            Verdict::Honours => Ok(()),
            Verdict::Ignores => Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "the store '{}' ignores the condition of a conditional create (If-None-Match): it created '{}' \
                     twice. Two runs of a job could overwrite each other's journal there: use another store",
                    self.describe(),
                    self.describe_object(name)
                ),
            )),
            Verdict::Unclear => Err(Error::new(
                ErrorKind::Retry,
                format!("it is unclear whether the store '{}' honours conditional creates", self.describe()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_has_created_an_object_twice_is_refused() {
        use super::Created::{AlreadyExists, Created};
        assert_eq!(judge(Created, AlreadyExists), Verdict::Honours);
        assert_eq!(judge(AlreadyExists, AlreadyExists), Verdict::Honours);
        assert_eq!(judge(Created, Created), Verdict::Ignores);
        assert_eq!(judge(AlreadyExists, Created), Verdict::Unclear);
    }
}
