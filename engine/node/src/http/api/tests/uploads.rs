//! Uploads, as clients make them that fail in the middle.

use super::*;
use crate::elf::made_up;
use crate::group::hash;
use crate::uploads::Progress;

impl Api {
    /// Sends a request with bytes as its content, of which perhaps only a part is sent. Returns the status, if the node answers.
    async fn send_content(&self, head: &str, length: usize, content: &[u8]) -> (u16, String) {
        let mut connection = self.connect().await;
        let (token, mut answer) = (&self.root, Vec::new());
        let head = format!("{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n");
        // Whoever names the range names it before.
        let (line, range) = head.split_once(" RANGE ").map_or((head.clone(), String::new()), |(line, rest)| {
            let (range, rest) = rest.split_once(" HTTP").unwrap();
            (format!("{line} HTTP{rest}"), format!("Content-Range: bytes {range}\r\n"))
        });
        connection.write_all(format!("{line}{range}Content-Length: {length}\r\n\r\n").as_bytes()).await.unwrap();
        connection.write_all(content).await.unwrap();
        connection.flush().await.unwrap();
        if content.len() < length {
            return (0, String::new());
        }
        let _ = tokio::time::timeout(LONG, connection.read_to_end(&mut answer)).await.expect("it answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (status_of(&answer), answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
    }

    async fn progress(&self, path: &str) -> Progress {
        let (status, said) = self.with_token(&self.root, "GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{said}");
        serde_json::from_str(&said).unwrap()
    }
}

#[tokio::test]
async fn an_upload_whose_connection_is_lost_goes_on_where_it_was_and_is_verified() {
    let api = Api::of_cluster();
    let program = made_up::program();
    let (name, all) = (hash(&program), program.len());
    let path = format!("/v1/uploads/{name}");
    assert_eq!(api.with_token(&api.root, "GET", &path, &Value::Null).await.0, 404);
    let (status, said) = api.with_token(&api.root, "PUT", &path, &json!({"bytes": 3_u64 << 30})).await;
    assert!(status == 413 && said.contains("the largest"), "{status} {said}");
    assert_eq!(api.with_token(&api.root, "PUT", &path, &json!({"bytes": all})).await.0, 200);
    let whole = |first: usize| format!("PATCH {path} RANGE {first}-{}/{all}", all - 1);
    api.send_content(&whole(0), all, &program[..100]).await;
    let until = Instant::now() + LONG;
    while api.progress(&path).await != (Progress { offset: 100, bytes: all as u64, busy: false }) {
        assert!(Instant::now() < until, "{:?}", api.progress(&path).await);
        tokio::task::yield_now().await;
    }
    let (status, said) = api.send_content(&whole(0), all, &program).await;
    assert!(status == 409 && said.contains("100 bytes have arrived"), "{status} {said}");
    let (status, said) = api.send_content(&format!("PATCH {path}"), 1, b"x").await;
    assert!(status == 400 && said.contains("Content-Range"), "{status} {said}");
    assert_eq!(api.with_token(&api.root, "POST", &path, &Value::Null).await.0, 409, "it is not whole");
    assert_eq!(api.send_content(&whole(100), all - 100, &program[100..]).await.0, 200);
    let (status, said) = api.with_token(&api.root, "POST", &path, &Value::Null).await;
    assert_eq!(status, 201, "{said}");
    let binary = format!("/v1/binaries/{name}");
    assert_eq!(api.with_token(&api.root, "GET", &binary, &Value::Null).await.0, 200);
    // The same under another name.
    let other = "0".repeat(64);
    let path = format!("/v1/uploads/{other}");
    assert_eq!(api.with_token(&api.root, "PUT", &path, &json!({"bytes": all})).await.0, 200);
    assert_eq!(api.send_content(&format!("PATCH {path} RANGE 0-{}/{all}", all - 1), all, &program).await.0, 200);
    let (status, said) = api.with_token(&api.root, "POST", &path, &Value::Null).await;
    assert!(status == 400 && said.contains("was damaged"), "{status} {said}");
    assert_eq!(api.with_token(&api.root, "GET", &format!("/v1/binaries/{other}"), &Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_binary_can_be_uploaded_by_one_request_that_says_its_size() {
    let api = Api::of_cluster();
    let program = made_up::program();
    let path = format!("/v1/binaries/{}", hash(&program));
    assert_eq!(api.send_content(&format!("PUT {path}"), program.len(), &program).await.0, 201);
    assert_eq!(api.with_token(&api.root, "GET", &path, &Value::Null).await.0, 200);
    let (status, said) = api.send_content(&format!("PUT {path}"), program.len() - 1, &program[1..]).await;
    assert!(status == 400 && said.contains("was damaged"), "{status} {said}");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n",
        api.root
    );
    assert_eq!(status_of(&api.send(&format!("{head}\r\n0\r\n\r\n")).await), 411);
}
