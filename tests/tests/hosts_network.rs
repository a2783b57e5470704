//! The network of hosts that other tests run groups on: each fault does what it says and nothing else, and nothing is left.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fluvial_tests::child::{Process, Spec};
use fluvial_tests::client::unique;
use fluvial_tests::hosts::{Network, Place};
use rustix::process::Signal;

const PLACES: [Place; 5] = [Place::Test, Place::Broker, Place::Store, Place::Host(0), Place::Host(1)];
/// How long what must happen may take.
const MOST: Duration = Duration::from_secs(60);
/// How long what must not happen is waited for.
const NOTHING: Duration = Duration::from_millis(300);
/// Answers each line with the same, on port 7.
const ECHO: &str = "
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(('', 7), Echo)
print('listens', flush=True)
server.serve_forever()
";

fn within<T: Send>(network: &Network, place: Place, act: impl FnOnce() -> T + Send) -> T {
    if place == Place::Test { act() } else { network.within(place, act).unwrap() }
}

fn connect(network: &Network, from: Place, to: SocketAddr, most: Duration) -> std::io::Result<TcpStream> {
    within(network, from, || TcpStream::connect_timeout(&to, most))
}

fn python(network: &Network, place: Place, program: &str, env: Vec<(String, String)>) -> Process {
    let spec = Spec {
        name: "python3".to_owned(),
        program: "python3".into(),
        args: ["-c".into(), program.into()].into(),
        env,
        log: network.folder().join(unique("python")),
    };
    network.start(place, spec).unwrap()
}

/// A socket at each place, which sends datagrams to all others: what TCP sends waits for acknowledgements, and a cut in one
/// direction takes those.
struct Mesh {
    sockets: Vec<(Place, UdpSocket)>,
    token: u8,
}

impl Mesh {
    fn new(network: &Network) -> Self {
        let socket = |place| {
            let at = SocketAddr::from((network.address(place), 0));
            let socket = within(network, place, || UdpSocket::bind(at).unwrap());
            socket.set_nonblocking(true).unwrap();
            (place, socket)
        };
        Self { sockets: PLACES.into_iter().map(socket).collect(), token: 0 }
    }

    /// Sends something in each direction: it must arrive where `passes` says, and nowhere else.
    fn check(&mut self, what: &str, passes: impl Fn(Place, Place) -> bool) {
        self.token += 1;
        let mut expected = BTreeSet::new();
        for from in PLACES {
            expected.extend(PLACES.into_iter().filter(|to| from != *to && passes(from, *to)).map(|to| (from, to)));
        }
        let (start, mut arrived) = (Instant::now(), BTreeSet::new());
        while !arrived.is_superset(&expected) {
            let missing: Vec<_> = expected.difference(&arrived).collect();
            assert!(start.elapsed() < MOST, "{what}: nothing passes for {missing:?}");
            self.send();
            std::thread::sleep(Duration::from_millis(5));
            self.receive(&mut arrived);
        }
        std::thread::sleep(NOTHING);
        self.receive(&mut arrived);
        assert_eq!(arrived, expected, "{what}");
    }

    fn send(&self) {
        for (from, out) in &self.sockets {
            for (_, to) in self.sockets.iter().filter(|(to, _)| from != to) {
                out.send_to(&[self.token], to.local_addr().unwrap()).unwrap();
            }
        }
    }

