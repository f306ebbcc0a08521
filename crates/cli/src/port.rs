//! Free ports on loopback for programs that this one starts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Below the ports that Linux and macOS give to outgoing connections (32768 and 49152), so that none
/// of our own takes the port between its choice here and the moment when the program listens on it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports are tried; with half of them taken, all fail once in 10^30.
const TRIES: usize = 100;

/// An address on 127.0.0.1 that nobody listens on.
pub(crate) fn free() -> io::Result<SocketAddr> {
    for _ in 0..TRIES {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(RANGE)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port was found on 127.0.0.1"))
}
