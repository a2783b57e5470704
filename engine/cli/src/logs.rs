//! `fluvial logs`: the log of a job, as it is or as it grows.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use fluvial_node::http::api::{LogAnswer, LogEnd};
use fluvial_node::logs::{Line, Unanswered};
use fluvial_node::status::State;

use crate::client::Client;

/// How long the connection to a node is tried again that was lost while a log is followed.
const TRIED_FOR: Duration = Duration::from_secs(20);
/// The time between two attempts.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest event: a line has at most 64 KiB, each byte of which may take six in JSON.
const LONGEST_EVENT: usize = 1 << 20;

/// What is wanted of a log.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The job
    job: String,
    /// Print new lines as they come, until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Print the newest lines, at most so many [default: 1000, and 10000 with --since]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tail: Option<u32>,
    /// Print the lines of this attempt only, whose number `status` shows [default: of all that are kept, which are the newest 20]
    #[arg(long)]
    attempt: Option<u64>,
    /// Print the lines of the last so many seconds, minutes or hours, such as 10m
    #[arg(long, value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Print each line as a JSON object
    #[arg(long)]
    json: bool,
}

impl Options {
    /// The path and the query by which the API is asked.
    fn path(&self, now_ms: u64) -> String {
        let tail = self.tail.unwrap_or(if self.since.is_some() { 10_000 } else { 1000 });
        let mut path = format!("jobs/{}/logs?tail={tail}", self.job);
        if let Some(attempt) = self.attempt {
            path += &format!("&attempt={attempt}");
        }
        if let Some(since) = self.since {
            let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            path += &format!("&since={}", now_ms.saturating_sub(since_ms));
        }
        if self.follow {
            path += "&follow=true";
        }
        path
    }
}

