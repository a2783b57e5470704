//! What stands in front of the server: it counts requests, and does to them what stores and networks do.

use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::message::Message;
use crate::server::{Server, exchange};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status and this code are the answer; the server does not see the request.
    Refuse(u16, &'static str),
    /// The server gets the request, and the connection is closed before the answer.
    LoseAnswer,
    /// The server gets the request so much later.
    Delay(Duration),
    /// The connection is closed: the store is unavailable.
    Close,
    /// Nothing happens, and the connection stays open until the fault is over.
    Hang,
    /// The server gets the request without its condition.
    Unconditional,
}

/// The number of requests by the classes that stores charge for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// PUT, POST and LIST.
    pub writes: u64,
    /// GET and HEAD.
    pub reads: u64,
    /// DELETE.
    pub deletes: u64,
}

/// Which requests a fault meets.
type Which = fn(&Message) -> bool;

/// A proxy on a port of its own.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Held during a conditional create: moto looks for the object and writes it in two steps, so that two creates of one name at the
    /// same time would both succeed.
    creating: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: Requests,
    armed: Option<(Which, Fault, usize)>,
    met: usize,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and returns the fault that meets it.
    fn meet(&self, request: &Message) -> Option<Fault> {
        let mut inner = self.lock();
        let class = match request.method() {
            "GET" | "HEAD" if !request.lists() => &mut inner.requests.reads,
            "DELETE" => &mut inner.requests.deletes,
            _ => &mut inner.requests.writes,
        };
        *class += 1;
        let (which, fault, left) = inner.armed.as_mut()?;
        if *left == 0 || !which(request) {
            return None;
        }
        *left -= 1;
        let fault = *fault;
        inner.met += 1;
        self.changed.notify_all();
        Some(fault)
    }
}

impl Front {
    /// A proxy before a server.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(server: &Server) -> Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port for the store")?, server)
    }

    /// The same, at a socket that is there already, such as one of another network.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn on(listener: TcpListener, server: &Server) -> Result<Self> {
        let address = listener.local_addr()?;
        let (inner, changed) = (Mutex::default(), Condvar::new());
        let state = Arc::new(State { server: server.address(), inner, changed, creating: Mutex::default() });
        let of_thread = Arc::clone(&state);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let state = Arc::clone(&of_thread);
                // A client that closes its connection is no error of the test.
                std::thread::spawn(move || drop(serve(client, &state)));
            }
        });
        Ok(Self { address, state })
    }

    /// What jobs connect to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets a fault meet the next `times` requests of this kind, in place of the fault before it.
    pub fn arm(&self, which: Which, fault: Fault, times: usize) {
        let mut inner = self.state.lock();
        inner.armed = Some((which, fault, times));
        inner.met = 0;
    }

    /// Ends the fault.
    pub fn calm(&self) {
        self.state.lock().armed = None;
        self.state.changed.notify_all();
    }

    /// Waits until the fault has met so many requests.
    ///
    /// # Errors
    /// It has not after `most`.
    pub fn wait_until_met(&self, times: usize, most: Duration) -> Result<()> {
        let start = Instant::now();
        let inner = self.state.lock();
        let waited = self.state.changed.wait_timeout_while(inner, most, |inner| inner.met < times);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(inner.met >= times, "{} requests met the fault after {:?}", inner.met, start.elapsed());
        Ok(())
    }

    /// The number of requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.state.lock().requests
    }
}

/// Serves the requests of one connection, one after the other.
fn serve(client: TcpStream, state: &State) -> Result<()> {
    client.set_nodelay(true)?;
    let (mut requests, mut answers) = (BufReader::new(client.try_clone()?), client);
    while let Some(mut request) = Message::read(&mut requests, true)? {
        let fault = state.meet(&request);
        match fault {
            Some(Fault::Refuse(status, code)) => {
                let body = format!("<Error><Code>{code}</Code><Message>so the test wants it</Message></Error>");
                Message::answer(status, body).write(&mut answers)?;
                continue;
            }
            Some(Fault::Close) => return Ok(()),
            Some(Fault::Hang) => {
                let inner = state.changed.wait_while(state.lock(), |inner| inner.armed.is_some());
                drop(inner);
                return Ok(());
            }
            Some(Fault::Delay(by)) => std::thread::sleep(by),
            Some(Fault::Unconditional) => request.remove("if-none-match"),
            Some(Fault::LoseAnswer) | None => {}
        }
        request.remove("connection");
        request.head.push(("Connection".to_owned(), "close".to_owned()));
        let alone = request.creates().then(|| state.creating.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answer = exchange(state.server, &request)?;
        drop(alone);
        if fault == Some(Fault::LoseAnswer) {
            return Ok(());
        }
        answer.remove("connection");
        if request.lists() {
            answer.body = reversed(&answer.body);
        }
        answer.write(&mut answers)?;
    }
    Ok(())
}

/// A page of a list with its objects in the reverse order.
fn reversed(page: &[u8]) -> Vec<u8> {
    let page = String::from_utf8_lossy(page);
    let Some((before, _)) = page.split_once("<Contents>") else { return page.into_owned().into_bytes() };
    let Some((_, after)) = page.rsplit_once("</Contents>") else { return page.into_owned().into_bytes() };
    let objects = &page[before.len()..page.len() - after.len()];
    let mut objects: Vec<&str> = objects.split_inclusive("</Contents>").collect();
    objects.reverse();
    format!("{before}{}{after}", objects.concat()).into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A server that answers one request, and says whether another one came meanwhile.
    fn answer_one(server: &TcpListener) -> bool {
        let (mut connection, _) = server.accept().unwrap();
        Message::read(&mut BufReader::new(connection.try_clone().unwrap()), true).unwrap();
        server.set_nonblocking(true).unwrap();
        // Nothing tells that nothing comes.
        std::thread::sleep(Duration::from_millis(200));
        let other = server.accept().is_ok();
        server.set_nonblocking(false).unwrap();
        Message::answer(200, String::new()).write(&mut connection).unwrap();
        other
    }

    #[test]
    fn one_conditional_create_at_a_time_reaches_the_server() {
        let (server, front) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (inner, changed, creating) = (Mutex::default(), Condvar::new(), Mutex::default());
        let state = State { server: server.local_addr().unwrap(), inner, changed, creating };
        let create = || {
            let head = vec![("If-None-Match".to_owned(), "*".to_owned())];
            let request = Message { start: "PUT /bucket/name HTTP/1.1".to_owned(), head, body: b"content".to_vec() };
            exchange(front.local_addr().unwrap(), &request).unwrap().status()
        };
        std::thread::scope(|scope| {
            let clients = [scope.spawn(create), scope.spawn(create)];
            let (front, state) = (&front, &state);
            for _ in 0..2 {
                let (client, _) = front.accept().unwrap();
                scope.spawn(move || serve(client, state));
            }
            assert!(!answer_one(&server), "two creates at a time");
            assert!(!answer_one(&server));
            assert_eq!(clients.map(|client| client.join().unwrap()), [200, 200]);
        });
    }

    #[test]
    fn a_page_is_reversed_object_by_object() {
        let page = b"<L><A/><Contents>1</Contents><Contents>2</Contents><Contents>3</Contents><B/></L>";
        let expected = b"<L><A/><Contents>3</Contents><Contents>2</Contents><Contents>1</Contents><B/></L>";
        assert_eq!(reversed(page), expected);
        assert_eq!(reversed(b"<L></L>"), b"<L></L>");
    }
}
