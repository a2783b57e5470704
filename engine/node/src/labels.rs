//! Labels of nodes, such as `zone=a`.

use std::collections::BTreeMap;

/// How many labels a node has at most.
const MOST: usize = 32;
/// How long the name or the value of one may be.
const LONGEST: usize = 63;

/// A label as people write it: `name=value`.
///
/// # Errors
/// The text is none.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no label: write NAME=VALUE"))?;
    let fits = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        (1..=LONGEST).contains(&part.len()) && part.bytes().all(allowed)
    };
    if fits(name) && fits(value) {
        return Ok((name.to_owned(), value.to_owned()));
    }
    Err(format!("'{text}' is no label: name and value have 1 to {LONGEST} letters, digits, '-', '_', '.' or '/' each"))
}

/// Labels, as they are given one after the other.
///
/// # Errors
/// A name is given twice, or there are too many.
pub fn labels(given: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in given {
        if labels.contains_key(&name) {
            return Err(format!("the label '{name}' is given twice"));
        }
        labels.insert(name, value);
    }
    if labels.len() > MOST {
        return Err(format!("there are {} labels, and at most {MOST} are allowed", labels.len()));
    }
    Ok(labels)
}

/// Checks labels that come from a user of the API.
///
/// # Errors
/// One of them is none, or there are too many.
pub fn check_labels(given: &BTreeMap<String, String>) -> Result<(), String> {
    given.iter().try_for_each(|(name, value)| parse_label(&format!("{name}={value}")).map(drop))?;
    labels(given.clone()).map(drop)
}

/// Labels as people write them.
#[must_use]
pub fn describe_labels(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_name_and_a_value() {
        let label = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parse_label("zone=a"), label("zone", "a"));
        assert_eq!(parse_label("example.org/disk=nvme-2"), label("example.org/disk", "nvme-2"));
        for wrong in ["zone", "=a", "zone=", "zone=a b", "zone=a=b", "zone=\u{e4}", &format!("zone={}", "a".repeat(64))]
        {
            assert!(parse_label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_has_one_value_of_a_label_and_not_too_many_labels() {
        let given = |count: usize| (0..count).map(|n| (format!("l{n}"), "v".to_owned()));
        assert_eq!(labels(given(32)).map(|labels| labels.len()), Ok(32));
        assert!(labels(given(33)).is_err());
        assert!(labels(given(1).chain(given(1))).is_err_and(|why| why.contains("twice")));
        assert!(check_labels(&BTreeMap::from([("a b".to_owned(), "c".to_owned())])).is_err());
    }
}
