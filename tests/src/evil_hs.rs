//! A homeserver that cannot be trusted: the real Synapse behind a proxy that obeys rules.
//!
//! It stands on both links between Synapse and the bridge. What the bridge asks of its homeserver goes through
//! [`Link::Client`], what Synapse pushes to the bridge through [`Link::Push`]; people's clients speak to Synapse
//! itself. Without rules it only keeps a record ([`EvilHomeserver::requests`]), from which a test counts what reached
//! whom. A [`Rule`] picks requests by link, method and path, and says what becomes of them: refused, passed on with the
//! answer lost, held back, rewritten on the way there or back, answered by the proxy itself, or met by a [`Fault`]. The
//! newest rule that fits and is not used up decides; it ends when its [`Order`] is dropped. [`fault`] says how rules
//! stand in a file. [`EvilHomeserver::push`] is what only the
//! homeserver can do besides: events that never happened, or happened before.
//!
//! [`forger`] makes keys that look like somebody's.

pub mod fault;
pub mod forger;
mod record;
mod rule;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as Incoming, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bridge::Bridge;
use crate::journal::{Journal, SOON, Writer, journal};
use crate::ports::free_port;

pub use fault::Fault;
use fault::OVERTAKEN_WITHIN;
pub use record::{Request, Sent};
use rule::{Action, Rewrite, Stage};
pub use rule::{Link, Rule};

/// The ports of both links and of what stands behind them.
#[derive(Debug, Clone, Copy)]
pub struct EvilPorts {
    /// Where the bridge finds its homeserver.
    pub client: u16,
    /// Where the homeserver finds the bridge.
    pub push: u16,
    /// Synapse's own port for clients.
    pub synapse: u16,
    /// The bridge's own port for transactions.
    pub bridge: u16,
}

impl EvilPorts {
    /// Four free ports.
    ///
    /// # Errors
    /// When there are none.
    pub fn choose() -> Result<Self> {
        let [client, push, synapse, bridge] =
            [free_port()?, free_port()?, free_port()?, free_port()?];
        Ok(Self { client, push, synapse, bridge })
    }
}

/// The proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct EvilHomeserver {
    shared: Arc<Shared>,
    requests: Journal<Request>,
    pushes: AtomicU64,
    _end: DropGuard,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    orders: Mutex<Vec<Arc<Standing>>>,
    requests: Writer<Request>,
}

/// A rule that stands, and how often it has been applied.
#[derive(Debug)]
struct Standing {
    rule: Rule,
    applied: watch::Sender<usize>,
    /// Requests that fitted.
    met: AtomicUsize,
    left: AtomicUsize,
    ended: CancellationToken,
}

/// A rule that stands until this is dropped.
#[derive(Debug)]
pub struct Order {
    standing: Arc<Standing>,
    shared: Weak<Shared>,
}

/// One link: where it leads.
#[derive(Debug, Clone)]
struct Way {
    link: Link,
    to: SocketAddr,
    /// Something was answered on this link.
    answered: Arc<Notify>,
    shared: Arc<Shared>,
}

