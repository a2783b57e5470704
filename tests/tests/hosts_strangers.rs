//! Whatever connects to the ports of a group, and whatever its store, its certificates and its clocks do, the job runs.
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
    // Whatever is said to the last copy is written down on its way.
    let behind = group.port(2);
    let (front, recorded) = recorder(&group, 2, behind);
    group.start(0, "").unwrap();
    group.start(1, "").unwrap();
    group.start_advertised(2, front, "").unwrap();
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
        assert!(lasting(&group, host).iter().all(|at| ports.contains(&at.port())), "{ports:?}");
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
                    if at != front && !lasting(&group, host).contains(&at) && met.insert(at) {
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

/// Where a host's copy itself listens, for other copies and for HTTP.
fn lasting(group: &Group, host: u8) -> [SocketAddr; 2] {
    [group.port(host), group.http(host)]
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
fn copies_are_refused_whose_store_lies_or_is_another_one_and_those_with_another_key() {
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
    // The other folder is empty, so the two copies never hear of each other. The second one finds that the output has the progress
    // of another store, and does not begin.
    let (empty, before) = (group.stage().folder().join("empty-store"), group.record());
    std::fs::create_dir(&empty).unwrap();
    let idle = group.start_with_store(1, &empty).unwrap();
    let of_another = "a job of the same name has written it from another store";
    idle.process().wait_for_line(of_another, GROUP_MOST).unwrap();
    group.wait_for_more_after(|| group.stage().feed(100..200).unwrap()).unwrap();
    idle.job().kill_all().unwrap();
    assert!(!idle.process().log_holds(" begins with "), "it has begun an attempt:\n{}", idle.process().log_end());
    assert_eq!(group.record(), before, "{}", group.logs());
    // The other one is a copy of the first, so that it names the copy that coordinates.
    let (store, other) = (group.stage().store(), group.stage().folder().join("another-store"));
    assert!(std::process::Command::new("cp").arg("-r").arg(&store).arg(&other).status().unwrap().success());
    let refused = group.start_with_store(1, &other).unwrap().finish(GROUP_MOST).unwrap();
    refused.failed_with(2, &[&store.display().to_string(), &other.display().to_string()]).unwrap();

    // A copy that cannot prove itself to the others hears nobody, and would take the job over.
    std::fs::write(group.network().folder().join("cluster-key"), "5a".repeat(32)).unwrap();
    let refused = group.start(1, "").unwrap().finish(GROUP_MOST).unwrap();
    refused.failed_with(2, &["the fingerprint", "give all copies the same --cluster-key-file"]).unwrap();
    assert_eq!(group.coordinator().unwrap(), 0);
    group.stop_all().unwrap();
}

/// What `openssl` says of the certificate that a port shows.
fn certificate_at(at: SocketAddr) -> String {
    let mut openssl = Command::new("timeout");
    openssl.args(["20", "openssl", "s_client", "-connect", &at.to_string()]).stdin(Stdio::null());
    String::from_utf8_lossy(&openssl.output().unwrap().stdout).into_owned()
}

#[test]
fn copies_with_certificates_of_their_own_go_on_when_these_are_renewed() {
    let group = Group::new(3, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    let folder = group.network().folder().join("certificates");
    let authority = Authority::new(&folder).unwrap();
    let ca = authority.certificate();
    let group = group.with_trust(move |host| {
        let file = |extension: &str| folder.join(format!("host-{host}.{extension}")).display().to_string();
        format!("--tls-cert {} --tls-key {} --tls-ca {}", file("pem"), file("key"), ca.display())
    });
    let sign = |host: u8, name: &str| {
        let address = format!("IP:{}", group.network().address(Place::Host(host)));
        authority.sign(&format!("{name}-{host}"), &address, Validity::Valid).unwrap()
    };
    let identities: Vec<_> = group.hosts().map(|host| sign(host, "host")).collect();
    group.start(0, "").unwrap();
    group.start(1, "").unwrap();
    let siege = Siege::feed(&group, Subject::Orders, 13).unwrap();
    group.wait_until_on(&[0, 1]).unwrap();
    let before = group.record().unwrap();
    for (host, identity) in group.hosts().zip(&identities).take(2) {
        assert!(certificate_at(group.port(host)).contains(&format!("host-{host}")));
        let renewed = sign(host, "renewed");
        std::fs::rename(&renewed.key, &identity.key).unwrap();
        std::fs::rename(&renewed.certificate, &identity.certificate).unwrap();
        let name = format!("renewed-{host}");
        group.wait_until("renewed certificate", || Ok(certificate_at(group.port(host)).contains(&name))).unwrap();
    }
    group.wait_for_more("with renewed certificates").unwrap();
    let after = group.record().unwrap();
    assert_eq!((after.term, after.attempt), (before.term, before.attempt), "{}", group.logs());
    // The others have to connect with this copy, and it with them.
    group.start(2, "").unwrap();
    group.wait_until_on(&[0, 1, 2]).unwrap();
    let status = group.status(Place::Host(2)).unwrap();
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3), "{status}");
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn copies_talk_in_clear_only_where_they_are_told_to() {
    let group = Group::new(2, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    let refused = group.stage().start("--join --listen 0.0.0.0:0").unwrap().finish(GROUP_MOST).unwrap();
    let named = ["0.0.0.0", "--cluster-key-file", "--tls-cert", "--tls-key", "--tls-ca", "--insecure"];
    refused.failed_with(2, &named).unwrap();

    let group = group.with_trust(|_| "--insecure".to_owned());
    let siege = Siege::start(&group, Subject::Orders, 15, "").unwrap();
    let status = group.status(Place::Host(1)).unwrap();
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2), "{status}");
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn an_address_where_connections_are_taken_and_nobody_answers_is_a_lost_node() {
    let group = Group::new(3, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    let siege = Siege::start(&group, Subject::Orders, 9, "").unwrap();
    let coordinator = group.coordinator().unwrap();
    let others: Vec<u8> = group.hosts().filter(|host| *host != coordinator).collect();
    group.copy(coordinator).unwrap().job().kill_all().unwrap();
    // A proxy in front of the host goes on taking connections.
    let at = group.port(coordinator);
    let proxy = group.network().within(Place::Host(coordinator), || TcpListener::bind(at)).unwrap().unwrap();
    let held = std::thread::spawn(move || proxy.incoming().take(200).filter_map(Result::ok).collect::<Vec<_>>());
    group.wait_until_on(&others).unwrap();
    drop(held);
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn hosts_whose_clocks_are_apart_and_step_run_the_job() {
    let group = Group::new(3, Subject::Bank, &Kafka::Apache, Store::Folder).unwrap();
    let clocks: Vec<_> = group.hosts().map(|host| group.network().clock(Place::Host(host)).unwrap()).collect();
    clocks[1].shift(300).unwrap();
    clocks[2].shift(-300).unwrap();
    for (host, clock) in group.hosts().zip(&clocks) {
        group.start_in(host, &clock.environment(), "").unwrap();
    }
    let siege = Siege::feed(&group, Subject::Bank, 11).unwrap();
    group.wait_until_on(&[0, 1, 2]).unwrap();
    // A follower's clock steps, then the coordinator's, back and forth.
    let coordinator = usize::from(group.coordinator().unwrap());
    for (host, hours) in [((coordinator + 1) % 3, -5), ((coordinator + 1) % 3, 0), (coordinator, -3), (coordinator, 0)]
    {
        clocks[host].shift(hours * 3600).unwrap();
        // Whatever the step interrupts goes on.
        let much = group.output().records() + 2000;
        group.wait_for_output(much, &format!("with the clock of host {host} at {hours} hours")).unwrap();
    }
    group.wait_until_on(&[0, 1, 2]).unwrap();
    // Kafka takes no timestamp that is more than an hour ahead of its own clock: the job goes on without the host whose clock is,
    // until a person has set it. The outputs have four partitions, which processes 0 and 1 write. Process 0 would be another case:
    // with `--tick-header` the timestamp of an output record is its tick, for which the leader in process 0 reads its own clock, so
    // Kafka would refuse the records of both, and the job would end. What process 1 writes with the time of its own clock is its
    // progress.
    let places = group.record().unwrap().places;
    let ahead = group.host_at(&places[1].0).unwrap();
    let clock = &clocks[usize::from(ahead)];
    clock.shift(2 * 3600).unwrap();
    let others: Vec<u8> = group.hosts().filter(|host| *host != ahead).collect();
    group.wait_until_on(&others).unwrap();
    clock.shift(0).unwrap();
    group.copy(ahead).unwrap().terminate(GROUP_MOST).unwrap();
    group.start_in(ahead, &clock.environment(), "").unwrap();
    group.wait_until_on(&[0, 1, 2]).unwrap();
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}
