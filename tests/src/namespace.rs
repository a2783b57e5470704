//! A host of its own for a job: a network namespace with one link to the test, whose packets can be made to vanish.
//!
//! ```text
//!   test, broker (10.x.y.1) ◄── veth pair ──► namespace (10.x.y.2): job; nftables in it
//! ```
//!
//! The namespace lives as long as the process that was started in it first, which ends with the test, and takes the link
//! with it. Needs root, and Debian's packages iproute2, nftables and util-linux; `tests/prepare` installs them.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt as _;

use crate::child::{Folder, Process, Spec};

const CURE: &str = "a network namespace of its own is needed: run as root (or with CAP_NET_ADMIN and CAP_SYS_ADMIN), with \
                    iproute2, nftables and util-linux installed (the script tests/prepare does it)";

/// A network namespace and its link.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
    outside: Ipv4Addr,
    _folder: Folder,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// It may not be made here, or a program is missing; the error says what is needed.
    pub fn new() -> Result<Self> {
        Self::make().context(CURE)
    }

    fn make() -> Result<Self> {
        let folder = Folder::new("fluvial-namespace-")?;
        // It says so when it is in its namespace.
        let script = "echo inside; exec sleep infinity";
        let holder = Process::start(Spec {
            name: "the holder of a network namespace".to_owned(),
            program: "unshare".into(),
            args: ["--net", "sh", "-c", script].map(Into::into).into(),
            env: Vec::new(),
            log: folder.path().join("log"),
        })?;
        holder.wait_for_line("inside", std::time::Duration::from_secs(20))?;
        let (network, unique) = (rand::rng().random_range(0..=u16::MAX), rand::rng().random_range(0..=u32::MAX));
        let [high, low] = network.to_be_bytes();
        let address = |last| Ipv4Addr::new(10, high, low, last);
        let namespace = Self { holder, outside: address(1), _folder: folder };
        let (here, there) = (format!("fv{unique:08x}a"), format!("fv{unique:08x}b"));
        let pid = namespace.holder.pid().to_string();
        run(&["ip", "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &pid], "")?;
        run(&["ip", "addr", "add", &format!("{}/30", address(1)), "dev", &here], "")?;
        run(&["ip", "link", "set", &here, "up"], "")?;
        namespace.inside(&["ip", "addr", "add", &format!("{}/30", address(2)), "dev", &there], "")?;
        namespace.inside(&["ip", "link", "set", &there, "up"], "")?;
        // The processes of a job talk over the loopback interface.
        namespace.inside(&["ip", "link", "set", "lo", "up"], "")?;
        Ok(namespace)
    }

    /// The test's end of the link: where a broker has to listen.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// What starts a program inside; the program follows.
    #[must_use]
    pub fn launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.pid())]
    }

    /// From now on every packet of the connections to `to` that are established vanishes, in both directions, and neither
    /// end is told; new connections work. Returns how many there were.
    ///
    /// # Errors
    /// The rules cannot be set.
    pub fn drop_established(&self, to: SocketAddrV4) -> Result<usize> {
        let ports: Vec<String> = self.ports(to)?.iter().map(u16::to_string).collect();
        ensure!(!ports.is_empty(), "there is no connection to {to}");
        let (ports, port) = (ports.join(", "), to.port());
        let rules = format!(
            "table inet dropped {{
                 chain out {{ type filter hook output priority 0; tcp sport {{ {ports} }} tcp dport {port} drop; }}
                 chain in {{ type filter hook input priority 0; tcp dport {{ {ports} }} tcp sport {port} drop; }}
             }}"
        );
        self.inside(&["nft", "-f", "-"], &rules)?;
        Ok(ports.split(',').count())
    }

    /// The local ports of the connections to `to` that are established.
    fn ports(&self, to: SocketAddrV4) -> Result<Vec<u16>> {
        let path = PathBuf::from(format!("/proc/{}/net/tcp", self.holder.pid()));
        let table = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // Addresses stand there as the machine has them in memory, in hexadecimal digits; 01 is "established".
        let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(to.ip().octets()), to.port());
        let local = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, of, state) = (fields.next()?, fields.next()?, fields.next()?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (of == remote && state == "01").then_some(port)
        };
        Ok(table.lines().filter_map(local).collect())
    }

    fn inside(&self, words: &[&str], input: &str) -> Result<()> {
        let launcher = self.launcher();
        let all: Vec<&str> = launcher.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(&all, input)
    }
}

fn run(words: &[&str], input: &str) -> Result<()> {
    let what = words.join(" ");
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {what}"))?;
    child.stdin.take().context("the standard input is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output().with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
