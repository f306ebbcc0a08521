//! The path of a request, top to bottom.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use providers::refusal::Refusal;
use providers::usage::Usage;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::admit::admit;
use crate::gate::Gate;
use crate::listener::Service;
use crate::meter::{self, Body};
use crate::metrics::Metrics;
use crate::policy::Standing;
use crate::record::Record;
use crate::route::{Asked, Router};
use crate::spans;
use crate::upstream::{Answer, Upstream};

/// What the requests of this pod share.
pub(crate) struct Proxy {
    router: Router,
    gate: Gate,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    /// Ends of answers whose clients have gone.
    pub(crate) tasks: TaskTracker,
    /// Told when those ends must not be waited for any longer.
    pub(crate) hurry: CancellationToken,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(
        gate: Gate,
        standing: watch::Receiver<Standing>,
        start_wait: Duration,
        metrics: Arc<Metrics>,
    ) -> Proxy {
        Proxy {
            router: Router::new(standing, start_wait),
            upstream: Upstream::new(gate.clone()),
            gate,
            metrics,
            tasks: TaskTracker::new(),
            hurry: CancellationToken::new(),
        }
    }

    /// `route -> admit -> upstream`; what follows is `meter`'s.
    async fn answer(
        &self,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Answer, Refusal> {
        let routed = self.router.read(request, record).await?;
        let hold = admit(&self.gate, &routed, record).await?;
        self.upstream.send(routed, hold, record).await
    }

    /// Learns from what a call used.
    pub(crate) fn learn(&self, asked: &Asked, usage: &Usage) {
        let provider = &asked.target.provider.name;
        let error =
            self.router.estimator.lock().learn(provider, &asked.call, asked.estimate, usage);
        if let Some(error) = error {
            self.metrics.estimate_error.observe(error);
        }
    }

    /// Waits for the ends of answers whose clients have gone, for at most `limit`; after that all of
    /// them are settled with what is known. Closes what is idle.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            self.hurry.cancel();
            self.tasks.wait().await;
        }
        self.upstream.forget_idle();
    }
}

impl Service for Proxy {
    type Body = Body;

    /// Answers a request, whatever it is; dropped when its client leaves.
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let span = spans::request(request.headers());
        let mut record = Record::new(self.metrics.clone(), span.clone());
        match self.answer(request, &mut record).instrument(span).await {
            Ok(answer) => meter::forward(answer, record, self),
            Err(refusal) => meter::refuse(refusal, record),
        }
    }
}
