//! The server behind the front.

use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fluvial_kafka_apache::child::{Folder, Process, Spec};
use fluvial_kafka_apache::python;

use crate::Message;

/// What is installed, once, into a folder of its own.
const PACKAGES: [&str; 3] = ["moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];
/// How many objects a page of a list has.
const PAGE: &str = "7";
/// How long the server may take to begin.
const MOST: Duration = Duration::from_secs(60);
/// Any signature will do: the server does not check them.
const SIGNED: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// The environment of a program that is to use the store at `endpoint`.
#[must_use]
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    let pairs = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "TheSecretOfTheTest"),
        ("AWS_REGION", "us-east-1"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A running server. It holds its objects in memory, and ends with this.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    _folder: Folder,
    address: SocketAddr,
}

impl Server {
    /// Starts a server on a free port; its package is installed into the target folder once.
    ///
    /// # Errors
    /// Python is missing, the package cannot be installed, or the server does not begin.
    pub fn start() -> Result<Self> {
        let program = python::with("moto-5.2.5", &PACKAGES)?;
        let folder = Folder::new("fluvial-s3-")?;
        let log = folder.path().join("log");
        let process = Process::start(Spec {
            name: "moto".to_owned(),
            program,
            args: ["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"].map(Into::into).into(),
            env: vec![("MOTO_S3_DEFAULT_MAX_KEYS".to_owned(), PAGE.to_owned())],
            log: log.clone(),
        })?;
        process.raise_priority();
        process.wait_for_line("Running on http://127.0.0.1:", MOST)?;
        let said = std::fs::read_to_string(&log)?;
        let port = said.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split(['\n', '\x1b']).next());
        let port = port.and_then(|port| port.trim().parse().ok()).context("moto said no port")?;
        Ok(Self { _process: process, _folder: folder, address: (Ipv4Addr::LOCALHOST, port).into() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The server refuses.
    pub fn make_bucket(&self, bucket: &str) -> Result<()> {
        self.ask("PUT", &format!("/{bucket}")).map(drop)
    }

    /// The objects of a bucket whose names begin with `prefix`, by their names.
    ///
    /// # Errors
    /// The server refuses.
    pub fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut objects = Vec::new();
        let mut from = String::new();
        loop {
            let page = self.ask("GET", &format!("/{bucket}?list-type=2&prefix={prefix}{from}"))?;
            let page = String::from_utf8(page)?;
            let names = page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            for (name, _) in names {
                objects.push((name.to_owned(), self.ask("GET", &format!("/{bucket}/{name}"))?));
            }
            let Some((_, next)) = page.split_once("<NextContinuationToken>") else { return Ok(objects) };
            let next = next.split('<').next().unwrap_or_default();
            from = format!("&continuation-token={next}");
        }
    }

    /// The object of this name, if it is there.
    ///
    /// # Errors
    /// The server refuses.
    pub fn object(&self, bucket: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.exchange("GET", &format!("/{bucket}/{name}"), &[])?;
        ensure!([200, 404].contains(&answer.status()), "{name}: {}", String::from_utf8_lossy(&answer.body));
        Ok((answer.status() == 200).then_some(answer.body))
    }

    /// Writes an object, or deletes it if there are no bytes.
    ///
    /// # Errors
    /// The server refuses.
    pub fn set_object(&self, bucket: &str, name: &str, bytes: Option<&[u8]>) -> Result<()> {
        let method = if bytes.is_some() { "PUT" } else { "DELETE" };
        let answer = self.exchange(method, &format!("/{bucket}/{name}"), bytes.unwrap_or_default())?;
        ensure!([200, 204].contains(&answer.status()), "{name}: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    }

    fn ask(&self, method: &str, target: &str) -> Result<Vec<u8>> {
        let answer = self.exchange(method, target, &[])?;
        ensure!(answer.status() == 200, "{method} {target}: {}", String::from_utf8_lossy(&answer.body));
        Ok(answer.body)
    }

    fn exchange(&self, method: &str, target: &str, body: &[u8]) -> Result<Message> {
        let head = [("Host", "127.0.0.1"), ("Connection", "close"), ("Authorization", SIGNED)];
        let head = head.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let request = Message { start: format!("{method} {target} HTTP/1.1"), head, body: body.to_vec() };
        exchange(self.address, &request)
    }
}

/// Sends a request on a connection of its own, and reads the answer.
pub(crate) fn exchange(server: SocketAddr, request: &Message) -> Result<Message> {
    let mut connection = TcpStream::connect(server).context("connect to moto")?;
    connection.set_nodelay(true)?;
    request.write(&mut connection)?;
    let answer = Message::read(&mut BufReader::new(connection), request.method() != "HEAD")?;
    answer.context("moto closed the connection without an answer")
}