    /// Between which places the newest token has come through.
    fn receive(&self, arrived: &mut BTreeSet<(Place, Place)>) {
        let place_of =
            |address| self.sockets.iter().find(|(_, socket)| socket.local_addr().unwrap() == address).unwrap().0;
        for (to, into) in &self.sockets {
            let mut token = [0];
            loop {
                match into.recv_from(&mut token) {
                    Ok((_, from)) if token == [self.token] => _ = arrived.insert((place_of(from), *to)),
                    Ok(_) => {}
                    Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
    }
}

#[test]
fn each_cut_cuts_what_it_says_and_nothing_else() {
    use Place::{Broker, Host, Store};
    let network = Network::new(2).unwrap();
    let mut mesh = Mesh::new(&network);
    mesh.check("nothing is cut", |_, _| true);
    let between = |one, other| move |from, to| ![(one, other), (other, one)].contains(&(from, to));
    for (one, other) in [(Host(0), Host(1)), (Host(0), Broker), (Host(1), Store)] {
        network.cut(one, other).unwrap();
        mesh.check(&format!("{one:?} and {other:?} are cut"), between(one, other));
        network.heal().unwrap();
        mesh.check("healed", |_, _| true);
    }
    network.cut_one_way(Host(1), Host(0)).unwrap();
    mesh.check("one way", |from, to| (from, to) != (Host(1), Host(0)));
    network.cut(Host(1), Broker).unwrap();
    mesh.check("one way, and a cut besides", |from, to| {
        (from, to) != (Host(1), Host(0)) && between(Host(1), Broker)(from, to)
    });
    network.heal().unwrap();
    network.isolate(Host(0)).unwrap();
    mesh.check("isolated", |from, to| from != Host(0) && to != Host(0));
    network.heal().unwrap();
    mesh.check("healed", |_, _| true);
}

#[test]
fn new_connections_are_cut_without_an_answer() {
    let network = Network::new(2).unwrap();
    let (one, other) = (Place::Host(0), Place::Host(1));
    let _echo = listening(&network, other);
    let to = SocketAddr::from((network.address(other), 7));
    connect(&network, one, to, MOST).unwrap();
    for cut in [Network::cut, Network::cut_one_way, |network: &Network, _, other| network.isolate(other)] {
        cut(&network, one, other).unwrap();
        assert_eq!(connect(&network, one, to, NOTHING).unwrap_err().kind(), ErrorKind::TimedOut);
        network.heal().unwrap();
        connect(&network, one, to, MOST).unwrap();
    }
}

fn listening(network: &Network, place: Place) -> Process {
    let echo = python(network, place, ECHO, Vec::new());
    echo.wait_for_line("listens", MOST).unwrap();
    echo
}

/// Whether a line comes back within so long.
fn echoes(stream: &mut TcpStream, most: Duration) -> std::io::Result<()> {
    stream.set_read_timeout(Some(most))?;
    stream.write_all(b"x\n")?;
    match stream.read(&mut [0; 2])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[test]
fn a_host_that_loses_its_power_says_nothing_and_comes_back_empty() {
    let network = Network::new(2).unwrap();
    let (host, other) = (Place::Host(0), Place::Host(1));
    let to = SocketAddr::from((network.address(host), 7));
    let echo = listening(&network, host);
    let other_echo = listening(&network, other);
    let mut stream = connect(&network, other, to, MOST).unwrap();
    echoes(&mut stream, MOST).unwrap();
    assert_eq!(network.pids(host).unwrap(), [echo.pid()]);

    network.cut_power(host).unwrap();
    assert!(echo.wait(MOST).is_ok());
    // Neither a reset nor an end: as far as the other host can tell, it may come back.
    assert_eq!(echoes(&mut stream, NOTHING).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(network.pids(other).unwrap(), [other_echo.pid()]);
    assert!(network.pids(host).is_err());

    network.restore_power(host).unwrap();
    assert_eq!(network.pids(host).unwrap(), [0; 0]);
    // It knows nothing of the connection, and says so.
    let refused = connect(&network, other, to, MOST).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let _echo = listening(&network, host);
    echoes(&mut connect(&network, other, to, MOST).unwrap(), MOST).unwrap();
}

#[test]
fn a_host_that_is_stopped_answers_when_it_goes_on() {
    let network = Network::new(1).unwrap();
    let host = Place::Host(0);
    let _echo = listening(&network, host);
    let to = SocketAddr::from((network.address(host), 7));
    let mut stream = connect(&network, Place::Test, to, MOST).unwrap();
    echoes(&mut stream, MOST).unwrap();
    network.signal(host, Signal::STOP).unwrap();
    assert_eq!(echoes(&mut stream, NOTHING).unwrap_err().kind(), ErrorKind::WouldBlock);
    network.signal(host, Signal::CONT).unwrap();
    stream.set_read_timeout(Some(MOST)).unwrap();
    assert!(stream.read(&mut [0; 2]).unwrap() > 0);
}

#[test]
fn a_link_loses_packets_or_takes_its_time() {
    let network = Network::new(2).unwrap();
    let (host, other) = (Place::Host(0), Place::Host(1));
    assert!((300..700).contains(&{
        network.lose(host, 50).unwrap();
        datagrams(&network, Place::Test, host)
    }));
    assert_eq!(datagrams(&network, Place::Test, other), 1000);
    network.heal().unwrap();
    assert_eq!(datagrams(&network, Place::Test, host), 1000);

    let _echoes = [listening(&network, host), listening(&network, other)];
    let round_trip = |place| {
        let to = SocketAddr::from((network.address(place), 7));
        let mut stream = connect(&network, Place::Broker, to, MOST).unwrap();
        (0..5)
            .map(|_| {
                let start = Instant::now();
                echoes(&mut stream, MOST).unwrap();
                start.elapsed()
            })
            .min()
            .unwrap()
    };
    let before = round_trip(host);
    network.delay(host, Duration::from_millis(50)).unwrap();
    let (slow, other) = (round_trip(host), round_trip(other));
    assert!(slow >= Duration::from_millis(100) && other < slow / 2, "{before:?}, then {slow:?}, the other {other:?}");
    // Much at once goes through, too, in segments of the size that a wire takes.
    let mut stream = connect(&network, Place::Broker, SocketAddr::from((network.address(host), 7)), MOST).unwrap();
    let much = vec![b'x'; 1 << 20];
    let mut back = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(&much).unwrap();
            stream.write_all(b"\n").unwrap();
        });
        back.set_read_timeout(Some(MOST)).unwrap();
        let mut answer = vec![0; much.len() + 1];
        back.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b"x\n"));
    });
}

