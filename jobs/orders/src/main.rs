//! The `orders` job; see [`job`].

mod job;

use std::process::ExitCode;

fn main() -> ExitCode {
    fluvial::App::new("orders", job::build).main()
}
