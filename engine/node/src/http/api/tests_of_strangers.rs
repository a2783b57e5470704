//! What a stranger or a user can send to the API that was never meant: each of these is refused, and reaches nothing.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::Api;

/// Names that would lead elsewhere in a folder, in a store, or in a text.
const PATHS: [&str; 14] = [
    "..",
    ".",
    ".cluster",
    "%2e%2e",
    "%2E%2E%2Fx",
    "..%2f..%2fetc",
    "%2fetc%2fpasswd",
    "%5c..",
    "a%00",
    "%00",
    "a%0d%0ab",
    "%ff",
    "a%2f..%2fb",
    "%20",
];

#[tokio::test]
async fn no_name_in_a_request_leads_elsewhere() {
    let api = Api::of_cluster();
    for name in PATHS {
        let operations = [
            ("GET", format!("/v1/jobs/{name}")),
            ("PATCH", format!("/v1/jobs/{name}")),
            ("DELETE", format!("/v1/jobs/{name}")),
            ("GET", format!("/v1/jobs/{name}/logs")),
            ("GET", format!("/v1/jobs/{name}/graph")),
            ("GET", format!("/v1/jobs/{name}/savepoints")),
            ("POST", format!("/v1/jobs/{name}/savepoints")),
            ("DELETE", format!("/v1/jobs/orders/savepoints/{name}")),
            ("DELETE", format!("/v1/jobs/{name}/savepoints/a")),
            ("POST", format!("/v1/jobs/{name}/stop")),
            ("POST", format!("/v1/jobs/orders/{name}")),
            ("POST", format!("/v1/jobs/{name}/plan")),
            ("POST", format!("/v1/jobs/{name}/rollback")),
            ("PUT", format!("/v1/binaries/{name}")),
            ("DELETE", format!("/v1/tokens/{name}")),
            ("GET", format!("/v1/jobs/orders/logs?attempt={name}")),
            ("GET", format!("/v1/jobs/orders/logs?after={name}")),
            ("GET", format!("/v1/jobs?continue={name}")),
            ("GET", format!("/v1/{name}/jobs")),
        ];
        for (method, path) in operations {
            let body = if method == "PATCH" { json!({"workers": 2}) } else { json!({"name": "a"}) };
            let (status, said) = api.with_token(&api.root, method, &path, &body).await;
            assert!((400..500).contains(&status), "{method} {path}: {status} {said}");
            let error = serde_json::from_str::<Value>(&said).unwrap();
            assert!(error["error"].is_string(), "{method} {path}: {status} {said}");
        }
        // A node's address may consist of dots.
        let (status, _) = api.with_token(&api.root, "POST", &format!("/v1/nodes/{name}/explode"), &Value::Null).await;
        assert!((400..500).contains(&status), "{name}");
        let plain =
            name.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/").replace("%00", "\0");
        for (method, path, body) in [
            ("POST", "/v1/jobs", json!({"name": plain, "binary": "0".repeat(64), "arguments": [], "workers": 1})),
            ("POST", "/v1/jobs", json!({"name": "a", "binary": plain, "arguments": [], "workers": 1})),
            ("POST", "/v1/jobs/orders/savepoints", json!({"name": plain})),
            ("POST", "/v1/tokens", json!({"name": plain, "role": "viewer"})),
            ("PATCH", "/v1/jobs/orders", json!({"from": plain})),
        ] {
            let (status, said) = api.with_token(&api.root, method, path, &body).await;
            assert!((400..500).contains(&status), "{method} {path} {body}: {status} {said}");
        }
    }
    let objects = api.store.list(&api.store.path(""), None).await.unwrap();
    assert!(objects.iter().all(|path| path.as_ref().starts_with(".cluster/audit/")), "{objects:?}");
}

/// After each of these, whatever follows on the connection is no request, however long the connection has been used before.
#[tokio::test]
async fn nothing_is_smuggled_over_a_connection_that_is_kept() {
    let api = Api::of_cluster();
    let head = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", api.root)
    };
    let first = head("GET", "/v1/session") + "\r\n";
    let second = head("DELETE", "/v1/tokens/smuggled") + "Connection: close\r\n\r\n";
    let post = head("POST", "/v1/jobs/orders/stop");
    for framing in [
        "Content-Length: 5\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\nContent-Length: 5\n\n0\r\n\r\n",
        "X: a\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding:\x0bchunked\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0, 3\r\n\r\n",
        "Content-Length: 0x3\r\n\r\n",
        "Content-Length: 18446744073709551616\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
    ] {
        let answer = api.send(&format!("{first}{post}{framing}{second}")).await;
        assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{framing:?}\n{answer}");
        assert!(!answer.contains("smuggled"), "{framing:?}\n{answer}");
    }
    // As it is written here, a request that follows is answered.
    let answer = api.send(&format!("{first}{post}Content-Length: 0\r\n\r\n{second}")).await;
    assert!(answer.matches("HTTP/1.1 ").count() == 3 && answer.contains("smuggled"), "{answer}");
}

#[tokio::test]
async fn a_stranger_whose_request_comes_drop_by_drop_is_not_waited_for() {
    let api = Api::of_cluster();
    let mut slow = api.connect().await;
    let head = "POST /v1/session HTTP/1.1\r\nHost: a\r\nfluvial-client: 1\r\nContent-Type: application/json\r\n";
    slow.write_all(format!("{head}Content-Length: 1000\r\n\r\n").as_bytes()).await.unwrap();
    let (begun, mut answer) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(60) {
        // A drop more each time that nothing comes back.
        match tokio::time::timeout(Duration::from_millis(200), slow.read_buf(&mut answer)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            Err(_) => drop(slow.write_all(b" ").await),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#"{"error":""#), "{answer}");
}
