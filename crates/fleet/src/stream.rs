//! The stream of one sidecar, dialled as a sidecar dials it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::Uri;
use quota::message::ToAllocator;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use wire::{AllocatorClient, FromSidecar, Hello, ToSidecar};

// The sidecar's own times and bounds (`sidecar::lease`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
const STREAM_QUEUE: usize = 4_096;
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What is said on the stream, and what is heard.
pub(crate) type Opened = (mpsc::Sender<ToAllocator>, Streaming<ToSidecar>);

/// Dials and greets, over a connection of its own.
pub(crate) async fn open(address: Uri, hello: Hello) -> anyhow::Result<Opened> {
    let channel = Endpoint::from(address)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect()
        .await?;
    let (messages, queue) = mpsc::channel(STREAM_QUEUE);
    let mut client =
        AllocatorClient::new(channel).max_decoding_message_size(wire::MAX_MESSAGE_BYTES);
    let hello = FromSidecar::Hello(hello).into();
    let rest = ReceiverStream::new(queue).map(|message| FromSidecar::Lease(message).into());
    let outgoing = stream::once(std::future::ready(hello)).chain(rest);
    let answer = timeout(ANSWER_TIMEOUT, client.session(outgoing)).await??;
    Ok((messages, answer.into_inner()))
}
