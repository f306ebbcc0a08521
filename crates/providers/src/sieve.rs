//! Keeps a few members of a JSON object while its bytes pass, and nothing else, so that the usage at
//! the end of a response of many megabytes is read in a few hundred bytes of memory.
//!
//! It does not check the JSON: what it kept is parsed afterwards, and what is broken is not usage.

/// The most that is kept; usage takes some 600 bytes.
const MAX_KEPT: usize = 16 * 1024;

/// The longest name that is compared.
const MAX_NAME: usize = 32;

/// Finds the members of the outermost object that have one of some names.
#[derive(Debug)]
pub(crate) struct Sieve {
    wanted: &'static [&'static str],
    /// `{"name":value,...` of what was found.
    kept: Vec<u8>,
    depth: usize,
    state: State,
    /// True while the next string of the outermost object is a name.
    at_name: bool,
    name: Vec<u8>,
    keeping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the outermost object.
    Before,
    /// Between strings.
    Structure,
    /// In a string; `true` after a backslash.
    String(bool),
    /// In a name of the outermost object; `true` after a backslash.
    Name(bool),
    /// After the outermost object, or in what is none.
    Done,
}

impl Sieve {
    pub(crate) fn new(wanted: &'static [&'static str]) -> Sieve {
        Sieve {
            wanted,
            kept: Vec::new(),
            depth: 0,
            state: State::Before,
            at_name: false,
            name: Vec::new(),
            keeping: false,
        }
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            let passed = match self.state {
                State::Done => return,
                State::String(escaped) => {
                    let (state, passed) = in_string(rest, escaped);
                    self.state = state.map_or(State::Structure, State::String);
                    self.keep(&rest[..passed]);
                    passed
                }
                State::Name(escaped) => {
                    let (state, passed) = in_string(rest, escaped);
                    self.state = state.map_or(State::Structure, State::Name);
                    let room = MAX_NAME.saturating_sub(self.name.len());
                    self.name.extend_from_slice(&rest[..passed.min(room)]);
                    passed
                }
                // Within a value, numbers pass in one go: embeddings have megabytes of them.
                State::Structure if self.depth > 1 && !is_structural(&rest[0]) => {
                    let passed = rest.iter().position(is_structural).unwrap_or(rest.len());
                    self.keep(&rest[..passed]);
                    passed
                }
                State::Before | State::Structure => {
                    self.structure(rest[0]);
                    1
                }
            };
            at += passed;
        }
    }

    /// A small object of the members that were found.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.kept.is_empty() {
            self.kept.push(b'{');
        }
        self.kept.push(b'}');
        self.kept
    }

    /// Takes a byte outside strings.
    fn structure(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Before, b'{') => {
                (self.depth, self.at_name, self.state) = (1, true, State::Structure);
                return;
            }
            (State::Before, b' ' | b'\n' | b'\r' | b'\t' | 0xEF | 0xBB | 0xBF) => return,
            (State::Before, _) => {
                self.state = State::Done;
                return;
            }
            (_, b'"') if self.depth == 1 && self.at_name => {
                self.name.clear();
                self.state = State::Name(false);
                return;
            }
            (_, b'"') => self.state = State::String(false),
            (_, b'{' | b'[') => self.depth += 1,
            (_, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::Done;
                    return;
                }
            }
            (_, b':') if self.depth == 1 && self.at_name => {
                self.at_name = false;
                self.begin();
                return;
            }
            (_, b',') if self.depth == 1 => {
                (self.at_name, self.keeping) = (true, false);
                return;
            }
            _ => {}
        }
        self.keep(&[byte]);
    }

    /// Begins a value: it is kept if its name is wanted.
    fn begin(&mut self) {
        // The name ends with the quote that closed it.
        let name = self.name.strip_suffix(b"\"").unwrap_or(&self.name);
        self.keeping = self.wanted.iter().any(|wanted| wanted.as_bytes() == name);
        if self.keeping {
            self.kept.push(if self.kept.is_empty() { b'{' } else { b',' });
            self.kept.push(b'"');
            self.kept.extend_from_slice(&self.name);
            self.kept.push(b':');
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeping && self.kept.len() + bytes.len() <= MAX_KEPT {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// True for what begins a string or changes the depth.
fn is_structural(byte: &u8) -> bool {
    matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')
}

/// Passes the bytes of a string: whether it goes on and with a backslash pending, and how many bytes
/// were passed.
fn in_string(bytes: &[u8], escaped: bool) -> (Option<bool>, usize) {
    let mut at = usize::from(escaped);
    loop {
        let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
        else {
            return (Some(at > bytes.len()), bytes.len());
        };
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return (None, at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: &[&str] = &["usage", "id"];

    fn sift(chunks: &[&[u8]]) -> String {
        let mut sieve = Sieve::new(WANTED);
        for chunk in chunks {
            sieve.push(chunk);
        }
        String::from_utf8(sieve.finish()).unwrap()
    }

    #[test]
    fn wanted_members_are_kept_wherever_the_bytes_are_split() {
        for (body, kept) in [
            (
                r#"{"a":[1,{"usage":2}],"usage":{"b":{"c":[3]},"d":"}"}}"#,
                r#"{"usage":{"b":{"c":[3]},"d":"}"}}"#,
            ),
            (
                r#" {"usage":null,"x":"\"usage\":1","id":"a\\\"b"}"#,
                r#"{"usage":null,"id":"a\\\"b"}"#,
            ),
            (r#"{"x":"usage","usage":5}"#, r#"{"usage":5}"#),
            (r#"{"x":"\\","usage":5}"#, r#"{"usage":5}"#),
            (r#"{"a":{"b":","},"c":1}"#, "{}"),
            (r#"[{"usage":1}]"#, "{}"),
            (r#""usage""#, "{}"),
            ("", "{}"),
            (r#"{"usage":1}{"id":2}"#, r#"{"usage":1}"#),
            ("\u{feff}{\"usage\":1}", r#"{"usage":1}"#),
        ] {
            let bytes = body.as_bytes();
            assert_eq!(sift(&[bytes]), kept, "{body}");
            for at in 0..bytes.len() {
                assert_eq!(sift(&[&bytes[..at], &bytes[at..]]), kept, "{body} at {at}");
            }
        }
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let body = format!(r#"{{"usage":"{}","id":1}}"#, "x".repeat(1 << 20));
        let mut sieve = Sieve::new(WANTED);
        sieve.push(body.as_bytes());
        assert!(sieve.finish().len() <= MAX_KEPT + 2 * MAX_NAME);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_however_they_are_split(
            body in r#"[{}\[\]",:\\ausgeid1 ]{0,60}"#,
            at in 0_usize..60,
        ) {
            let at = at.min(body.len());
            let (first, second) = body.as_bytes().split_at(at);
            prop_assert_eq!(sift(&[body.as_bytes()]), sift(&[first, second]));
        }
    }
}
