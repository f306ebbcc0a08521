//! The path of a request through the emulator, in the order of `providers.md` 18.3: key, body, too
//! large, limits, faults, headers, answer. Settlement is in `truth`, when the call ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use providers::enforce::Level;
use providers::operation::Operation;
use quota::glob;
use quota::time::Time;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ask::Ask;
use crate::body::{Body, Drip, Paced};
use crate::clock::Clock;
use crate::config::{Config, Headers, Latency, Output, Provider};
use crate::error::Error;
use crate::fault::{Fault, Faults, Kind};
use crate::frame::{Content, Frame, Frames, ended_after};
use crate::journal::Line;
use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::reply::{Dice, Reply};
use crate::skin::{self, Exchange, set};
use crate::truth::{Caller, InFlight, Outcome, Truth};

/// What all connections share.
pub(crate) struct Emulator {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) live: RwLock<Live>,
    prepared: Option<Prepared>,
    calls: AtomicU64,
}

/// What may be changed while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) headers: Headers,
    pub(crate) latency: Latency,
    pub(crate) output: Output,
}

/// One exchange, as far as it has come.
struct Scene {
    provider: Provider,
    account: Option<Arc<str>>,
    dice: Dice,
    number: u64,
    started: Instant,
    now: Time,
    live: Live,
}

/// Anthropic's own bound; OpenAI's is not published.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// How long a body may take; providers are patient, but not for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call hangs at most: as long as the most patient SDK waits, and half as long again.
const MAX_HANG: Duration = Duration::from_secs(900);

/// How often tokens of an answer that is not streamed are booked.
const BOOKING: Duration = Duration::from_millis(50);

/// The account of everybody where keys are not told apart.
const SHARED_ACCOUNT: &str = "default";

// === impl Emulator ===

impl Emulator {
    pub(crate) fn new(
        config: Config,
        journal: Option<mpsc::Sender<Line>>,
    ) -> Result<Emulator, Error> {
        let clock = Arc::new(if config.manual_clock { Clock::manual() } else { Clock::running() });
        let truth = Arc::new(Truth::new(Arc::clone(&clock), config.clone(), journal));
        let live = Live { headers: config.headers, latency: config.latency, output: config.output };
        let shared = config.keys.is_empty().then_some(SHARED_ACCOUNT);
        for account in config.keys.values().map(String::as_str).chain(shared) {
            for provider in Provider::ALL {
                truth.open(&account.into(), provider);
            }
        }
        let prepared = config.prepared.then(Prepared::new);
        let mut faults = Faults::default();
        for fault in &config.faults {
            faults.arm(clock.now(), fault.clone())?;
        }
        Ok(Emulator {
            config,
            clock,
            truth,
            faults: Mutex::new(faults),
            live: RwLock::new(live),
            prepared,
            calls: AtomicU64::new(0),
        })
    }

    /// Arms a fault from now on.
    pub(crate) fn arm(&self, fault: Fault) -> Result<(), Error> {
        self.faults.lock().arm(self.clock.now(), fault)
    }

    /// Makes the changes of limits whose time has come.
    pub(crate) fn change_what_is_due(&self) {
        for fault in self.faults.lock().due(self.clock.now()) {
            match fault.kind {
                Kind::Limit(change) => {
                    self.truth.change(&change);
                }
                Kind::ExternalLoad { percent } => self.truth.external_load(percent),
                _ => {}
            }
        }
    }

