#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::sync::Mutex;

use fluvial_node::secret::Secret;
use fluvial_node::trust::AttemptAuthority;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::zero_copy::stream::Stream as _;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::Hooks;
use timely::dataflow::operators::vec::ToStream;
use timely::dataflow::operators::{Exchange, Inspect, Probe};

use super::tls::TlsSocket;
use super::*;

fn by_secret(processes: usize) -> Vec<MeshIdentity> {
    let secret = Secret::new();
    (0..processes).map(|_| MeshIdentity::Plain(secret.clone())).collect()
}

fn by_certificate(processes: usize) -> Vec<MeshIdentity> {
    let authority = AttemptAuthority::new();
    (0..processes).map(|process| of(&authority, process)).collect()
}

fn of(authority: &AttemptAuthority, process: usize) -> MeshIdentity {
    MeshIdentity::Tls(authority.certificate(u32::try_from(process).unwrap()))
}

fn at_loopback() -> (TcpListener, String) {
    let listener = listen(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    (listener, address)
}

/// Connects processes that have these identities with each other, while `meddle` does what it does at their addresses.
fn connect_all<T>(identities: Vec<MeshIdentity>, meddle: impl FnOnce(&[String]) -> T) -> Vec<Vec<Option<Socket>>> {
    let (listeners, addresses): (Vec<_>, Vec<_>) = identities.iter().map(|_| at_loopback()).unzip();
    let meddled = meddle(&addresses);
    let connected = listeners.into_iter().zip(identities).enumerate().map(|(index, (listener, identity))| {
        let addresses = addresses.clone();
        std::thread::spawn(move || connect(&listener, &addresses, index, &identity).unwrap())
    });
    let connected: Vec<_> = connected.collect();
    let connected = connected.into_iter().map(|process| process.join().unwrap()).collect();
    drop(meddled);
    connected
}

/// Both ends of a connection.
fn pair(identities: Vec<MeshIdentity>) -> [Socket; 2] {
    let mut sockets = connect_all(identities, |_| ()).into_iter();
    let mut end = |other: usize| sockets.next().unwrap().remove(other).unwrap();
    [end(1), end(0)]
}

fn tls_pair() -> [TlsSocket; 2] {
    pair(by_certificate(2)).map(|socket| match socket {
        Socket::Tls(tls) => tls,
        Socket::Plain(_) => unreachable!("they have certificates"),
    })
}

/// Fails, instead of waiting for ever, if it does not end.
fn within_a_minute<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (ended, end) = channel();
    std::thread::spawn(move || drop(ended.send(run())));
    end.recv_timeout(Duration::from_secs(60)).expect("it ends")
}

#[test]
fn strangers_delay_nobody_and_at_each_end_is_the_process_that_the_socket_is_for() {
    for identities in [by_secret(3), by_certificate(3)] {
        let begun = ambient::instant();
        let mut meshes = connect_all(identities, |addresses| {
            let mut strangers: Vec<_> = addresses.iter().flat_map(|at| std::iter::repeat_n(at, 10)).collect();
            strangers.extend(addresses);
            let mut strangers: Vec<_> = strangers.into_iter().map(|at| TcpStream::connect(at).unwrap()).collect();
            // Ten of each process's say nothing.
            for stranger in strangers.iter_mut().skip(30) {
                stranger.write_all(&[0x16; 100]).unwrap();
            }
            strangers
        });
        assert!(begun.elapsed() < PROOF_WITHIN, "the mesh waited for strangers");
        for (index, sockets) in meshes.iter_mut().enumerate() {
            for (peer, socket) in sockets.iter_mut().enumerate() {
                assert_eq!(socket.is_some(), peer != index);
                if let Some(socket) = socket {
                    socket.write_all(&[index as u8, peer as u8]).unwrap();
                }
            }
        }
        for (index, sockets) in meshes.iter_mut().enumerate() {
            for (peer, socket) in sockets.iter_mut().enumerate().filter_map(|(peer, s)| Some((peer, s.as_mut()?))) {
                let mut said = [0; 2];
                socket.read_exact(&mut said).unwrap();
                assert_eq!(said, [peer as u8, index as u8]);
            }
        }
    }
}

/// Lets process 1 call process 0 of a generation of 3, each as its door says it is.
fn meet(caller: Door, answering: Door) -> (std::io::Result<Socket>, std::io::Result<Met>) {
    let (listener, address) = at_loopback();
    let until = ambient::instant() + PATIENCE;
    let called = std::thread::spawn(move || caller.call(&address, 0, until));
    let welcomed = answering.welcome(listener.accept().unwrap().0, until);
    // What it says last, its refusal, is read before its end.
    (called.join().unwrap(), welcomed)
}

