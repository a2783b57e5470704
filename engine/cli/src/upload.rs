//! Uploads the binary of a job: once, in one piece if the connection holds, and from where it was if not.
//!
//! What has arrived is at the node that has received it. Where another node answers at the address by then, such as behind a load
//! balancer, the upload begins again from the start.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use fluvial_node::elf::ProgramFile;
use fluvial_node::group::hash_of_file;
use fluvial_node::http::api::NewUpload;
use fluvial_node::uploads::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Body, Method, StatusCode};

use crate::client::{Client, content_of, succeeded};

/// How much of the file is read at a time.
const PIECE: usize = 64 << 10;
/// How long nothing of the file may be sent before the connection is given up.
const STALLED: Duration = Duration::from_secs(30);
/// How long one request may send, as long as it does send.
const SENT_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// How long an upload is tried again while nothing more of it arrives.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// The time between two attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a node may take to keep a whole binary in the store.
const KEPT_WITHIN: Duration = Duration::from_secs(600);

/// Uploads a binary, unless it is there. Returns its hash.
///
/// # Errors
/// It is no job that the cluster could run, it is too large, or the cluster does not take it.
pub(crate) async fn upload(client: &Client, path: &Path) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    let refused = || format!("'{}' cannot run on the cluster", path.display());
    ProgramFile::read(&file).and_then(|program| program.fits_this_engine()).with_context(refused)?;
    let bytes = file.metadata()?.len();
    let hash = hash_of_file(&file).with_context(|| format!("cannot read '{}'", path.display()))?;
    let upload = Upload { client, path: format!("uploads/{hash}"), file: Arc::new(file), bytes, bar: bar(bytes) };
    let uploaded = upload.run(&format!("binaries/{hash}")).await;
    upload.bar.finish_and_clear();
    uploaded.map(|()| hash)
}

/// What a person sees of the upload: nothing, unless there is a terminal.
fn bar(bytes: u64) -> ProgressBar {
    // Without colours, so that NO_COLOR asks for nothing else.
    let style = "uploading {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    ProgressStyle::with_template(style).map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")))
}

struct Upload<'a> {
    client: &'a Client,
    /// The path of the upload in the API.
    path: String,
    file: Arc<File>,
    bytes: u64,
    bar: ProgressBar,
}

/// Why something has not been done yet.
enum Again {
    /// It may succeed later.
    Later(anyhow::Error),
    /// The node has nothing of the upload.
    FromTheStart,
}

impl Upload<'_> {
    async fn run(&self, binary: &str) -> anyhow::Result<()> {
        let (mut arrived, mut until, mut begun) = (0, Instant::now() + TRIED_FOR, false);
        loop {
            let progress = match self.look(binary).await {
                Ok(None) => return Ok(()),
                Ok(Some(progress)) => progress,
                // The node may be there again, or another one in its place.
                Err(_) if begun && Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            begun = true;
            self.bar.set_position(progress.offset);
            if progress.offset > arrived {
                (arrived, until) = (progress.offset, Instant::now() + TRIED_FOR);
            }
            let done = match progress {
                Progress { busy: true, .. } => Err(Again::Later(anyhow::anyhow!("another request is sending it"))),
                Progress { offset, .. } if offset < self.bytes => self.send(offset).await?,
                Progress { .. } => self.finish().await?,
            };
            let error = match done {
                Ok(()) => continue,
                Err(Again::Later(error)) => error,
                Err(Again::FromTheStart) => {
                    arrived = 0;
                    anyhow::anyhow!("another node answers than the one that has received the beginning")
                }
            };
            // What is whole takes its time to be kept.
            let until = if progress.busy { until + KEPT_WITHIN } else { until };
            if Instant::now() >= until {
                return Err(error.context("the binary was not uploaded"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// How far the upload is, which begins with this; `None` if the binary is there.
    async fn look(&self, binary: &str) -> anyhow::Result<Option<Progress>> {
        if self.client.exists(binary).await? {
            return Ok(None);
        }
        // It is answered before anything is sent: a binary that is too large is refused here.
        let new = self.client.request_with(Method::PUT, &self.path, &NewUpload { bytes: self.bytes })?;
        let progress: Progress = content_of(&self.path, self.client.send(new).await?).await?;
        ensure!(progress.bytes == self.bytes && progress.offset <= self.bytes, "the node has another binary");
        Ok(Some(progress))
    }

    /// Sends what follows `from`.
    async fn send(&self, from: u64) -> anyhow::Result<Result<(), Again>> {
        let sent = Arc::new(AtomicU64::new(from));
        let (file, counted, bar) = (Arc::clone(&self.file), Arc::clone(&sent), self.bar.clone());
        let pieces = futures::stream::unfold(from, move |at| {
            let piece = read(&file, at);
            if let Ok(piece) = &piece {
                counted.store(at + piece.len() as u64, Ordering::Relaxed);
                bar.set_position(at);
            }
            let next = match piece {
                Ok(piece) if piece.is_empty() => None,
                Ok(piece) => Some((at + piece.len() as u64, Ok(piece))),
                Err(error) => Some((at, Err(error))),
            };
            std::future::ready(next.map(|(at, piece)| (piece, at)))
        });
        let (last, length) = (self.bytes - 1, self.bytes - from);
        let request = self.client.request(Method::PATCH, &self.path)?.timeout(SENT_WITHIN);
        let request = request
            .header("content-range", format!("bytes {from}-{last}/{}", self.bytes))
            .header("content-length", length)
            .body(Body::wrap_stream(pieces));
        let request = self.client.send_once(request);
        tokio::pin!(request);
        let mut seen = (from, Instant::now());
        let sending = loop {
            tokio::select! {
                response = &mut request => break response,
                () = tokio::time::sleep(AGAIN) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now != seen.0 {
                        seen = (now, Instant::now());
                    } else if seen.1.elapsed() >= STALLED {
                        let error = anyhow::anyhow!("the node took nothing of the binary for {} s", STALLED.as_secs());
                        return Ok(Err(Again::Later(error)));
                    }
                }
            }
        };
        decide(sending).await
    }

    /// Has the node keep what is whole.
    async fn finish(&self) -> anyhow::Result<Result<(), Again>> {
        let request = self.client.request(Method::POST, &self.path)?.timeout(KEPT_WITHIN);
        decide(self.client.send_once(request).await).await
    }
}

/// What an answer means for the upload. An error is one that no other attempt mends.
async fn decide(answer: anyhow::Result<reqwest::Response>) -> anyhow::Result<Result<(), Again>> {
    let response = match answer {
        Ok(response) => response,
        // The connection was lost: who asks how far the upload is learns why, if that is for good.
        Err(error) => return Ok(Err(Again::Later(error))),
    };
    match response.status() {
        StatusCode::NOT_FOUND => Ok(Err(Again::FromTheStart)),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT => {
            let Err(error) = succeeded(response).await else { bail!("the node's answer makes no sense") };
            Ok(Err(Again::Later(error)))
        }
        _ => succeeded(response).await.map(|_| Ok(())),
    }
}

fn read(file: &File, at: u64) -> std::io::Result<Bytes> {
    let mut piece = vec![0; PIECE];
    let read = file.read_at(&mut piece, at)?;
    piece.truncate(read);
    Ok(Bytes::from(piece))
}
