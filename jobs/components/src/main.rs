//! The connected components of a graph whose edges come and go; see [`job`].

mod job;

use std::process::ExitCode;

fn main() -> ExitCode {
    fluvial::App::new("components", job::build)
        .about("The connected components of a graph whose edges come and go")
        .main()
}
