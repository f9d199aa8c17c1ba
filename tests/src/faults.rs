//! Links that can fail: they stand between a server and the bridge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::journal::{Journal, SOON, Writer, journal};

/// What became of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The bridge took it.
    Passed,
    /// It was refused before the bridge saw it.
    Refused,
    /// The bridge took it, but its answer was lost.
    AnswerLost,
}

/// The link between homeserver and bridge. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    outcomes: Journal<Outcome>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Shared {
    bridge: SocketAddr,
    http: reqwest::Client,
    refuse: AtomicUsize,
    lose: AtomicUsize,
    outcomes: Writer<Outcome>,
}

impl Link {
    /// Listens on a port and passes everything on to the bridge.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, bridge: SocketAddr) -> Result<Self> {
        let (writer, outcomes) = journal();
        let shared = Arc::new(Shared {
            bridge,
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?,
            refuse: AtomicUsize::new(0),
            lose: AtomicUsize::new(0),
            outcomes: writer,
        });
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("binding the link")?;
        let app = Router::new().fallback(carry).with_state(shared.clone());
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        TaskTracker::new()
            .spawn(async move { axum::serve(listener, app).with_graceful_shutdown(ended).await });
        Ok(Self { shared, outcomes, _end: end.drop_guard() })
    }

    /// Refuses the next transactions without showing them to the bridge.
    pub fn refuse_next(&self, transactions: usize) {
        self.shared.refuse.store(transactions, Ordering::SeqCst);
    }

    /// Shows the next transactions to the bridge, and tells the homeserver that they failed.
    pub fn lose_next_answers(&self, transactions: usize) {
        self.shared.lose.store(transactions, Ordering::SeqCst);
    }

    /// Waits until this many transactions have had that outcome.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn happened(&self, outcome: Outcome, times: usize) -> Result<()> {
        let what = format!("{times} transactions with the outcome {outcome:?}");
        let count = |all: &[Outcome]| all.iter().filter(|found| **found == outcome).count();
        self.outcomes.wait_until(&what, SOON, |all| (count(all) >= times).then_some(())).await
    }
}

async fn carry(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let transaction = request.method() == Method::PUT;
    if transaction && take_one(&shared.refuse) {
        shared.outcomes.push(Outcome::Refused);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let answer = pass_on(&shared, request).await;
    if transaction && take_one(&shared.lose) {
        shared.outcomes.push(Outcome::AnswerLost);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if transaction {
        shared.outcomes.push(Outcome::Passed);
    }
    answer.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

async fn pass_on(shared: &Shared, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("http://{}{path}", shared.bridge);
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await?;
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = shared.http.request(parts.method, url).headers(headers).body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get("content-type") {
        response = response.header("content-type", kind);
    }
    Ok(response.body(Body::from(answer.bytes().await?))?)
}

fn take_one(counter: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
}

/// The stretch between the XMPP server and the bridge, into which a test can put stanzas that the server itself would
/// not carry. It ends when it is dropped.
#[derive(Debug)]
pub struct XmppLink {
    stanzas: mpsc::Sender<String>,
    _end: DropGuard,
}

impl XmppLink {
    /// Listens on a port and carries one stream after the other to the server's port for components.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("binding the link")?;
        let (stanzas, mut injected) = mpsc::channel(1);
        let end = CancellationToken::new();
        let ended = end.clone();
        TaskTracker::new().spawn(async move {
            let carrying = async {
                while let Ok((bridge, _)) = listener.accept().await {
                    // A stream that breaks is followed by the next.
                    let _ = carry_stream(bridge, server_port, &mut injected).await;
                }
            };
            ended.run_until_cancelled(carrying).await
        });
        Ok(Self { stanzas, _end: end.drop_guard() })
    }

    /// Sends a stanza to the bridge as if it came from the server. Nothing else should be under way.
    ///
    /// # Errors
    /// When the link has ended.
    pub async fn inject(&self, stanza: String) -> Result<()> {
        self.stanzas.send(stanza).await.context("the link has ended")
    }
}

async fn carry_stream(
    mut bridge: TcpStream,
    server_port: u16,
    injected: &mut mpsc::Receiver<String>,
) -> Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await?;
    let (mut from_bridge, mut to_bridge) = bridge.split();
    let (mut from_server, mut to_server) = server.split();
    let upwards = tokio::io::copy(&mut from_bridge, &mut to_server);
    let downwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                read = from_server.read(&mut buffer) => match buffer.get(..read?) {
                    Some([]) | None => return anyhow::Ok(()),
                    Some(bytes) => to_bridge.write_all(bytes).await?,
                },
                Some(stanza) = injected.recv() => to_bridge.write_all(stanza.as_bytes()).await?,
            }
        }
    };
    tokio::select! {
        copied = upwards => copied.map(drop).context("towards the server"),
        copied = downwards => copied,
    }
}
