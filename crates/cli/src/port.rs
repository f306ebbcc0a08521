//! Free ports on loopback for programs that this one starts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use rand::Rng;

/// Below the ports that Linux and macOS give to outgoing connections (32768 and 49152), so that none
/// of our own takes a port between its choice here and the moment when the program listens on it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How many ports are tried: with half of them taken, all fail once in 10^30.
const TRIES: usize = 100;

/// Ports are given out one after the other, so that none is given out twice before it is in use; where
/// that begins is random, because other processes do the same.
static NEXT: LazyLock<AtomicU16> =
    LazyLock::new(|| AtomicU16::new(rand::rng().random_range(0..COUNT)));

/// An address on 127.0.0.1 that nobody listens on.
pub(crate) fn free() -> io::Result<SocketAddr> {
    for _ in 0..TRIES {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port was found on 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: BTreeSet<_> = (0..200).map(|_| super::free().unwrap()).collect();
        assert_eq!(ports.len(), 200);
    }
}
