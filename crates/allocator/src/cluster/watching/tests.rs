use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::pending;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use parking_lot::RwLock;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;

/// An API server that lists one object, and then answers watches so.
#[derive(Clone)]
struct Server {
    watches: fn() -> Response,
    /// When it was asked, and whether for a watch.
    asked: Arc<RwLock<Vec<(Instant, bool)>>>,
}

// === impl Server ===

impl Server {
    fn new(watches: fn() -> Response) -> Server {
        Server { watches, asked: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request| ready(server.answer(&request));
        Client::new(Router::new().fallback(answer), "shop")
    }

    fn answer(&self, request: &Request) -> Response {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        self.asked.write().push((Instant::now(), is_watch));
        if is_watch {
            return (self.watches)();
        }
        let object =
            json!({"metadata": {"namespace": "shop", "name": "a", "resourceVersion": "7"}});
        let list = json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
            "items": [object],
        });
        axum::Json(list).into_response()
    }

    /// The times between one watch and the next, in a while of following.
    async fn between_watches(&self, while_: Duration) -> Vec<Duration> {
        let events = one(Api::<ConfigMap>::default_namespaced(self.client()), "a");
        let follow = async {
            let mut events = std::pin::pin!(events);
            let first = events.next().await.expect("a watch does not end");
            assert_eq!(first.unwrap().expect("it is there").name_any(), "a");
            while events.next().await.is_some() {}
        };
        assert!(timeout(while_, follow).await.is_err());
        let asked = self.asked.read();
        let watches: Vec<Instant> =
            asked.iter().filter(|(_, is_watch)| *is_watch).map(|(at, _)| *at).collect();
        watches.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_on_which_nothing_comes_begins_anew_before_long() {
    let silent = || Body::from_stream(pending::<Result<Vec<u8>, kube::Error>>()).into_response();
    let server = Server::new(silent);
    let between = server.between_watches(Duration::from_secs(200)).await;
    assert!(between.len() >= 4, "{between:?}");
    let most = Duration::from_secs(u64::from(WATCH_SECONDS)) + Duration::from_secs(6);
    assert!(between.iter().all(|&it| it <= most), "{between:?}");
    // It goes on where it was.
    assert_eq!(server.asked.read().iter().filter(|(_, is_watch)| !is_watch).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_for_minutes_is_asked_every_few_seconds() {
    let server = Server::new(|| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let between = server.between_watches(Duration::from_secs(180)).await;
    assert!(between.len() >= 25, "{between:?}");
    assert!(between.iter().all(|&it| it <= RETRY_MAX), "{between:?}");
}

#[test]
fn an_answer_may_take_longer_than_a_watch_in_which_nothing_happens() {
    assert!(READ_TIMEOUT > Duration::from_secs(u64::from(WATCH_SECONDS) + 5));
}