    /// Answers a request, whatever it is.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.truth.came();
        self.change_what_is_due();
        let mut scene = self.scene(&request);
        let answered = match &self.prepared {
            Some(prepared) => self.answer_prepared(prepared, &scene, request).await,
            None => self.answer(&mut scene, request).await,
        };
        let response = answered.unwrap_or_else(|refusal| self.refuse(&scene, &refusal));
        self.truth.answered(response.status().as_u16());
        response
    }

    async fn answer(
        &self,
        scene: &mut Scene,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        scene.account = Some(self.authenticate(request.headers())?);
        let (head, body) = request.into_parts();
        let operation = scene.provider.operation(&head.method, head.uri.path());
        match operation {
            Operation::Models => return self.models(scene, head.uri.path()),
            Operation::Completions | Operation::Other => {
                let what = format!("{} {}", head.method, head.uri.path());
                return Err(Refusal::NoPath { what });
            }
            _ => {}
        }
        let ask = Arc::new(Ask::read(scene.provider, operation, &read(body).await?)?);
        self.check_model(scene.provider, ask.model())?;
        if operation == Operation::CountTokens {
            let reply = self.draw(scene, ask);
            return Ok(scene.respond_whole(&reply, &[]));
        }
        let caller = scene.caller(ask.model());
        let struck = self.strike(scene, ask.model());
        if let Some(Kind::RateLimit { wait_ms }) = struck {
            self.truth.failed(&caller);
            let wait = Duration::from_millis(wait_ms);
            return Err(Refusal::Storm { model: caller.model, wait });
        }
        let (levels, admitted) = self.truth.admit(&caller, &ask);
        match admitted {
            Ok(call) => self.run(scene, ask, call, &levels, struck).await,
            Err(denied) => Err(Refusal::Limited { denied, model: caller.model, levels }),
        }
    }

    /// Runs the model, as far as the fault lets it.
    async fn run(
        &self,
        scene: &mut Scene,
        ask: Arc<Ask>,
        mut call: InFlight,
        levels: &[Level],
        struck: Option<Kind>,
    ) -> Result<Response<Body>, Refusal> {
        match &struck {
            Some(Kind::Hang) => {
                sleep(MAX_HANG).await;
                call.finish(Outcome::Failed);
                return Err(status_fault(504));
            }
            Some(Kind::Status { .. }) => {
                call.finish(Outcome::Failed);
                return Err(struck.map_or_else(|| status_fault(500), refusal_of));
            }
            Some(Kind::Garbage) => {
                call.finish(Outcome::Failed);
                let body = Body::whole(&b"<html>upstream connect error</html>"[..]);
                return Ok(scene.respond(levels, JSON, body));
            }
            _ => {}
        }
        let stream = ask.call.stream && ask.call.operation.has_output();
        let reply = Arc::new(self.draw(scene, ask));
        call.read(reply.input);
        if stream {
            sleep_until(scene.started + reply.pace.at(0)).await;
            let frames = skin::of(scene.provider).frames(Arc::clone(&reply));
            let frames = self.broken(scene, frames, struck.as_ref());
            let paced = Paced::new(frames, reply.pace, scene.started, call);
            let body = Body::Paced(Box::new(paced.dripping(drip_of(struck.as_ref()))));
            return Ok(scene.respond(levels, EVENTS, body));
        }
        generate(&reply, scene.started, &mut call).await;
        let whole = whole(scene.provider, &reply);
        let length = whole.len();
        let sent = match struck {
            Some(Kind::Cut { .. }) => {
                let half = single(whole.slice(..length / 2));
                ended_after(half, u64::MAX, Content::Cut)
            }
            Some(Kind::Drip { .. }) => single(whole),
            _ => {
                call.finish(Outcome::Answered);
                return Ok(scene.respond(levels, JSON, Body::whole(whole)));
            }
        };
        let paced = Paced::new(sent, reply.pace, scene.started, call);
        let paced = paced.with_length(length as u64).dripping(drip_of(struck.as_ref()));
        Ok(scene.respond(levels, JSON, Body::Paced(Box::new(paced))))
    }

    async fn answer_prepared(
        &self,
        prepared: &Prepared,
        scene: &Scene,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        let operation = scene.provider.operation(&head.method, head.uri.path());
        let body = read(body).await?;
        let (streams, body) = prepared.answer(scene.provider, operation, &body)?;
        let content_type = if streams { EVENTS } else { JSON };
        Ok(scene.respond(&[], content_type, body))
    }

    fn scene(&self, request: &Request<Incoming>) -> Scene {
        let mut dice = Dice::of_call(self.config.seed, self.calls.fetch_add(1, Ordering::Relaxed));
        Scene {
            provider: Provider::of(request),
            account: None,
            number: dice.number(),
            dice,
            started: Instant::now(),
            now: self.clock.now(),
            live: *self.live.read(),
        }
    }

    /// Which account a key belongs to. Both providers take both headers.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<str>, Refusal> {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let api_key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let key = bearer.or(api_key).ok_or(Refusal::NoKey)?;
        if self.config.keys.is_empty() {
            return Ok(SHARED_ACCOUNT.into());
        }
        let account = self.config.keys.get(key).ok_or(Refusal::WrongKey)?;
        Ok(account.as_str().into())
    }

    fn models(&self, scene: &Scene, path: &str) -> Result<Response<Body>, Refusal> {
        let path = path.trim_end_matches('/');
        let only = path.rsplit_once("/models/").map(|(_, model)| model);
        let list = skin::of(scene.provider).models(self.config.models(scene.provider), only);
        let list = list.ok_or_else(|| Refusal::NoModel(only.unwrap_or_default().to_owned()))?;
        Ok(scene.respond(&[], JSON, Body::whole(list.to_string())))
    }

    fn check_model(&self, provider: Provider, model: &str) -> Result<(), Refusal> {
        let limits = match provider {
            Provider::OpenAi => &self.config.openai,
            Provider::Anthropic => &self.config.anthropic,
        };
        let mut covered = limits.iter().flat_map(|limit| &limit.models);
        let known = !self.config.reject_unknown_models
            || self.config.models(provider).iter().any(|listed| listed == model)
            || covered.any(|pattern| glob::matches(pattern, model));
        if known { Ok(()) } else { Err(Refusal::NoModel(model.to_owned())) }
    }

    fn draw(&self, scene: &mut Scene, ask: Arc<Ask>) -> Reply {
        let Live { latency, output, .. } = scene.live;
        Reply::draw(latency, output, ask, self.clock.now(), &mut scene.dice)
    }

    fn strike(&self, scene: &mut Scene, model: &str) -> Option<Kind> {
        let roll = scene.dice.percent();
        self.faults.lock().strike(self.clock.now(), scene.provider, model, roll)
    }

    fn broken(&self, scene: &Scene, frames: Frames, struck: Option<&Kind>) -> Frames {
        match struck {
            Some(Kind::Cut { after_tokens }) => ended_after(frames, *after_tokens, Content::Cut),
            Some(Kind::StreamError { after_tokens }) => {
                let error = skin::of(scene.provider).stream_error(&scene.exchange());
                ended_after(frames, *after_tokens, Content::Bytes(error))
            }
            _ => frames,
        }
    }

    fn refuse(&self, scene: &Scene, refusal: &Refusal) -> Response<Body> {
        let skin = skin::of(scene.provider);
        let exchange = scene.exchange();
        let body = Body::whole(skin.refuse(refusal, &exchange).to_string());
        let levels = match refusal {
            Refusal::Limited { levels, .. } => &levels[..],
            _ => &[],
        };
        let mut response = scene.respond(levels, JSON, body);
        *response.status_mut() = refusal.status();
        if let (Some(wait), false) = (refusal.wait(), scene.live.headers == Headers::Missing) {
            let millis = wait.as_nanos().div_ceil(1_000_000);
            let headers = response.headers_mut();
            set(headers, "retry-after", &millis.div_ceil(1_000).max(1).to_string());
            if self.config.retry_hints {
                set(headers, "retry-after-ms", &millis.to_string());
                set(headers, "x-should-retry", "true");
            }
        }
        response
    }
}

