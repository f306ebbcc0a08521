//! Finds the events in a stream of server-sent events as bytes pass, however they are split.
//!
//! It follows the standard in what ends a line (LF, CRLF, CR) and an event (an empty line), and keeps
//! of an event only its data: both APIs repeat the event's name there.

/// The largest event that is read; larger ones are passed over. The largest known is the last one of
/// OpenAI's responses, which repeats the whole answer: 128,000 tokens are some 600 KB.
pub(crate) const MAX_EVENT: usize = 1024 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Where a stream stands.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The beginning of a line that is not complete.
    line: Vec<u8>,
    /// How long that line is, also where it is too long to be kept.
    line_len: usize,
    /// The data of the event.
    data: Vec<u8>,
    has_data: bool,
    is_oversize: bool,
    /// The event that `data` belongs to is complete.
    is_complete: bool,
    /// The last line ended with CR: an LF that comes next belongs to it.
    after_cr: bool,
    /// The first line, which may begin with a BOM, is over.
    is_begun: bool,
}

impl Scanner {
    /// Reads `chunk` from `from` to the end of the next event: the position after it, or `None` if
    /// the chunk ends before.
    pub(crate) fn next_event(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        if from >= chunk.len() {
            return None;
        }
        if self.is_complete {
            self.data.clear();
            (self.has_data, self.is_oversize, self.is_complete) = (false, false, false);
        }
        let mut at = from;
        while at < chunk.len() {
            if std::mem::take(&mut self.after_cr) && chunk[at] == b'\n' {
                at += 1;
                continue;
            }
            let rest = &chunk[at..];
            let Some(len) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.keep(rest);
                return None;
            };
            at += len + 1;
            self.after_cr = rest[len] == b'\r';
            if self.after_cr && chunk.get(at) == Some(&b'\n') {
                self.after_cr = false;
                at += 1;
            }
            if self.end_line(&rest[..len]) {
                self.is_complete = true;
                return Some(at);
            }
        }
        None
    }

    /// True if the first byte of `chunk` still belongs to the event before it.
    pub(crate) fn closes_previous(&self, chunk: &[u8]) -> bool {
        self.is_complete && self.after_cr && chunk.first() == Some(&b'\n')
    }

    /// The data of the event; `None` if it has none or is too large.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        (self.has_data && !self.is_oversize).then_some(&*self.data)
    }

    /// True if the event is too large to be read.
    pub(crate) fn is_oversize(&self) -> bool {
        self.is_oversize
    }

    /// Takes what stands after the last event for an event, as the stream is over.
    pub(crate) fn end(&mut self) {
        if self.is_complete {
            self.has_data = false;
        } else {
            self.end_line(&[]);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        self.line_len += part.len();
        if self.data.len() + self.line_len > MAX_EVENT {
            self.is_oversize = true;
            (self.line, self.data) = (Vec::new(), Vec::new());
        }
        if !self.is_oversize {
            self.line.extend_from_slice(part);
        }
    }

    /// Ends a line of which `part` came last. True if it is empty: the event is complete.
    fn end_line(&mut self, part: &[u8]) -> bool {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if self.line_len == 0 && part.is_empty() {
            return true;
        }
        self.line_len += part.len();
        self.is_oversize |= self.data.len() + self.line_len > MAX_EVENT;
        self.line_len = 0;
        let mut line = std::mem::take(&mut self.line);
        if self.is_oversize {
            self.data = Vec::new();
            return false;
        }
        let whole = if line.is_empty() {
            part
        } else {
            line.extend_from_slice(part);
            &line
        };
        let whole = if is_first { whole.strip_prefix(BOM).unwrap_or(whole) } else { whole };
        let is_empty = whole.is_empty();
        if let Some(value) = field(whole, b"data") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value);
        }
        line.clear();
        self.line = line;
        is_empty
    }
}

/// The value of a line that is the field `name`.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Option<String>> {
        let mut scanner = Scanner::default();
        let mut events = Vec::new();
        for chunk in chunks {
            let mut at = 0;
            while let Some(end) = scanner.next_event(chunk, at) {
                let data = scanner.data().map(|data| String::from_utf8(data.to_vec()).unwrap());
                events.push(data);
                at = end;
            }
        }
        events
    }

    #[test]
    fn events_are_found_wherever_the_bytes_are_split() {
        for (stream, expected) in [
            ("data: a\n\ndata:b\n\n", vec![Some("a"), Some("b")]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec![Some("a"), Some("b")]),
            ("data: a\r\rdata: b\r\r", vec![Some("a"), Some("b")]),
            ("\u{feff}data: a\n\n", vec![Some("a")]),
            ("event: x\nid: 7\ndata: a\ndata: b\ndata\n\n", vec![Some("a\nb\n")]),
            (": comment\n\ndata:  a\n\n", vec![None, Some(" a")]),
            ("data: a\n\n\n\ndata: b\n\n", vec![Some("a"), None, None, Some("b")]),
            ("datax: a\ndata: b\n\n", vec![Some("b")]),
            ("data: not complete\n", vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|e| e.map(str::to_owned)).collect();
            let bytes = stream.as_bytes();
            assert_eq!(events(&[bytes]), expected, "{stream:?}");
            for at in 0..bytes.len() {
                let halves = events(&[&bytes[..at], &bytes[at..]]);
                assert_eq!(halves, expected, "{stream:?} at {at}");
            }
            let drip: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(events(&drip), expected, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn an_event_beyond_the_limit_is_passed_over_and_the_next_is_read() {
        let part = vec![b'x'; MAX_EVENT / 2 + 1];
        let mut scanner = Scanner::default();
        for chunk in [&b"data: "[..], &part, &part, &part] {
            assert_eq!(scanner.next_event(chunk, 0), None);
            assert!(scanner.line.len() + scanner.data.len() <= MAX_EVENT);
        }
        assert!(scanner.is_oversize());
        let rest = b"\ndata: y\n\ndata: z\n\n";
        let end = scanner.next_event(rest, 0).unwrap();
        assert_eq!(scanner.data(), None);
        scanner.next_event(rest, end).unwrap();
        assert_eq!(scanner.data(), Some(&b"z"[..]));
    }
}
