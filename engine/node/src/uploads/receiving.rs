//! Receives a part of an upload.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::spawn_blocking;

use super::{Claimed, Progress, UploadError};

/// How long nothing may arrive.
const STALLED: Duration = Duration::from_secs(30);
/// How much is gathered in memory before it is written.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// A request that sends a part of an upload.
#[derive(Debug)]
pub struct Receiving {
    claimed: Claimed,
    file: Option<File>,
    waiting: Vec<u8>,
}

impl Receiving {
    pub(super) fn new(claimed: Claimed, file: File) -> Self {
        Self { claimed, file: Some(file), waiting: Vec::new() }
    }

    /// Receives all that comes. What has arrived is kept, also if the rest does not come. This must run to its end: a task of its own
    /// does, and the request that awaits it may be given up.
    ///
    /// # Errors
    /// The rest does not come, or it is more than was announced.
    pub async fn all<E: std::fmt::Display>(
        mut self,
        content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Progress, UploadError> {
        let received = self.receive(content).await;
        let written = self.write().await;
        received.and(written)?;
        Ok(Progress { busy: false, ..self.claimed.progress })
    }

    async fn receive<E: std::fmt::Display>(
        &mut self,
        mut content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), UploadError> {
        loop {
            let next = tokio::time::timeout(STALLED, content.next()).await;
            let Some(bytes) = next.map_err(|_| UploadError::Stalled(STALLED))? else { return Ok(()) };
            let bytes = bytes.map_err(|error| UploadError::Lost(error.to_string()))?;
            let Progress { offset, bytes: all, .. } = self.claimed.progress;
            let room = all.saturating_sub(offset).saturating_sub(self.waiting.len() as u64);
            if bytes.len() as u64 > room {
                return Err(UploadError::TooMuch);
            }
            self.waiting.extend_from_slice(&bytes);
            if self.waiting.len() >= WRITTEN_AT_ONCE {
                self.write().await?;
            }
        }
    }

    /// Writes what has arrived.
    async fn write(&mut self) -> Result<(), UploadError> {
        let (bytes, Some(mut file)) = (std::mem::take(&mut self.waiting), self.file.take()) else { return Ok(()) };
        let written = spawn_blocking(move || {
            let written = file.write_all(&bytes);
            // Of what could not be written whole a part may be there.
            let length = file.metadata().map(|metadata| metadata.len());
            (written.and(length), file)
        });
        let (length, file) = written.await.map_err(|error| self.claimed.uploads.failed(error.into()))?;
        match length {
            Ok(length) => {
                self.claimed.progress.offset = length;
                self.file = Some(file);
                Ok(())
            }
            Err(source) => {
                // Where it goes on is where the last write ended that is known to have succeeded.
                let _ = file.set_len(self.claimed.progress.offset);
                Err(self.claimed.uploads.failed(source))
            }
        }
    }
}