impl EvilHomeserver {
    /// Listens on both links.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn start(ports: EvilPorts) -> Result<Self> {
        let (writer, requests) = journal();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build()?;
        let shared = Arc::new(Shared { http, orders: Mutex::default(), requests: writer });
        let end = CancellationToken::new();
        for (link, port, to) in
            [(Link::Client, ports.client, ports.synapse), (Link::Push, ports.push, ports.bridge)]
        {
            let answered = Arc::default();
            let way = Way { link, to: loopback(to), answered, shared: shared.clone() };
            let listener = TcpListener::bind(loopback(port)).await.context("binding a link")?;
            let app = Router::new().fallback(carry).with_state(way);
            let ended = end.clone().cancelled_owned();
            TaskTracker::new().spawn(async move {
                axum::serve(listener, app).with_graceful_shutdown(ended).await
            });
        }
        Ok(Self { shared, requests, pushes: AtomicU64::new(0), _end: end.drop_guard() })
    }

    /// Obeys a rule until the order is dropped.
    pub fn obey(&self, rule: Rule) -> Order {
        let left = AtomicUsize::new(rule.times);
        let (applied, ended) = (watch::channel(0).0, CancellationToken::new());
        let met = AtomicUsize::new(0);
        let standing = Arc::new(Standing { rule, applied, met, left, ended });
        self.shared.orders().push(standing.clone());
        Order { standing, shared: Arc::downgrade(&self.shared) }
    }

    /// What went through either link so far, as it was sent.
    pub fn requests(&self) -> &Journal<Request> {
        &self.requests
    }

    /// Waits until an event was pushed to the bridge; gives it as the homeserver sent it.
    ///
    /// # Errors
    /// When it is not.
    pub async fn pushed_event(&self, event_id: &str) -> Result<Value> {
        let found = |request: &Request| {
            request.events().find(|event| event.get("event_id").is_some_and(|id| id == event_id))
        };
        self.requests.wait_for(&format!("the push of {event_id}"), SOON, found).await
    }

    /// What our users have sent into a room, each event once.
    pub fn sent_into(&self, room: &str) -> Vec<Sent> {
        self.requests.read(|all| record::sent_into(all, room))
    }

    /// How many room keys our users have sent to a device.
    pub fn room_keys_to(&self, device: &str) -> usize {
        self.requests.read(|all| record::senders_to(all, "m.room.encrypted", device)).len()
    }

    /// How often this one of our users has told a device that it gets no room key.
    pub fn refusals_to(&self, device: &str, user: &str) -> usize {
        let senders =
            self.requests.read(|all| record::senders_to(all, "m.room_key.withheld", device));
        senders.into_iter().filter(|sender| sender == user).count()
    }

    /// Pushes events to the bridge in a transaction of its own; gives the bridge's answer.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn push(&self, bridge: &Bridge, events: &[Value]) -> Result<StatusCode> {
        let number = self.pushes.fetch_add(1, Ordering::SeqCst);
        let address = bridge.address();
        let url = format!("http://{address}/_matrix/app/v1/transactions/forged-{number}");
        let request = self.shared.http.put(url).bearer_auth(bridge.hs_token()?);
        let answer = request.json(&json!({ "events": events })).send().await;
        Ok(answer.context("pushing")?.status())
    }
}

impl Order {
    /// Waits until the rule has been applied so many times.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn applied(&self, times: usize) -> Result<()> {
        let mut applied = self.standing.applied.subscribe();
        let waited = tokio::time::timeout(SOON * 2, applied.wait_for(|count| *count >= times));
        waited.await.with_context(|| format!("a rule was not applied {times} times"))??;
        Ok(())
    }

    /// How often the rule has been applied.
    pub fn times_applied(&self) -> usize {
        *self.standing.applied.borrow()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.standing.ended.cancel();
        if let Some(shared) = self.shared.upgrade() {
            shared.orders().retain(|standing| !Arc::ptr_eq(standing, &self.standing));
        }
    }
}

impl Standing {
    /// Uses the rule once, unless it is used up or not this one's turn.
    fn take(&self) -> bool {
        if !(self.met.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(self.rule.every) {
            return false;
        }
        let less = |left: usize| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if taken {
            self.applied.send_modify(|count| *count += 1);
        }
        taken
    }

    /// Rewrites a body, where there is something to rewrite and the rule is not used up.
    fn rewrite(&self, rewrite: &Rewrite, body: &mut Bytes) {
        if let Some(rewritten) = rewrite.of(body).filter(|_| self.take()) {
            *body = rewritten;
        }
    }

    fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Vec<Arc<Standing>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest rule that fits and has something to do at this stage.
    fn find_order(&self, request: &Request, stage: Stage) -> Option<Arc<Standing>> {
        let orders = self.orders();
        let fits = |order: &&Arc<Standing>| {
            order.is_left() && order.rule.action.stage() == stage && order.rule.fits(request)
        };
        orders.iter().rev().find(fits).cloned()
    }
}

/// An answer on its way back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// The connection breaks behind so many bytes of the body.
    breaks_at: Option<usize>,
}

