//! The API of a node, asked by sockets as strangers do.

#![allow(clippy::unwrap_used)]

mod streams;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_store::Store;
use object_store::memory::InMemory;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::access::Role;
use crate::http::bounded;
use crate::logs::{Logs, StoredLogs};
use crate::status::made_up::view;
use crate::trust::{ClusterKey, TrustOptions, of_users};

/// Longer than anything here takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The API of a node that coordinates and takes every change.
pub(super) struct Api {
    address: SocketAddr,
    authority: Option<CertificateDer<'static>>,
    /// The token that follows from the cluster key.
    pub(super) root: String,
    pub(super) store: Store,
    board: Arc<Board>,
    _cache: tempfile::TempDir,
}

impl Api {
    fn with(trust: Trust, key: Option<&ClusterKey>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let board = Arc::new(Board::default());
        board.show(Arc::new(view()), Instant::now());
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        let changes = Changes::new(|_, reply| drop(reply.send(Ok(()))));
        let trust = Arc::new(trust);
        let cache = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(store.clone(), CLUSTER, String::new(), cache.path().into());
        let (logs, stored) = (Logs::new("node"), StoredLogs::new(store.clone(), CLUSTER));
        let gathered = Gathered::new(logs, stored, Arc::clone(&trust));
        serve(listener, Arc::clone(&board), trust, shelf, changes, (gathered, History::default()), &Handle::current())
            .unwrap();
        let root = key.map(|key| key.root_token().to_text()).unwrap_or_default();
        Self { address, authority: key.map(ClusterKey::authority), root, store, board, _cache: cache }
    }

    pub(super) fn of_cluster() -> Self {
        let key = ClusterKey::new();
        Self::with(Trust::of_cluster_key(&key).unwrap(), Some(&key))
    }

    fn plain() -> Self {
        Self::with(TrustOptions::default().open().unwrap(), None)
    }

