//! Splits what a process prints into lines.

/// The longest line in bytes; what follows is left out.
pub(super) const LONGEST_LINE: usize = 64 << 10;
/// What stands at the end of a line that was cut.
const CUT: &str = "… (cut)";

/// The lines of one stream of a process.
#[derive(Debug, Default)]
pub struct Split {
    /// The beginning of a line whose end has not been read.
    begun: Vec<u8>,
    /// Whether what follows belongs to a line that was cut.
    skips: bool,
}

impl Split {
    /// Takes bytes, and hands on each line that ends with them.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ends) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            if !self.skips {
                let room = LONGEST_LINE - self.begun.len();
                self.begun.extend_from_slice(&content[..content.len().min(room)]);
                if content.len() > room {
                    self.skips = true;
                    line(self.take() + CUT);
                }
            }
            if ends && !std::mem::take(&mut self.skips) {
                line(self.take());
            }
        }
    }

    /// The stream has ended: hands on what is left.
    pub fn end(mut self, line: impl FnOnce(String)) {
        if !self.begun.is_empty() {
            line(self.take());
        }
    }

    fn take(&mut self) -> String {
        let begun = std::mem::take(&mut self.begun);
        let content = begun.strip_suffix(b"\r").unwrap_or(&begun);
        String::from_utf8_lossy(content).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let (mut split, mut lines) = (Split::default(), Vec::new());
        pieces.iter().for_each(|piece| split.feed(piece, |line| lines.push(line)));
        split.end(|line| lines.push(line));
        lines
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines_of(&[b"one\ntw", b"o\r\n\nthr", b"ee"]), ["one", "two", "", "three"]);
        assert_eq!(lines_of(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; 3 * LONGEST_LINE];
        let lines = lines_of(&[b"a", &long, &long, b"\nnext\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LONGEST_LINE + CUT.len());
        assert!(lines[0].starts_with("axx") && lines[0].ends_with(CUT));
        assert_eq!(lines[1], "next");
        let whole = vec![b'x'; LONGEST_LINE];
        assert_eq!(lines_of(&[&whole, b"\n", b"b\n"]).iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, 1]);
    }
}
