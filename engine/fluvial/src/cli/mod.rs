//! The command line that every job has.
//!
//! ```text
//! orders run …             run the job
//! orders check …           check whether the job could be run now, and change nothing
//! orders replay …          recompute the output from a kept journal, and print it without writing anything
//! orders state …           list checkpoints and state files
//! orders status …          say how a job is that several copies run together
//! orders graph             show sources, durable operators and outputs
//! orders cluster-key new   make a key by which copies on several hosts know each other
//! orders NAME …            commands that the job adds
//! ```
//!
//! Results go to stdout, everything else to stderr. Owns parsing, logging and exit codes; what is done is elsewhere.

mod cluster_key;
mod files;
mod graph;
mod join;
mod options;
mod state;
mod status;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgGroup, ArgMatches, Args, Command, FromArgMatches};
use fluvial_connector::Error;
use tracing_subscriber::fmt::Layer as Logs;
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use fluvial_node::isolation::Secrets;
use fluvial_node::log;
use fluvial_node::process_link::{Invited, PROCESS_VARIABLE, read_line};
use fluvial_node::supervisor::{Supervision, supervise};
use fluvial_protocol::{Ended, Exit, System};
use options::{CheckOptions, LogFormat, ReplayOptions, RunOptions, StoreOptions};

use crate::fail_point::{self, Doom};
use crate::job::Job;
use crate::runtime::check;
use crate::runtime::config::RunConfig;
use crate::runtime::plan::plan;
use crate::runtime::replay;
use crate::runtime::version::version;
use crate::runtime::{Build, panics, process};
use crate::state::StateError;

/// By this the nodes of a cluster know that a binary is a job, before it is uploaded or started.
#[used]
static MARK: [u8; 64] = fluvial_node::elf::mark();

/// A job's binary: its name, the closure that builds it, and commands of its own.
///
/// ```no_run
/// # #[derive(clap::Args, Clone)] struct Options {}
/// # fn build(job: &mut fluvial::Job<'_>, options: &Options) -> anyhow::Result<()> { Ok(()) }
/// fn main() -> std::process::ExitCode {
///     fluvial::App::new("orders", build).about("Revenue per region and product").main()
/// }
/// ```
pub struct App<O> {
    name: &'static str,
    about: &'static str,
    build: Arc<BuildWith<O>>,
    own: Vec<OwnCommand>,
}

/// Builds a job's dataflow with its own options.
type BuildWith<O> = dyn for<'s> Fn(&mut Job<'s>, &O) -> anyhow::Result<()> + Send + Sync;

type RunOwn = Box<dyn Fn(&ArgMatches) -> anyhow::Result<ExitCode>>;

struct OwnCommand {
    command: Command,
    run: RunOwn,
}

