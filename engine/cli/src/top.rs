//! `fluvial top`: all jobs and how fast they are, again and again.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use fluvial_node::status::{Progress, Report, State};
use tokio::signal::ctrl_c;

use crate::client::Client;

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Moves the cursor to the top left.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line, and the rest of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Shows the jobs until Ctrl-C on a terminal, and once elsewhere.
pub(crate) async fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if json || !out.is_terminal() {
        let jobs = client.list::<Report>("jobs").await?;
        let text = if json { serde_json::to_string_pretty(&jobs)? + "\n" } else { table(&jobs, false) };
        return Ok(write!(out, "{text}")?);
    }
    let colours = uses_colours(std::env::var_os("NO_COLOR").as_deref());
    let mut first = true;
    loop {
        let screen = tokio::select! {
            jobs = client.list::<Report>("jobs") => match jobs {
                Ok(jobs) => table(&jobs, colours),
                // The node may be back in a moment. The first failure is more likely a wrong address.
                Err(error) if first => return Err(error),
                Err(error) => format!("{error:#}\n"),
            },
            _ = ctrl_c() => return Ok(()),
        };
        let clear = if std::mem::take(&mut first) { "\x1b[2J" } else { "" };
        let lines: String = screen.lines().map(|line| format!("{line}{CLEAR_LINE}\r\n")).collect();
        write!(out, "{clear}{HOME}{lines}{CLEAR_BELOW}")?;
        out.flush()?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = ctrl_c() => return Ok(()),
        }
    }
}

/// Whether colours are wanted: <https://no-color.org> says that any value but an empty one means no.
fn uses_colours(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// The jobs, those first that a person has to look at.
fn table(jobs: &[Report], colours: bool) -> String {
    let mut jobs: Vec<&Report> = jobs.iter().collect();
    let well = |job: &Report| job.state == State::Running && job.why.is_empty();
    let lag = |job: &Report| job.progress.as_ref().and_then(|progress| progress.lag_ms);
    jobs.sort_by_key(|job| (well(job), std::cmp::Reverse(lag(job)), &job.job));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "JOB",
        "STATE",
        "WORKERS",
        "LAG",
        "BEHIND",
        "IN/S",
        "OUT/S",
        "CHECKPOINT",
        "CPU",
        "MEMORY",
        "WHY",
    ]);
    for job in jobs {
        let of = |value: fn(&Progress) -> String| job.progress.as_ref().map_or_else(nothing, value);
        let workers = job.attempt.as_ref().map_or(0, |attempt| attempt.workers);
        table.add_row([
            job.job.clone(),
            job.state.to_string(),
            format!("{workers}/{}", job.workers_wanted.unwrap_or_default()),
            of(|progress| progress.lag_records.map_or_else(nothing, |records| records.to_string())),
            of(|progress| progress.lag_ms.map_or_else(nothing, time)),
            of(|progress| format!("{:.0}", progress.records_in_per_s)),
            of(|progress| format!("{:.0}", progress.records_out_per_s)),
            of(|progress| progress.checkpoint_age_ms.map_or_else(nothing, time)),
            job.cpu_share.map_or_else(nothing, |share| format!("{:.0}%", share * 100.0)),
            job.memory_bytes.map_or_else(nothing, bytes),
            job.why.clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    if colours && let Some(header) = lines.first_mut() {
        *header = format!("\x1b[7m{header}\x1b[0m");
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn nothing() -> String {
    "-".to_owned()
}

fn time(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..120_000 => format!("{}s", ms / 1000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        _ => format!("{}h", ms / 3_600_000),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{}KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{}MiB", bytes >> 20),
        _ => format!("{:.1}GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, state: State, lag_ms: u64) -> Report {
        let progress = Progress { lag_records: Some(9), lag_ms: Some(lag_ms), ..Progress::default() };
        let mut report = Report::of_store(name.to_owned(), String::new(), None);
        (report.state, report.why) = (state, String::new());
        (report.progress, report.memory_bytes, report.cpu_share) = (Some(progress), Some(3 << 30), Some(1.5));
        report
    }

    #[test]
    fn jobs_that_are_unwell_or_late_come_first() {
        let jobs =
            [job("late", State::Running, 90_000), job("well", State::Running, 5), job("stalled", State::Stalled, 5)];
        let text = table(&jobs, false);
        let names: Vec<_> = text.lines().skip(1).map(|line| line.split_whitespace().next().unwrap_or("")).collect();
        assert_eq!(names, ["stalled", "late", "well"]);
        assert!(text.contains("90s") && text.contains("150%") && text.contains("3.0GiB"), "{text}");
        assert!(!text.contains('\x1b') && table(&jobs, true).starts_with("\x1b[7m"));
    }

    #[test]
    fn colours_are_used_unless_no_color_has_a_value() {
        assert!(uses_colours(None) && uses_colours(Some("".as_ref())) && !uses_colours(Some("1".as_ref())));
    }
}
