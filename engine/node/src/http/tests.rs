//! The HTTP server of a copy, asked as Prometheus and a kubelet do.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_protocol::group::Offer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::bounded;
use crate::status::made_up::{offer, view};
use crate::status::{Board, Report, STUCK_AFTER, View};
use crate::trust::{ClusterKey, Trust};

/// Longer than anything here takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn server() -> (SocketAddr, Arc<Board>) {
    let trust = Arc::new(Trust::of_cluster_key(&ClusterKey::new()).unwrap());
    let board = Arc::new(Board::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    super::serve(listener, Arc::clone(&board), trust, &Handle::current()).unwrap();
    (address, board)
}

/// The status and the body of an answer.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn silent_strangers_keep_nobody_from_seeing_that_the_copy_works() {
    let (address, _board) = server();
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..bounded::MOST {
        others.push(TcpStream::connect(address).await.unwrap());
    }
    let closed = tokio::time::timeout(LONG, first.read(&mut [0])).await.expect("the oldest is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(get(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn http_says_whether_the_copy_works_and_could_run_the_job() {
    let (address, board) = server();
    let get = async |path: &str| get(address, path).await;
    assert_eq!((get("/healthz").await.0, get("/readyz").await.0), (200, 503), "while it waits for the store");
    board.show(Arc::new(view()), Instant::now());
    assert_eq!((get("/healthz").await.0, get("/readyz").await.0), (200, 200));
    let out_of_reach = View { offer: Offer { unready: Some("no broker".to_owned()), ..offer() }, ..view() };
    board.show(Arc::new(View { reaches_store: false, ..out_of_reach }), Instant::now());
    assert_eq!(get("/healthz").await.0, 200);
    let (status, why) = get("/readyz").await;
    assert!(status == 503 && why.contains("no broker"), "{status} {why}");
    assert!(get("/metrics").await.1.contains("fluvial_node_ready{job_name=\"orders\"} 0"));
    let report: Report = serde_json::from_str(&get("/status").await.1).unwrap();
    assert_eq!(report.members[0].node, "a");
    board.show(Arc::new(view()), Instant::now() - STUCK_AFTER);
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(get(path).await.0, 503, "{path} of a copy whose loop is stuck");
    }
}
