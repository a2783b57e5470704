//! The format of properties files, as Java's `Properties.load` reads it.

/// The names and values of a file, in order. A name may come twice: the last counts.
pub(super) fn read(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while is_continued(&logical) {
            logical.pop();
            match lines.next() {
                Some(next) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        found.push(name_and_value(&logical));
    }
    found
}

/// Whether an odd number of backslashes ends the line.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn name_and_value(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescaped(name), unescaped(rest))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let read = read(text);
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, expected, "{text:?}");
    }

    #[test]
    fn a_file_is_read_as_java_reads_it() {
        check("a=1\nb = 2\n c : 3\nd 4\n", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        check("# no\n! no\n\n  # no\na=#yes\n", &[("a", "#yes")]);
        check("a=x=y:z \n", &[("a", "x=y:z ")]);
        check("a=one \\\n   two\nb=3", &[("a", "one two"), ("b", "3")]);
        check("a=back\\\\\nb=\\u0041\\t\\=", &[("a", "back\\"), ("b", "A\t=")]);
        check("a\\ b=1\na\\=b=2\nnothing\nempty=", &[("a b", "1"), ("a=b", "2"), ("nothing", ""), ("empty", "")]);
        check("a=1\r\nb=2\r\n", &[("a", "1"), ("b", "2")]);
    }
}
