//! The composition root: every part is built here, once.

use std::{io, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use jid::BareJid;
use rand_core::OsRng;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use crate::{
    appservice::{self, AppserviceState},
    clock::{Clock, SystemClock, WatchedClock},
    config::Config,
    housekeeping::keep_house,
    matrix::{ClientError, DeviceLimits, Devices, DevicesParts, MatrixClient, Outbox},
    namespace::Namespace,
    network::{Network, NetworkClient},
    portal::{Doorbells, Hub, Parts, StepError},
    recovery::{RecoveryError, recover},
    store::{ConnectError, Database, Names, NamesError, StoreError, StoreKey, StoreKeyError},
    xmpp::{Xmpp, XmppClient, XmppConfig},
};

/// Time for one connection to the homeserver to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often this process makes sure that it owns the database.
const CONFIRM_EVERY: Duration = Duration::from_secs(10);

/// How often the homeserver is asked to call us.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long what is under way may take to end when the bridge stops. Requests to a homeserver that
/// is away take longer.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// The parts that have work of their own.
struct App {
    db: Database,
    clock: Arc<dyn Clock>,
    client: MatrixClient,
    devices: Arc<Devices>,
    outbox: Arc<Outbox>,
    remote: Arc<XmppClient>,
    hub: Arc<Hub>,
    doorbells: Arc<Doorbells>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The longest that messages are held.
    hold: Duration,
    /// Cancelled when a part has ended that must live.
    died: CancellationToken,
}

/// Runs the bridge until `stop` is cancelled and what is under way has ended.
///
/// # Errors
/// When a part cannot start or fails for good.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), AppError> {
    let db = open_database(&config).await?;
    let listener = TcpListener::bind(config.appservice.listen).await.map_err(AppError::Listen)?;
    let app = App::build(&config, db, stop.clone())?;
    let last_transaction = app.db.read().await?.matrix_inbox().last_transaction().await?;
    let router = appservice::router(AppserviceState {
        hs_token: config.registration.hs_token.clone(),
        db: app.db.clone(),
        last_transaction,
        intake: app.doorbells.clone(),
        clock: Arc::new(SystemClock),
    });
    app.start(config.registration.id.clone());
    tracing::info!("app.started");
    let served = tokio::select! {
        served = appservice::serve(listener, router, stop.clone()) => served.map_err(AppError::Serve),
        () = until_replaced(&app.db) => Err(AppError::Replaced),
        () = until_died(&app.died, &stop) => Err(AppError::Died),
    };
    stop.cancel();
    app.tracker.close();
    if tokio::time::timeout(STOP_PATIENCE, app.tracker.wait()).await.is_err() {
        // What was not committed is as if it had not begun; the next start takes it up.
        tracing::warn!("app.stop.cut_short");
    }
    let closed = app.db.close().await;
    tracing::info!("app.stopped");
    served?;
    Ok(closed?)
}

/// Takes the database, and puts it right where it is an older copy.
async fn open_database(config: &Config) -> Result<Database, AppError> {
    let key = StoreKey::load(&config.database.key_file)?;
    let database = &config.database;
    let db = Database::connect(database.url.as_str(), &key, &database.witness_file).await?;
    db.ensure_names(Names {
        server_name: config.homeserver.server_name.as_str(),
        component: config.xmpp.component.as_str(),
    })
    .await?;
    if let Some(recovered) = recover(&db, &SystemClock, &mut OsRng).await? {
        tracing::error!(
            matrix_devices = recovered.matrix_devices,
            omemo_devices = recovered.omemo_devices,
            omemo_sessions = recovered.omemo_sessions,
            "app.rolled_back: the database is older than its witness, as after the restore of a \
             backup: devices and sessions are replaced, so that no key is used twice; what people \
             have decided about keys since must be decided again"
        );
    }
    Ok(db)
}

impl App {
    fn build(config: &Config, db: Database, stop: CancellationToken) -> Result<Self, AppError> {
        let tracker = TaskTracker::new();
        let clock: Arc<dyn Clock> = Arc::new(WatchedClock::start());
        let client = matrix_client(config)?;
        let doorbells = Doorbells::new(tracker.clone());
        let xmpp = xmpp_config(config)?;
        let network = Arc::new(Xmpp::new(xmpp.component.clone()));
        let namespace = Namespace::new(network.name(), config.bot.clone());
        let devices = Devices::new(DevicesParts {
            client: client.clone(),
            db: db.clone(),
            clock: clock.clone(),
            namespace: namespace.clone(),
            events: doorbells.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
            limits: DeviceLimits::default(),
        });
        let outbox = Outbox::new(
            doorbells.clone(),
            db.clone(),
            client.clone(),
            tracker.clone(),
            stop.clone(),
        );
        let remote = XmppClient::new(
            xmpp,
            db.clone(),
            clock.clone(),
            Box::new(OsRng),
            doorbells.clone(),
            doorbells.clone(),
        );
        let parts = Parts {
            db: db.clone(),
            clock: clock.clone(),
            client: client.clone(),
            devices: devices.clone(),
            outbox: outbox.clone(),
            network,
            remote: remote.clone(),
            namespace,
            permissions: config.permissions.clone(),
            policy: config.policy,
        };
        let hub = Hub::new(parts, tracker.clone(), stop.clone());
        doorbells.connect(&hub);
        Ok(Self {
            db,
            clock,
            client,
            devices,
            outbox,
            remote,
            hub,
            doorbells,
            tracker,
            stop,
            hold: config.policy.hold_hours.as_duration(),
            died: CancellationToken::new(),
        })
    }

