//! chromedriver, and the session with it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fluvial_kafka_apache::child::{Folder, Process, Spec};
use serde_json::{Value, json};

/// How long chromedriver may take to begin.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long one answer may take; the start of the browser is one.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// The browser fetches nothing of its own, and has no features that need a screen or rights of a user.
const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// The driver with one session, which is one browser.
pub(super) struct Driver {
    address: SocketAddr,
    session: String,
    _process: Process,
    /// The browser's profile, and the driver's log.
    _folder: Folder,
}

impl Driver {
    pub(super) fn start() -> Result<Self> {
        let folder = Folder::new("fluvial-browser-")?;
        let log = folder.path().join("log");
        // The driver and its browser are in a process namespace of their own, which the kernel ends as a whole: the browser is the
        // driver's child, and would outlive a test that is killed.
        let process = Process::start(Spec {
            name: "chromedriver".to_owned(),
            program: "unshare".into(),
            args: ["--pid", "--fork", "--kill-child", "--mount-proc", "chromedriver", "--port=0"]
                .map(Into::into)
                .into(),
            env: vec![("HOME".to_owned(), folder.path().display().to_string())],
            log: log.clone(),
        })?;
        let begun = process.wait_for_line("was started successfully on port", STARTS_WITHIN);
        begun.context(
            "start chromedriver: apt-get install -y chromium chromium-driver (the script tests/run does it)",
        )?;
        let said = std::fs::read_to_string(&log)?;
        let port = said.split("successfully on port ").nth(1).and_then(|rest| rest.split('.').next());
        let port: u16 = port.and_then(|port| port.parse().ok()).context("chromedriver says no port")?;
        let mut driver =
            Self { address: ([127, 0, 0, 1], port).into(), session: String::new(), _process: process, _folder: folder };
        let mut arguments: Vec<_> = ARGUMENTS.iter().map(ToString::to_string).collect();
        arguments.push(format!("--user-data-dir={}", driver._folder.path().join("profile").display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            // The authority of a cluster is its own.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = driver.request("POST", "/session", Some(&wanted))?;
        driver.session = session["sessionId"].as_str().context("chromedriver begins no session")?.to_owned();
        Ok(driver)
    }

    /// The answer to a command of the session.
    pub(super) fn post(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.request("POST", &format!("/session/{}/{command}", self.session), Some(parameters))
            .with_context(|| format!("{command} in the browser"))
    }

    fn request(&self, method: &str, path: &str, content: Option<&Value>) -> Result<Value> {
        let content = content.map(Value::to_string).unwrap_or_default();
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(ANSWERS_WITHIN))?;
        write!(
            connection,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
            self.address,
            content.len()
        )?;
        // chromedriver does not close the connection, although it says so.
        let (mut reader, mut length) = (BufReader::new(connection), 0);
        for line in reader.by_ref().lines() {
            let line = line?.to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().context("the length of chromedriver's answer")?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let answered = || format!("chromedriver answers {}", String::from_utf8_lossy(&body));
        let mut answer: Value = serde_json::from_slice(&body).with_context(answered)?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => bail!("{error}: {}", value["message"].as_str().unwrap_or_default()),
            None => Ok(value),
        }
    }
}
