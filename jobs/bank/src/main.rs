//! The `bank` job; see [`job`]. `bank demo` shows it at work.

mod demo;
mod job;

use std::process::ExitCode;

use fluvial_demo::DemoOptions;

fn main() -> ExitCode {
    fluvial::App::new("bank", job::build)
        .about("Balances of accounts, and their total, which is always 0")
        .command("demo", "Show the job at work: an embedded broker, made-up transfers, a verdict", |options| {
            let options: DemoOptions = options;
            fluvial_demo::run(&demo::BankDemo, &options)
        })
        .main()
}
