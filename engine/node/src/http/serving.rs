//! Serves HTTP to whoever connects, by TLS where the node has trust.
//!
//! Each connection has a task of its own from the moment it is accepted, so that one whose handshake or request stalls delays no other;
//! and it has a bounded time for each of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener as _;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::bounded::{Bounded, Held, Standing};
use crate::trust::Trust;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long the headers of a request may take. A connection that is idle is closed after this time, too.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// The size of a request's headers.
const MOST_HEADERS: usize = 64 << 10;
/// The first byte of a TLS connection: the type of a handshake's record.
const HANDSHAKE: u8 = 22;
/// What is said to a client that speaks HTTP where TLS is expected.
const SPEAK_TLS: &str =
    r#"{"error":"this node's API uses TLS: `fluvial login HOST:PORT`, or give --cluster-key-file"}"#;

/// Serves `router` until the runtime ends.
pub(super) async fn serve(mut listener: Bounded, trust: Arc<Trust>, router: Router) {
    loop {
        let (socket, address) = listener.accept().await;
        let (trust, router) = (Arc::clone(&trust), router.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(socket, &trust, router).await {
                tracing::debug!(from = %address, error, "a connection to the API ended");
            }
        });
    }
}

async fn connection(socket: Held, trust: &Trust, router: Router) -> Result<(), String> {
    let standing = socket.standing.clone();
    let Some(config) = trust.tls_of_users() else { return http(socket, standing, router).await };
    let handshake = async {
        let mut first = [0];
        if socket.socket.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            say_tls(socket).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"));
        }
        TlsAcceptor::from(config).accept(socket).await
    };
    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => http(stream, standing, router).await,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no TLS handshake in time".to_owned()),
    }
}

/// Tells a client in its own language that it has to speak TLS.
async fn say_tls(mut socket: Held) -> io::Result<()> {
    let length = SPEAK_TLS.len();
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length";
    socket.write_all(format!("{head}: {length}\r\n\r\n{SPEAK_TLS}").as_bytes()).await?;
    socket.shutdown().await?;
    // To close while there is something to read would reset the connection, and the client might lose the answer.
    tokio::io::copy(&mut socket.take(MOST_HEADERS as u64), &mut tokio::io::sink()).await?;
    Ok(())
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    standing: Standing,
    router: Router,
) -> Result<(), String> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(standing.clone());
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    served.await.map_err(|error| error.to_string())
}
