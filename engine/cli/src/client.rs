//! The client of the API.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fluvial_node::http::api::{AUTHORITIES, CLIENT, Failure};
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode};
use rustls::CertificateError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Connection, Security};
use crate::pinned::Pinned;

/// How long a request may take, unless it says otherwise.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a request is repeated that may succeed later: another node begins to coordinate within some seconds.
const TRIED_FOR: Duration = Duration::from_secs(20);
/// The time between two attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a check with a new program may take.
const CHECKED_WITHIN: Duration = Duration::from_secs(100);

/// A node's API.
pub(crate) struct Client {
    addr: String,
    /// What the address of each request begins with.
    base: String,
    token: Option<String>,
    http: reqwest::Client,
    /// What the login has pinned, until it was compared with what a node says.
    pinned: Mutex<Option<Pinned>>,
}

impl Client {
    pub(crate) fn new(connection: Connection) -> anyhow::Result<Self> {
        let Connection { addr, security, pinned } = connection;
        // The HTTP library asks for it even where nothing is encrypted. A second call keeps what the first one has set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let (scheme, token, builder) = match security {
            Security::Plain => ("http", None, builder),
            Security::Tls { tls, token } => ("https", token, builder.tls_backend_preconfigured(*tls).https_only(true)),
        };
        let http = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { base: format!("{scheme}://{addr}/v1/"), addr, token, http, pinned: Mutex::new(pinned) })
    }

    pub(crate) async fn send_once(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let request = request.header(CLIENT, env!("CARGO_PKG_VERSION"));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let sent = request.send().await.map_err(|error| {
            let addr = &self.addr;
            let context = match tls_error(&error) {
                Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)) => format!(
                    "the certificate of {addr} is for another name: say by --addr how the node is called in its certificate"
                ),
                Some(rustls::Error::InvalidCertificate(_)) => format!(
                    "{addr} is no node of the cluster that was asked for: nothing was sent to it. If the cluster has another \
                     key or authority now, `fluvial login {addr}` again, or give that by --cluster-key-file or --ca"
                ),
                Some(_) => format!("{addr} does not use TLS as a node with a cluster key does: is the address right?"),
                None => format!(
                    "no node answers at {addr}: start one by `fluvial up` or `fluvial node`, or say by --addr where it is"
                ),
            };
            anyhow::Error::new(error).context(context)
        });
        let response = sent?;
        if let Some(named) = response.headers().get(AUTHORITIES).and_then(|named| named.to_str().ok()) {
            self.compare(named).await;
        }
        Ok(response)
    }

    /// Compares what the login has pinned with the authorities that an answer names, once. If that fails, the command goes on.
    async fn compare(&self, named: &str) {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pinned) = pinned.filter(|pinned| pinned.differs(named)) else { return };
        let renewed = async {
            let request = self.request(Method::GET, "keys")?;
            let request = request.bearer_auth(self.token.as_deref().unwrap_or_default());
            pinned.renew(&content_of("keys", request.send().await?).await?)
        };
        if let Err(error) = renewed.await {
            eprintln!("warning: the cluster replaces its key, and the login could not be renewed: {error:#}");
        }
    }

    /// Sends a request, and sends it again while the node says that it may succeed later: a change that was made is none the
    /// second time.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
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

    /// # Errors
    /// The path holds a name that would lead to another path.
    pub(crate) fn request(&self, method: Method, path: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        Ok(self.http.request(method, self.url(path)?).timeout(WITHIN))
    }

    /// # Errors
    /// As [`Client::request`].
    fn url(&self, path: &str) -> anyhow::Result<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@/?=&:".contains(c);
        let moves = path.split('/').any(|part| [".", ".."].contains(&part));
        ensure!(path.chars().all(fits) && !moves, "'{path}' holds what is no name of a job or token");
        Ok(format!("{}{path}", self.base))
    }

    /// The answer to a request that reads.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        content_of(path, self.send(self.request(Method::GET, path)?).await?).await
    }

    /// All entries of a list, page after page.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let (mut all, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next {
            let response = succeeded(self.send(self.request(Method::GET, &path)?).await?).await?;
            next = next_page(response.headers()).filter(|next| *next != path);
            all.extend(content_of::<Vec<T>>(&path, response).await?);
        }
        Ok(all)
    }

    /// Makes a request once that creates something, and returns what was created.
    pub(crate) async fn create<T: DeserializeOwned>(&self, path: &str, content: &impl Serialize) -> anyhow::Result<T> {
        content_of(path, self.send_once(self.request_with(Method::POST, path, content)?).await?).await
    }

    /// The answer to a request that reads, as it comes, for as long as it takes.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.http.get(self.url(path)?);
        succeeded(self.send(request).await?).await
    }

    /// Makes a request once that would have another effect the second time.
    pub(crate) async fn change_once(&self, method: Method, path: &str) -> anyhow::Result<()> {
        // The node may check a program before it answers.
        let request = self.request(method, path)?.timeout(CHECKED_WITHIN);
        succeeded(self.send_once(request).await?).await.map(drop)
    }

    /// Makes a request that changes something.
    pub(crate) async fn change(&self, method: Method, path: &str) -> anyhow::Result<()> {
        succeeded(self.send(self.request(method, path)?).await?).await.map(drop)
    }

    pub(crate) fn request_with(
        &self,
        method: Method,
        path: &str,
        content: &impl Serialize,
    ) -> anyhow::Result<reqwest::RequestBuilder> {
        let request = self.request(method, path)?.header("content-type", "application/json");
        Ok(request.body(serde_json::to_vec(content)?))
    }

    /// The same with content.
    pub(crate) async fn change_to(&self, method: Method, path: &str, content: &impl Serialize) -> anyhow::Result<()> {
        succeeded(self.send(self.request_with(method, path, content)?).await?).await.map(drop)
    }

    /// The same once.
    pub(crate) async fn change_to_once(
        &self,
        method: Method,
        path: &str,
        content: &impl Serialize,
    ) -> anyhow::Result<()> {
        let request = self.request_with(method, path, content)?.timeout(CHECKED_WITHIN);
        succeeded(self.send_once(request).await?).await.map(drop)
    }

    /// The answer to a request with content. A check with a new program takes its time.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str, content: &impl Serialize) -> anyhow::Result<T> {
        let request = self.request_with(Method::POST, path, content)?.timeout(CHECKED_WITHIN);
        content_of(path, self.send_once(request).await?).await
    }

    /// Whether there is something at a path that names one thing.
    pub(crate) async fn exists(&self, path: &str) -> anyhow::Result<bool> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        if response.status() == StatusCode::NOT_FOUND { Ok(false) } else { succeeded(response).await.map(|_| true) }
    }
}

