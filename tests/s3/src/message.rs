//! Requests and answers of HTTP/1.1 as far as S3's clients and servers use it: a head, and content of a known length.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, ensure};

/// A request or an answer.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// The other lines of the head.
    pub head: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Message {
    /// An answer with this status and content.
    #[must_use]
    pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let head = vec![("Content-Type".to_owned(), "application/xml".to_owned())];
        Self { start: format!("HTTP/1.1 {status} -"), head, body: body.into() }
    }

    /// Reads a message; `None` at the end of the stream. `has_body` says whether it has the content whose length it names:
    /// the answer to a HEAD has none.
    ///
    /// # Errors
    /// The stream ends within it, or it is not understood.
    pub fn read(from: &mut impl BufRead, has_body: bool) -> Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                ensure!(lines.is_empty(), "the stream ends within the head of a message");
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let mut lines = lines.into_iter();
        let start = lines.next().context("a message without a first line")?;
        let head = lines.filter_map(|line| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned())));
        let mut message = Self { start, head: head.collect(), body: Vec::new() };
        ensure!(message.get("transfer-encoding").is_none(), "content in chunks is not understood: {message:?}");
        let length = message.get("content-length").unwrap_or("0").parse::<usize>()?;
        if has_body {
            message.body.resize(length, 0);
            from.read_exact(&mut message.body).context("read the content of a message")?;
        }
        Ok(Some(message))
    }

    /// Writes the message. The length of its content is that of the content that it has, unless it has none and names one.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = format!("{}\r\n", self.start).into_bytes();
        let own = |name: &str| name.eq_ignore_ascii_case("content-length") && !self.body.is_empty();
        for (name, value) in self.head.iter().filter(|(name, _)| !own(name)) {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if !self.body.is_empty() || self.get("content-length").is_none() {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        to.write_all(&bytes)?;
        to.flush()
    }

    /// A line of the head.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Leaves a line of the head out.
    pub fn remove(&mut self, name: &str) {
        self.head.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The path and the query of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Whether a request lists a bucket.
    #[must_use]
    pub fn lists(&self) -> bool {
        self.method() == "GET" && self.target().contains("list-type=")
    }

    /// Whether a request creates an object if there is none.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.method() == "PUT" && self.get("if-none-match").is_some()
    }
}
