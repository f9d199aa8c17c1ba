//! A homeserver that cannot be trusted: the real Synapse behind a proxy that obeys rules.
//!
//! It stands on both links between Synapse and the bridge. What the bridge asks of its homeserver goes through
//! [`Link::Client`], what Synapse pushes to the bridge through [`Link::Push`]; people's clients speak to Synapse
//! itself. Without rules it only keeps a record ([`EvilHomeserver::requests`]), from which a test counts what reached
//! whom. A [`Rule`] picks requests by link, method and path, and says what becomes of them: refused, passed on with the
//! answer lost, held back, rewritten on the way there or back, answered by the proxy itself, or met by a [`Fault`]. Of the
//! rules that fit and are not used up, the newest whose turn it is decides; a rule ends when its [`Order`] is dropped.
//! [`fault`] says how rules stand in a file. [`EvilHomeserver::push`] is what only the homeserver can do besides: events
//! that never happened, or happened before.
//!
//! [`forger`] makes keys that look like somebody's.

pub mod fault;
pub mod forger;
mod order;
mod record;
mod rule;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bridge::Bridge;
use crate::journal::{Journal, SOON, Writer, journal};
use crate::ports::free_port;

pub use fault::Fault;
use fault::OVERTAKEN_WITHIN;
pub use order::Order;
use order::{Orders, Standing};
pub use record::{Request, Sent};
use rule::{Action, Stage};
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
    orders: Arc<Orders>,
    requests: Writer<Request>,
}

/// One link: where it leads.
#[derive(Debug, Clone)]
struct Way {
    link: Link,
    to: SocketAddr,
    turns: Arc<Turns>,
    shared: Arc<Shared>,
}

/// The order in which the requests of a link come and are answered.
#[derive(Debug)]
struct Turns {
    came: AtomicU64,
    /// The latest that has been answered.
    answered: watch::Sender<u64>,
}

/// A request on its way to the server.
#[derive(Debug, Clone)]
struct Carried {
    /// The how manieth of its link it is.
    number: u64,
    parts: Parts,
    body: Bytes,
}

impl EvilHomeserver {
    /// Listens on both links.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn start(ports: EvilPorts) -> Result<Self> {
        let (writer, requests) = journal();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build()?;
        let shared = Arc::new(Shared { http, orders: Arc::default(), requests: writer });
        let end = CancellationToken::new();
        for (link, port, to) in
            [(Link::Client, ports.client, ports.synapse), (Link::Push, ports.push, ports.bridge)]
        {
            let turns = Arc::new(Turns { came: AtomicU64::new(0), answered: watch::channel(0).0 });
            let way = Way { link, to: loopback(to), turns, shared: shared.clone() };
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
        self.shared.orders.obey(rule)
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

impl Turns {
    fn next(&self) -> u64 {
        self.came.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn note_answer(&self, number: u64) {
        self.answered.send_modify(|latest| *latest = number.max(*latest));
    }

    /// Waits until a later request has been answered, no longer than told; says whether one was.
    async fn overtake(&self, number: u64, within: Duration) -> bool {
        let mut answered = self.answered.subscribe();
        timeout(within, answered.wait_for(|latest| *latest > number)).await.is_ok()
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
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let request = Request::new(self.link, &parts, &body);
        let mut carried = Carried { number: self.turns.next(), parts, body };
        let order = self.shared.orders.find(&request, Stage::Request);
        self.shared.requests.push(request.clone());
        if let Some(order) = order {
            match &order.rule.action {
                Action::Refuse if order.take() => return Ok(Answer::lost()),
                Action::LoseAnswer if order.take() => {
                    self.pass_on(carried).await?;
                    return Ok(Answer::lost());
                }
                Action::Answer(status, body) if order.take() => {
                    return Ok(Answer::made(*status, body));
                }
                Action::Suffer(fault) if order.take() => {
                    return self.suffer(*fault, &order, carried).await;
                }
                Action::Hold if order.take() => order.ended.cancelled().await,
                Action::RewriteRequest(rewrite) => order.rewrite(rewrite, &mut carried.body),
                // Somebody else has used it up.
                _ => {}
            }
        }
        let mut answer = self.pass_on(carried).await?;
        // A call that waits is answered by the rules of the time when its answer comes.
        if let Some(order) = self.shared.orders.find(&request, Stage::Answer) {
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

    async fn suffer(&self, fault: Fault, order: &Standing, carried: Carried) -> Result<Answer> {
        match fault {
            Fault::Block => return Ok(Answer::broken()),
            Fault::Fail { .. } | Fault::Limit { .. } => return Ok(Answer::of_fault(fault)),
            Fault::Duplicate => drop(self.pass_on(carried.clone()).await?),
            Fault::Overtaken => {
                let is_overtaken = self.turns.overtake(carried.number, OVERTAKEN_WITHIN).await;
                order.overtaken.fetch_add(usize::from(is_overtaken), Ordering::SeqCst);
            }
            Fault::LoseAnswer | Fault::HalveAnswer => {}
        }
        let answer = self.pass_on(carried).await?;
        Ok(match fault {
            Fault::LoseAnswer => Answer::broken(),
            Fault::HalveAnswer => Answer { breaks_at: Some(answer.body.len() / 2), ..answer },
            _ => answer,
        })
    }

    async fn pass_on(&self, Carried { number, parts, body }: Carried) -> Result<Answer> {
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
        self.turns.note_answer(number);
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
