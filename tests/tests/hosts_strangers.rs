//! Whatever connects to the ports of a group, and whatever its store and its clocks do, the job runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluvial_tests::apache::certificates::{Authority, Identity, Validity};
use fluvial_tests::group::{GROUP_MOST, Group, Kafka, Siege, Store};
use fluvial_tests::hosts::Place;
use fluvial_tests::s3::{Fault, Message};
use fluvial_tests::subject::Subject;

fn any(_: &Message) -> bool {
    true
}

/// Connections that say nothing, and stay.
#[derive(Default)]
struct Silent(Vec<TcpStream>);

impl Silent {
    fn add(&mut self, at: SocketAddr) {
        // The processes of an attempt close their listeners when they have met.
        self.0.extend((0..10).filter_map(|_| TcpStream::connect_timeout(&at, GROUP_MOST).ok()));
    }
}

/// What a port answers to these bytes.
fn answer(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stranger = TcpStream::connect_timeout(&at, GROUP_MOST).unwrap();
    stranger.set_read_timeout(Some(GROUP_MOST)).unwrap();
    // It may be hung up on before all of it is written.
    let _ = stranger.write_all(bytes);
    let _ = stranger.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    let _ = stranger.read_to_end(&mut said);
    said
}

/// What a port says inside of TLS to a stranger who shows this certificate, and says hello.
fn answer_to(identity: &Identity, at: SocketAddr) -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &at.to_string()]);
    openssl.arg("-cert").arg(&identity.certificate).arg("-key").arg(&identity.key);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut openssl = openssl.spawn().unwrap();
    // It ends, or is told so, once it has heard that it is not welcome.
    let mut hello = openssl.stdin.take().unwrap();
    let _ = hello.write_all(b"{\"question\":{\"job\":\"orders\",\"whole\":true}}\n");
    let mut said = Vec::new();
    openssl.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    openssl.wait().unwrap();
    drop(hello);
    said
}

/// A port in front of a copy that writes down what comes in, one entry for each connection.
fn recorder(group: &Group, host: u8, to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let at = SocketAddr::from((group.network().address(Place::Host(host)), 0));
    let listener = group.network().within(Place::Host(host), || TcpListener::bind(at)).unwrap().unwrap();
    let (address, recorded) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let records = Arc::clone(&recorded);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Ok(mut server) = TcpStream::connect(to) else { continue };
            let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                back.shutdown(std::net::Shutdown::Both)
            });
            let records = Arc::clone(&records);
            std::thread::spawn(move || {
                let number = {
                    let mut records = records.lock().unwrap();
                    records.push(Vec::new());
                    records.len() - 1
                };
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    records.lock().unwrap()[number].extend_from_slice(&buffer[..read]);
                    if server.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, recorded)
}

