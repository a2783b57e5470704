//! Whether a store honours the condition of a conditional create.

use bytes::Bytes;
use fluvial_connector::{Error, ErrorKind};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::Store;

/// What an attempt to create an object said. An attempt may have been repeated below, so the object may exist by an
/// earlier one of its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Created,
    Exists,
}

/// What two attempts to create one object say about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Honours,
    Ignores,
    Unclear,
}

fn judge(first: Answer, second: Answer) -> Verdict {
    match (first, second) {
        (_, Answer::Exists) => Verdict::Honours,
        (Answer::Created, Answer::Created) => Verdict::Ignores,
        // Something deleted the object in between, or the first answer was about something else.
        (Answer::Exists, Answer::Created) => Verdict::Unclear,
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
        let first = self.create(name, "first").await.map_err(failed)?;
        let second = self.create(name, "second").await.map_err(failed)?;
        match self.objects().delete(name).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.failed("delete", name, error)),
        }
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

    async fn create(&self, name: &Path, content: &'static str) -> Result<Answer, object_store::Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let content = PutPayload::from_bytes(Bytes::from_static(content.as_bytes()));
        match self.objects().put_opts(name, content, options).await {
            Ok(_) => Ok(Answer::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Answer::Exists),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_has_created_an_object_twice_is_refused() {
        use Answer::{Created, Exists};
        assert_eq!(judge(Created, Exists), Verdict::Honours);
        assert_eq!(judge(Exists, Exists), Verdict::Honours);
        assert_eq!(judge(Created, Created), Verdict::Ignores);
        assert_eq!(judge(Exists, Created), Verdict::Unclear);
    }
}
