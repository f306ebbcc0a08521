//! How many prepared answers a second the emulator gives on one core, with the load on another:
//! `cargo run --release -p emulator --example capacity`. No run within half of it is a measurement.

#![expect(clippy::print_stdout, reason = "it is for people")]

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use emulator::{Config, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Enough to keep one core of the emulator busy, also with streams, which pause after their first
/// event, and few enough to see no queueing of our own.
const CONNECTIONS: usize = 128;
const WARM_UP: Duration = Duration::from_secs(1);
const RUN: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async {
            let config = Config { prepared: true, ..Config::default() };
            let listener = TcpListener::from_std(listener)?;
            let admin = TcpListener::bind("127.0.0.1:0").await?;
            serve(config, listener, admin, std::future::pending()).await?;
            Ok(())
        })
    });
    for (name, stream) in [("whole answers", false), ("streams of 64 tokens", true)] {
        let (answers, bytes) = runtime()?.block_on(load(address, stream))?;
        println!("{name}: {answers} a second, of {bytes} bytes each");
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Answers per second, and the size of one.
async fn load(address: std::net::SocketAddr, stream: bool) -> Result<(u64, usize)> {
    let body = format!(
        r#"{{"model":"gpt-4o","stream":{stream},"max_tokens":100,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(200)
    );
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: emulator\r\nauthorization: Bearer k\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn(one_connection(address, request.clone().into_bytes()));
    }
    let (mut answers, mut bytes) = (0, 0);
    while let Some(connection) = connections.join_next().await {
        let (of_connection, size) = connection??;
        (answers, bytes) = (answers + of_connection, size);
    }
    Ok((answers / RUN.as_secs(), bytes))
}

/// Closed loop on one connection: how many answers it had after the warm-up.
async fn one_connection(address: std::net::SocketAddr, request: Vec<u8>) -> Result<(u64, usize)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    let (started, mut answers, mut size) = (Instant::now(), 0, 0);
    while started.elapsed() < WARM_UP + RUN {
        stream.write_all(&request).await?;
        size = read_answer(&mut stream, &mut buffer).await?;
        if started.elapsed() > WARM_UP {
            answers += 1;
        }
    }
    Ok((answers, size))
}

/// The size of one answer's body, read to its end.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the emulator closed the connection");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no content-length")?.parse()?;
        if filled >= end + 4 + length {
            return Ok(length);
        }
    }
}
