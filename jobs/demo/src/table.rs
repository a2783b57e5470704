//! Upsert topics as tables, and how two tables differ.

use std::collections::BTreeMap;

/// Rows by output topic and key; keys and values are JSON as it stands in the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<(String, String), String>);

impl Rows {
    /// A record of an upsert topic: the newest value of a key is its row, no value deletes it.
    pub fn upsert(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let at = (topic.to_owned(), text(key));
        match value {
            Some(value) => self.0.insert(at, text(value)),
            None => self.0.remove(&at),
        };
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where `found` is not as `expected`: a line for each row.
///
/// ```
/// use fluvial_demo::{Rows, differences};
/// let (mut expected, mut found) = (Rows::default(), Rows::default());
/// expected.upsert("revenue", b"eu", Some(b"7"));
/// found.upsert("revenue", b"eu", Some(b"8"));
/// assert_eq!(differences(&expected, &found), ["revenue eu: 8 where 7 is right"]);
/// ```
#[must_use]
pub fn differences(expected: &Rows, found: &Rows) -> Vec<String> {
    let mut lines = Vec::new();
    for ((topic, key), right) in &expected.0 {
        match found.0.get(&(topic.clone(), key.clone())) {
            Some(value) if value == right => {}
            Some(value) => lines.push(format!("{topic} {key}: {value} where {right} is right")),
            None => lines.push(format!("{topic} {key}: no row where {right} is right")),
        }
    }
    for ((topic, key), value) in found.0.iter().filter(|(at, _)| !expected.0.contains_key(*at)) {
        lines.push(format!("{topic} {key}: {value} where no row is right"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(&str, &str, &str)]) -> Rows {
        let mut rows = Rows::default();
        of.iter().for_each(|(topic, key, value)| rows.upsert(topic, key.as_bytes(), Some(value.as_bytes())));
        rows
    }

    #[test]
    fn each_row_that_differs_is_named() {
        let expected = rows(&[("t", "same", "1"), ("t", "other", "2"), ("t", "missing", "3"), ("u", "same", "4")]);
        let found = rows(&[("t", "same", "1"), ("t", "other", "9"), ("u", "same", "4"), ("u", "more", "5")]);
        assert_eq!(
            differences(&expected, &found),
            ["t missing: no row where 3 is right", "t other: 9 where 2 is right", "u more: 5 where no row is right"]
        );
        assert!(differences(&expected, &expected).is_empty());
    }

    #[test]
    fn the_newest_value_of_a_key_is_its_row_and_no_value_deletes_it() {
        let mut table = rows(&[("t", "a", "1"), ("t", "a", "2"), ("t", "b", "1")]);
        table.upsert("t", b"b", None);
        assert_eq!(table, rows(&[("t", "a", "2")]));
    }
}
