//! Objects that are too large to be held in memory: they are copied from files and to files.

use std::fs::File;
use std::io::{Read as _, Write as _};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{GetResultPayload, MultipartUpload as _, ObjectStoreExt as _, PutPayload};
use tokio::task::spawn_blocking;

use crate::Store;

/// How much is sent at a time. The parts of an object on S3 have at least 5 MiB.
const PART: usize = 8 << 20;

impl Store {
    /// Stores the content of a file, from where it is read to its end, in the place of an object of the same name if there is one. The
    /// object is there as a whole, or not at all.
    ///
    /// # Errors
    /// The store fails, or the file cannot be read.
    pub async fn put_file(&self, name: &Path, file: File) -> Result<(), object_store::Error> {
        let (mut part, mut file) = next(file).await?;
        if part.len() < PART {
            return self.objects().put(name, PutPayload::from_bytes(part)).await.map(drop);
        }
        let mut upload = self.objects().put_multipart(name).await?;
        let copied = async {
            while !part.is_empty() {
                upload.put_part(PutPayload::from_bytes(part)).await?;
                (part, file) = next(file).await?;
            }
            upload.complete().await.map(drop)
        };
        let copied = copied.await;
        if copied.is_err() {
            // What cannot be taken back is left to the rules of the bucket.
            let _ = upload.abort().await;
        }
        copied
    }

    /// Writes the content of an object into a file, and tells `each` of what is written.
    ///
    /// # Errors
    /// The store fails, or the file cannot be written.
    pub async fn get_to_file(
        &self,
        name: &Path,
        mut file: File,
        mut each: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<(), object_store::Error> {
        let found = self.objects().get(name).await?;
        if let GetResultPayload::File(source, _) = found.payload {
            let (mut part, mut source) = next(source).await?;
            while !part.is_empty() {
                (file, each) = written(file, each, vec![part]).await?;
                (part, source) = next(source).await?;
            }
            return Ok(());
        }
        let mut content = found.into_stream();
        // Small chunks are collected first: each call on another thread costs two context switches.
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while let Some(chunk) = content.try_next().await? {
            bytes += chunk.len();
            chunks.push(chunk);
            if bytes >= PART {
                (file, each) = written(file, each, std::mem::take(&mut chunks)).await?;
                bytes = 0;
            }
        }
        written(file, each, chunks).await.map(drop)
    }
}

/// The next part of a file, which is empty at its end, and shorter than others before it.
async fn next(mut file: File) -> Result<(Bytes, File), object_store::Error> {
    blocking(move || {
        let mut part = Vec::with_capacity(PART);
        (&mut file).take(PART as u64).read_to_end(&mut part)?;
        Ok((Bytes::from(part), file))
    })
    .await
}

/// Writes chunks into a file, and tells `each` of them.
async fn written<F: FnMut(&[u8]) + Send + 'static>(
    mut file: File,
    mut each: F,
    chunks: Vec<Bytes>,
) -> Result<(File, F), object_store::Error> {
    blocking(move || {
        for chunk in &chunks {
            file.write_all(chunk)?;
            each(chunk);
        }
        Ok((file, each))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, object_store::Error> {
    let failed = |source| object_store::Error::Generic { store: "file", source };
    let done = spawn_blocking(call).await.map_err(|error| failed(error.into()))?;
    done.map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Seek as _;
    use std::sync::Arc;

    use object_store::chunked::ChunkedStore;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_file_of_several_parts_comes_back_as_it_was_and_replaces_an_older_object() {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = Store::open(folder.path().to_str().unwrap()).unwrap();
        let in_pieces = ChunkedStore::new(Arc::new(InMemory::new()), 1 << 20);
        let in_pieces = Store::over(Arc::new(in_pieces), "pieces");
        for store in [on_disk, Store::over(Arc::new(InMemory::new()), "memory"), in_pieces] {
            let name = store.path("folder/object");
            for bytes in [0, 1, PART - 1, PART, 2 * PART + 7] {
                let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&content).unwrap();
                file.rewind().unwrap();
                store.put_file(&name, file).await.unwrap();
                let back = tempfile::tempfile().unwrap();
                let (tell, told) = std::sync::mpsc::channel();
                let each = move |bytes: &[u8]| tell.send(bytes.len()).unwrap();
                store.get_to_file(&name, back.try_clone().unwrap(), each).await.unwrap();
                let (mut found, mut back) = (Vec::new(), back);
                back.rewind().unwrap();
                back.read_to_end(&mut found).unwrap();
                assert!(found == content && told.iter().sum::<usize>() == bytes, "{bytes}");
            }
        }
    }
}
