//! A load client that adds next to nothing: one kept-alive connection, one blocking thread, and a
//! clock that is read before the request is written and after each read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::from_utf8;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer: its times, counted from before its request was written, and its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    /// Until the first byte of the body was there.
    pub(super) first_byte: Duration,
    /// Until the last one was there.
    pub(super) whole: Duration,
    /// As it came: with the sizes of chunks, if it came in chunks.
    pub(super) body: &'a [u8],
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// Answers of the emulator have 16 KB at most, a page of metrics some more.
const BUFFER_BYTES: usize = 256 * 1024;

/// Far above what anything here takes: something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// What ends a body in chunks. Neither events nor JSON on one line have a CR of their own.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

// === impl Client ===

impl Client {
    /// Connects.
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Writes a request, and reads its answer, which must be a 200.
    pub(super) fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        let start = now();
        self.stream.write_all(request)?;
        let (mut filled, mut head, mut first_byte) = (0, None, None);
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            let elapsed = start.elapsed();
            ensure!(read > 0, "the connection was closed, or the answer is too long");
            filled += read;
            if head.is_none() {
                head = read_head(&self.buffer[..filled])?;
            }
            let Some((start, framing)) = head else { continue };
            let body = &self.buffer[start..filled];
            if !body.is_empty() {
                first_byte.get_or_insert(elapsed);
            }
            if framing.ends(body) {
                let (first_byte, body) =
                    (first_byte.unwrap_or(elapsed), &self.buffer[start..filled]);
                return Ok(Answer { first_byte, whole: elapsed, body });
            }
        }
    }
}

// === impl Framing ===

impl Framing {
    fn ends(self, body: &[u8]) -> bool {
        match self {
            Framing::Length(length) => body.len() >= length,
            Framing::Chunked => body.ends_with(LAST_CHUNK),
        }
    }
}

/// Something if a new connection answers `request` with 200 now.
pub(super) fn answers(address: SocketAddr, request: &[u8]) -> Option<()> {
    Client::connect(address).ok()?.ask(request).ok().map(|_| ())
}

/// A request for a page.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// Where the body begins and how it ends; `None` if the head is not complete yet.
fn read_head(bytes: &[u8]) -> anyhow::Result<Option<(usize, Framing)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = from_utf8(&bytes[..end])?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        bail!("no 200: {}", head.lines().next().unwrap_or_default());
    }
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let framing = fields.find_map(|(name, value)| match name {
        "content-length" => value.trim().parse().ok().map(Framing::Length),
        "transfer-encoding" => Some(Framing::Chunked),
        _ => None,
    });
    Ok(Some((end + 4, framing.context("an answer without a length")?)))
}

/// The clock of all measurements.
#[expect(clippy::disallowed_methods, reason = "this is what is measured; no runtime is here")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{Framing, read_head};

    #[test]
    fn a_body_ends_as_its_head_says() {
        let head = "HTTP/1.1 200 OK\r\nDate: x\r\n";
        for (fields, body, framing, ends) in [
            ("Content-Length: 3\r\n", "abc", Framing::Length(3), true),
            ("content-length: 3\r\n", "ab", Framing::Length(3), false),
            ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n", Framing::Chunked, true),
            ("transfer-encoding: chunked\r\n", "1\r\na\r\n", Framing::Chunked, false),
        ] {
            let text = format!("{head}{fields}\r\n{body}");
            let (start, read) = read_head(text.as_bytes()).unwrap().expect("it is complete");
            assert_eq!((read, &text[start..]), (framing, body));
            assert_eq!(read.ends(body.as_bytes()), ends, "{text}");
        }
        assert!(read_head(head.as_bytes()).unwrap().is_none());
        assert!(read_head(b"HTTP/1.1 503 no\r\n\r\n").is_err());
    }
}
