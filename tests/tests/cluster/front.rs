//! What stands in front of the nodes of a cluster, as a load balancer does: one address, behind which any node answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One address for all nodes.
pub(crate) struct Front {
    pub(crate) address: String,
    /// The node that answers.
    node: Arc<Mutex<String>>,
    /// The paths of the requests that have begun.
    asked: Arc<Mutex<Vec<String>>>,
    /// How many of them are being answered.
    open: Arc<AtomicUsize>,
}

impl Front {
    /// A front before the API of a node.
    pub(crate) fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = Arc::new(Mutex::new(node.to_owned()));
        let (asked, open) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (shared, paths, served) = (Arc::clone(&node), Arc::clone(&asked), Arc::clone(&open));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let node = shared.lock().unwrap().clone();
                let (paths, served) = (Arc::clone(&paths), Arc::clone(&served));
                // A client or a node that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(serve(&node, client, &paths, &served)));
            }
        });
        Self { address, node, asked, open }
    }

    /// The paths of all requests, in their order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many requests are being answered.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// From now on another node answers.
    pub(crate) fn turn_to(&self, node: &str) {
        node.clone_into(&mut self.node.lock().unwrap());
    }
}

/// Serves the one request of a connection.
fn serve(node: &str, client: TcpStream, paths: &Mutex<Vec<String>>, open: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(bytes) = lower.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    paths.lock().unwrap().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
    let mut content = vec![0; length];
    reader.read_exact(&mut content)?;
    open.fetch_add(1, Ordering::SeqCst);
    let passed = pass(node, client, &head, &content);
    open.fetch_sub(1, Ordering::SeqCst);
    passed
}

fn pass(node: &str, mut client: TcpStream, head: &str, content: &[u8]) -> std::io::Result<()> {
    let mut node = TcpStream::connect(node)?;
    write!(node, "{head}Connection: close\r\n\r\n")?;
    node.write_all(content)?;
    std::io::copy(&mut node, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}