/// How many of 1000 datagrams arrive.
fn datagrams(network: &Network, from: Place, to: Place) -> usize {
    let at = SocketAddr::from((network.address(to), 0));
    let into = within(network, to, || UdpSocket::bind(at).unwrap());
    let here = SocketAddr::from((network.address(from), 0));
    let out = within(network, from, || UdpSocket::bind(here).unwrap());
    into.set_read_timeout(Some(NOTHING)).unwrap();
    let mut count = 0;
    for _ in 0..100 {
        // Ten at once: no buffer overflows.
        for _ in 0..10 {
            out.send_to(b"x", into.local_addr().unwrap()).unwrap();
        }
        into.set_nonblocking(true).unwrap();
        std::thread::yield_now();
        while into.recv(&mut [0; 1]).is_ok() {
            count += 1;
        }
    }
    into.set_nonblocking(false).unwrap();
    while into.recv(&mut [0; 1]).is_ok() {
        count += 1;
    }
    count
}

#[test]
fn the_clock_of_a_host_is_ahead_and_steps() {
    let network = Network::new(1).unwrap();
    let clock = network.clock(Place::Host(0)).unwrap();
    clock.shift(300).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let program = format!(
        "
import select, time
steady = time.monotonic()
ahead = time.time() - {now}
print('ahead' if 290 < ahead < 400 else ahead, flush=True)
while time.time() - {now} < 7200:
    select.select([], [], [], 0.01)
print('stepped after', 'no time' if time.monotonic() - steady < 600 else 'hours', flush=True)
"
    );
    let process = python(&network, Place::Host(0), &program, clock.environment());
    process.wait_for_line("ahead", MOST).unwrap();
    clock.shift(3 * 3600).unwrap();
    process.wait_for_line("stepped after no time", MOST).unwrap();
}

/// What a test that is killed runs.
const HELD: &str = "FLUVIAL_NETWORK_IS_HELD";

#[test]
fn nothing_is_left_of_a_network_whose_test_was_killed() {
    if std::env::var_os(HELD).is_some() {
        let network = Network::new(1).unwrap();
        let sleeper = python(&network, Place::Host(0), "import time; time.sleep(1000)", Vec::new());
        println!("held {} {}", sleeper.pid(), network.address(Place::Test));
        sleeper.wait(Duration::from_secs(1000)).unwrap();
    }
    let links = links();
    let mut held = Command::new(std::env::current_exe().unwrap());
    held.args(["--exact", "nothing_is_left_of_a_network_whose_test_was_killed", "--nocapture"]);
    let mut held = held.env(HELD, "1").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let said = std::io::BufReader::new(held.stdout.take().unwrap());
    let line = std::io::BufRead::lines(said).map(Result::unwrap).find(|line| line.contains("held ")).unwrap();
    let (_, said) = line.split_once("held ").unwrap();
    let (pid, address) = said.split_once(' ').unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists() && has(address));
    held.kill().unwrap();
    held.wait().unwrap();
    let start = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() || has(address) {
        assert!(start.elapsed() < MOST, "process {pid} or address {address} is left; links before: {links}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn links() -> String {
    let output = Command::new("ip").args(["-brief", "address"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this machine has an address.
fn has(address: &str) -> bool {
    links().contains(&format!("{address}/"))
}
