//! A text of YAML documents, cut into them and put together again.

/// A document as it is written, with the line that separates it from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// How many lines stand before it.
    pub(super) line: usize,
}

/// The documents of `text`. A line that begins with `---` and nothing or white space after it cannot
/// be part of any value in YAML.
pub(super) fn split(text: &str) -> Vec<Piece<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (line, content) in text.split_inclusive('\n').enumerate() {
        if at > start && is_separator(content) {
            pieces.push(Piece { text: &text[start..at], line: start_line });
            (start, start_line) = (at, line);
        }
        at += content.len();
    }
    if start < text.len() {
        pieces.push(Piece { text: &text[start..], line: start_line });
    }
    pieces
}

/// Adds a document, apart from the one before.
pub(super) fn append(texts: &mut String, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    if !texts.is_empty() && !text.lines().next().is_some_and(is_separator) {
        texts.push_str("---\n");
    }
    texts.push_str(text);
    if !text.ends_with('\n') {
        texts.push('\n');
    }
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::{append, split};

    #[test]
    fn documents_are_cut_where_yaml_cuts_them() {
        for (text, expected) in [
            ("", &[][..]),
            ("a: 1\n", &[(0, "a: 1\n")]),
            ("---\na: 1\n---\nb: 2", &[(0, "---\na: 1\n"), (2, "---\nb: 2")]),
            ("# one\na: 1\n--- # two\nb: 2\n", &[(0, "# one\na: 1\n"), (2, "--- # two\nb: 2\n")]),
            ("a: |\n  ---\n ---\n----\n---x\n", &[(0, "a: |\n  ---\n ---\n----\n---x\n")]),
            ("a: 1\r\n---\r\nb: 2\r\n", &[(0, "a: 1\r\n"), (1, "---\r\nb: 2\r\n")]),
        ] {
            let pieces: Vec<_> =
                split(text).into_iter().map(|piece| (piece.line, piece.text)).collect();
            assert_eq!(pieces, expected, "{text}");
        }
    }

    #[test]
    fn what_was_cut_is_put_together_again() {
        for text in ["---\na: 1\n---\nb: 2\n", "a: 1\n--- # two\nb: 2\n"] {
            let mut whole = String::new();
            split(text).iter().for_each(|piece| append(&mut whole, piece.text));
            assert_eq!(whole, text);
            // Of two files.
            append(&mut whole, "c: 3");
            assert_eq!(whole, format!("{text}---\nc: 3\n"));
        }
    }
}
