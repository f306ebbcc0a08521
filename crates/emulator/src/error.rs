//! What keeps the emulator from serving.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the emulator cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that makes no sense.
    #[error("the emulator's configuration: {0}")]
    Config(String),
    /// A configuration file that cannot be read or parsed.
    #[error("the emulator's configuration file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The journal's file cannot be opened.
    #[error("the journal {path}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}
