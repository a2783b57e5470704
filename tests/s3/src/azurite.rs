//! A server of Azure Blob Storage's protocol: npm's Azurite.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fluvial_kafka_apache::child::{Folder, Process, Spec};
use fluvial_kafka_apache::workspace;

use crate::Message;
use crate::server::exchange;

/// What is installed, once, into a folder of its own.
const VERSION: &str = "3.35.0";
/// How long the server may take to begin.
const MOST: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "devstoreaccount1";
/// Lets its bearer create containers. It is signed with the key of the emulator's account, which is the same everywhere.
const MAY_CREATE_CONTAINERS: &str = "sv=2020-08-04&ss=b&srt=c&sp=rwlc&se=2099-01-01T00:00:00Z\
                                     &sig=%2Bn9hV%2BnrbMz7RLu980JLNwzBopQDtZtlD6%2BehbQ33XE%3D";

/// A running server. It holds its objects in memory, and ends with this.
#[derive(Debug)]
pub struct Azurite {
    _process: Process,
    _folder: Folder,
    address: SocketAddr,
}

impl Azurite {
    /// Starts a server on a free port; its package is installed into the target folder once.
    ///
    /// # Errors
    /// npm is missing, the package cannot be installed, or the server does not begin.
    pub fn start() -> Result<Self> {
        let installed = workspace::made_once(&format!("azurite-{VERSION}"), |folder| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]);
            npm.arg("--prefix").arg(folder).arg(format!("azurite@{VERSION}"));
            let output = npm.output().context("run npm: apt-get install -y npm (the script tests/run does it)")?;
            ensure!(output.status.success(), "{npm:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })?;
        let folder = Folder::new("fluvial-azurite-")?;
        let log = folder.path().join("log");
        let options =
            "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --silent --disableTelemetry";
        let process = Process::start(Spec {
            name: "Azurite".to_owned(),
            program: installed.join("node_modules/.bin/azurite-blob"),
            args: options.split_whitespace().map(Into::into).collect(),
            env: Vec::new(),
            log: log.clone(),
        })?;
        process.wait_for_line("successfully listens on", MOST)?;
        let said = fs::read_to_string(&log)?;
        let address = said.split("listens on http://").nth(1).and_then(|rest| rest.lines().next());
        let address = address.and_then(|address| address.trim().parse().ok()).context("Azurite said no address")?;
        Ok(Self { _process: process, _folder: folder, address })
    }

    /// Makes a container.
    ///
    /// # Errors
    /// The server refuses.
    pub fn make_container(&self, container: &str) -> Result<()> {
        let start = format!("PUT /{ACCOUNT}/{container}?restype=container&{MAY_CREATE_CONTAINERS} HTTP/1.1");
        let head = [("Host", "127.0.0.1"), ("Connection", "close"), ("Content-Length", "0")];
        let head = head.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let answer = exchange(self.address, &Message { start, head, body: Vec::new() })?;
        ensure!(answer.status() == 201, "create {container}: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    }

    /// The environment of a program that is to use the store: that of object_store for the emulator.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let url = format!("http://{}", self.address);
        let pairs = [("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURITE_BLOB_STORAGE_URL", &url)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}
