//! One client's connection: frames in, faults, frames out, in order.
//!
//! Requests of a connection are carried out one after the other, as Kafka does; a long poll holds back what comes after
//! it. A frame that is no Kafka request, or of a version that was not offered, closes the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::decode_request_header_from_buffer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::api::{self, Answer, Call};
use crate::broker::Shared;
use crate::clock::Now;
use crate::fault::Action;

/// The longest request, as Kafka's `socket.request.max.bytes`.
const MOST_REQUEST_BYTES: usize = 100 << 20;

/// A frame has at least API, version, correlation id and the length of the client id.
const LEAST_REQUEST_BYTES: usize = 10;

/// Why a connection was closed by the broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection failed")]
    Socket(#[from] std::io::Error),
    #[error("a frame of {0} bytes is not a Kafka request")]
    Frame(usize),
    #[error("the broker does not serve API {api} in version {version}")]
    NotServed { api: i16, version: i16 },
    #[error("a {api:?} request of version {version} could not be decoded")]
    Decode { api: ApiKey, version: i16, source: anyhow::Error },
    #[error("the answer to a {api:?} request of version {version} could not be encoded: a bug of the embedded broker")]
    Encode { api: ApiKey, version: i16, source: anyhow::Error },
    #[error("a request header could not be decoded")]
    Header(#[source] anyhow::Error),
}

/// Serves a connection until either side closes it.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let mut disconnect = shared.disconnect.subscribe();
    let mut connection = Connection {
        stream,
        host: format!("/{}", peer.ip()),
        shared,
        input: BytesMut::new(),
        reader: Arc::new(Notify::new()),
    };
    tokio::select! {
        result = connection.run() => match result {
            Ok(()) => tracing::debug!(%peer, "connection closed"),
            Err(Broken::Socket(error)) => tracing::debug!(%peer, %error, "connection lost"),
            Err(broken) => {
                let error: &dyn std::error::Error = &broken;
                tracing::warn!(%peer, error, "connection refused");
            }
        },
        // The sender lives as long as the broker.
        _ = disconnect.changed() => tracing::debug!(%peer, "connection closed by an injected fault"),
    }
}

struct Connection {
    stream: TcpStream,
    host: String,
    shared: Arc<Shared>,
    input: BytesMut,
    /// Wakes this connection's long poll.
    reader: Arc<Notify>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), Broken> {
        self.stream.set_nodelay(true)?;
        while let Some(frame) = self.frame().await? {
            match self.answer(frame).await? {
                Answer::Bytes(bytes) => self.stream.write_all(&bytes).await?,
                Answer::Nothing => {}
                Answer::Close => break,
            }
        }
        Ok(())
    }

    /// The next request, without its length; `None` when the client has closed.
    async fn frame(&mut self) -> Result<Option<Bytes>, Broken> {
        while self.input.len() < 4 {
            if self.read_more(4).await? == 0 {
                return Ok(None);
            }
        }
        let length = self.input.get_i32();
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if !(LEAST_REQUEST_BYTES..=MOST_REQUEST_BYTES).contains(&bytes) {
            return Err(Broken::Frame(bytes));
        }
        while self.input.len() < bytes {
            if self.read_more(bytes).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(Some(self.input.split_to(bytes).freeze()))
    }

    async fn read_more(&mut self, wanted: usize) -> Result<usize, Broken> {
        self.input.reserve((wanted - self.input.len()).max(16 << 10));
        Ok(self.stream.read_buf(&mut self.input).await?)
    }

    async fn answer(&self, mut frame: Bytes) -> Result<Answer, Broken> {
        let (key, version) = (i16::from_be_bytes([frame[0], frame[1]]), i16::from_be_bytes([frame[2], frame[3]]));
        let not_served = Broken::NotServed { api: key, version };
        let Ok(api) = ApiKey::try_from(key) else { return Err(not_served) };
        let config = &self.shared.config;
        if !api::serves(config, api, version) {
            if api == ApiKey::ApiVersions {
                let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
                return api::step_down(config, correlation_id);
            }
            return Err(not_served);
        }
        let header: RequestHeader = decode_request_header_from_buffer(&mut frame).map_err(Broken::Header)?;
        let client_id = header.client_id.as_deref().unwrap_or_default();
        let action = {
            let mut watched = self.shared.watched();
            *watched.requests.entry(api).or_default() += 1;
            watched.faults.strike(api, client_id)
        };
        match action {
            Some(action) => tracing::info!(?api, client_id, ?action, "an injected fault applies to this request"),
            None => tracing::trace!(?api, version, client_id, "request"),
        }
        let (mut forced, mut old_end, mut no_brokers) = (None, None, false);
        match action {
            Some(Action::Drop) => return Ok(Answer::Close),
            Some(Action::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Action::Fail(error)) => forced = Some(error),
            Some(Action::End(offset)) => old_end = Some(offset),
            Some(Action::NoBrokers) => no_brokers = true,
            Some(Action::Lose) | None => {}
        }
        let call = Call {
            shared: &self.shared,
            api,
            version,
            correlation_id: header.correlation_id,
            client_id,
            host: &self.host,
            now: Now::read().ahead(self.shared.clock_ahead_ms.load(Ordering::Relaxed)),
            forced,
            old_end,
            no_brokers,
            reader: &self.reader,
        };
        let answer = api::answer(&call, &mut frame).await?;
        Ok(if action == Some(Action::Lose) { Answer::Close } else { answer })
    }
}