#[test]
fn only_a_process_of_this_generation_gets_in_and_only_as_itself() {
    let (attempt, other) = (AttemptAuthority::new(), AttemptAuthority::new());
    let [secret, other_secret] = [Secret::new(), Secret::new()].map(MeshIdentity::Plain);
    let door = |identity: &MeshIdentity, index| Door::new(identity, index, 3).unwrap();
    let (zero, one) = (of(&attempt, 0), of(&attempt, 1));
    for (identities, index) in [([&secret, &secret], 1), ([&one, &zero], 1)] {
        let (called, welcomed) = meet(door(identities[0], index), door(identities[1], 0));
        called.unwrap();
        assert_eq!(welcomed.unwrap().0, index);
    }
    for (caller, index, answering, is_index, why) in [
        (&of(&other, 1), 1, &zero, 0, "of another attempt"),
        (&of(&attempt, 2), 1, &zero, 0, "as another process"),
        (&one, 2, &zero, 0, "as another process"),
        (&one, 1, &of(&other, 0), 0, "to one of another attempt"),
        (&one, 1, &of(&attempt, 2), 0, "to another process"),
        (&of(&attempt, 7), 7, &zero, 0, "as a process that does not exist"),
        (&zero, 0, &zero, 0, "as the one that it calls"),
        (&secret, 1, &zero, 0, "without a certificate"),
        (&one, 1, &secret, 0, "without a secret"),
        (&other_secret, 1, &secret, 0, "with another secret"),
        (&secret, 0, &secret, 0, "as the one that it calls"),
        (&secret, 7, &secret, 0, "as a process that does not exist"),
        (&secret, 2, &secret, 1, "to another process"),
    ] {
        let (called, welcomed) = meet(door(caller, index), door(answering, is_index));
        assert!(called.is_err(), "{why}: the one that called");
        // With secrets, the one that answers cannot know whom the other meant to call.
        assert!(welcomed.is_err() || is_index == 1, "{why}: the one that answered");
    }
}

#[test]
fn a_handshake_that_is_sent_again_gets_nobody_in() {
    let authority = AttemptAuthority::new();
    let [zero, one] = [0, 1].map(|process| Door::new(&of(&authority, process), process, 2).unwrap());
    let ((listener, address), (behind, address_behind)) = (at_loopback(), at_loopback());
    let until = ambient::instant() + PATIENCE;
    let caller = std::thread::spawn(move || one.call(&address, 0, until).map(drop));
    let answering = std::thread::spawn(move || {
        [(); 2].map(|()| zero.welcome(behind.accept().unwrap().0, until).map(|(peer, _)| peer))
    });
    // In between, all that the caller sends is written down.
    let (caller_end, _) = listener.accept().unwrap();
    let behind_end = TcpStream::connect(&address_behind).unwrap();
    let (mut from, mut to) = (behind_end.try_clone().unwrap(), caller_end.try_clone().unwrap());
    let back = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut said = Vec::new();
    let (mut caller_end, mut behind_end) = (caller_end, behind_end);
    let mut buffer = [0; 4096];
    loop {
        match caller_end.read(&mut buffer).unwrap_or(0) {
            0 => break,
            read => {
                said.extend_from_slice(&buffer[..read]);
                behind_end.write_all(&buffer[..read]).unwrap();
            }
        }
    }
    caller.join().unwrap().unwrap();
    let mut again = TcpStream::connect(&address_behind).unwrap();
    again.write_all(&said).unwrap();
    again.shutdown(Shutdown::Write).unwrap();
    let [first, second] = answering.join().unwrap();
    assert_eq!(first.unwrap(), 1);
    assert!(second.is_err());
    drop(behind_end);
    let _ = back.join();
}

/// Numbers in a row, which show what is lost, repeated or in the wrong place.
fn block(number: u64) -> Vec<u8> {
    (number * 100_000..(number + 1) * 100_000).flat_map(u64::to_le_bytes).collect()
}