// === impl Scene ===

impl Scene {
    fn exchange(&self) -> Exchange<'_> {
        let account = self.account.as_deref().unwrap_or_default();
        Exchange { number: self.number, account, elapsed: self.started.elapsed() }
    }

    fn caller(&self, model: &str) -> Caller {
        let account = self.account.clone().unwrap_or_else(|| SHARED_ACCOUNT.into());
        Caller { account, provider: self.provider, model: model.to_owned() }
    }

    fn respond_whole(&self, reply: &Reply, levels: &[Level]) -> Response<Body> {
        self.respond(levels, JSON, Body::whole(whole(self.provider, reply)))
    }

    fn respond(&self, levels: &[Level], content_type: HeaderValue, body: Body) -> Response<Body> {
        let skin = skin::of(self.provider);
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        skin.identify(&self.exchange(), headers);
        if self.live.headers == Headers::Full {
            skin.rate_limits(self.now, levels, headers);
        }
        response
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::BodyTooLarge)
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::BodyLost),
    }
}

/// Produces an answer that is sent whole; a client that goes away meanwhile drops this future, and
/// with it the call.
async fn generate(reply: &Reply, started: Instant, call: &mut InFlight) {
    let steps = reply.steps();
    let (mut booked, mut tokens) = (Duration::ZERO, 0);
    for step in 0..steps {
        tokens += reply.produced_at(step);
        let due = reply.pace.at(step + 1);
        if due > booked + BOOKING || step + 1 == steps {
            sleep_until(started + due).await;
            call.produce(tokens);
            (booked, tokens) = (due, 0);
        }
    }
    sleep_until(started + reply.pace.at(steps)).await;
}

fn whole(provider: Provider, reply: &Reply) -> Bytes {
    skin::of(provider).whole(reply).to_string().into()
}

/// A body of one piece.
fn single(bytes: Bytes) -> Frames {
    Box::new(std::iter::once(Frame::new(0, 0, bytes)))
}

fn drip_of(struck: Option<&Kind>) -> Option<Drip> {
    let Some(Kind::Drip { bytes, pause_ms }) = struck else { return None };
    Some(Drip { bytes: *bytes, pause: Duration::from_millis(*pause_ms) })
}

fn refusal_of(kind: Kind) -> Refusal {
    let Kind::Status { status, error_type, code, message, retry_after } = kind else {
        return status_fault(500);
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal::Fault { status, error_type, code, message, retry_after }
}

fn status_fault(status: u16) -> Refusal {
    refusal_of(Kind::Status {
        status,
        error_type: None,
        code: None,
        message: None,
        retry_after: None,
    })
}
