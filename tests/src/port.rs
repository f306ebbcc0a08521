//! Ports for programs that are told where to listen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that Linux and macOS give to outgoing connections (32768 and 49152), so that none
/// of ours is taken between its choice and the moment when a program listens on it.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// An address on 127.0.0.1 that nobody listens on. No two calls of a process get the same, and two
/// processes begin far apart.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(7_919);
    let mut addresses = (0..COUNT).map(|_| {
        let next = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + next).expect("the range ends below 65536");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("a port is free")
}
