//! What stands in front of the nodes of a cluster, as a load balancer does: one address, behind which any node answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One address for all nodes. It can also answer for a node that has tokens.
pub(crate) struct Front {
    pub(crate) address: String,
    behind: Arc<Mutex<Behind>>,
}

#[derive(Clone)]
struct Behind {
    node: String,
    tokens: bool,
}

impl Front {
    /// A front before the API of a node.
    pub(crate) fn before(node: &str) -> Self {
        Self::with(node, false)
    }

    /// The same, with sessions: the tokens `viewer` and `operator` begin one of that role.
    pub(crate) fn with_tokens(node: &str) -> Self {
        Self::with(node, true)
    }

    fn with(node: &str, tokens: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind = Arc::new(Mutex::new(Behind { node: node.to_owned(), tokens }));
        let shared = Arc::clone(&behind);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let behind = shared.lock().unwrap().clone();
                // A client or a node that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(behind.serve(client)));
            }
        });
        Self { address, behind }
    }

    /// From now on another node answers.
    pub(crate) fn turn_to(&self, node: &str) {
        self.behind.lock().unwrap().node = node.to_owned();
    }
}

impl Behind {
    /// Serves the one request of a connection.
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let (mut head, mut length, mut role) = (String::new(), 0, None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(bytes) = lower.strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap_or(0);
            }
            if let Some(cookies) = lower.strip_prefix("cookie:") {
                role = ["viewer", "operator"].into_iter().find(|role| cookies.contains(&format!("session={role}")));
            }
            if line == "\r\n" {
                break;
            }
            if !lower.starts_with("connection:") {
                head.push_str(&line);
            }
        }
        let mut content = vec![0; length];
        reader.read_exact(&mut content)?;
        if self.tokens {
            let request = head.split("HTTP/").next().unwrap_or_default().trim().to_owned();
            if let Some(answer) = session(&request, &content, role) {
                return client.write_all(answer.as_bytes());
            }
        }
        let mut node = TcpStream::connect(&self.node)?;
        write!(node, "{head}Connection: close\r\n\r\n")?;
        node.write_all(&content)?;
        std::io::copy(&mut node, &mut client)?;
        client.shutdown(std::net::Shutdown::Both)
    }
}

/// What a node with tokens answers, where it differs.
fn session(request: &str, content: &[u8], role: Option<&str>) -> Option<String> {
    let answer = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    let cookie = |role: &str| format!("Set-Cookie: session={role}; Path=/; HttpOnly; SameSite=Strict\r\n");
    match (request, role) {
        ("POST /v1/session", _) => {
            let wanted: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
            match wanted["token"].as_str() {
                Some(role @ ("viewer" | "operator")) => answer("200 OK", &cookie(role), "{}"),
                _ => answer("401 Unauthorized", "", r#"{"error":"no such token"}"#),
            }
        }
        ("DELETE /v1/session", _) => answer("200 OK", &cookie(""), "{}"),
        ("GET /v1/session", Some(role)) => answer("200 OK", "", &format!(r#"{{"name":"ann","role":"{role}"}}"#)),
        (request, None) if request.contains(" /v1/") => answer("401 Unauthorized", "", r#"{"error":"sign in"}"#),
        _ => None,
    }
}
