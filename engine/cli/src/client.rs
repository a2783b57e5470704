//! The client of the API.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fluvial_node::http::api::{CLIENT, Failure};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a request may take. An upload may take longer.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a request is repeated that may succeed later: another node begins to coordinate within some seconds.
const TRIED_FOR: Duration = Duration::from_secs(20);
/// The time between two attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// How long an upload may take.
const UPLOADED_WITHIN: Duration = Duration::from_secs(600);

/// A node's API.
pub(crate) struct Client {
    addr: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(addr: &str) -> anyhow::Result<Self> {
        // The HTTP library asks for it even where nothing is encrypted. A second call keeps what the first one has set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().context("cannot make an HTTP client")?;
        Ok(Self { addr: addr.to_owned(), http })
    }

    async fn send_once(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let sent = request.header(CLIENT, env!("CARGO_PKG_VERSION")).send().await;
        sent.with_context(|| {
            let addr = &self.addr;
            format!(
                "no node answers at {addr}: start one by `fluvial up` or `fluvial node`, or say by --addr where it is"
            )
        })
    }

    /// Sends a request, and sends it again while the node says that it may succeed later: a change that was made is none the
    /// second time.
    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let until = Instant::now() + TRIED_FOR;
        loop {
            let again = request.try_clone().context("the request cannot be repeated")?;
            let response = self.send_once(again).await?;
            if response.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() >= until {
                return Ok(response);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}/v1/{path}", self.addr)).timeout(WITHIN)
    }

    /// The answer to a request that reads.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = succeeded(self.send(self.request(Method::GET, path)).await?).await?;
        serde_json::from_slice(&response.bytes().await?).with_context(|| format!("the node's answer to {path}"))
    }

    /// The answer to a request that reads, as it comes, for as long as it takes.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.http.get(format!("http://{}/v1/{path}", self.addr));
        succeeded(self.send(request).await?).await
    }

    /// Makes a request once that would have another effect the second time.
    pub(crate) async fn change_once(&self, method: Method, path: &str) -> anyhow::Result<()> {
        succeeded(self.send_once(self.request(method, path)).await?).await.map(drop)
    }

    /// Makes a request that changes something.
    pub(crate) async fn change(&self, method: Method, path: &str) -> anyhow::Result<()> {
        succeeded(self.send(self.request(method, path)).await?).await.map(drop)
    }

    /// The same with content.
    pub(crate) async fn change_to(&self, method: Method, path: &str, content: &impl Serialize) -> anyhow::Result<()> {
        let request = self.request(method, path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(content)?);
        succeeded(self.send(request).await?).await.map(drop)
    }

    /// Uploads a binary, unless it is there. Returns its hash.
    pub(crate) async fn upload(&self, content: Vec<u8>) -> anyhow::Result<String> {
        let hash = fluvial_node::group::hash(&content);
        let path = format!("binaries/{hash}");
        if self.send(self.request(Method::GET, &path)).await?.status() == StatusCode::OK {
            return Ok(hash);
        }
        let upload = self.request(Method::PUT, &path).timeout(UPLOADED_WITHIN).body(content);
        succeeded(self.send(upload).await?).await?;
        Ok(hash)
    }
}

/// The response, if it says that the request has succeeded.
async fn succeeded(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str::<Failure>(&text) {
        Ok(failure) => bail!("{}", failure.error),
        Err(_) => bail!("the node answers {status}: {}", text.trim()),
    }
}
