//! The `bank` job; see [`job`].

mod job;

use std::process::ExitCode;

fn main() -> ExitCode {
    fluvial::App::new("bank", job::build).main()
}
