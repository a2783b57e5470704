//! What the user says of Kafka's clients: `--kafka-config FILE`, then `-X`, which wins.
//!
//! ```text
//!   FILE ─► lines (properties) ─► values (providers) ─► librdkafka's names (java) ─┐
//!   -X   ─────────────────────► values (providers) ────────────────────────────────┴─► settings
//! ```
//!
//! The file is read by every process of a job when it starts, so a secret that has changed is used from the next
//! generation on.
//!
//! **Secrets.** A value is never part of an error or a log line, only the name of its setting: which settings hold
//! secrets need not be known for that. Where a value is shown at all ([`std::fmt::Debug`]), [`is_secret`] hides it.

mod java;
mod properties;
mod providers;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use fluvial_connector::secret::{Reference, is_named_secret, reveal};
use fluvial_connector::{Error, ErrorKind};

use crate::native::knows_setting;
use crate::settings::RESERVED;

/// A setting of librdkafka, as `-X` gives it. Its [`Debug`](fmt::Debug) output hides values that may be secrets.
///
/// ```
/// use fluvial_kafka::Setting;
///
/// let setting: Setting = "fetch.min.bytes=1".parse().unwrap();
/// assert_eq!(setting, Setting::new("fetch.min.bytes", "1"));
/// let secret = Setting::new("sasl.password", "hunter2");
/// assert!(!format!("{secret:?}").contains("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name of the setting, such as `fetch.min.bytes`.
    pub name: String,
    /// The value, which may refer to an environment variable or a file: `${env:NAME}`, `${file:PATH:KEY}`,
    /// `${dir:PATH:FILE}`.
    pub value: String,
}

impl Setting {
    /// Creates a setting from its name and value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl FromStr for Setting {
    type Err = std::convert::Infallible;

    /// Reads `NAME=VALUE`. Text without `=` becomes a value without a name, which
    /// [`KafkaOptions::connect`](crate::KafkaOptions::connect) refuses: an error of the command line would print the
    /// text, and a secret may be in it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').unwrap_or(("", text));
        Ok(Self::new(name.trim(), value))
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if is_secret(&self.name) { "[hidden]" } else { &self.value };
        write!(f, "{}={value}", self.name)
    }
}

/// Whether the value of a setting of this name may be a secret. Names that nobody knows count as secrets when they look
/// like one.
pub(crate) fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "password",
        "passphrase",
        "secret",
        "credential",
        "jaas",
        "token",
        "private.key",
        "user.info",
        "oauthbearer.config",
    ];
    PARTS.iter().any(|part| name.contains(part)) || name.ends_with(".pem") || name == "ssl.keystore.key"
}

/// Where a setting comes from, for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Option,
    /// This file.
    File(String),
}

impl Origin {
    /// What to call a setting that comes from here.
    pub(crate) fn of(&self, name: &str) -> String {
        match self {
            Self::Option => format!("-X {name}"),
            Self::File(path) => format!("'{name}' in {path}"),
        }
    }

    fn error(&self, name: &str, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Configuration, format!("{}: {why}", self.of(name)))
    }
}

/// What the user has set, by librdkafka's names.
pub(crate) type Given = BTreeMap<String, (String, Origin)>;

/// All that the user has set, with where it comes from; `bootstrap.servers` is what the file says of it.
///
/// # Errors
/// The file cannot be read, a value refers to what is not there, or a setting has no counterpart in librdkafka.
pub(crate) fn read(file: Option<&Path>, options: &[Setting]) -> Result<Given, Error> {
    let mut given = match file {
        Some(path) => of_file(path)?,
        None => Given::new(),
    };
    for Setting { name, value } in options {
        if name.is_empty() {
            let what = "-X takes key=value, a setting of librdkafka, as in -X linger.ms=5";
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        if let Some((_, instead)) = RESERVED.iter().find(|(reserved, ..)| reserved == name) {
            return Err(Origin::Option.error(name, format!("it cannot be set: {instead}")));
        }
        let value = match Reference::of(value) {
            Some(_) if is_named_secret(name) => reveal(value),
            _ => providers::Providers::default().resolve(value),
        };
        let value = value.map_err(|why| Origin::Option.error(name, why))?;
        // librdkafka has two names for one setting: the one that came last counts.
        for alias in [name.as_str()].into_iter().chain(alias(name)) {
            given.remove(alias);
        }
        given.insert(name.clone(), (value, Origin::Option));
    }
    Ok(given)
}

fn alias(name: &str) -> Option<&'static str> {
    match name {
        "sasl.mechanism" => Some("sasl.mechanisms"),
        "sasl.mechanisms" => Some("sasl.mechanism"),
        _ => None,
    }
}

fn of_file(path: &Path) -> Result<Given, Error> {
    let shown = path.display().to_string();
    let unreadable = |why: &dyn fmt::Display| {
        Error::new(ErrorKind::Configuration, format!("--kafka-config {shown}: the file cannot be read: {why}"))
    };
    let text = std::fs::read_to_string(path).map_err(|why| unreadable(&why))?;
    let mut lines = properties::read(&text);
    let origin = Origin::File(shown);
    let providers = providers::Providers::of(&mut lines).map_err(|(name, why)| origin.error(&name, why))?;
    for (name, value) in &mut lines {
        *value = providers.resolve(value).map_err(|why| origin.error(name, why))?;
    }
    let lines = java::translate(lines).map_err(|(name, why)| origin.error(&name, why))?;
    let mut given = Given::new();
    for (name, value) in lines {
        if let Some((_, instead)) = unused(&name, &value) {
            if !instead.is_empty() && is_new(&origin.of(&name)) {
                tracing::info!("{} is not used: {instead}", origin.of(&name));
            }
        } else if name != "bootstrap.servers" && !knows_setting(&name) {
            // What decides who is let in must not be passed over.
            if ["ssl.", "sasl.", "security."].iter().any(|prefix| name.starts_with(prefix)) {
                return Err(origin.error(
                    &name,
                    "librdkafka has no such setting, and no setting is known that replaces it: check the name",
                ));
            }
            if is_new(&origin.of(&name)) {
                tracing::warn!("{} is not used: librdkafka has no such setting: check the name", origin.of(&name));
            }
        } else {
            given.insert(name, (value, origin.clone()));
        }
    }
    Ok(given)
}

/// Why a setting of a file that other programs use as well has no effect here, if it has none.
fn unused<'a>(name: &'a str, value: &str) -> Option<(&'a str, &'static str)> {
    let (_, instead) = RESERVED.iter().find(|(reserved, _)| *reserved == name && *reserved != "bootstrap.servers")?;
    let as_it_is = matches!(
        (name, value),
        ("acks" | "request.required.acks", "all" | "-1")
            | ("enable.idempotence" | "enable.partition.eof", "true")
            | ("isolation.level", "read_committed")
            | ("enable.auto.commit" | "enable.auto.offset.store" | "allow.auto.create.topics", "false")
    );
    Some((name, if as_it_is { "" } else { instead }))
}

/// Whether nothing has been said of a setting yet in this process: the file is read several times.
fn is_new(setting: &str) -> bool {
    static TOLD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let Ok(mut told) = TOLD.lock() else { return false };
    let is_new = !told.iter().any(|known| known == setting);
    if is_new {
        told.push(setting.to_owned());
    }
    is_new
}

#[cfg(test)]
mod tests;
