//! The HTTP client below a store on the network: it counts requests, bounds the time of each, and keeps what a refusal said.
//!
//! `object_store` knows a status by its class only: 404 is an object that does not exist, also where it is the bucket, and
//! 409 is an object that exists, also where nothing was stored. Here the store's own code is still there, so an answer that
//! `object_store` would misread is turned into an error that holds it ([`Refusal`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::cost::Requests;

/// The time within which an answer must begin, for a request without content.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// The bytes of content for which a request gets one more second.
const BYTES_PER_SECOND: usize = 1 << 20;

/// The number of requests made so far, by the classes that stores charge for.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    writes: AtomicU64,
    reads: AtomicU64,
    deletes: AtomicU64,
}

impl Counts {
    /// The numbers so far.
    pub(crate) fn so_far(&self) -> Requests {
        let [writes, reads, deletes] =
            [&self.writes, &self.reads, &self.deletes].map(|count| count.load(Ordering::Relaxed) as f64);
        Requests { writes, reads, deletes }
    }

    fn count(&self, request: &HttpRequest) {
        let lists = request.uri().query().is_some_and(|query| query.contains("prefix="));
        let class = match request.method().as_str() {
            "GET" | "HEAD" if !lists => &self.reads,
            "DELETE" => &self.deletes,
            _ => &self.writes,
        };
        class.fetch_add(1, Ordering::Relaxed);
    }
}

/// A store's answer that says no.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status} {said}")]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The store's code for the reason, or an empty text.
    pub(crate) code: String,
    /// Code and message, for people.
    said: String,
}

impl Refusal {
    /// Reads the code and the message of an answer. The rest of it is left out: it may repeat parts of the request.
    pub(crate) fn new(status: u16, body: &str) -> Self {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        let code = element("Code").unwrap_or_default();
        let said = match element("Message") {
            Some(message) => format!("{code}: {}", message.lines().next().unwrap_or_default()),
            None => code.clone(),
        };
        Self { status, code, said }
    }

    /// Whether `object_store` reads the answer in the same way: an object that does not exist, that exists, or that has not
    /// changed.
    fn is_understood(&self) -> bool {
        match self.status {
            304 | 412 | 416 => true,
            404 => !matches!(self.code.as_str(), "NoSuchBucket" | "ContainerNotFound"),
            // Azure's answer for an object that exists.
            409 => self.code == "BlobAlreadyExists",
            _ => false,
        }
    }

    /// Whether the same request may succeed a moment later.
    fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502..=504) || self.code == "RequestTimeout"
    }
}

/// Creates the clients of one store.
#[derive(Debug)]
pub(crate) struct Connector(pub(crate) Arc<Counts>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { client, counts: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Client {
    client: HttpClient,
    counts: Arc<Counts>,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let of_credentials = is_of_credentials(request.uri().host().unwrap_or_default());
        if !of_credentials {
            self.counts.count(&request);
        }
        let within = within(request.body().content_length());
        let answered = async {
            let response = self.client.execute(request).await?;
            // The answers of a metadata service are object_store's to understand.
            if of_credentials || response.status().is_success() { Ok(response) } else { refused(response).await }
        };
        let late = || {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {within:?}"));
            HttpError::new(HttpErrorKind::Timeout, error)
        };
        tokio::time::timeout(within, answered).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The time that a request with so many bytes of content may take.
fn within(bytes: usize) -> Duration {
    ANSWERS_WITHIN + Duration::from_secs((bytes / BYTES_PER_SECOND) as u64)
}

/// Whether a request to this host asks a metadata service for credentials.
fn is_of_credentials(host: &str) -> bool {
    host.starts_with("169.254.") || host.starts_with("[fd00:") || host.starts_with("metadata.google")
}

async fn refused(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = body.bytes().await?;
    let refusal = Refusal::new(parts.status.as_u16(), &String::from_utf8_lossy(&body));
    if refusal.is_understood() {
        return Ok(HttpResponse::from_parts(parts, body.into()));
    }
    // By its kind object_store repeats the request, or does not.
    let kind = if refusal.is_passing() { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
    Err(HttpError::new(kind, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_code_and_message_and_nothing_else() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not \
                    match.</Message><AWSAccessKeyId>KEY</AWSAccessKeyId><StringToSign>SECRET</StringToSign></Error>";
        let refusal = Refusal::new(403, body);
        assert_eq!(refusal.code, "SignatureDoesNotMatch");
        assert_eq!(refusal.to_string(), "the store answered 403 SignatureDoesNotMatch: The signature does not match.");
    }

    #[test]
    fn answers_that_object_store_would_misread_become_errors() {
        for (status, code, understood, passing) in [
            (404, "NoSuchKey", true, false),
            (404, "NoSuchBucket", false, false),
            (412, "PreconditionFailed", true, false),
            (409, "ConditionalRequestConflict", false, false),
            (409, "BlobAlreadyExists", true, false),
            (503, "SlowDown", false, true),
            (500, "InternalError", false, true),
            (501, "NotImplemented", false, false),
            (403, "AccessDenied", false, false),
        ] {
            let refusal = Refusal::new(status, &format!("<Error><Code>{code}</Code></Error>"));
            assert_eq!((refusal.is_understood(), refusal.is_passing()), (understood, passing), "{status} {code}");
        }
    }
}
