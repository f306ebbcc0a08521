//! What a command prints: data on stdout, in the form that was asked for; nothing else goes there.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// The form of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document, for programs.
    Json,
}

/// Prints text and a line's end. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Prints a JSON document: over several lines on a terminal and on one in a pipe.
pub(crate) fn print_json(data: &impl Serialize) -> io::Result<()> {
    let pretty = io::stdout().is_terminal();
    let text =
        if pretty { serde_json::to_string_pretty(data) } else { serde_json::to_string(data) };
    print(&text.map_err(io::Error::other)?)
}

/// True if `stream` may be coloured: it is a terminal, and nobody objects (<https://no-color.org>).
pub(crate) fn may_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something to the person, apart from the data. Nobody to tell it to is no error.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