    /// Starts everything that goes on in the background.
    fn start(&self, appservice_id: String) {
        let (remote, stop, died) = (self.remote.clone(), self.stop.clone(), self.died.clone());
        self.tracker.spawn(async move {
            // Alive without one of its legs, the bridge would take messages and keep them.
            let _when_it_ends = died.drop_guard();
            remote.run(stop).await;
        });
        let (hub, outbox, devices) = (self.hub.clone(), self.outbox.clone(), self.devices.clone());
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = start_matrix(&hub, &outbox, &devices) => {}
                () = stop.cancelled() => {}
            }
        });
        let (db, clock, hold) = (self.db.clone(), self.clock.clone(), self.hold);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                never = keep_house(&db, &*clock, hold) => match never {},
                () = stop.cancelled() => {}
            }
        });
        let (client, stop) = (self.client.clone(), self.stop.clone());
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        self.tracker.spawn(async move {
            tokio::select! {
                () = ping_regularly(&client, &appservice_id, &hub, &outbox) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Makes the bot ready and takes up what an earlier run has left, as soon as the homeserver is
/// there.
async fn start_matrix(hub: &Hub, outbox: &Outbox, devices: &Arc<Devices>) {
    let begin = || async {
        hub.start().await?;
        outbox.ring_for_all().await?;
        Ok::<_, StepError>(())
    };
    let patience =
        ExponentialBuilder::default().with_max_delay(Duration::from_secs(30)).without_max_times();
    let started = begin
        .retry(patience)
        .notify(|error, _| {
            tracing::warn!(error = %crate::error_chain(error), "app.matrix.not_ready");
        })
        .await;
    if started.is_ok() {
        devices.start();
        tracing::info!("app.matrix.ready");
    }
}

/// Returns when a part that must live has died of a fault, and not because the bridge stops.
async fn until_died(died: &CancellationToken, stop: &CancellationToken) {
    died.cancelled().await;
    if stop.is_cancelled() {
        std::future::pending().await
    }
}

/// Returns when another process owns the database. What this one still did would be refused, and
/// the XMPP server would send it stanzas that it cannot keep.
async fn until_replaced(db: &Database) {
    // A transaction that was refused says it earlier.
    while tokio::time::timeout(CONFIRM_EVERY, db.fenced()).await.is_err() {
        match db.confirm_owner().await {
            Ok(()) => {}
            Err(StoreError::Fenced) => break,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "app.owner.not_confirmed");
            }
        }
    }
    tracing::error!("app.replaced: another process owns the database");
}

/// A homeserver that could not give us a transaction waits for up to nine minutes, whoever's fault
/// it was; a ping ends that. What waits here for the homeserver is looked at when it is back.
async fn ping_regularly(client: &MatrixClient, appservice_id: &str, hub: &Hub, outbox: &Outbox) {
    let mut is_there = None;
    loop {
        let seen = client.ping(appservice_id).await;
        match &seen {
            Ok(()) if is_there != Some(true) => tracing::info!("app.homeserver.reachable"),
            Ok(()) => {}
            Err(error) => log_outage(error, is_there == Some(true)),
        }
        if seen.is_ok() && is_there == Some(false) {
            take_up(hub, outbox).await;
        }
        is_there = Some(seen.is_ok());
        tokio::time::sleep(if seen.is_ok() { PING_EVERY } else { PING_EVERY / 10 }).await;
    }
}

async fn take_up(hub: &Hub, outbox: &Outbox) {
    let rung = async {
        hub.ring_for_all().await?;
        outbox.ring_for_all().await
    };
    if let Err(error) = rung.await {
        tracing::warn!(error = %crate::error_chain(&error), "app.take_up.failed");
    }
}

fn log_outage(error: &ClientError, was_there: bool) {
    if error.errcode() == Some("M_UNKNOWN_TOKEN") {
        tracing::warn!(
            "app.registration.unknown: the homeserver does not know the registration; name it in \
             homeserver.yaml and restart the homeserver"
        );
    } else if matches!(error, ClientError::Server { status: 502 | 504 }) {
        tracing::warn!(
            "app.homeserver.cannot_call: the homeserver, or a proxy before it, is down, or it cannot reach the bridge: \
             the `url` of its registration must lead to appservice.listen"
        );
    } else if was_there {
        tracing::warn!(error = %crate::error_chain(error), "app.homeserver.lost");
    } else {
        tracing::info!(error = %crate::error_chain(error), "app.homeserver.not_yet");
    }
}

fn matrix_client(config: &Config) -> Result<MatrixClient, AppError> {
    let as_token = Zeroizing::new(config.registration.as_token.expose().to_owned());
    Ok(MatrixClient::new(http_client()?, &config.homeserver.url, as_token))
}

fn http_client() -> Result<reqwest::Client, AppError> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // The one that the environment names would get the token in the clear, where the address is http.
        .no_proxy()
        .build()
        .map_err(AppError::Http)
}

