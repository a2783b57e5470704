//! A stage whose store is a bucket on S3's protocol.

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use fluvial_s3::{Front, Server, environment};

use super::Stage;
use crate::client::unique;
use crate::subject::Subject;

/// What the names of all objects begin with.
const PREFIX: &str = "some/prefix";

/// A bucket, and what stands in front of it. Stages may share it.
#[derive(Clone)]
pub(super) struct Bucket {
    name: String,
    front: Arc<Front>,
}

/// One server serves all stages of a test program; it starts at the first, and ends with the program.
fn server() -> Result<&'static Server> {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if SERVER.get().is_none() {
        let _ = SERVER.set(Server::start()?);
    }
    SERVER.get().context("the server has just been started")
}

impl Bucket {
    pub(super) fn url(&self) -> String {
        format!("s3://{}/{PREFIX}", self.name)
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        environment(&self.front.endpoint())
    }
}

impl Stage {
    /// As [`Stage::new`], with a bucket as the store.
    ///
    /// # Errors
    /// As [`Stage::new`], and if the server cannot be started.
    pub fn on_s3(subject: Subject, input_partitions: i32) -> Result<Self> {
        Self::new(subject, input_partitions)?.with_bucket(Front::start(server()?)?)
    }

    /// The same with a bucket as the store, which is reached at this socket.
    ///
    /// # Errors
    /// The server cannot be started.
    pub fn with_bucket_at(self, listener: TcpListener) -> Result<Self> {
        self.with_bucket(Front::on(listener, server()?)?)
    }

    fn with_bucket(self, front: Front) -> Result<Self> {
        let bucket = Bucket { name: unique("bucket").to_lowercase(), front: Arc::new(front) };
        server()?.make_bucket(&bucket.name)?;
        Ok(Self { bucket: Some(bucket), ..self })
    }

    /// The same with the bucket of another stage as the store.
    #[must_use]
    pub fn with_bucket_of(self, other: &Self) -> Self {
        Self { bucket: other.bucket.clone(), ..self }
    }

    /// The same with a bucket that nobody has made.
    #[must_use]
    pub fn without_its_bucket(self) -> Self {
        let bucket = self.bucket.map(|bucket| Bucket { name: "nobody-has-made-it".to_owned(), ..bucket });
        Self { bucket, ..self }
    }

    /// What stands in front of the bucket.
    ///
    /// # Panics
    /// When the store is a folder.
    #[must_use]
    pub fn front(&self) -> &Front {
        &self.bucket.as_ref().expect("the store is a bucket").front
    }

    /// An object of the job, if it is there.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(bucket) = &self.bucket else {
            return match fs::read(self.store().join(&self.name).join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                read => Ok(Some(read?)),
            };
        };
        server()?.object(&bucket.name, &format!("{PREFIX}/{}/{name}", self.name))
    }

    /// The objects of the job in a folder of the bucket, by their names within the job.
    ///
    /// # Errors
    /// The server refuses, or the store is no bucket.
    pub fn objects_in_bucket(&self, folder: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let bucket = self.bucket.as_ref().context("the store is a bucket")?;
        let of_job = format!("{PREFIX}/{}/", self.name);
        let objects = server()?.objects(&bucket.name, &format!("{of_job}{folder}/"))?;
        Ok(objects.into_iter().map(|(name, bytes)| (name.replacen(&of_job, "", 1), bytes)).collect())
    }

    /// Writes an object of the job to the bucket, or deletes it if there are no bytes.
    ///
    /// # Errors
    /// As [`Stage::objects_in_bucket`].
    pub fn set_object(&self, name: &str, bytes: Option<&[u8]>) -> Result<()> {
        let bucket = self.bucket.as_ref().context("the store is a bucket")?;
        server()?.set_object(&bucket.name, &format!("{PREFIX}/{}/{name}", self.name), bytes)
    }

    /// Copies a folder of the job from the bucket to where it is in a store without a bucket.
    pub(crate) fn fetch(&self, folder: &str) -> Result<()> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let objects = server()?.objects(&bucket.name, &format!("{PREFIX}/{}/{folder}/", self.name))?;
        let folder = self.store().join(&self.name).join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (name, content) in objects {
            fs::write(folder.join(name.rsplit('/').next().unwrap_or_default()), content)?;
        }
        Ok(())
    }
}
