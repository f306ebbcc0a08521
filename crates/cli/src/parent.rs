//! How a program that `weir` started ends with it, even if `weir` is killed: its stdin is a pipe
//! from the parent, which the kernel closes when the parent is gone.

use std::io;
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What a drain may take once the parent is gone; nobody waits for its result any more.
const GRACE: Duration = Duration::from_secs(3);

/// Cancelled when stdin ends. Whatever has not ended by [`GRACE`] after that is cut off with the
/// process.
///
/// A thread of its own reads: tokio's stdin would keep the runtime from ending.
pub(crate) fn gone() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let gone = token.clone();
    thread::Builder::new().name("parent".to_owned()).spawn(move || {
        // An error ends the pipe as well as its end does.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        gone.cancel();
        thread::park_timeout(GRACE);
        std::process::exit(0);
    })?;
    Ok(token)
}