impl<O: Args + Clone + Send + Sync + 'static> App<O> {
    /// Creates the binary of the job `name`. `build` is called on every worker and must build the same dataflow each time;
    /// it should fail only because of wrong options.
    ///
    /// Where the binary or the values of `O`'s options differ from those of the last run, the job may compute other output:
    /// the run then compares the upsert outputs with what it computes before it writes anything, and is refused where they
    /// differ, unless it is started with `--reconcile`. Options of an argument group whose id ends with `-connection` do not
    /// count, as those of `fluvial_kafka::KafkaOptions`: they say how a system is reached.
    pub fn new(
        name: &'static str,
        build: impl for<'s> Fn(&mut Job<'s>, &O) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name, about: "", build: Arc::new(build), own: Vec::new() }
    }

    /// Sets the line of `--help` that says what the job does.
    #[must_use]
    pub fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Adds a command, with options `A`, to those that every job has.
    #[must_use]
    pub fn command<A: Args>(
        mut self,
        name: &'static str,
        about: &'static str,
        run: impl Fn(A) -> anyhow::Result<ExitCode> + 'static,
    ) -> Self {
        let command = described(A::augment_args(Command::new(name)), about);
        let run = move |matches: &ArgMatches| run(A::from_arg_matches(matches)?);
        self.own.push(OwnCommand { command, run: Box::new(run) });
        self
    }

    /// Runs the command that this process was started with, and returns its exit code.
    #[must_use]
    pub fn main(self) -> ExitCode {
        self.main_with(std::env::args_os())
    }

    /// Runs the command in `arguments`, of which the first is the name of the program, and returns its exit code.
    #[must_use]
    pub fn main_with(self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        // A linker leaves out what is not used.
        std::hint::black_box(&MARK);
        files::raise_limit();
        let matches = match self.command_line().try_get_matches_from(arguments) {
            Ok(matches) => matches,
            Err(error) => {
                // A closed pipe is no error.
                let _ = error.print();
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            }
        };
        let code = match self.dispatch(&matches) {
            Ok(code) => code,
            Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                let format = matches.subcommand().and_then(|(_, of)| of.try_get_one("log_format").ok().flatten());
                say_why(format.copied().unwrap_or(LogFormat::Text), &format!("{error:#}"));
                ExitCode::from(exit_of(&error).code())
            }
        };
        log::finish();
        code
    }

    fn command_line(&self) -> Command {
        let run = RunOptions::augment_args(Command::new("run"));
        let run = described(O::augment_args(run), "Run the job").after_help(exit_codes());
        let check = CheckOptions::augment_args(Command::new("check"));
        let check = described(
            O::augment_args(check),
            "Check, with the options of `run`, whether the job could be run now, and change nothing",
        );
        let check = check.after_help(CHECK_SAYS);
        let replay = ReplayOptions::augment_args(Command::new("replay"));
        let replay = described(
            O::augment_args(replay),
            "Recompute the output of a job that ran with --keep-journal, and print it without writing anything",
        );
        let state = state::StateOptions::augment_args(Command::new("state"));
        let state = described(state, "List the job's checkpoints with their durable operators and state files");
        let status = status::StatusOptions::augment_args(Command::new("status"));
        let status = described(status, "Say how the job is, and the copies that run it with --join");
        let graph = graph::GraphOptions::augment_args(Command::new("graph"));
        let graph = described(O::augment_args(graph), "Show the job's sources, durable operators and outputs");
        Command::new(self.name)
            .about(self.about)
            .version(env!("CARGO_PKG_VERSION"))
            // Wider lines are hard to read on any terminal.
            .max_term_width(100)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands([run, check, replay, state, status, graph, cluster_key::command()])
            .subcommands(self.own.iter().map(|own| own.command.clone()))
    }

    fn dispatch(self, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
        match matches.subcommand() {
            Some(("run", matches)) => {
                let options = RunOptions::from_arg_matches(matches)?;
                options.check().map_err(Usage)?;
                self.run(options, O::from_arg_matches(matches)?, own_options::<O>(matches))
            }
            Some(("check", matches)) => {
                let options = CheckOptions::from_arg_matches(matches)?;
                options.run.check().map_err(Usage)?;
                self.check(&options, O::from_arg_matches(matches)?, own_options::<O>(matches))
            }
            Some(("replay", matches)) => {
                let options = ReplayOptions::from_arg_matches(matches)?;
                start_logging(options.store.log_format, has_colours(), None);
                let build = self.builder(O::from_arg_matches(matches)?);
                match replay::replay(&build, &options.config(self.name)) {
                    Err(failure) if !is_closed_pipe(&failure.error) => {
                        say_why(options.store.log_format, &failure.line());
                        Ok(ExitCode::from(failure.exit.code()))
                    }
                    Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
                }
            }
            Some(("state", matches)) => {
                let options = state::StateOptions::from_arg_matches(matches)?;
                start_logging(options.store.log_format, has_colours(), None);
                state::print(&options, self.name)?;
                Ok(ExitCode::SUCCESS)
            }
            Some(("status", matches)) => {
                let options = status::StatusOptions::from_arg_matches(matches)?;
                start_logging(options.store.log_format, has_colours(), None);
                status::print(&options, self.name)?;
                Ok(ExitCode::SUCCESS)
            }
            Some(("graph", matches)) => {
                let options = graph::GraphOptions::from_arg_matches(matches)?;
                let build = self.builder(O::from_arg_matches(matches)?);
                let plan = plan(&build).map_err(|error| Usage(format!("{error:#}")))?;
                write!(std::io::stdout(), "{}", options.print(&plan)?)?;
                Ok(ExitCode::SUCCESS)
            }
            Some(("cluster-key", _)) => {
                cluster_key::print()?;
                Ok(ExitCode::SUCCESS)
            }
            Some((name, matches)) => {
                let own = self.own.iter().find(|own| own.command.get_name() == name).context("no such command")?;
                (own.run)(matches)
            }
            None => Err(Usage("no command was given; see --help".to_owned()).into()),
        }
    }

    fn builder(&self, options: O) -> Build {
        let build = Arc::clone(&self.build);
        Arc::new(move |job| build(job, &options))
    }

    fn check(self, options: &CheckOptions, own: O, own_options: Vec<u8>) -> anyhow::Result<ExitCode> {
        start_logging(options.run.store.log_format, has_colours(), None);
        if options.secrets_on_stdin {
            let secrets: Option<Secrets> = read_line(&mut std::io::stdin().lock()).context("cannot read secrets")?;
            secrets.unwrap_or_default().provide();
        }
        if options.run.end_with_stdin {
            end_with_stdin().context("cannot watch standard input")?;
        }
        panics::end_the_command_on_panic();
        let (verdict, exit) = check::check(&self.builder(own), &options.run.config(self.name, own_options));
        let mut out = std::io::stdout().lock();
        if options.json {
            serde_json::to_writer(&mut out, &verdict).map_err(std::io::Error::from)?;
            writeln!(out)?;
            return Ok(ExitCode::from(exit.code()));
        }
        writeln!(out, "version {}", verdict.version)?;
        for warning in &verdict.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        for problem in &verdict.problems {
            writeln!(out, "{}: {}", problem.part, problem.what)?;
        }
        if verdict.ready {
            writeln!(out, "ready")?;
        }
        Ok(ExitCode::from(exit.code()))
    }

    fn run(self, options: RunOptions, own: O, own_options: Vec<u8>) -> anyhow::Result<ExitCode> {
        if std::env::var_os(PROCESS_VARIABLE).is_some() {
            let invited = Invited::take()?;
            invited.invitation.secrets.clone().into_iter().for_each(Secrets::provide);
            let doom = options.fail_point.filter(|_| invited.invitation.first);
            start_logging(options.store.log_format, invited.invitation.ansi, doom);
            doom.into_iter().for_each(fail_point::set);
            let layout = invited.invitation.layout;
            let config = RunConfig { layout, ..options.config(self.name, own_options) };
            return Ok(ExitCode::from(process::run(invited, &self.builder(own), &config)?.code()));
        }
        log::print_for_the_run().context("cannot set up the output of log lines")?;
        start_logging(options.store.log_format, has_colours(), None);
        if options.end_with_stdin {
            end_with_stdin().context("cannot watch standard input")?;
        }
        let ansi = has_colours();
        let (exit, why) = if options.join.join {
            let config = options.config(self.name, own_options);
            let version = version(&config.own_options).context("cannot read this binary")?;
            join::run(&options, &config, version, ansi)?
        } else {
            supervise(Supervision { layout: options.layout(), restart: !options.no_restart, ansi })?
        };
        if exit != Exit::Done {
            say_why(options.store.log_format, &why);
        }
        Ok(ExitCode::from(exit.code()))
    }
}