#[test]
fn strangers_on_every_port_delay_nobody_and_learn_nothing() {
    let group = Group::new(3, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    let http = "--http 0.0.0.0:7480";
    // Whatever is said to the last copy is written down on its way.
    let behind = group.port(2);
    let (front, recorded) = recorder(&group, 2, behind);
    group.start(0, http).unwrap();
    group.start(1, http).unwrap();
    group.start_advertised(2, front, http).unwrap();
    let siege = Siege::feed(&group, Subject::Orders, 5).unwrap();
    group.wait_until("attempt on three", || Ok(group.record().is_some_and(|r| r.places.len() == 3))).unwrap();
    group.wait_for_more("of three copies").unwrap();
    let before = group.record().unwrap();
    let authority = Authority::new(group.network().folder().join("foreign")).unwrap();
    let foreign = authority.sign("stranger", "DNS:stranger", Validity::Valid).unwrap();
    let random: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let conversations: Vec<_> = recorded.lock().unwrap().iter().filter(|said| said.len() > 1000).cloned().collect();
    assert!(conversations.len() >= 2, "the others have spoken to the last copy");
    let mut silent = Silent::default();
    for host in group.hosts() {
        let ports = listening(&group, host);
        assert!(ports.contains(&7401) && ports.contains(&7480), "{ports:?}");
        for port in ports {
            let at = SocketAddr::from((group.network().address(Place::Host(host)), port));
            silent.add(at);
            for bytes in conversations.iter().chain([&random]) {
                // A TLS server greets whoever says hello, and then finds that it is nobody it knows.
                let said = answer(at, bytes).len();
                assert!(said < 4096, "port {port} answers strangers with {said} bytes");
            }
            let said = answer_to(&foreign, at);
            assert!(said.is_empty(), "port {port} says {:?} to a stranger", String::from_utf8_lossy(&said));
        }
    }
    let after = group.record().unwrap();
    assert_eq!((after.term, after.attempt), (before.term, before.attempt), "{}", group.logs());
    // While the processes of an attempt look for each other, strangers come to the ports that they open: for so short a time
    // that some are missed, and another attempt is needed.
    let mut met: BTreeSet<SocketAddr> = BTreeSet::new();
    for _ in 0..20 {
        let (start, before) = (Instant::now(), group.record().unwrap());
        assert!(group.copy(0).unwrap().job().kill_peer(0).unwrap());
        let mut meet = || {
            for host in group.hosts() {
                for port in listening(&group, host) {
                    let at = SocketAddr::from((group.network().address(Place::Host(host)), port));
                    if at != front && ![7401, 7480].contains(&port) && met.insert(at) {
                        silent.add(at);
                    }
                }
            }
            met.len() >= 3
        };
        let next = || group.record().unwrap().attempt > before.attempt;
        let soon = Duration::from_secs(5);
        group.wait_until("next attempt", || Ok((meet() || start.elapsed() > soon) && next())).unwrap();
        group.wait_for_more("beside strangers").unwrap();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        if met.len() >= 3 {
            break;
        }
    }
    assert!(met.len() >= 3, "{met:?}");
    drop(silent);
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

/// The ports on which a host's copy and its processes listen for others.
fn listening(group: &Group, host: u8) -> Vec<u16> {
    let pid = group.copy(host).unwrap().process().pid();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let own = u32::from_ne_bytes(group.network().address(Place::Host(host)).octets());
    let mut ports: Vec<u16> = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (address, port) = fields[1].rsplit_once(':').unwrap();
        let address = u32::from_str_radix(address, 16).unwrap();
        // 0A is "listens".
        if fields[3] == "0A" && [own, 0].contains(&address) {
            ports.push(u16::from_str_radix(port, 16).unwrap());
        }
    }
    ports
}

#[test]
fn a_store_that_is_slow_and_throttles_makes_a_group_slow_and_nothing_else() {
    let group = Group::new(2, Subject::Orders, &Kafka::Embedded, Store::Bucket).unwrap();
    let siege = Siege::start(&group, Subject::Orders, 7, "").unwrap();
    let before = group.record().unwrap();
    let front = group.stage().front();
    for fault in [Fault::Delay(Duration::from_millis(300)), Fault::Refuse(503, "SlowDown"), Fault::LoseAnswer] {
        let times = if matches!(fault, Fault::Delay(_)) { usize::MAX } else { 30 };
        front.arm(any, fault, times);
        front.wait_until_met(30, GROUP_MOST).unwrap();
        group.wait_for_more(&format!("with {fault:?}")).unwrap();
        front.calm();
    }
    group.wait_for_more("when the store is well again").unwrap();
    let after = group.record().unwrap();
    assert_eq!((after.term, after.attempt), (before.term, before.attempt), "{}", group.logs());
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn copies_are_refused_whose_store_lies_or_is_another_one() {
    let group = Group::new(2, Subject::Orders, &Kafka::Embedded, Store::Bucket).unwrap();
    group.stage().front().arm(Message::creates, Fault::Unconditional, usize::MAX);
    let refused = group.start(0, "").unwrap().finish(GROUP_MOST).unwrap();
    refused.failed_with(2, &["ignores the condition of a conditional create"]).unwrap();
    group.stage().front().calm();

    // Two folders, as where a path on each host's own disk was given.
    let group = Group::new(2, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    group.start(0, "").unwrap();
    group.stage().feed(0..100).unwrap();
    group.wait_for_output(0, "of one copy").unwrap();
    // The other one is a copy of the first, so that it names the copy that coordinates.
    let (store, other) = (group.stage().store(), group.stage().folder().join("another-store"));
    assert!(std::process::Command::new("cp").arg("-r").arg(&store).arg(&other).status().unwrap().success());
    let refused = group.start_with_store(1, &other).unwrap().finish(GROUP_MOST).unwrap();
    refused.failed_with(2, &[&store.display().to_string(), &other.display().to_string()]).unwrap();
    group.stop_all().unwrap();
}

#[test]
fn an_address_where_connections_are_taken_and_nobody_answers_is_a_lost_node() {
    let group = Group::new(3, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    let siege = Siege::start(&group, Subject::Orders, 9, "").unwrap();
    let coordinator = group.coordinator().unwrap();
    let others: Vec<u8> = group.hosts().filter(|host| *host != coordinator).collect();
    group.copy(coordinator).unwrap().job().kill_all().unwrap();
    // A proxy in front of the host goes on taking connections.
    let at = SocketAddr::from((group.network().address(Place::Host(coordinator)), 7401));
    let proxy = group.network().within(Place::Host(coordinator), || TcpListener::bind(at)).unwrap().unwrap();
    let held = std::thread::spawn(move || proxy.incoming().take(200).filter_map(Result::ok).collect::<Vec<_>>());
    group.wait_until_on(&others).unwrap();
    drop(held);
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn hosts_whose_clocks_are_apart_and_step_run_the_job() {
    let group = Group::new(3, Subject::Bank, &Kafka::Embedded, Store::Folder).unwrap();
    let clocks: Vec<_> = group.hosts().map(|host| group.network().clock(Place::Host(host)).unwrap()).collect();
    clocks[1].shift(300).unwrap();
    clocks[2].shift(-300).unwrap();
    for (host, clock) in group.hosts().zip(&clocks) {
        group.start_in(host, &clock.environment(), "").unwrap();
    }
    let siege = Siege::feed(&group, Subject::Bank, 11).unwrap();
    group.wait_until_on(&[0, 1, 2]).unwrap();
    // A follower's clock steps, then the coordinator's, back and forth. Kafka takes no timestamp that is an hour ahead of its
    // own clock, so none is.
    let coordinator = usize::from(group.coordinator().unwrap());
    for (host, hours) in [((coordinator + 1) % 3, -5), ((coordinator + 1) % 3, 0), (coordinator, -3), (coordinator, 0)]
    {
        clocks[host].shift(hours * 3600).unwrap();
        // Whatever the step interrupts goes on.
        let much = group.output().records() + 2000;
        group.wait_for_output(much, &format!("with the clock of host {host} at {hours} hours")).unwrap();
    }
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}
