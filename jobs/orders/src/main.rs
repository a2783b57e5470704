//! The `orders` job; see [`job`]. `orders demo` shows it at work.

mod demo;
mod job;

use std::process::ExitCode;

use fluvial_demo::DemoOptions;

fn main() -> ExitCode {
    fluvial::App::new("orders", job::build)
        .about("Order count and revenue per region and product")
        .command(
            "demo",
            "Show the job at work: an embedded broker, made-up orders, a live table, a verdict",
            |options| {
                let options: DemoOptions = options;
                fluvial_demo::run(&demo::OrdersDemo, &options)
            },
        )
        .main()
}
