//! What is printed: a table for each figure, with aims and whether they were met.

use std::fmt;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

/// What came of one figure.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    lines: Vec<Line>,
    notes: Vec<String>,
}

/// One measured thing.
#[derive(Debug)]
struct Line {
    what: String,
    ours: String,
    theirs: String,
    ratio: Option<f64>,
    aim: String,
    met: Option<bool>,
}

/// What a ratio, ours to theirs, is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// Nothing: it is there to be seen.
    None,
}

impl Aim {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::None => None,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::None => Ok(()),
        }
    }
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lines: Vec::new(), notes: Vec::new() }
    }

    /// Two figures of one kind, and what their ratio is to be.
    pub(crate) fn compare(&mut self, what: impl Into<String>, ours: Value, theirs: Value, aim: Aim) {
        let ratio = ours.number() / theirs.number();
        self.lines.push(Line {
            what: what.into(),
            ours: ours.to_string(),
            theirs: theirs.to_string(),
            ratio: Some(ratio),
            aim: aim.to_string(),
            met: aim.met(ratio),
        });
    }

    /// A figure that is to be no more than `most`.
    pub(crate) fn limit(&mut self, what: impl Into<String>, ours: Value, most: Value) {
        self.lines.push(Line {
            what: what.into(),
            met: Some(ours.number() <= most.number()),
            ours: ours.to_string(),
            theirs: String::new(),
            ratio: None,
            aim: format!("≤ {most}"),
        });
    }

    /// A figure that is there to be seen.
    pub(crate) fn show(&mut self, what: impl Into<String>, ours: Value) {
        let (what, ours) = (what.into(), ours.to_string());
        self.lines.push(Line { what, ours, theirs: String::new(), ratio: None, aim: String::new(), met: None });
    }

    /// Something to know beside the figures.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "ours", "theirs", "ratio", "aim", "met"]);
        for line in &self.lines {
            let met = match line.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            table.add_row([&line.what, &line.ours, &line.theirs, &ratio, &line.aim, &met.to_owned()]);
        }
        writeln!(f, "## {}\n\n{table}", self.title)?;
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))
    }
}

/// A measured value with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// CPU seconds that a million records cost.
    CpuPerMillion(f64),
    /// Records a second.
    Rate(f64),
    /// A time.
    Time(Duration),
    /// Bytes.
    Bytes(u64),
    /// A share of one core.
    Core(f64),
    /// A number of things.
    Count(u64),
    /// A price for each month.
    DollarsPerMonth(f64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::CpuPerMillion(number) | Self::Rate(number) | Self::Core(number) | Self::DollarsPerMonth(number) => {
                number
            }
            Self::Time(time) => time.as_secs_f64(),
            Self::Bytes(bytes) => bytes as f64,
            Self::Count(count) => count as f64,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuPerMillion(seconds) => write!(f, "{seconds:.3} CPU s/M"),
            Self::Rate(rate) => write!(f, "{:.0} k/s", rate / 1e3),
            Self::Time(time) if *time >= Duration::from_secs(1) => write!(f, "{:.2} s", time.as_secs_f64()),
            Self::Time(time) => write!(f, "{:.1} ms", time.as_secs_f64() * 1e3),
            Self::Bytes(bytes) => write!(f, "{:.0} MB", *bytes as f64 / 1e6),
            Self::Core(share) => write!(f, "{:.2} % of a core", share * 100.0),
            Self::Count(count) => count.fmt(f),
            Self::DollarsPerMonth(dollars) => write!(f, "${dollars:.2} a month"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_its_aim_was_met() {
        let mut report = Report::new("memory");
        report.compare("1 M keys", Value::Bytes(90_000_000), Value::Bytes(60_000_000), Aim::AtMost(2.0));
        report.compare("rate", Value::Rate(600_000.0), Value::Rate(1_000_000.0), Aim::AtLeast(0.7));
        report.limit("idle", Value::Core(0.02), Value::Core(0.01));
        let text = report.to_string();
        let rows: Vec<Vec<&str>> =
            text.lines().filter(|l| l.starts_with('|')).map(|l| l.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[2][1..7], ["1 M keys", "90 MB", "60 MB", "1.50", "≤ 2", "yes"]);
        assert_eq!(rows[3][1..7], ["rate", "600 k/s", "1000 k/s", "0.60", "≥ 0.7", "NO"]);
        assert_eq!(rows[4][1..7], ["idle", "2.00 % of a core", "", "", "≤ 1.00 % of a core", "NO"]);
    }
}
