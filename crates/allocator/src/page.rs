//! The page: what the allocator knows, live, for people. One file without anything from elsewhere, fed
//! by server-sent events: `view` once a second, `history` when there is something new in it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, StatusCode, header};
use service::admin::{self, Admin};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::history::History;
use crate::snapshot::Snapshot;
use crate::view::View;

/// Pods of the page: more than a person looks at. `/state` has all.
const PODS_SHOWN: usize = 500;

const PAGE: &str = include_str!("page/page.html");
/// The page runs its own script and talks to its own server, and that is all.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
);

/// Adds `/`, `/events` and `/state`, and returns what keeps the history, to be run beside it. `jaeger`
/// is where traces are shown.
pub(crate) fn routes(
    admin: Admin,
    jaeger: Option<String>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
) -> (Admin, impl Future<Output = ()> + Send + 'static) {
    let (show, history) = watch::channel(Arc::new(History::default()));
    let keep = keep(snapshot.clone(), show);
    let page = PAGE.replace("{{jaeger}}", &escaped(jaeger.as_deref().unwrap_or_default()));
    let page = Bytes::from(page);
    let all = snapshot.clone();
    let admin = admin
        .route("/", move |_| {
            let page = page.clone();
            async move { html(page) }
        })
        .route("/events", move |_| {
            let events = events(snapshot.clone(), history.clone());
            async move { admin::events(events) }
        })
        .route("/state", move |_| {
            let view = all.borrow().view();
            async move { admin::json(StatusCode::OK, pretty(&view)) }
        });
    (admin, keep)
}

/// Keeps the history for as long as anybody could ask for it.
async fn keep(mut snapshot: watch::Receiver<Arc<Snapshot>>, show: watch::Sender<Arc<History>>) {
    let mut history = History::default();
    loop {
        let view = Arc::new(snapshot.borrow_and_update().view());
        if history.observe(view) {
            show.send_replace(Arc::new(history.clone()));
        }
        tokio::select! {
            changed = snapshot.changed() => if changed.is_err() { return },
            () = show.closed() => return,
        }
    }
}

fn events(
    snapshot: watch::Receiver<Arc<Snapshot>>,
    history: watch::Receiver<Arc<History>>,
) -> impl Stream<Item = Bytes> {
    let views = WatchStream::new(snapshot).map(|snapshot| {
        let view = snapshot.view().with_busiest(PODS_SHOWN);
        event("view", &view)
    });
    let histories = WatchStream::new(history).map(|history| event("history", &*history));
    stream::select(histories, views)
}

/// An event; JSON has no line ends of its own.
fn event(name: &str, data: &impl serde::Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("names and figures make JSON");
    format!("event: {name}\ndata: {data}\n\n").into()
}

fn pretty(view: &View) -> String {
    let text = serde_json::to_string_pretty(view).expect("names and figures make JSON");
    text + "\n"
}

fn html(page: Bytes) -> admin::Answer {
    let mut answer = admin::answer(StatusCode::OK, "text/html; charset=utf-8", page);
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    answer
}

/// For an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}