async fn carry(State(way): State<Way>, incoming: Incoming) -> Response {
    match way.carry(incoming).await {
        Ok(answer) => answer.into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Way {
    async fn carry(&self, incoming: Incoming) -> Result<Answer> {
        let (parts, body) = incoming.into_parts();
        let mut body = axum::body::to_bytes(body, usize::MAX).await?;
        let request = Request::new(self.link, &parts, &body);
        let order = self.shared.find_order(&request, Stage::Request);
        self.shared.requests.push(request.clone());
        if let Some(order) = order {
            match &order.rule.action {
                Action::Refuse if order.take() => return Ok(Answer::lost()),
                Action::LoseAnswer if order.take() => {
                    self.pass_on(parts, body).await?;
                    return Ok(Answer::lost());
                }
                Action::Answer(status, body) if order.take() => {
                    return Ok(Answer::made(*status, body));
                }
                Action::Suffer(fault) if order.take() => {
                    return self.suffer(*fault, parts, body).await;
                }
                Action::Hold if order.take() => order.ended.cancelled().await,
                Action::RewriteRequest(rewrite) => order.rewrite(rewrite, &mut body),
                // Somebody else has used it up.
                _ => {}
            }
        }
        let mut answer = self.pass_on(parts, body).await?;
        // A call that waits is answered by the rules of the time when its answer comes.
        if let Some(order) = self.shared.find_order(&request, Stage::Answer) {
            match &order.rule.action {
                Action::RewriteAnswer(rewrite) => order.rewrite(rewrite, &mut answer.body),
                Action::HoldAnswer(wanted) if wanted.is(&answer.body) && order.take() => {
                    order.ended.cancelled().await;
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn suffer(&self, fault: Fault, parts: Parts, body: Bytes) -> Result<Answer> {
        match fault {
            Fault::Block => return Ok(Answer::broken()),
            Fault::Fail { .. } | Fault::Limit { .. } => return Ok(Answer::of_fault(fault)),
            Fault::Duplicate => drop(self.pass_on(parts.clone(), body.clone()).await?),
            Fault::Overtaken => {
                // Nothing may come.
                let _ = timeout(OVERTAKEN_WITHIN, self.answered.notified()).await;
            }
            Fault::LoseAnswer | Fault::HalveAnswer => {}
        }
        let answer = self.pass_on(parts, body).await?;
        Ok(match fault {
            Fault::LoseAnswer => Answer::broken(),
            Fault::HalveAnswer => Answer { breaks_at: Some(answer.body.len() / 2), ..answer },
            _ => answer,
        })
    }

    async fn pass_on(&self, parts: Parts, body: Bytes) -> Result<Answer> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://{}{path}", self.to);
        let mut headers = parts.headers;
        headers.remove("host");
        headers.remove("content-length");
        let mut request = self.shared.http.request(parts.method, url).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        }
        let answer = request.send().await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for of_the_connection in ["connection", "content-length", "transfer-encoding"] {
            headers.remove(of_the_connection);
        }
        let body = answer.bytes().await?;
        self.answered.notify_waiters();
        Ok(Answer { status, headers, body, breaks_at: None })
    }
}

impl Answer {
    fn lost() -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { status: StatusCode::BAD_GATEWAY, headers, body, breaks_at: None }
    }

    fn made(status: StatusCode, body: &Value) -> Self {
        let body = body.to_string().into();
        Self { status, headers: HeaderMap::new(), body, breaks_at: None }
    }

    /// A beginning that nothing follows.
    fn broken() -> Self {
        Self { breaks_at: Some(0), ..Self::made(StatusCode::OK, &json!({})) }
    }

    fn of_fault(fault: Fault) -> Self {
        let status = fault.status().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = match fault {
            Fault::Limit { retry_after_ms } => {
                json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": retry_after_ms })
            }
            _ => json!({ "errcode": "M_UNKNOWN" }),
        };
        Self::made(status, &body)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self { status, mut headers, body, breaks_at } = self;
        let Some(breaks_at) = breaks_at else {
            return (status, headers, Body::from(body)).into_response();
        };
        headers.insert(CONTENT_LENGTH, body.len().into());
        let parts = [Ok(body.slice(..breaks_at)), Err(io::Error::other("cut"))];
        (status, headers, Body::from_stream(futures_util::stream::iter(parts))).into_response()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
