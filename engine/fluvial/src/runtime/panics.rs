//! Makes a panic the end of the process, with one line that says where, and on which input.
//!
//! A panicking worker thread would leave its peers waiting for ever. Nothing is half committed by a process that ends
//! at any moment, so that is what a panic does.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

use fluvial_node::log;
use fluvial_node::process_link::{FromProcess, NodeLink};
use fluvial_protocol::Exit;

use crate::stream::context;

/// Installs the hook for this process.
pub(crate) fn end_the_process_on_panic(node: NodeLink) {
    std::panic::set_hook(Box::new(move |info| {
        let (exit, why) = explain(info);
        node.say(&FromProcess::Ended { exit, why, elsewhere: false });
        std::process::exit(i32::from(exit.code()));
    }));
}

/// Installs the hook for a command that runs the job's code by itself.
pub(crate) fn end_the_command_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let (exit, why) = explain(info);
        log::say(&format!("error: {why}"));
        std::process::exit(i32::from(exit.code()));
    }));
}

fn explain(info: &PanicHookInfo<'_>) -> (Exit, String) {
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
        return (Exit::GenerationLost, "a process of the job ended".to_owned());
    }
    let at = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
    match context::worker() {
        Some(worker) => {
            let calls = Backtrace::force_capture().to_string();
            let operator = context::operator().or_else(|| operator_in(&calls));
            let operator = operator.map_or_else(String::new, |o| format!("operator '{o}' on "));
            let input = context::described().map_or_else(String::new, |input| format!(" {input}"));
            (Exit::Panicked, format!("{operator}worker {worker} panicked{at}{input}: {said}"))
        }
        None => (Exit::EngineFault, format!("thread '{name}' panicked{at}: {said}")),
    }
}

/// The innermost operator of differential or timely dataflow in a backtrace: their closures are the job's, and their
/// operators are built where we cannot say a name. A module that is called as its operator is tells which.
fn operator_in(backtrace: &str) -> Option<&'static str> {
    const FROM: [&str; 2] = ["differential_dataflow::operators::", "timely::dataflow::operators::"];
    const NAMED: [&str; 9] =
        ["reduce", "join", "count", "threshold", "iterate", "map", "filter", "inspect", "flat_map"];
    backtrace.lines().find_map(|call| {
        let path = FROM.iter().find_map(|operators| Some(call.split_once(operators)?.1))?;
        let own = path.split(['<', '{', ' ']).next()?;
        own.split("::").find_map(|module| NAMED.into_iter().find(|name| *name == module))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_found_in_a_backtrace() {
        let check = |calls: &str, expected: Option<&str>| assert_eq!(operator_in(calls), expected, "{calls}");
        check("   3: faulty::build::{closure#0}\n   4: std::panicking::try", None);
        check(
            "  3: faulty::build::{closure#2}\n  4: differential_dataflow::operators::cursor::history::replay_key\n  \
             5: <differential_dataflow::operators::cursor::reduce::CursorTactic<A> as X>::retire\n  \
             6: timely::dataflow::operators::generic::builder_rc::build",
            Some("reduce"),
        );
        check("  4: <timely::dataflow::operators::vec::map::Map<_> as X>::flat_map::{closure#0}", Some("map"));
        check("  4: timely::dataflow::operators::generic::operator::unary::{closure#0}", None);
    }
}