/// What `check` says, for its `--help`.
const CHECK_SAYS: &str = "\
Prints the program's version (the hash of the binary and of the job's own options), one line for each thing that would end a
run, and `ready` if there is none. The exit code is that of a run that ends with the first of them (see `run --help`). Checked
are the definition of the job, the store with the newest checkpoint and the journal, the durable operators, the inputs, and the
outputs. Nothing is written, so it is not checked whether the store honours conditional creates; and whether the outputs are what
this program computes, if another one wrote them, is compared when the job starts. What does not answer within ten seconds (or
--patience, if that is less) is named.";

/// The end of the id of an argument group whose options say how a system is reached, and not what is computed.
const CONNECTION: &str = "-connection";

/// The values of the job's own options, encoded as bytes that are equal if the values are.
fn own_options<O: Args>(matches: &ArgMatches) -> Vec<u8> {
    let command = O::augment_args(Command::new("own"));
    let connections = command.get_groups().filter(|group| group.get_id().as_str().ends_with(CONNECTION));
    let connections: Vec<_> = connections.flat_map(ArgGroup::get_args).collect();
    let mut bytes = Vec::new();
    for argument in command.get_arguments().filter(|argument| !connections.contains(&argument.get_id())) {
        // No argument holds a zero byte: one ends each part, and another the option.
        let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
        for part in std::iter::once(OsStr::new(argument.get_id().as_str())).chain(values) {
            bytes.extend_from_slice(part.as_encoded_bytes());
            bytes.push(0);
        }
        bytes.push(0);
    }
    bytes
}