/// The path of the next page of a list, below `/v1/`, if there is one.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (path, _) = link.strip_prefix("</v1/")?.split_once(">; rel=\"next\"")?;
    Some(path.to_owned())
}

/// What the response to a request that has succeeded holds.
pub(crate) async fn content_of<T: DeserializeOwned>(path: &str, response: reqwest::Response) -> anyhow::Result<T> {
    let content = succeeded(response).await?.bytes().await?;
    serde_json::from_slice(&content).with_context(|| format!("the node's answer to {path}"))
}

/// The failure of TLS from which an error comes, if it does.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // What an I/O error was made of is not its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn std::error::Error + 'static));
        if let Some(found) = [Some(error), inner].into_iter().flatten().find_map(|error| error.downcast_ref()) {
            return Some(found);
        }
        cause = inner.or_else(|| error.source());
    }
    None
}

/// The response, if it says that the request has succeeded.
pub(crate) async fn succeeded(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_that_would_lead_elsewhere_is_not_sent() {
        let client =
            Client::new(Connection { addr: "127.0.0.1:1".to_owned(), security: Security::Plain, pinned: None })
                .unwrap();
        for name in
            ["..", ".", "../tokens", "a/../../x", "%2e%2e", "a%2fb", "a b", "a\r\nb", "a\0", "a#b", "a\\b", "\u{e9}"]
        {
            assert!(client.url(&format!("jobs/{name}")).is_err(), "{name}");
        }
        assert_eq!(client.url("jobs/a.b-c_1/stop").unwrap(), "http://127.0.0.1:1/v1/jobs/a.b-c_1/stop");
    }

    #[tokio::test]
    async fn a_list_is_read_page_after_page() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let node = tokio::spawn(async move {
            let next = "Link: </v1/jobs?limit=2&continue=Yg>; rel=\"next\"\r\n";
            for (path, link, page) in [("jobs", next, "[1,2]"), ("jobs?limit=2&continue=Yg", "", "[3]")] {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(client.read_buf(&mut request).await.unwrap() > 0);
                }
                let request = String::from_utf8(request).unwrap();
                assert!(request.starts_with(&format!("GET /v1/{path} HTTP/1.1\r\n")), "{request}");
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{link}Content-Length: {}", page.len());
                client.write_all(format!("{head}\r\n\r\n{page}").as_bytes()).await.unwrap();
            }
        });
        let client = Client::new(Connection { addr, security: Security::Plain, pinned: None }).unwrap();
        assert_eq!(client.list::<u32>("jobs").await.unwrap(), [1, 2, 3]);
        node.await.unwrap();
    }
}
