//! Runs blocking work for a worker on other threads, and brings the results back. This is the one way to do so.
//!
//! ```text
//!   worker ── spawn(work) ───────────► a thread for this work alone ──────────────┐
//!          ── spawn_task(future) ────► the process's tokio runtime ───────────────┼─ result, wake-up ─► worker: next
//!          ── Server::ask(request) ──► a thread that serves one after the other ──┘
//! ```
//!
//! A worker's loop must never wait: while it does, its share of the dataflow stands still, and with it the frontier of all
//! workers. So whatever waits for a store, for a sink or for a source, or computes for long beside the dataflow, is given
//! to a [`Background`], and the worker takes the results in its next turn. It is woken for them, so that none waits for the
//! end of a park.
//!
//! - *Order*: results of one [`Server`] come in the order of its requests. Nothing else is ordered.
//! - *Failure*: a result is an answer or the [`Failure`] that ends the worker ([`Background::next`]). A panic ends the
//!   process at once, with the thread's name (`panics.rs`), so no result is ever missing silently.
//! - *End*: a thread ends when its work is done, or when the owner is dropped and the call that is under way has returned.
//!   Nobody waits for it: a call may last as long as an outage, and a process may end at any moment.
//!
//! Three kinds of threads are not beside a worker and do not use this: those that watch the process (`pulse.rs`, the reader
//! of the node's messages in `peer.rs`, which end the process themselves), those of the node, which has no
//! worker (`fluvial_node`), and those of libraries (timely's, tokio's, librdkafka's).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fluvial_connector::{Error, ErrorKind, Waker};
use tokio::runtime::Handle;

use super::ambient;
use super::failure::{Failure, chain};

/// The pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(250);

/// The work that one part of a worker gives to other threads; `R` is the type of its results.
pub(crate) struct Background<R> {
    results: Receiver<Result<R, Failure>>,
    reply: Reply<R>,
}

/// Sends results to the worker, and wakes it.
struct Reply<R> {
    to: Sender<Result<R, Failure>>,
    worker: Waker,
}

impl<R> Clone for Reply<R> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), worker: self.worker.clone() }
    }
}

impl<R> Reply<R> {
    /// Sends the results, each as soon as it is there. Returns whether their owner still receives any.
    fn send(&self, results: impl IntoIterator<Item = Result<R, Failure>>) -> bool {
        results.into_iter().all(|result| {
            let taken = self.to.send(result).is_ok();
            self.worker.wake();
            taken
        })
    }
}

/// Which requests a [`Server`] serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serve {
    /// All of them.
    Each,
    /// The newest of those that wait: each makes the earlier ones worthless.
    Newest,
}

/// A thread that serves requests one after the other. It ends when this is dropped.
pub(crate) struct Server<Q>(Sender<Q>);

impl<Q> Server<Q> {
    /// Gives the thread a request.
    pub(crate) fn ask(&self, request: Q) {
        self.0.send(request).expect("the thread lives as long as its owner");
    }
}

impl<R: Send + 'static> Background<R> {
    /// Creates the background of the worker that `worker` wakes.
    pub(crate) fn new(worker: &Waker) -> Self {
        let (to, results) = channel();
        Self { results, reply: Reply { to, worker: worker.clone() } }
    }

    /// The next result, if there is one.
    ///
    /// # Errors
    /// The work has failed, and the worker with it.
    pub(crate) fn next(&self) -> Result<Option<R>, Failure> {
        self.results.try_recv().ok().transpose()
    }

    /// Does one piece of work on a thread of its own. The work may have any number of results.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn spawn<I>(&self, name: &str, work: impl FnOnce() -> I + Send + 'static) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Result<R, Failure>>,
    {
        let reply = self.reply.clone();
        thread(name, move || {
            reply.send(work());
        })
    }

    /// Runs work that is asynchronous on the tokio runtime. It has one result.
    pub(crate) fn spawn_task(&self, runtime: &Handle, work: impl Future<Output = Result<R, Failure>> + Send + 'static) {
        let reply = self.reply.clone();
        runtime.spawn(async move { reply.send([work.await]) });
    }

    /// Starts a thread that does `work` for one request after the other; each may have any number of results.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn serve<Q, I>(
        &self,
        name: &str,
        which: Serve,
        mut work: impl FnMut(Q) -> I + Send + 'static,
    ) -> Result<Server<Q>, Failure>
    where
        Q: Send + 'static,
        I: IntoIterator<Item = Result<R, Failure>>,
    {
        let (ask, requests) = channel();
        let reply = self.reply.clone();
        thread(name, move || {
            while let Ok(mut request) = requests.recv() {
                if which == Serve::Newest {
                    request = requests.try_iter().last().unwrap_or(request);
                }
                if !reply.send(work(request)) {
                    return;
                }
            }
        })?;
        Ok(Server(ask))
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(Failure::of_host)
}