/// Lets both ends write until neither can write more, and then read while they go on. If they `update_keys`, a third thread of
/// each end does so meanwhile, once for each piece that is written at most: more of them in a row are refused as an attack.
fn talk(blocks: u64, update_keys: bool) {
    within_a_minute(move || {
        let mut threads = Vec::new();
        // Both ends stay open until all threads have ended: the last key update may come when all else has been read.
        let ends = tls_pair();
        for socket in ends.clone() {
            let mut writes = socket.clone();
            let (written, pieces) = std::sync::mpsc::sync_channel(1);
            threads.push(std::thread::spawn(move || {
                for block in (0..blocks).map(block) {
                    for piece in block.chunks(50_000) {
                        writes.write_all(piece).unwrap();
                        let _ = written.try_send(());
                    }
                }
            }));
            threads.push(std::thread::spawn(move || {
                let mut updates = 0;
                for () in pieces.into_iter().filter(|()| update_keys) {
                    socket.write_tls(|connection| connection.refresh_traffic_keys().map_err(Error::other)).unwrap();
                    updates += 1;
                }
                assert_eq!(updates > 0, update_keys);
            }));
        }
        while !ends.iter().all(TlsSocket::is_full) {
            ambient::pause(Duration::from_millis(1));
        }
        for mut reads in ends.clone() {
            threads.push(std::thread::spawn(move || {
                for number in 0..blocks {
                    let expected = block(number);
                    let mut read = vec![0; expected.len()];
                    reads.read_exact(&mut read).unwrap();
                    assert!(read == expected, "block {number} is not as it was written");
                }
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn both_ends_write_and_read_large_records_at_the_same_time() {
    talk(40, false);
}

#[test]
fn keys_are_updated_by_both_ends_while_both_write() {
    talk(40, true);
}

#[test]
fn a_reader_that_is_asked_for_a_new_key_does_not_write() {
    within_a_minute(|| {
        let [mut one, mut two] = tls_pair();
        // Nobody reads at the other end, so that a write would wait: fill the way there.
        let mut fills = one.clone();
        let full = std::thread::spawn(move || {
            let block = block(0);
            while fills.write_all(&block).is_ok() {}
        });
        two.write_tls(|connection| connection.refresh_traffic_keys().map_err(Error::other)).unwrap();
        two.write_all(b"still heard").unwrap();
        let mut heard = [0; 11];
        one.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still heard");
        drop(two);
        full.join().unwrap();
    });
}

#[test]
fn an_end_that_is_said_is_told_from_one_that_is_not() {
    within_a_minute(|| {
        let [one, mut two] = tls_pair().map(Socket::Tls);
        let (mut writes, buffer) = (one.try_clone().unwrap(), &mut [0; 8]);
        writes.write_all(b"the end").unwrap();
        writes.shutdown(Shutdown::Write).unwrap();
        assert_eq!(two.read(buffer).unwrap(), 7);
        assert_eq!(two.read(buffer).unwrap(), 0);
        assert_eq!(two.read(buffer).unwrap(), 0);
        // The other direction is still open.
        two.write_all(b"heard").unwrap();
        two.shutdown(Shutdown::Write).unwrap();
        let mut reads = one;
        let mut all = Vec::new();
        reads.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"heard");

        let [one, mut two] = tls_pair().map(Socket::Tls);
        let mut writes = one.try_clone().unwrap();
        writes.write_all(b"the").unwrap();
        drop((one, writes));
        assert_eq!(two.read(buffer).unwrap(), 3);
        assert_eq!(two.read(buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn timely_computes_the_same_over_tls() {
    const PER_WORKER: u64 = 50_000;
    let (processes, threads) = (2, 2);
    let seen = within_a_minute(move || {
        let meshes = connect_all(by_certificate(processes), |_| ());
        let running = meshes.into_iter().enumerate().map(|(index, sockets)| {
            std::thread::spawn(move || {
                let hooks = Hooks::default();
                let local = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
                let (over, guard) = initialize_networking_from_sockets(local, sockets, index, threads, hooks).unwrap();
                let over = over.into_iter().map(AllocatorBuilder::Tcp).collect();
                let config = timely::WorkerConfig::default();
                let workers = timely::execute::execute_from(over, Box::new(guard), config, |worker| {
                    let seen = Arc::new(Mutex::new((0u64, 0u64)));
                    let (me, adds) = (worker.index() as u64, Arc::clone(&seen));
                    worker.dataflow::<u64, _, _>(|scope| {
                        (0..PER_WORKER)
                            .map(move |i| i * 4 + me)
                            .to_stream(scope)
                            .exchange(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)
                            .inspect(move |number| {
                                let mut seen = adds.lock().unwrap();
                                *seen = (seen.0 + 1, seen.1 + number);
                            })
                            .probe();
                    });
                    seen
                });
                // The dataflow is complete when the workers have ended.
                let workers = workers.unwrap().join();
                workers.into_iter().map(|seen| *seen.unwrap().lock().unwrap()).collect::<Vec<_>>()
            })
        });
        let running: Vec<_> = running.collect();
        running.into_iter().flat_map(|process| process.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(seen.iter().all(|&(count, _)| count > 0), "{seen:?}");
    let all = PER_WORKER * 4;
    assert_eq!(seen.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (all, all * (all - 1) / 2));
}
