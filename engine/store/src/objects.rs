//! What is done with the objects of a store, one at a time. Nothing is retried here.

use bytes::Bytes;
use fluvial_connector::{Error, ErrorKind};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Store;
use crate::frame::{self, Format};

/// The outcome of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was created by this call.
    Created,
    /// An object of that name existed already. It may be the same one, created by an earlier attempt.
    AlreadyExists,
}

impl Store {
    /// Creates an object, given by its full name as everywhere here, if there is none of that name.
    ///
    /// # Errors
    /// The error of the store; the object may have been created all the same.
    pub async fn create(&self, name: &Path, bytes: Bytes) -> Result<Created, object_store::Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects().put_opts(name, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Created::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::AlreadyExists),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object. It is no error if the object does not exist.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn delete(&self, name: &Path) -> Result<(), Error> {
        match self.objects().delete(name).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", name, error)),
        }
    }

    /// The full names of the objects below `folder`, in the order in which the store lists them; `after` is a name that the
    /// store need not begin before.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn list(&self, folder: &Path, after: Option<&Path>) -> Result<Vec<Path>, Error> {
        let found = match after {
            Some(after) => self.objects().list_with_offset(Some(folder), after),
            None => self.objects().list(Some(folder)),
        };
        let names = found.map_ok(|meta| meta.location).try_collect().await;
        names.map_err(|error| self.failed("list", folder, error))
    }

    /// The content of a small object, if it exists.
    ///
    /// # Errors
    /// The store cannot be reached, or the object is damaged or of a newer format.
    pub async fn get_framed<T: DeserializeOwned>(&self, format: Format, name: &Path) -> Result<Option<T>, Error> {
        let bytes = match self.objects().get(name).await {
            Ok(found) => found.bytes().await.map_err(|error| self.failed("read", name, error))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("read", name, error)),
        };
        frame::decode(format, &bytes).map(Some).map_err(|error| {
            let what = format!("cannot use the object '{}'", self.describe_object(name));
            Error::caused(ErrorKind::Data, what, error)
        })
    }

    /// Creates a small object if there is none of that name.
    ///
    /// # Errors
    /// The call failed; the object may have been created all the same.
    pub async fn create_framed<T: Serialize>(
        &self,
        format: Format,
        name: &Path,
        content: &T,
    ) -> Result<Created, Error> {
        let bytes = frame::encode(format, content).map_err(|error| {
            Error::caused(ErrorKind::Bug, format!("cannot encode '{}'", self.describe_object(name)), error)
        })?;
        self.create(name, bytes).await.map_err(|error| self.failed("write", name, error))
    }
}