/// Repeats a blocking call while the system is unavailable, no longer than the patience.
pub(crate) fn wait_out<T>(
    system: &str,
    patience: Duration,
    mut call: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let started = ambient::instant();
    loop {
        match call() {
            Err(error) if error.kind == ErrorKind::Retry && started.elapsed() < patience => {
                tracing::warn!(error = chain(error), "the {system} is unavailable, retrying");
                ambient::pause(PAUSE);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_protocol::Exit;

    use super::*;

    const MOST: Duration = Duration::from_secs(20);

    /// The background of a worker, and a receiver that is told whenever the worker is woken.
    fn bench<R: Send + 'static>() -> (Background<R>, Receiver<()>) {
        let (wake, woken) = channel();
        (Background::new(&Waker::new(move || wake.send(()).unwrap_or_default())), woken)
    }

    #[test]
    fn a_server_answers_in_order_and_wakes_the_worker_for_each_answer() {
        let (background, woken) = bench();
        let twice = |request: u32| [Ok(request), Ok(request + 100)];
        let server = background.serve("test", Serve::Each, twice).unwrap();
        (0..10).for_each(|request| server.ask(request));
        for request in 0..10 {
            for expected in [request, request + 100] {
                woken.recv_timeout(MOST).unwrap();
                assert_eq!(background.next().unwrap(), Some(expected));
            }
        }
        assert_eq!(background.next().unwrap(), None);
    }

    #[test]
    fn of_requests_that_wait_only_the_newest_is_served_where_it_makes_the_others_worthless() {
        let (background, woken) = bench();
        let (go_on, held) = channel::<()>();
        let (take, taken) = channel();
        let work = move |request: u32| {
            take.send(()).unwrap();
            held.recv().unwrap();
            [Ok(request)]
        };
        let server = background.serve("test", Serve::Newest, work).unwrap();
        server.ask(0);
        taken.recv_timeout(MOST).unwrap();
        (1..5).for_each(|request| server.ask(request));
        for expected in [0, 4] {
            go_on.send(()).unwrap();
            woken.recv_timeout(MOST).unwrap();
            assert_eq!(background.next().unwrap(), Some(expected));
        }
    }

    #[test]
    fn a_failure_is_the_workers_failure() {
        let (background, woken) = bench::<()>();
        let failure = || Failure::new(Exit::StoreFailed, anyhow::anyhow!("the disk is full"));
        background.spawn("test", move || [Err(failure())]).unwrap();
        woken.recv_timeout(MOST).unwrap();
        let failed = background.next().unwrap_err();
        assert_eq!((failed.exit, failed.line()), (Exit::StoreFailed, "the disk is full".to_owned()));
    }

    /// Nothing else tells a thread that it is no longer needed.
    #[test]
    fn a_server_ends_with_its_owner() {
        struct Held(Sender<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.send(()).unwrap_or_default();
            }
        }
        for drops_the_server in [true, false] {
            let (background, _woken) = bench::<()>();
            let (ended, has_ended) = channel();
            let held = Held(ended);
            let work = move |()| {
                let _ = &held;
                [Ok(())]
            };
            let server = background.serve("test", Serve::Each, work).unwrap();
            if drops_the_server {
                drop(server);
                has_ended.recv_timeout(MOST).unwrap();
            } else {
                drop(background);
                server.ask(());
                has_ended.recv_timeout(MOST).unwrap();
            }
        }
    }
}
