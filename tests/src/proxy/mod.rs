//! What stands between a job and its broker, and does to the end of a transaction what networks do.
//!
//! ```text
//!   job ──request──► proxy ──request──► broker        an EndTxn, or its answer, is dropped, held, or comes too late;
//!       ◄──answer───       ◄──answer───               everything else goes through as it is
//! ```
//!
//! The broker must tell its clients to come here ([`crate::apache::Options::proxy`]). One fault at a time is armed, and
//! meets the next EndTxn that passes.

mod connection;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};

/// What happens to the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection is cut before the broker gets the request.
    LoseRequest,
    /// The connection is cut before the job gets the answer.
    LoseAnswer,
    /// The broker gets the request so much later.
    HoldRequest(Duration),
    /// The job gets the answer so much later.
    HoldAnswer(Duration),
    /// The connection is cut, and so much later the broker gets the request all the same.
    DeliverLate(Duration),
}

impl Fault {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LoseRequest => "EndTxn dropped",
            Self::LoseAnswer => "EndTxn's answer dropped",
            Self::HoldRequest(_) => "EndTxn held",
            Self::HoldAnswer(_) => "EndTxn's answer held",
            Self::DeliverLate(_) => "EndTxn dropped and delivered late",
        }
    }
}

/// A proxy on a port of its own. Dropping it closes the port; connections live on until either end closes them.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    struck: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    broker: Option<SocketAddr>,
    armed: Option<Fault>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that meets this EndTxn, if there is one.
    fn meet(&self) -> Option<Fault> {
        let fault = self.lock().armed.take();
        if fault.is_some() {
            self.struck.notify_all();
        }
        fault
    }
}

impl Proxy {
    /// A proxy that refuses connections until it is told of a broker.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port for the proxy")?;
        let (port, state) = (listener.local_addr()?.port(), Arc::new(State::default()));
        let (accepting, of_thread) = (listener.try_clone()?, Arc::clone(&state));
        std::thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                let broker = of_thread.lock().broker;
                if let Some(broker) = broker {
                    connection::serve(client, broker, &of_thread);
                }
            }
        });
        Ok(Self { listener, port, state })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What jobs connect to.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where connections lead from now on.
    pub fn lead_to(&self, broker: SocketAddr) {
        self.state.lock().broker = Some(broker);
    }

    /// Lets `fault` meet the next EndTxn, and waits until it has, no longer than `most`. Returns whether it has; if not,
    /// it never will.
    pub fn strike(&self, fault: Fault, most: Duration) -> bool {
        let mut inner = self.state.lock();
        inner.armed = Some(fault);
        let waited = self.state.struck.wait_timeout_while(inner, most, |inner| inner.armed.is_some());
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.armed.take().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Wakes the thread that accepts; where it cannot, the thread ends with the test.
        let _ = shutdown(&self.listener, Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::*;

    const TIME: Duration = Duration::from_millis(300);

    /// A frame with this API key and correlation id, and nothing else.
    fn request(key: i16, correlation: i32) -> Vec<u8> {
        let mut frame = 8_i32.to_be_bytes().to_vec();
        frame.extend(key.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(correlation.to_be_bytes());
        frame
    }

    /// A broker that answers each request with its correlation id alone, and tells of it.
    fn broker() -> (SocketAddr, Receiver<i32>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, (tell, told)) = (listener.local_addr().unwrap(), channel());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let tell = tell.clone();
                std::thread::spawn(move || {
                    let mut frame = [0; 12];
                    while stream.read_exact(&mut frame).is_ok() {
                        tell.send(i32::from_be_bytes(frame[8..].try_into().unwrap())).unwrap();
                        let answer = [4_i32.to_be_bytes().as_slice(), &frame[8..]].concat();
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (address, told)
    }

    /// What a client and the broker see of an EndTxn that a fault meets: whether there is an answer, and whether the
    /// broker gets it; and how much later than at once each happens.
    fn check(fault: Fault, answered: bool, arrives: bool, late: (bool, bool)) {
        let (address, told) = broker();
        let proxy = Proxy::start().unwrap();
        proxy.lead_to(address);
        let mut client = TcpStream::connect(proxy.bootstrap()).unwrap();
        let mut answer = [0; 8];
        std::thread::scope(|scope| {
            let struck = scope.spawn(|| proxy.strike(fault, Duration::from_secs(20)));
            while proxy.state.lock().armed.is_none() {
                std::thread::yield_now();
            }
            // Other requests go through.
            client.write_all(&request(0, 1)).unwrap();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(told.recv().unwrap(), 1);
            let start = Instant::now();
            client.write_all(&request(26, 2)).unwrap();
            let read = client.read_exact(&mut answer);
            assert_eq!(read.is_ok(), answered, "{fault:?}");
            assert_eq!(start.elapsed() >= TIME, late.0, "{fault:?}");
            if arrives {
                assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(2), "{fault:?}");
                assert!(!late.1 || start.elapsed() >= TIME, "{fault:?}");
            }
            assert!(struck.join().unwrap());
            // What the client sends after it has lost the connection is the next that the broker gets.
            let mut next = TcpStream::connect(proxy.bootstrap()).unwrap();
            next.write_all(&request(0, 3)).unwrap();
            next.read_exact(&mut answer).unwrap();
            assert_eq!(told.try_iter().collect::<Vec<_>>(), [3], "{fault:?}");
        });
    }

    #[test]
    fn each_fault_does_to_an_end_txn_what_it_says() {
        check(Fault::LoseRequest, false, false, (false, false));
        check(Fault::LoseAnswer, false, true, (false, false));
        check(Fault::HoldRequest(TIME), true, true, (true, true));
        check(Fault::HoldAnswer(TIME), true, true, (true, false));
        check(Fault::DeliverLate(TIME), false, true, (false, true));
    }

    #[test]
    fn a_fault_that_meets_nothing_says_so() {
        assert!(!Proxy::start().unwrap().strike(Fault::LoseRequest, Duration::ZERO));
    }
}
