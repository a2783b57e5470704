//! A job with a fault on request: what user code must not do, so that tests see it caught.
//!
//! It keeps the revenue of each order: `orders ──map (the fault)──latest──► rows`; or it writes each amendment's revenue and
//! keeps nothing: `orders ──map (the fault)──► rows`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluvial::connector::format::{Json, Text};
use fluvial::connector::secret::Secret;
use fluvial::{Collection, Job, OnMalformed, Sum};
use fluvial_kafka::KafkaOptions;
use serde::Deserialize;

/// What is wrong with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wrong {
    /// Nothing.
    Nothing,
    /// An operator adds a random number.
    Random,
    /// An operator panics at an order that comes to nothing.
    Panics,
    /// An aggregate does.
    PanicsInAggregate,
    /// One of differential dataflow's operators does.
    PanicsInReduce,
    /// An operator ends its process without a word at an order that comes to nothing.
    Aborts,
    /// An order that comes to nothing has two rows.
    TwoRows,
    /// Its processes abort when they build the job. Its checks do not.
    AbortsAtStart,
    /// They do not return then.
    HangsAtStart,
    /// An operator takes all memory that it can get at an order that comes to nothing.
    Hoards,
    /// The job takes a GiB of memory while it is built, also by a check.
    HoardsWhenBuilt,
    /// The job cannot be built, and says as whom it was tried.
    SaysItsUser,
    /// The durable operator has another name.
    Renamed,
    /// The durable operator keeps another type.
    Retyped,
    /// An operator's closure that has seen a record takes its time to be dropped, in the second process.
    Lingers,
    /// An operator starts a program that does not end, and ends itself, at an order that comes to nothing.
    LeavesAProgram,
    /// An operator says the secret from its end to its beginning, at an order that comes to nothing.
    TellsTheSecret,
    /// An operator tries to reach what is its node's, at an order that comes to nothing, and says what it has reached.
    Spies,
}

/// What the job computes: each is what a person may change a job's code into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Logic {
    /// Each order's revenue.
    Revenue,
    /// Twice that: another `map`.
    Doubled,
    /// The even revenues: a `join` with these.
    Even,
    /// The odd ones: a `join` with others.
    Odd,
}

/// Takes longer to be dropped than processes that have failed are waited for.
#[derive(Default)]
struct Lingering {
    /// The job is also built to learn its parts, and dropped again, without a record.
    has_seen_a_record: AtomicBool,
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // The name under which a node starts a process holds the process's number.
        let is_second = std::env::args().next().is_some_and(|name| name.contains(" process 1 of "));
        if is_second && *self.has_seen_a_record.get_mut() {
            eprintln!("the second process lingers");
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
struct Options {
    #[command(flatten)]
    kafka: KafkaOptions,

    /// The topic of orders
    #[arg(long)]
    input: String,

    /// A second topic of orders
    #[arg(long)]
    also: Option<String>,

    /// The topic for each order's revenue
    #[arg(long)]
    output: String,

    /// Leave out what is no order
    #[arg(long)]
    skip_malformed: bool,

    /// Append each amendment's revenue to the output instead
    #[arg(long)]
    append: bool,

    /// Write each amendment's revenue as it comes, without keeping any state
    #[arg(long)]
    stateless: bool,

    /// Read the orders as a changelog
    #[arg(long)]
    changelog: bool,

    /// A second topic for the same
    #[arg(long)]
    copy: Option<String>,

    /// What the job computes
    #[arg(long, value_enum, default_value = "revenue")]
    logic: Logic,

    /// Print a line of so many bytes for each order
    #[arg(long, default_value_t = 0)]
    prints: usize,

    /// What is wrong with the code
    #[arg(long, value_enum, default_value = "nothing")]
    wrong: Wrong,

    /// A file that the job tries to read that spies
    #[arg(long)]
    spy_on: Vec<PathBuf>,

    /// A secret of the job
    #[arg(long)]
    secret: Option<Secret>,
}

#[derive(Clone, Debug, Deserialize)]
struct Order {
    quantity: i64,
    price_cents: i64,
}

/// What of these files, of the node that has started this process, and of its own binary this process can read or change.
fn reached(files: &[PathBuf]) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let reads =
        |path: &PathBuf| std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut [0]));
    let of_node =
        ["environ", "mem", "fd/0"].map(|name| format!("/proc/{}/{name}", std::os::unix::process::parent_id()));
    let files = files.iter().cloned().chain(of_node.into_iter().map(PathBuf::from));
    // Where memory begins nothing is mapped; that it could be opened is what counts.
    let opens = |path: &PathBuf| reads(path).is_ok() || (path.ends_with("mem") && std::fs::File::open(path).is_ok());
    let mut reached: Vec<_> = files.filter(opens).map(|path| path.display().to_string()).collect();
    let own = std::env::current_exe().expect("this binary has a path");
    if std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).is_ok() {
        reached.push("the mode of its binary".to_owned());
    }
    if std::fs::write(own.with_extension("new"), "").is_ok() {
        reached.push("the folder of its binary".to_owned());
    }
    reached
}

