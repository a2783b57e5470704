//! Answers without an end.

use super::*;

/// Begins to read the events of the cluster with a token.
async fn events(api: &Api, token: &str) -> TlsStream<TcpStream> {
    let (mut connection, mut answer) = (api.connect().await, Vec::new());
    let head =
        format!("GET /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    while !answer.windows(5).any(|part| part == b"data:") {
        let read = tokio::time::timeout(LONG, connection.read_buf(&mut answer)).await.expect("it answers");
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    connection
}

#[tokio::test]
async fn events_end_when_their_token_is_revoked_or_has_expired_and_no_other_ones() {
    let api = Api::of_cluster();
    let valid = api.token("valid", Role::Viewer).await;
    let mut goes_on = events(&api, &valid).await;
    let revoked = api.token("revoked", Role::Viewer).await;
    let new = NewToken { name: "short".to_owned(), role: Role::Viewer, expires_s: Some(3) };
    let (_, created) = api.with_token(&api.root, "POST", "/v1/tokens", &json!(new)).await;
    let short = serde_json::from_str::<CreatedToken>(&created).unwrap().token;
    let (mut of_revoked, mut of_short) = (events(&api, &revoked).await, events(&api, &short).await);
    assert_eq!(api.with_token(&api.root, "DELETE", "/v1/tokens/revoked", &Value::Null).await.0, 200);
    for (what, stream) in [("revoked", &mut of_revoked), ("expired", &mut of_short)] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
        // It may be cut without a word of TLS.
        let _ = ended.unwrap_or_else(|_| panic!("a stream of a token that was {what} goes on"));
    }
    let mut more = [0; 1024];
    match tokio::time::timeout(Duration::from_millis(100), goes_on.read(&mut more)).await {
        Err(_) => {}
        Ok(read) => assert!(read.unwrap() > 0, "a stream of a valid token has ended"),
    }
}
