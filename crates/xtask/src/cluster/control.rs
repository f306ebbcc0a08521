//! The words between the commands of a person and the first process inside: one line there, a text
//! back, over a socket in the cluster's directory.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::net::sockopt::socket_peercred;

use crate::cluster::state::State;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Each part with what it does.
    Status,
    /// Start a part.
    Start(String),
    /// Kill a part.
    Stop(String),
    /// End the cluster.
    End,
}

/// In the cluster's directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Begins an answer that is an error.
pub(crate) const ERROR: &str = "error: ";

/// The longest request.
pub(crate) const MAX_REQUEST_BYTES: u64 = 256;

/// The longest that an answer takes: stopping waits for the end of a process.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks, and returns the answer.
pub(crate) fn ask(state: &State, request: &Request) -> anyhow::Result<String> {
    let mut stream = connect(state)?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer to: {request}"))?;
    match answer.strip_prefix(ERROR) {
        Some(error) => bail!("{}", error.trim_end()),
        None => Ok(answer),
    }
}

/// The first process inside, as this side numbers it.
pub(crate) fn first_process(state: &State) -> anyhow::Result<i32> {
    let credentials = socket_peercred(connect(state)?).context("who answers in the cluster")?;
    Ok(credentials.pid.as_raw_nonzero().get())
}

fn connect(state: &State) -> anyhow::Result<UnixStream> {
    let name = state.folder().display();
    let folder = File::open(state.folder())
        .with_context(|| format!("there is no cluster ({name}); `cluster up` starts one"))?;
    // The path of a socket has a limit that a target directory may well exceed.
    let socket = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("the cluster does not answer ({name})"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

// === impl Request ===

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Status => f.write_str("status"),
            Request::Start(part) => write!(f, "start {part}"),
            Request::Stop(part) => write!(f, "stop {part}"),
            Request::End => f.write_str("end"),
        }
    }
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Request> {
        Ok(match line.trim().split_once(' ').unwrap_or_else(|| (line.trim(), "")) {
            ("status", "") => Request::Status,
            ("start", part) => Request::Start(part.to_owned()),
            ("stop", part) => Request::Stop(part.to_owned()),
            ("end", "") => Request::End,
            _ => bail!("this is not a request: {}", line.trim()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let part = || "kubelet".to_owned();
        let all = [Request::Status, Request::Start(part()), Request::Stop(part()), Request::End];
        for request in all {
            let line = format!("{request}\n");
            assert_eq!(line.parse::<Request>().unwrap(), request, "{line}");
        }
        assert!("shutdown now".parse::<Request>().is_err());
    }
}
