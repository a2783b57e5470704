//! Writing an object in parts, because it is too large for memory.

use std::io::{Error, Write};

use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

use super::{StateError, StateStore};

/// The size of a part; object stores require at least 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// An object that is being written. It exists only after [`Upload::complete`].
pub(super) struct Upload<'a> {
    store: &'a StateStore,
    object: &'a str,
    parts: Box<dyn MultipartUpload>,
    buffer: Vec<u8>,
    failed: Option<StateError>,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(store: &'a StateStore, object: &'a str) -> Result<Self, StateError> {
        let job = store.job_store();
        let begun = store.runtime().block_on(job.objects().put_multipart(&job.path(object)));
        let parts = begun.map_err(|e| store.failed("write", object, e))?;
        Ok(Self { store, object, parts, buffer: Vec::new(), failed: None })
    }

    /// Sends the rest and creates the object.
    pub(super) fn complete(mut self) -> Result<(), StateError> {
        let sent = self.send();
        let completed = sent.and_then(|()| self.store.runtime().block_on(self.parts.complete()).map(drop));
        completed.map_err(|e| self.store.failed("write", self.object, e))
    }

    /// Discards the parts that have been sent. Returns the error of the write that failed, if one did.
    pub(super) fn abandon(mut self) -> Option<StateError> {
        // What cannot be dropped now is an orphan, which the store's own rules or the next cleaning remove.
        let _ = self.store.runtime().block_on(self.parts.abort());
        self.failed
    }

    fn send(&mut self) -> Result<(), object_store::Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = PutPayload::from(std::mem::take(&mut self.buffer));
        self.store.runtime().block_on(self.parts.put_part(part))
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART_BYTES
            && let Err(error) = self.send()
        {
            self.failed = Some(self.store.failed("write", self.object, error));
            return Err(Error::other("a part could not be sent"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Parts are sent when they are full.
        Ok(())
    }
}
