//! The stage between a node and a process of a job: a process of the node's own program, which waits until the node has moved it into
//! its control group, and then becomes the job's program.
//!
//! ```text
//!   node ──starts──► stage: waits for a byte on its standard input ◄──moves it, sends the byte──┐
//!     └─────────────────────────────────────────────────────────────────────────────────────────┘
//!                    └──exec──► the job's program, in its group from its first instruction on
//! ```
//!
//! Until then it has the node's user; the program has the user of jobs, if there is one. Without the stage, the code that a job runs before it reads its invitation would run outside the group.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use fluvial_protocol::Exit;

use super::JobUser;
use crate::process_link::{FromProcess, write_line};

/// The first argument of the stage. No person uses it.
const COMMAND: &str = "start-process-of-a-job";
/// The program of the stage: that of this process, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What stands for the user of the node.
const SAME: &str = "-";
/// What the node sends when the stage is in its group.
pub(crate) const GO: &[u8] = b"\n";

/// A command that becomes `program` of `user` after [`GO`]. Its standard input is the socket of the process.
pub(crate) fn command(program: &OsStr, name: &str, arguments: &[OsString], user: Option<&JobUser>) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    let user = user.map_or(SAME.to_owned(), |user| format!("{}:{}", user.uid, user.gid));
    command.arg0(name).args([COMMAND, &user, name]).arg(program).args(arguments);
    command
}

/// Is called first by each program that runs nodes of a cluster: if this process is a stage, it becomes a job's program, or ends
/// with the code that is returned.
#[must_use]
pub fn enter() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let stdin = std::io::stdin();
    let mut go = [0_u8; GO.len()];
    // The rest of what the node sends is for the program.
    if !matches!(rustix::io::read(&stdin, &mut go), Ok(1)) {
        return Some(ExitCode::FAILURE);
    }
    let mut words = [(); 3].map(|()| arguments.next().unwrap_or_default());
    let [user, name, program] = &mut words;
    let mut command = Command::new(&program);
    command.arg0(&name).args(arguments);
    if user != SAME {
        let ids = user.to_str().and_then(|ids| ids.split_once(':'));
        let Some((Ok(uid), Ok(gid))) = ids.map(|(uid, gid)| (uid.parse(), gid.parse())) else {
            return Some(ExitCode::FAILURE);
        };
        // For root this takes all other groups away, too.
        command.uid(uid).gid(gid);
    }
    let error = command.exec();
    let why = format!("cannot start '{}': {error}", program.display());
    // A check has no socket, and says it there.
    eprintln!("error: {why}");
    if let Ok(socket) = stdin.as_fd().try_clone_to_owned() {
        let ended = FromProcess::Ended { exit: Exit::GenerationLost, why, elsewhere: false };
        // If the node is gone, nobody needs to know.
        let _ = write_line(&mut UnixStream::from(socket), &ended);
    }
    Some(ExitCode::FAILURE)
}