fn xmpp_config(config: &Config) -> Result<XmppConfig, AppError> {
    let component =
        BareJid::new(config.xmpp.component.as_str()).map_err(|_| AppError::Component)?;
    Ok(XmppConfig {
        component,
        server: format!("{}:{}", config.xmpp.server.host(), config.xmpp.server.port()),
        secret: Zeroizing::new(config.xmpp.secret.expose().to_owned()),
        hold: config.policy.hold_hours.as_duration(),
    })
}

/// A part of the bridge cannot start, or failed for good.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The key file cannot be used.
    #[error("the key file cannot be used")]
    Key(#[from] StoreKeyError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Database(#[from] ConnectError),
    /// The database was made under another name.
    #[error("the database does not fit the configuration")]
    Names(#[from] NamesError),
    /// A repository failed at the start.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The database is an older copy, and was not put right.
    #[error("the database is an older copy and cannot be put right")]
    Recovery(#[from] RecoveryError),
    /// The address to listen on is taken or not ours.
    #[error("cannot listen on appservice.listen")]
    Listen(#[source] io::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
    /// The component's domain is no JID.
    #[error("xmpp.component is not a domain that XMPP allows")]
    Component,
    /// A part of the bridge has died.
    #[error("a part of the bridge has died; the log says why")]
    Died,
    /// Another process owns the database.
    #[error("another process has taken over the database; run one bridge per database")]
    Replaced,
    /// The HTTP server failed.
    #[error("the HTTP server failed")]
    Serve(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use axum::http::StatusCode;
    use ruma::server_name;
    use serde_json::Value;
    use sqlx::Executor as _;
    use tokio::process::Command;

    use super::*;
    use crate::{
        config::{Registration, example_config},
        matrix::testing::MadeUp,
        network::Author,
        store::testing::sqlite,
    };

    #[tokio::test]
    async fn a_database_of_another_component_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("config.toml"), example_config().unwrap()).unwrap();
        fs::write(path("xmpp-secret"), "hunter2\n").unwrap();
        let url: url::Url = "http://127.0.0.1:29340".parse().unwrap();
        let registration = Registration::generate(server_name!("example.org"), &url, &mut OsRng);
        fs::write(path("appservice.yaml"), registration.to_yaml().unwrap()).unwrap();
        fs::write(path("gephyra.key"), [7_u8; StoreKey::LENGTH]).unwrap();
        fs::set_permissions(path("gephyra.key"), fs::Permissions::from_mode(0o400)).unwrap();
        let config = |component: &str| {
            let variable = ("GEPHYRA_XMPP__COMPONENT".to_owned(), component.to_owned());
            Config::load(&path("config.toml"), [variable]).unwrap()
        };
        let db = open_database(&config("matrix.example.org")).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.xmpp_omemo().save_account(&Author::Bridge, b"account").await.unwrap();
        tx.commit().await.unwrap();
        db.close().await.unwrap();
        let refused = open_database(&config("xmpp.example.org")).await;
        assert!(matches!(refused, Err(AppError::Names(NamesError::Changed { .. }))));
    }

    /// Asks in a process of its own, because the environment is the whole process's.
    #[tokio::test]
    async fn a_proxy_that_the_environment_names_is_given_nothing() {
        const NAME: &str = "app::tests::a_proxy_that_the_environment_names_is_given_nothing";
        const HOMESERVER: &str = "GEPHYRA_TEST_HOMESERVER";
        if let Ok(homeserver) = std::env::var(HOMESERVER) {
            let answer = http_client().unwrap().get(homeserver).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            return;
        }
        let homeserver = MadeUp::start(|_, _| (StatusCode::OK, Value::Null)).await;
        let proxy = MadeUp::start(|_, _| (StatusCode::BAD_GATEWAY, Value::Null)).await;
        let mut asking = Command::new(std::env::current_exe().unwrap());
        asking.args(["--exact", NAME]).env(HOMESERVER, homeserver.url.as_str());
        asking.env("http_proxy", proxy.url.as_str()).env_remove("no_proxy").env_remove("NO_PROXY");
        let asked = asking.output().await.unwrap();
        let said = String::from_utf8_lossy(&asked.stdout);
        assert!(asked.status.success() && said.contains("1 passed"), "{said}");
    }

    #[tokio::test]
    async fn one_refused_transaction_is_enough_to_know_that_this_process_was_replaced() {
        let location = sqlite();
        let db = location.open().await;
        let mut other = location.raw_connection().await;
        other.execute("UPDATE store_owner SET epoch = epoch + 1").await.unwrap();
        assert!(matches!(db.begin().await, Err(StoreError::Fenced)));
        // From now on nobody answers who could say it again.
        db.close().await.unwrap();
        let known = tokio::time::timeout(Duration::from_secs(5), until_replaced(&db)).await;
        known.expect("it is known at once");
    }
}
