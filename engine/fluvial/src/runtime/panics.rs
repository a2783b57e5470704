//! Makes a panic the end of the process, with one line that says where.
//!
//! A panicking worker thread would leave its peers waiting for ever. Nothing is half committed by a process that ends
//! at any moment, so that is what a panic does.

use std::cell::Cell;
use std::panic::PanicHookInfo;

use super::ending::Ending;
use super::peer::{FromPeer, SupervisorLink};

thread_local! {
    static WORKER: Cell<Option<u32>> = const { Cell::new(None) };
    static OPERATOR: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Says that this thread is a worker's.
pub(crate) fn this_is_worker(index: u32) {
    WORKER.set(Some(index));
}

/// Runs `logic`, a closure of the job's in the operator `name`.
pub(crate) fn in_operator<R>(name: &'static str, logic: impl FnOnce() -> R) -> R {
    let before = OPERATOR.replace(Some(name));
    let result = logic();
    OPERATOR.set(before);
    result
}

/// Installs the hook for this process.
pub(crate) fn end_the_process_on_panic(supervisor: SupervisorLink) {
    std::panic::set_hook(Box::new(move |info| {
        let (ending, why) = explain(info);
        supervisor.say(&FromPeer::Ended { ending, why });
        std::process::exit(i32::from(ending.exit_code()));
    }));
}

fn explain(info: &PanicHookInfo<'_>) -> (Ending, String) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let said = info
        .payload()
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    // timely's communication threads panic when a socket ends; that is how it says that a peer is gone.
    if name.starts_with("timely:send") || name.starts_with("timely:recv") {
        return (Ending::PeerLost, "a process of the job was lost".to_owned());
    }
    let at = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
    match WORKER.get() {
        Some(worker) => {
            let operator = OPERATOR.get().map_or_else(String::new, |o| format!("operator '{o}' on "));
            (Ending::Panicked, format!("{operator}worker {worker} panicked{at}: {said}"))
        }
        None => (Ending::Failed, format!("thread '{name}' panicked{at}: {said}")),
    }
}
