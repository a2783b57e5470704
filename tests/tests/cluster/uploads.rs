//! Binaries on their way to a cluster.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;

use crate::nodes::{Cluster, fluvial, own_args};

/// A proxy before a node that cuts a connection once, when so many bytes have passed to the node.
struct Cutting {
    address: String,
    passed: Arc<AtomicU64>,
}

impl Cutting {
    fn before(node: &str, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (passed, node) = (Arc::new(AtomicU64::new(0)), node.to_owned());
        let counted = Arc::clone(&passed);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (node, counted) = (TcpStream::connect(&node), Arc::clone(&counted));
                let Ok(node) = node else { continue };
                let (mut from, mut to) = (node.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                std::thread::spawn(move || pass(client, node, &counted, after));
            }
        });
        Self { address, passed }
    }
}

/// Passes on what a client sends.
fn pass(mut client: TcpStream, mut node: TcpStream, passed: &AtomicU64, after: u64) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = client.read(&mut bytes) {
        let before = passed.fetch_add(read as u64, Ordering::Relaxed);
        if before < after && before + read as u64 >= after || node.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // Closed by the other side already, if this fails.
    let _ = (client.shutdown(Shutdown::Both), node.shutdown(Shutdown::Both));
}

/// The most memory that a process has had, in bytes, as long as it is there.
fn most_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The binary of a job with zeros at its end, which is another one for each size.
fn padded(cluster: &Cluster, bytes: u64) -> std::path::PathBuf {
    let path = cluster.path("large");
    std::fs::copy(binary("orders").unwrap(), &path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + bytes).unwrap();
    path
}

#[test]
fn an_upload_that_is_cut_goes_on_where_it_was_and_nobody_holds_the_binary_in_memory() {
    const MIB: u64 = 1 << 20;
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let program = padded(&cluster, 200 * MIB);
    let bytes = program.metadata().unwrap().len();
    let proxy = Cutting::before(&cluster.api(), bytes / 2);
    let node = cluster.nodes.borrow()[&0].pid();
    let before = most_memory(node).unwrap();
    let mut command = Command::new(fluvial());
    command.args(["--addr", &proxy.address, "--cluster-key-file"]).arg(cluster.path("key"));
    command.arg("submit").arg(&program).args(["--name", stage.name(), "--"]).args(own_args(&stage));
    let mut submit = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut of_client = 0;
    while submit.try_wait().unwrap().is_none() {
        of_client = most_memory(submit.id()).unwrap_or_default().max(of_client);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let said = submit.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.contains(" runs"), "{out}{err}\n{}", cluster.logs());
    assert!(!err.contains("uploading"), "there is no terminal: {err}");
    let passed = proxy.passed.load(Ordering::Relaxed);
    assert!((bytes..bytes + bytes / 5).contains(&passed), "{} of {} MiB were sent", passed / MIB, bytes / MIB);
    let of_node = most_memory(node).unwrap();
    assert!(of_node < before + 100 * MIB, "the node had {} MiB, before {} MiB", of_node / MIB, before / MIB);
    assert!((1..100 * MIB).contains(&of_client), "the command had {} MiB", of_client / MIB);
    stage.feed(0..100).unwrap();
    cluster.wait_until_right(&stage);
    let uploads = cluster.path("cache-0/uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0, "what is whole is left");
}

#[test]
fn a_terminal_shows_how_far_an_upload_is_and_what_is_too_large_is_refused_before_it_is_sent() {
    let cluster = Cluster::start(1);
    let program = padded(&cluster, 64 << 20);
    let quoted = |path: &Path| format!("'{}'", path.display());
    let submit = |program: &Path, api: &str| {
        let (fluvial, key, program) = (quoted(&fluvial()), quoted(&cluster.path("key")), quoted(program));
        let line = format!("{fluvial} --addr {api} --cluster-key-file {key} submit {program} --name a --detach -- --x");
        let said = Command::new("script").args(["-qec", &line, "/dev/null"]).env("NO_COLOR", "1").output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = submit(&program, &cluster.api());
    assert!(said.contains("uploading") && said.contains("MiB/s"), "{said}");
    let said = submit(&program, &cluster.api());
    assert!(!said.contains("MiB/s"), "it was uploaded twice: {said}");
    let proxy = Cutting::before(&cluster.api(), u64::MAX);
    let said = submit(&padded(&cluster, 2 << 30), &proxy.address);
    assert!(said.contains("the largest that the cluster takes"), "{said}");
    assert!(proxy.passed.load(Ordering::Relaxed) < 1 << 20);
}
