//! A provider that answers as a test says, and keeps what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// A request as it arrived.
pub(crate) struct Asked {
    pub(crate) head: request::Parts,
    pub(crate) body: Bytes,
}

/// The test's handle on it.
#[derive(Clone)]
pub(crate) struct FakeProvider {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Feeds a body, chunk by chunk; dropped, the body ends.
pub(crate) type Feed = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

impl FakeProvider {
    /// Answers every request by `answer`.
    pub(crate) async fn start<F>(answer: F) -> FakeProvider
    where
        F: Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = FakeProvider { address, asked: Arc::default() };
        let (answer, asked) = (Arc::new(answer), provider.asked.clone());
        TaskTracker::new().spawn(async move {
            let tasks = TaskTracker::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, asked) = (answer.clone(), asked.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, asked) = (answer.clone(), asked.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let Ok(body) = body.collect().await else {
                            return Ok::<_, Infallible>(text(400, "cut"));
                        };
                        let request = Asked { head, body: body.to_bytes() };
                        let response = answer(&request);
                        asked.lock().push(request);
                        Ok(response)
                    }
                });
                tasks.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        provider
    }

    /// Reads a little of each connection, writes `bytes`, and closes it, or holds it open.
    pub(crate) async fn raw(bytes: &'static [u8], hold_open: bool) -> FakeProvider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        TaskTracker::new().spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 16 * 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(bytes).await;
                if hold_open {
                    open.push(stream);
                }
            }
        });
        FakeProvider { address, asked: Arc::default() }
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().len()
    }

    /// What it was asked last.
    pub(crate) fn last<T>(&self, look: impl Fn(&Asked) -> T) -> T {
        look(self.asked.lock().last().expect("it was asked"))
    }
}

/// A whole answer.
pub(crate) fn text(status: u16, body: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.boxed())
        .unwrap()
}

/// An answer in events, fed by the test.
pub(crate) fn events() -> (Feed, Response<Body>) {
    let (feed, chunks) = mpsc::channel(16);
    let body = StreamBody::new(ReceiverStream::new(chunks).map(|chunk| chunk));
    let response = Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .body(BodyExt::boxed(body))
        .unwrap();
    (feed, response)
}

/// One chunk of events.
pub(crate) fn chunk(text: &str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from(text.to_owned())))
}
