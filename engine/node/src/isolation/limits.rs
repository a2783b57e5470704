//! What a user lets each process of a job use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The least memory that a process can be limited to: with less, none of them starts.
const LEAST_MEMORY: u64 = 32 << 20;
/// The most that is taken for a number of bytes; a larger one is a slip.
const MOST_MEMORY: u64 = 1 << 50;
/// The range of CPUs, in thousandths. The kernel gives no process less than a hundredth.
const CPUS: std::ops::RangeInclusive<u32> = 10..=1_024_000;

/// The limits of each process of a job, with the programs that the process has started. What is not there is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The memory, without swap. The kernel kills a process that needs more.
    #[schema(maximum = 1_125_899_906_842_624_i64)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU. A process that would use more is slowed down.
    #[schema(maximum = 1_024_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millicpus: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These limits after a change: what the change does not name stays, and zero takes a limit away.
    #[must_use]
    pub fn changed_by(self, change: Self) -> Self {
        Self {
            memory_bytes: change.memory_bytes.or(self.memory_bytes).filter(|bytes| *bytes > 0),
            millicpus: change.millicpus.or(self.millicpus).filter(|cpus| *cpus > 0),
        }
    }

    /// Checks that a process can live within these limits.
    ///
    /// # Errors
    /// One line that says which are possible.
    pub fn check(&self) -> Result<(), String> {
        if self.memory_bytes.is_some_and(|bytes| !(LEAST_MEMORY..=MOST_MEMORY).contains(&bytes)) {
            return Err(format!(
                "a process can be limited to between {} and {} of memory",
                Bytes(LEAST_MEMORY),
                Bytes(MOST_MEMORY)
            ));
        }
        if self.millicpus.is_some_and(|cpus| !CPUS.contains(&cpus)) {
            return Err("a process can be limited to between 0.01 and 1024 CPUs".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory_bytes.map(|bytes| format!("{} of memory", Bytes(bytes)));
        let cpus = self.millicpus.map(|cpus| format!("{} CPUs", f64::from(cpus) / 1000.0));
        let limits: Vec<_> = [memory, cpus].into_iter().flatten().collect();
        if limits.is_empty() { f.write_str("no limits") } else { f.write_str(&limits.join(" and ")) }
    }
}

/// A number of bytes, as people write it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Reads a number of bytes as people write it: `2GiB`, `512 MiB`, `1500000000`; `none` is zero, which takes a limit away.
///
/// # Errors
/// One line that says what is expected.
pub fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size: write it like 512MiB, 2GiB or none");
    if text == "none" {
        return Ok(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    let limits = Limits { memory_bytes: Some(bytes), millicpus: None };
    limits.check().map(|()| bytes)
}

/// Reads a number of CPUs as people write it, such as `2` or `0.5`, in thousandths; `none` is zero, which takes a limit away.
///
/// # Errors
/// One line that says what is expected.
pub fn cpus(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is no number of CPUs: write it like 2, 0.5 or none");
    if text == "none" {
        return Ok(0);
    }
    let cpus: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=1e6).contains(&cpus) {
        return Err(wrong());
    }
    // The range has been checked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let millicpus = (cpus * 1000.0).round() as u32;
    let limits = Limits { memory_bytes: None, millicpus: Some(millicpus) };
    limits.check().map(|()| millicpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_shown_as_people_write_them() {
        for (text, expected) in
            [("2GiB", Some(2 << 30)), ("512 MiB", Some(512 << 20)), ("100000000", Some(100_000_000)), ("none", Some(0))]
        {
            assert_eq!(memory(text).ok(), expected, "{text}");
        }
        for text in ["", "GiB", "1", "31MiB", "2XiB", "-1", "99999999999TiB", "2048TiB"] {
            assert!(memory(text).is_err(), "{text}");
        }
        for (text, expected) in [("2", Some(2000)), ("0.5", Some(500)), ("none", Some(0)), ("0.01", Some(10))] {
            assert_eq!(cpus(text).ok(), expected, "{text}");
        }
        for text in ["", "x", "0", "-1", "0.001", "1025", "inf", "NaN"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        let both = Limits { memory_bytes: Some(2 << 30), millicpus: Some(1500) };
        assert_eq!(both.to_string(), "2 GiB of memory and 1.5 CPUs");
        assert_eq!(Limits::default().to_string(), "no limits");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_zero_takes_a_limit_away() {
        let both = Limits { memory_bytes: Some(2 << 30), millicpus: Some(1500) };
        let change = |memory_bytes, millicpus| both.changed_by(Limits { memory_bytes, millicpus });
        assert_eq!(change(None, None), both);
        assert_eq!(change(Some(1 << 30), None), Limits { memory_bytes: Some(1 << 30), ..both });
        assert_eq!(change(None, Some(0)), Limits { millicpus: None, ..both });
        assert!(change(Some(0), Some(0)).is_empty());
    }
}
