//! What one node says of a job's log to another.

use serde::{Deserialize, Serialize};

use super::{Line, Positions, merge};

/// The most bytes of lines in one answer, as JSON.
const MOST_BYTES: usize = 2 << 20;
/// The most lines in one answer.
const MOST_LINES: usize = 20_000;

/// Asks a node for lines of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The name of the job.
    pub job: String,
    /// The only attempt that is meant.
    pub attempt: Option<u64>,
    /// What has been read.
    pub after: Positions,
    /// Lines before this time are left out.
    pub since_ms: u64,
    /// Where there are more lines than fit: whether the newest are wanted, or the oldest, after which the others are asked for.
    pub newest: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The lines, by time.
    pub lines: Vec<Line>,
    /// The processes whose lines the node holds.
    pub parts: Vec<Part>,
    /// Whether there are more.
    pub more: bool,
}

/// How far a node has told the log of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The attempt.
    pub attempt: u64,
    /// The process.
    pub process: u32,
    /// The number of the first line that has not been told.
    pub next: u64,
    /// Whether the process prints nothing any more.
    pub ended: bool,
}

/// A page of lines.
pub(super) fn page_of(mut lines: Vec<Line>, mut parts: Vec<Part>, newest: bool) -> Page {
    if newest {
        let more = merge(&mut lines, MOST_LINES, MOST_BYTES);
        return Page { lines, parts, more };
    }
    lines.sort_by_key(Line::order);
    let mut bytes = 0;
    let fits = lines.iter().take(MOST_LINES).take_while(|line| {
        bytes += line.encoded_len();
        bytes <= MOST_BYTES
    });
    let fits = fits.count();
    let left = lines.split_off(fits);
    // Within a process lines are in the order of their numbers.
    for line in left.iter().rev() {
        let of_line = |part: &&mut Part| (part.attempt, part.process) == (line.attempt, line.process);
        if let Some(part) = parts.iter_mut().find(of_line) {
            (part.next, part.ended) = (line.number, false);
        }
    }
    Page { lines, parts, more: !left.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Stream;

    fn line(time_ms: u64, process: u32, number: u64) -> Line {
        let text = "\u{1}".repeat(10_000);
        Line { time_ms, node: "a".to_owned(), attempt: 1, process, stream: Stream::Stdout, number, text }
    }

    #[test]
    fn a_page_of_the_oldest_lines_is_followed_by_the_next_one_without_a_gap() {
        let all: Vec<_> = (0..100).map(|at| line(at, (at % 2) as u32, at / 2)).collect();
        let part = |process, next, ended| Part { attempt: 1, process, next, ended };
        let page = page_of(all.clone(), vec![part(0, 50, true), part(1, 50, true)], false);
        let told = page.lines.len();
        assert!(page.more && (30..100).contains(&told), "{told}");
        assert!(serde_json::to_vec(&page).is_ok_and(|json| json.len() < 4 << 20), "it fits into a line of a link");
        assert_eq!(page.lines, all[..told]);
        let next = |process| all[told..].iter().find(|line| line.process == process).map_or(50, |line| line.number);
        assert_eq!(page.parts, [part(0, next(0), false), part(1, next(1), false)]);
        let newest = page_of(all.clone(), Vec::new(), true);
        assert!(newest.more);
        assert_eq!(newest.lines, all[100 - newest.lines.len()..]);
    }
}