/// Prints the log of a job.
pub(crate) async fn print(client: &Client, options: &Options) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = options.path(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let mut printer = Printer { json: options.json, attempt: None };
    let printed = if options.follow {
        follow(client, &path, &options.job, &mut printer).await
    } else {
        once(client, &path, &mut printer).await
    };
    match printed {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

async fn once(client: &Client, path: &str, printer: &mut Printer) -> anyhow::Result<ExitCode> {
    let LogAnswer { lines, unanswered, left_out } = client.get(path).await?;
    if left_out {
        say("there are older lines: --tail prints more of them, and --attempt those of one attempt");
    }
    lines.iter().try_for_each(|line| printer.line(line))?;
    std::io::stdout().flush()?;
    unanswered.iter().for_each(warn);
    Ok(ExitCode::SUCCESS)
}

/// Says something beside the log. Whoever has closed stderr does not want to know.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn warn(unanswered: &Unanswered) {
    say(&format!("lines may be missing: {}: {}", unanswered.node, unanswered.why));
}

/// Prints what comes until the job has ended. A connection that is lost is made again, and the log goes on where it was.
async fn follow(client: &Client, path: &str, job: &str, printer: &mut Printer) -> anyhow::Result<ExitCode> {
    let mut after = String::new();
    let mut lost: Option<Instant> = None;
    loop {
        let from = if after.is_empty() { path.to_owned() } else { format!("{path}&after={after}") };
        let error = match client.stream(&from).await {
            Ok(mut response) => {
                let mut events = Events::default();
                loop {
                    match response.chunk().await {
                        Ok(Some(bytes)) => {
                            lost = None;
                            for event in events.feed(&bytes)? {
                                if let Some(id) = &event.id {
                                    after.clone_from(id);
                                }
                                if let Some(code) = heard(&event, job, printer)? {
                                    return Ok(code);
                                }
                            }
                            std::io::stdout().flush()?;
                        }
                        Ok(None) => break anyhow::anyhow!("the node has ended"),
                        Err(error) => break error.into(),
                    }
                }
            }
            // It has never been there, or what is asked for is wrong.
            Err(error) if lost.is_none() => return Err(error),
            Err(error) => error,
        };
        if lost.get_or_insert_with(Instant::now).elapsed() >= TRIED_FOR {
            return Err(error.context("the connection was lost"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Prints an event. Returns the exit code, if it is the last one.
fn heard(event: &Event, job: &str, printer: &mut Printer) -> anyhow::Result<Option<ExitCode>> {
    match event.kind.as_str() {
        "line" => printer.line(&serde_json::from_str(&event.data)?)?,
        "unanswered" => warn(&serde_json::from_str(&event.data)?),
        "end" => {
            std::io::stdout().flush()?;
            let LogEnd { state, why } = serde_json::from_str(&event.data)?;
            let state = state.map_or("gone".to_owned(), |state: State| state.to_string());
            say(&if why.is_empty() { format!("{job} is {state}") } else { format!("{job} is {state}: {why}") });
            return Ok(Some(ExitCode::SUCCESS));
        }
        _ => {}
    }
    Ok(None)
}

/// Prints lines.
struct Printer {
    json: bool,
    /// The attempt of the line before.
    attempt: Option<u64>,
}

impl Printer {
    fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
            return Ok(());
        }
        if self.attempt.replace(line.attempt).is_some_and(|before| before != line.attempt) {
            say(&format!("--- attempt {}", line.attempt));
        }
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(line.time_ms));
        writeln!(out, "{time} {}| {}", line.process, harmless(&line.text))?;
        Ok(())
    }
}

/// A line without characters by which a terminal could be told to do something.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// An event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    data: String,
    id: Option<String>,
}

/// Reads events out of bytes (`text/event-stream`).
#[derive(Debug, Default)]
struct Events {
    begun: Vec<u8>,
}

impl Events {
    /// Takes bytes, and returns the events that are complete with them.
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        // The end of an event may lie across the border.
        let mut looked = self.begun.len().saturating_sub(1);
        self.begun.extend_from_slice(bytes);
        while let Some(at) = self.begun[looked..].windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.begun.split_off(looked + at + 2);
            let text = String::from_utf8(std::mem::replace(&mut self.begun, rest)).context("an event is no text")?;
            looked = 0;
            let event = Self::parse(&text);
            // Comments keep the connection alive.
            if !event.kind.is_empty() {
                events.push(event);
            }
        }
        if self.begun.len() > LONGEST_EVENT {
            bail!("the node sends an event of more than {LONGEST_EVENT} bytes");
        }
        Ok(events)
    }

    fn parse(text: &str) -> Event {
        let mut event = Event::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut event.kind),
                "data" => event.data.push_str(value),
                "id" => event.id = Some(value.to_owned()),
                _ => {}
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let stream = "event: line\ndata: {\"a\":1}\nid: 3.0.7\n\n: \n\nevent:end\ndata:x\n\nevent: li";
        let event = |kind: &str, data: &str, id: Option<&str>| Event {
            kind: kind.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        };
        let expected = [event("line", "{\"a\":1}", Some("3.0.7")), event("end", "x", None)];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let pieces = stream.as_bytes().chunks(size);
            let read: Vec<_> = pieces.flat_map(|piece| events.feed(piece).unwrap()).collect();
            assert_eq!(read, expected, "in pieces of {size}");
        }
        assert!(Events::default().feed(&vec![b'x'; LONGEST_EVENT + 1]).is_err());
    }

    #[test]
    fn the_options_say_what_is_asked_for() {
        let options = |follow, tail, attempt, since: Option<u64>| Options {
            job: "orders".to_owned(),
            follow,
            tail,
            attempt,
            since: since.map(Duration::from_secs),
            json: false,
        };
        for (options, expected) in [
            (options(false, None, None, None), "jobs/orders/logs?tail=1000"),
            (options(true, Some(5), Some(7), None), "jobs/orders/logs?tail=5&attempt=7&follow=true"),
            (options(false, None, None, Some(2)), "jobs/orders/logs?tail=10000&since=8000"),
        ] {
            assert_eq!(options.path(10_000), expected);
        }
    }

    #[test]
    fn a_line_cannot_tell_the_terminal_anything() {
        assert_eq!(harmless("\u{1b}[2Ja\tb\u{9b}"), "\u{fffd}[2Ja\tb\u{fffd}");
    }
}