    pub(super) async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let config = of_users::client(self.authority.as_slice()).unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
    }

    /// Sends bytes, and returns all that comes back.
    pub(super) async fn send(&self, request: &str) -> String {
        let mut answer = Vec::new();
        if self.authority.is_some() {
            let mut connection = self.connect().await;
            connection.write_all(request.as_bytes()).await.unwrap();
            // A node that refuses closes without reading to the end.
            let _ = tokio::time::timeout(LONG, connection.read_to_end(&mut answer)).await.expect("it answers");
        } else {
            let mut connection = TcpStream::connect(self.address).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            let _ = tokio::time::timeout(LONG, connection.read_to_end(&mut answer)).await.expect("it answers");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status and the body of the answer to one request.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        // The node goes on making steps.
        self.board.show(Arc::new(view()), Instant::now());
        let (address, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
        let head = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        let answer = self.send(&(head + body)).await;
        (status_of(&answer), answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
    }

    /// The same with a token.
    pub(super) async fn with_token(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, path, &format!("Authorization: Bearer {token}\r\n"), &body).await
    }

    /// The status of an answer that has no end.
    pub(super) async fn begins(&self, token: &str, path: &str) -> u16 {
        let (mut connection, mut answer) = (self.connect().await, Vec::new());
        let address = self.address;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = tokio::time::timeout(LONG, connection.read_buf(&mut answer)).await.expect("it answers");
            assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        status_of(&String::from_utf8_lossy(&answer))
    }

    /// A new token.
    pub(super) async fn token(&self, name: &str, role: Role) -> String {
        let new = NewToken { name: name.to_owned(), role, expires_s: None };
        let (status, body) = self.with_token(&self.root, "POST", "/v1/tokens", &json!(new)).await;
        assert_eq!(status, 201, "{body}");
        serde_json::from_str::<CreatedToken>(&body).unwrap().token
    }
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// The document of the API, and what it says is possible at each of its paths.
pub(super) fn documented() -> (Value, BTreeMap<String, BTreeSet<String>>) {
    let document = Document::new(super::routes().split_for_parts().1).unwrap().content();
    // Others are served elsewhere.
    let paths = document["paths"].as_object().unwrap().iter().filter(|(_, item)| item["servers"].is_null());
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    let paths = paths.map(|(path, item)| (path.clone(), methods(item))).collect();
    (document, paths)
}

/// The paths of the API and of the console.
fn routes() -> BTreeSet<String> {
    let of_console = ["/", "/nodes", "/jobs/{name}", "/console/{file}"].map(str::to_owned);
    documented().1.into_keys().chain(of_console).collect()
}

#[tokio::test]
async fn no_route_answers_without_a_token_and_a_viewer_changes_nothing_on_any() {
    let api = Api::of_cluster();
    let viewer = api.token("viewer", Role::Viewer).await;
    let routes = routes();
    assert!(routes.len() >= 9 && routes.contains("/v1/binaries/{hash}"), "{routes:?}");
    for route in routes.iter().map(String::as_str).chain(["/v1/no-such-route"]) {
        let path: String = route.replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let client = format!("{CLIENT}: 1\r\n");
            let signs = route == "/v1/session" && ["POST", "DELETE"].contains(&method);
            let page = !path.starts_with("/v1") && ["GET", "HEAD"].contains(&method);
            if signs || page {
                continue;
            }
            let (status, said) = api.ask(method, &path, &client, "").await;
            assert_eq!(status, 401, "{method} {route} without a token: {said}");
            let stranger = crate::access::Token::random().to_text();
            let (status, said) = api.with_token(&stranger, method, &path, &Value::Null).await;
            // The store is asked for a bounded number of invented tokens.
            assert!([401, 503].contains(&status), "{method} {route} with an unknown token: {status} {said}");
            if (method, route) == ("GET", "/v1/events") {
                assert_eq!(api.begins(&viewer, &path).await, 200, "{route} has no end");
                continue;
            }
            let (status, said) = api.with_token(&viewer, method, &path, &Value::Null).await;
            let reads = ["GET", "HEAD"].contains(&method);
            let only_operators = ["/v1/tokens", "/v1/audit"].contains(&route);
            let refused = status == 403;
            assert_eq!(refused, !reads || only_operators, "{method} {route} by a viewer: {status} {said}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let api = Api::of_cluster();
    let answer = api.send("GET /v1/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.to_lowercase().contains("\r\nwww-authenticate: bearer\r\n"), "{answer}");
    assert!(answer.contains("fluvial login"), "{answer}");
    for wrong in ["Basic YTpi", "Bearer", "Bearer x", "bearer fluvial_0"] {
        let (status, said) = api.ask("GET", "/v1/nodes", &format!("Authorization: {wrong}\r\n"), "").await;
        assert!(status == 401 && said.contains("fluvial login"), "{wrong}: {status} {said}");
    }
    let viewer = api.token("viewer", Role::Viewer).await;
    let (status, said) = api.with_token(&viewer, "POST", "/v1/jobs/orders/stop", &Value::Null).await;
    assert!(status == 403 && said.contains("--role operator"), "{status} {said}");
    let (status, said) = api.with_token(&viewer, "GET", "/v1/nodes", &Value::Null).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn tokens_are_created_listed_and_revoked_and_none_is_shown_twice() {
    let api = Api::of_cluster();
    let operator = api.token("anna", Role::Operator).await;
    let (status, list) = api.with_token(&operator, "GET", "/v1/tokens", &Value::Null).await;
    assert!(status == 200 && !list.contains(&operator[8..24]), "{list}");
    assert!(list.contains(r#""name":"anna","role":"operator""#) && list.contains("the cluster key"), "{list}");
    for (body, expected) in [
        (json!({"name": "anna", "role": "viewer"}), 409),
        (json!({"name": "../x", "role": "viewer"}), 400),
        (json!({"name": "b", "role": "viewer", "expires_s": 0}), 400),
        (json!({"name": "b", "role": "king"}), 422),
        (json!({"name": "b", "role": "viewer", "more": 1}), 422),
    ] {
        let (status, said) = api.with_token(&operator, "POST", "/v1/tokens", &body).await;
        assert_eq!(status, expected, "{body}: {said}");
    }
    let (status, said) = api.with_token(&operator, "DELETE", "/v1/tokens/bob", &Value::Null).await;
    assert!(status == 404 && said.contains("tokens list"), "{said}");
    assert_eq!(api.with_token(&operator, "DELETE", "/v1/tokens/anna", &Value::Null).await.0, 200);
    assert_eq!(
        api.with_token(&operator, "GET", "/v1/tokens", &Value::Null).await.0,
        401,
        "at once, where it was revoked"
    );
}

#[tokio::test]
async fn a_name_is_never_a_path() {
    let api = Api::of_cluster();
    let names = ["..", ".", "%2e%2e", "%2e%2e%2fbinaries", "..%2f..%2fetc", "%00", "a%2fb", "%ff", "x%0d%0ay"];
    for name in names {
        for (method, path) in [
            ("GET", format!("/v1/jobs/{name}")),
            ("DELETE", format!("/v1/tokens/{name}")),
            ("GET", format!("/v1/binaries/{name}")),
            ("PUT", format!("/v1/binaries/{name}")),
        ] {
            let (status, said) = api.with_token(&api.root, method, &path, &Value::Null).await;
            assert!((400..500).contains(&status), "{method} {path}: {status} {said}");
        }
        let decoded = name.replace("%2e", ".").replace("%2f", "/").replace("%00", "\0");
        let job = json!({"name": decoded, "binary": "0".repeat(64), "arguments": [], "workers": 1});
        let (status, said) = api.with_token(&api.root, "POST", "/v1/jobs", &job).await;
        assert!((400..500).contains(&status), "{job}: {status} {said}");
    }
    // What is there is of the audit alone.
    let objects = api.store.list(&api.store.path(""), None).await.unwrap();
    assert!(objects.iter().all(|path| path.as_ref().starts_with(".cluster/audit/")), "{objects:?}");
}

#[tokio::test]
async fn a_browser_signs_in_once_and_changes_things_only_by_its_own_pages() {
    let api = Api::of_cluster();
    let operator = api.token("anna", Role::Operator).await;
    let client = format!("{CLIENT}: 1\r\n");
    let body = json!({"token": operator}).to_string();
    let (address, length) = (api.address, body.len());
    assert_eq!(api.ask("POST", "/v1/session", "", &body).await.0, 403, "by a page of another origin");
    assert_eq!(api.ask("POST", "/v1/session", &client, r#"{"token":"fluvial_"}"#).await.0, 401);
    let head = format!("POST /v1/session HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{client}");
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    let answer = api.send(&(head + &body)).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    for part in ["__Host-fluvial=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let session = format!("Cookie: other=1; {}\r\n", cookie.split(';').next().unwrap());
    let (status, said) = api.ask("GET", "/v1/session", &session, "").await;
    let said: Session = serde_json::from_str(&said).unwrap();
    assert_eq!((status, said.name.as_str(), said.role, said.tokens), (200, "anna", Role::Operator, true));
    assert_eq!(api.ask("POST", "/v1/jobs/orders/stop", &session, "").await.0, 403, "by a page of another origin");
    assert_eq!(api.ask("POST", "/v1/jobs/orders/stop", &(session + &client), "").await.0, 200);
    assert_eq!(api.ask("GET", "/v1/session", "", "").await.0, 401);
    let (status, _) = api.ask("DELETE", "/v1/session", &client, "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn without_trust_the_api_is_open_to_this_host_alone() {
    let api = Api::plain();
    let (status, said) = api.ask("GET", "/v1/session", "", "").await;
    let said: Session = serde_json::from_str(&said).unwrap();
    assert_eq!((status, said.role, said.tokens), (200, Role::Operator, false));
    assert_eq!(api.ask("POST", "/v1/jobs/orders/stop", "", "").await.0, 403);
    assert_eq!(api.ask("POST", "/v1/jobs/orders/stop", &format!("{CLIENT}: 1\r\n"), "").await.0, 200);
    let foreign = "GET /v1/jobs HTTP/1.1\r\nHost: evil.example:7400\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&api.send(foreign).await), 403);
    let new = json!({"name": "a", "role": "viewer"}).to_string();
    let (status, said) = api.ask("POST", "/v1/tokens", &format!("{CLIENT}: 1\r\n"), &new).await;
    assert!(status == 409 && said.contains("--cluster-key-file"), "{said}");
    let trust = TrustOptions { insecure: true, ..TrustOptions::default() }.open().unwrap();
    for (ip, permitted) in [("127.0.0.1", true), ("::1", true), ("0.0.0.0", false), ("10.0.0.1", false)] {
        assert_eq!(trust.permits_api(ip.parse().unwrap()).is_ok(), permitted, "{ip}");
    }
}

#[tokio::test]
async fn who_changes_something_is_recorded_without_bodies_and_tokens() {
    let api = Api::of_cluster();
    let (anna, viewer) = (api.token("anna", Role::Operator).await, api.token("eve", Role::Viewer).await);
    let path = "/v1/jobs/orders/stop";
    assert_eq!(api.with_token(&anna, "POST", path, &Value::Null).await.0, 200);
    assert_eq!(api.with_token(&viewer, "POST", path, &Value::Null).await.0, 403);
    let _ = api.with_token(&anna, "DELETE", &format!("/v1/tokens/{viewer}"), &Value::Null).await;
    let _ = api.ask("POST", path, "", "").await;
    let until = Instant::now() + LONG;
    let entries = loop {
        let (status, entries) = api.with_token(&anna, "GET", "/v1/audit?limit=50", &Value::Null).await;
        assert_eq!(status, 200, "{entries}");
        let entries: Vec<crate::access::AuditEntry> = serde_json::from_str(&entries).unwrap();
        if entries.len() >= 4 {
            break entries;
        }
        assert!(Instant::now() < until, "{entries:?}");
        tokio::task::yield_now().await;
    };
    let mut of_stop: Vec<_> = entries.iter().filter(|entry| entry.path == path).collect();
    of_stop.sort_by_key(|entry| entry.status);
    let said: Vec<_> = of_stop.iter().map(|entry| (entry.by.as_str(), entry.method.as_str(), entry.status)).collect();
    assert_eq!(said, [("anna", "POST", 200)], "who changes nothing writes nothing");
    assert!(entries.iter().all(|entry| entry.node == "a"));
    let all = serde_json::to_string(&entries).unwrap();
    assert!(!all.contains(&viewer[..24]) && all.contains("/v1/tokens/fluvial_…"), "{all}");
    assert_eq!(entries.len(), 4);
    let (_, one) = api.with_token(&anna, "GET", "/v1/audit?limit=1", &Value::Null).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&one).unwrap().len(), 1);
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused_and_end_the_connection() {
    let api = Api::of_cluster();
    let head = format!("POST /v1/jobs/orders/stop HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", api.root);
    // If this were read as a second request, it would be answered.
    let second = "GET /v1/nodes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for framing in [
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n".to_owned() + second,
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned() + second,
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n".to_owned() + second,
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned() + second,
        "Content-Length: +5\r\n\r\n".to_owned() + second,
        "Content-Length : 5\r\n\r\n".to_owned() + second,
    ] {
        let answer = api.send(&format!("{head}{framing}")).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing}\n{answer}");
        assert!(!answer.contains("401"), "{framing}\n{answer}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let api = Api::of_cluster();
    let (status, said) = api.ask("GET", "/v1/nodes", &format!("a: {}\r\n", "x".repeat(100 << 10)), "").await;
    assert_eq!(status, 431, "{said}");
    let many: String = (0..200).map(|i| format!("h{i}: 1\r\n")).collect();
    assert_eq!(api.ask("GET", "/v1/nodes", &many, "").await.0, 431);
    let job = json!({"name": "a", "binary": "0".repeat(64), "arguments": ["x".repeat(2 << 20)], "workers": 1});
    assert_eq!(api.with_token(&api.root, "POST", "/v1/jobs", &job).await.0, 413);
    // A stranger is refused before anything of the body is read.
    let head = format!("PUT /v1/binaries/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n", "0".repeat(64));
    assert_eq!(status_of(&api.send(&head).await), 401);
}

#[tokio::test]
async fn plain_http_is_told_to_use_tls() {
    let api = Api::of_cluster();
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    socket.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("fluvial login"), "{answer}");
}

#[tokio::test]
async fn connections_that_stall_are_closed_and_delay_nobody() {
    let api = Api::of_cluster();
    let mut silent = TcpStream::connect(api.address).await.unwrap();
    let mut half = TcpStream::connect(api.address).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut slow = api.connect().await;
    slow.write_all(b"GET /v1/nodes HTTP/1.1\r\nHost").await.unwrap();
    let begun = Instant::now();
    assert_eq!(api.with_token(&api.root, "GET", "/v1/nodes", &Value::Null).await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for the handshake of another");
    for (what, stalled) in [("silent", &mut silent), ("half a handshake", &mut half)] {
        let closed = tokio::time::timeout(LONG, stalled.read(&mut [0])).await.expect(what);
        assert!(matches!(closed, Ok(0) | Err(_)), "{what}: {closed:?}");
    }
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, slow.read_to_end(&mut rest)).await.expect("half a request");
}

#[tokio::test]
async fn strangers_close_only_each_others_connections() {
    let api = Api::of_cluster();
    let mut known = api.connect().await;
    let request = format!("GET /v1/nodes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", api.root);
    let ask = async |known: &mut TlsStream<TcpStream>| {
        known.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 << 10];
        let read = tokio::time::timeout(LONG, known.read(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    assert_eq!(status_of(&ask(&mut known).await), 200);
    let mut strangers = Vec::new();
    for _ in 0..2 * bounded::MOST {
        strangers.push(TcpStream::connect(api.address).await.unwrap());
    }
    let closed = tokio::time::timeout(LONG, strangers[0].read(&mut [0])).await.expect("the oldest stranger is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(status_of(&ask(&mut known).await), 200);
}

#[tokio::test]
async fn a_client_believes_only_nodes_of_its_cluster() {
    let (api, other) = (Api::of_cluster(), Api::of_cluster());
    let socket = TcpStream::connect(api.address).await.unwrap();
    let config = of_users::client(other.authority.as_slice()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let refused = connector.connect(ServerName::from(api.address.ip()), socket).await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    let (status, said) = api.with_token(&other.root, "GET", "/v1/nodes", &Value::Null).await;
    assert_eq!(status, 401, "the token of another cluster's key: {said}");
    let address = api.address.to_string();
    let chain = tokio::task::spawn_blocking(move || of_users::look(&address)).await.unwrap().unwrap();
    let authority = of_users::authority_of(&chain, &api.address.to_string()).unwrap();
    assert_eq!(Some(&authority), api.authority.as_ref());
    assert_ne!(Some(of_users::fingerprint(&authority)), other.authority.as_ref().map(of_users::fingerprint));
    assert_eq!(of_users::certificates(&of_users::to_pem(&chain)).unwrap(), chain);
}

#[test]
fn a_name_is_a_folder_and_a_part_of_a_topic() {
    for (name, fits) in [("orders", true), ("a.b-c_1", true), ("", false), (".cluster", false), ("a/b", false)] {
        assert_eq!(is_name(name).is_ok(), fits, "{name}");
    }
}