fn build(job: &mut Job<'_>, options: &Options) -> anyhow::Result<()> {
    // The variable by which a node starts a process of a job.
    let is_process = std::env::var_os("FLUVIAL_PROCESS").is_some();
    match options.wrong {
        Wrong::AbortsAtStart if is_process => std::process::abort(),
        Wrong::HangsAtStart if is_process => loop {
            std::thread::park();
        },
        _ => {}
    }
    let kafka = options.kafka.connect()?;
    if options.wrong == Wrong::HoardsWhenBuilt {
        drop(std::hint::black_box(vec![1_u8; 1 << 30]));
    }
    if options.wrong == Wrong::SaysItsUser {
        anyhow::bail!("it was built by user {}", rustix::process::geteuid().as_raw());
    }
    if options.changelog {
        return build_of_changelog(job, options, &kafka);
    }
    if options.stateless && options.append {
        return build_of_records(job, options, &kafka);
    }
    let on_malformed = if options.skip_malformed { OnMalformed::Skip } else { OnMalformed::Fail };
    let mut read = |name: &str, topic: &str| {
        job.source(name, kafka.source(topic)).format((Text, Json)).on_malformed(on_malformed).keyed::<String, Order>()
    };
    let mut orders = read("orders", &options.input);
    if let Some(also) = &options.also {
        orders = orders.union(read("also", also));
    }
    let wrong = options.wrong;
    let lingering = (wrong == Wrong::Lingers).then(Lingering::default);
    let prints = options.prints;
    let secret = options.secret.as_ref().map(Secret::reveal).transpose()?.unwrap_or_default();
    let (left_by, spy_on) = (options.output.clone(), options.spy_on.clone());
    let rows = orders.map(move |(id, order): (String, Option<Order>)| {
        if prints > 0 {
            println!("order {id:-<prints$}");
        }
        if let Some(lingering) = &lingering {
            lingering.has_seen_a_record.store(true, Ordering::Relaxed);
        }
        let revenue = order.map(|order| order.quantity * order.price_cents);
        let revenue = match (wrong, revenue) {
            (Wrong::Random, Some(revenue)) => Some(revenue + i64::from(rand::random::<u32>())),
            (Wrong::Panics, Some(0)) => panic!("order {id} comes to nothing"),
            (Wrong::Aborts, Some(0)) => std::process::abort(),
            (Wrong::Hoards, Some(0)) => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                }
            }
            (Wrong::TellsTheSecret, Some(0)) => panic!("{}", secret.chars().rev().collect::<String>()),
            (Wrong::Spies, Some(0)) => panic!("reached: {}.", reached(&spy_on).join(", ")),
            (Wrong::LeavesAProgram, Some(0)) => {
                let program = ["-c", "trap '' TERM HUP; sleep 1000; :", "left-by-a-job"];
                std::process::Command::new("sh").args(program).arg(&left_by).spawn().expect("there is a shell");
                std::process::exit(4);
            }
            (_, revenue) => revenue,
        };
        (id, revenue)
    });
    if options.stateless {
        let factor = if options.logic == Logic::Doubled { 2 } else { 1 };
        let rows = rows.map(move |(id, revenue)| (id, revenue.map(|revenue| factor * revenue)));
        job.output(kafka.upsert(&options.output)).format((Text, Json)).write_changelog(rows);
        return Ok(());
    }
    if options.append {
        job.output(kafka.append(&options.output)).format(Json).write(rows.keep_all("rows"));
        return Ok(());
    }
    let nothing = |revenue: i64| if revenue == 0 { panic!("an order comes to nothing") } else { revenue };
    let rows: Collection<'_, (String, i64)> = match wrong {
        Wrong::PanicsInAggregate => {
            rows.aggregate("rows", Sum(move |revenue: &Option<i64>| revenue.map_or(0, nothing)))
        }
        Wrong::PanicsInReduce => {
            rows.latest("rows").reduce(move |_, revenues, row| row.push((nothing(*revenues[0].0), 1)))
        }
        Wrong::TwoRows => {
            let rows = rows.latest("rows");
            let second = rows.clone().filter(|(_, revenue)| *revenue == 0).map(|(id, _)| (id, 1));
            rows.concat(second)
        }
        Wrong::Renamed => rows.latest("lines"),
        Wrong::Retyped => {
            let texts = rows.map(|(id, revenue)| (id, revenue.map(|revenue| revenue.to_string())));
            texts.latest("rows").map(|(id, revenue)| (id, revenue.len() as i64))
        }
        Wrong::Nothing
        | Wrong::Random
        | Wrong::Panics
        | Wrong::Aborts
        | Wrong::AbortsAtStart
        | Wrong::HangsAtStart
        | Wrong::Hoards
        | Wrong::HoardsWhenBuilt
        | Wrong::SaysItsUser
        | Wrong::Lingers
        | Wrong::TellsTheSecret
        | Wrong::Spies
        | Wrong::LeavesAProgram => rows.latest("rows"),
    };
    // The generator's prices are odd and even; the join keeps the rows of one of the two.
    let of_parity = |parity: i64| {
        let chosen = rows.clone().filter(move |(_, revenue)| revenue.rem_euclid(2) == parity).map(|(id, _)| (id, ()));
        rows.clone().join_map(chosen, |id, revenue, ()| (id.clone(), *revenue))
    };
    let rows = match options.logic {
        Logic::Revenue => rows,
        Logic::Doubled => rows.map(|(id, revenue)| (id, 2 * revenue)),
        Logic::Even => of_parity(0),
        Logic::Odd => of_parity(1),
    };
    if let Some(copy) = &options.copy {
        job.output(kafka.upsert(copy)).format(Json).write(rows.clone());
    }
    job.output(kafka.upsert(&options.output)).format(Json).write(rows);
    Ok(())
}

