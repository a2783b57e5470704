//! A page in the text format of Prometheus: the samples of a metric follow each other, below its help and its type.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::families::{ALL, Family, Kind};

/// The samples of all metrics.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<&'static str, String>);

impl Page {
    /// Adds a sample; `labels` are the name of the job and the values of the metric's own labels.
    pub(super) fn add(&mut self, family: &Family, labels: &[&str], value: impl Display) {
        self.sample(family, "", labels, None, value);
    }

    /// Adds a sample if there is one.
    pub(super) fn some(&mut self, family: &Family, labels: &[&str], value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(family, labels, value);
        }
    }

    /// Adds a histogram: how many were at most as large as each limit, their sum and their number.
    pub(super) fn histogram(
        &mut self,
        family: &Family,
        labels: &[&str],
        buckets: impl Iterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (limit, below) in buckets {
            self.sample(family, "_bucket", labels, Some(&limit.to_string()), below);
        }
        self.sample(family, "_bucket", labels, Some("+Inf"), count);
        self.sample(family, "_sum", labels, None, sum);
        self.sample(family, "_count", labels, None, count);
    }

    fn sample(&mut self, family: &Family, suffix: &str, labels: &[&str], le: Option<&str>, value: impl Display) {
        let names = std::iter::once("job_name").chain(family.labels.iter().copied()).zip(labels.iter().copied());
        let text = self.0.entry(family.name).or_default();
        // Writing into a text cannot fail.
        let _ = write!(text, "{}{suffix}{{", family.name);
        for (place, (name, value)) in names.chain(le.map(|le| ("le", le))).enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{name}=\"{}\"", escaped(value));
        }
        let _ = writeln!(text, "}} {value}");
    }

    /// The page.
    pub(super) fn text(&self) -> String {
        let mut page = String::new();
        for Family { name, kind, help, .. } in ALL {
            if let Some(samples) = self.0.get(name) {
                let _ = write!(page, "# HELP {name} {help}.\n# TYPE {name} {}\n{samples}", Kind::name(*kind));
            }
        }
        page
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