/// A command with its options and its description. The description is set last, because adding a struct of options replaces
/// it with the docs of that struct.
fn described(command: Command, about: &'static str) -> Command {
    command.about(about).long_about(None)
}

/// Ends this process when its standard input ends, because then the program that started it has ended, for whatever reason.
/// The processes of the job end with this one.
fn end_with_stdin() -> std::io::Result<()> {
    let watch = || {
        // After a read error there will be no more input either, so it is treated like the end.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        log::finish();
        std::process::exit(i32::from(Exit::StoppedUncommitted.code()));
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).map(drop)
}

/// How a command ends with an error.
fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<clap::Error>() || error.is::<Usage>() {
        return Exit::Misconfigured;
    }
    let of_machine = error.downcast_ref::<Ended>().map(Ended::exit);
    let of_system = error.downcast_ref::<Error>().map(|error| error.kind);
    let of_system = of_system.or_else(|| error.downcast_ref::<StateError>().map(StateError::kind));
    of_machine.or(of_system.map(|kind| Exit::of(kind, System::Store))).unwrap_or(Exit::Failed)
}

/// What the exit codes mean, for `--help`.
fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for exit in Exit::ALL {
        text.push_str(&format!("\n  {:>2}  {}", exit.code(), exit.describe()));
    }
    text + "\n\nAfter 4, and after 5, 6 and 7 once a generation of this run has finished its recovery, the job is \
         restarted, unless\n--no-restart is given."
}

/// Wrong usage that clap cannot detect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether log lines have colours: they go to a terminal, and the user has not said by NO_COLOR that there are to be none
/// (<https://no-color.org>).
fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Prints the one line that says why a command ends, in the format of the logs. No log filter applies to it.
fn say_why(format: LogFormat, why: &str) {
    match format {
        LogFormat::Text => log::say(&format!("error: {why}")),
        LogFormat::Json => {
            let logs = tracing_subscriber::registry().with(logs().json());
            tracing::subscriber::with_default(logs, || tracing::error!("{why}"));
        }
    }
}

/// What is logged unless RUST_LOG says otherwise. The engine reports an outage of the store itself, and not each try.
const LOGGED: &str = "info,object_store=warn";

fn logs() -> Logs<Registry, DefaultFields, Format, log::Writer> {
    tracing_subscriber::fmt::layer().with_writer(log::Writer).with_target(false)
}

/// Starts logging, with colours if `ansi` says that the log goes to a terminal. `fail_point` may be one that the events of the
/// sink reach.
fn start_logging(format: LogFormat, ansi: bool, fail_point: Option<Doom>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let logs = match format {
        LogFormat::Text => logs().with_ansi(ansi).with_filter(filter).boxed(),
        LogFormat::Json => logs().json().with_filter(filter).boxed(),
    };
    // A second start, in a test that runs several command lines, keeps the first one's settings.
    let _ = tracing_subscriber::registry().with(logs).with(fail_point::in_the_sink(fail_point)).try_init();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Args)]
    #[group(id = "some-connection")]
    struct Connection {
        #[arg(long, default_value = "a")]
        broker: String,
    }

    #[derive(Args)]
    struct Own {
        #[command(flatten)]
        connection: Connection,
        #[arg(long, default_value = "1")]
        top: u32,
        #[arg(long)]
        also: Vec<String>,
        #[arg(long)]
        strict: bool,
    }

    #[test]
    fn options_that_decide_what_is_computed_are_told_apart_and_those_of_a_connection_are_not() {
        let of = |arguments: &str| {
            let command = Own::augment_args(Command::new("own"));
            own_options::<Own>(&command.try_get_matches_from(arguments.split_whitespace()).unwrap())
        };
        assert_eq!(of("own"), of("own --broker b --top 1"));
        let others = ["own", "own --top 2", "own --strict", "own --also 1", "own --also 1 --also 2", "own --also 1=2"];
        let different: std::collections::BTreeSet<_> = others.into_iter().map(of).collect();
        assert_eq!(different.len(), others.len());
    }
}