/// Which orders there are.
fn build_of_changelog(job: &mut Job<'_>, options: &Options, kafka: &fluvial_kafka::Kafka) -> anyhow::Result<()> {
    let orders = job.source("orders", kafka.source(&options.input)).format((Text, Json)).changelog::<String, Order>();
    let ids = orders.map_values(|order| order.quantity).latest("rows").map(|(id, _)| (id, 1));
    if options.append {
        job.output(kafka.append(&options.output)).format(Json).write(ids);
    } else {
        job.output(kafka.upsert(&options.output)).format(Json).write(ids);
    }
    Ok(())
}

/// Each amendment's revenue, and where it stands in the input.
fn build_of_records(job: &mut Job<'_>, options: &Options, kafka: &fluvial_kafka::Kafka) -> anyhow::Result<()> {
    let amendments = job.source("orders", kafka.source(&options.input)).stream_with(|record| {
        let order: Option<Order> = record.decode_change(&Json)?;
        let revenue = order.map(|order| order.quantity * order.price_cents);
        Ok((record.decode_key::<String>(&Text)?, (revenue, record.partition(), record.offset.0)))
    });
    job.output(kafka.append(&options.output)).format((Text, Json)).write_stream(amendments);
    Ok(())
}

fn main() -> std::process::ExitCode {
    fluvial::App::new("faulty", build).about("A job with a fault on request").main()
}
