//! The way into the cluster for programs of the machine itself: the listener lives in the machine's
//! network, since it was made there; what it accepts goes on in the cluster's.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A person with a few terminals has a dozen.
const MAX_CONNECTIONS: usize = 256;

/// Accepts for ever, and connects each to the loopback's `port` here.
pub(super) fn serve(listener: &TcpListener, port: u16) {
    let open = Arc::new(AtomicUsize::new(0));
    for outer in listener.incoming().flatten() {
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        thread::spawn(move || {
            // Its two ends see it closed; there is nobody else to tell.
            let _closed = connect(&outer, port);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn connect(outer: &TcpStream, port: u16) -> io::Result<()> {
    let inner = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    thread::scope(|scope| {
        scope.spawn(|| copy(outer, &inner));
        copy(&inner, outer);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _closed = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Write);
    let _closed = from.shutdown(Shutdown::Read);
}
