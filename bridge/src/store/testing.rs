//! Fresh databases of both kinds for tests.
//!
//! PostgreSQL comes from `GEPHYRA_TEST_POSTGRES`, the URL of a server on which databases may be
//! created, or else from a private server that this process starts. It never is left out.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use rand_core::{OsRng, RngCore as _};
use ruma::{owned_room_id, owned_user_id};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;

use super::{
    BotPresence, ConnectError, Database, Portal, PortalState, RemoteHistory, RoomEncryption,
    StoreKey,
};
use crate::network::{PlaintextPolicy, RemoteUserId};

/// Alice's chat with Bob, who have written to each other over encryption.
pub(crate) fn portal(encryption: RoomEncryption) -> Portal {
    Portal {
        room_id: owned_room_id!("!room:example.org"),
        network: "xmpp".to_owned(),
        local: owned_user_id!("@alice:example.org"),
        contact: RemoteUserId::new("bob@example.net"),
        ghost: owned_user_id!("@xmpp_bob=40example.net:example.org"),
        encryption,
        plaintext: PlaintextPolicy::Refuse,
        history: RemoteHistory::Encrypted,
        bot: BotPresence::Joined,
        state: PortalState::Active,
    }
}

/// Makes one test on SQLite and one on PostgreSQL of each function, which takes a
/// [`TestDatabase`].
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::store::testing::sqlite()).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::store::testing::postgres().await).await;
                }
            )+
        }
    };
}
pub(crate) use on_both_databases;

/// Where a database is or will be, and the key to it.
pub(crate) struct TestDatabase {
    /// What [`Database::connect`] takes.
    pub url: String,
    /// Its key.
    pub key: [u8; StoreKey::LENGTH],
    /// Where its file is, on SQLite.
    pub file: Option<PathBuf>,
    directory: TempDir,
}

impl TestDatabase {
    /// Opens it as the process that owns it.
    pub async fn open(&self) -> Database {
        self.try_open().await.expect("the test database opens")
    }

    /// Opens it, or not.
    pub async fn try_open(&self) -> Result<Database, ConnectError> {
        Database::connect(&self.url, &StoreKey::from_bytes(self.key), &self.witness()).await
    }

    /// Where its witness is.
    pub fn witness(&self) -> PathBuf {
        self.directory.path().join("witness")
    }

    /// A connection past all that `Database` does.
    pub async fn raw_connection(&self) -> AnyConnection {
        AnyConnection::connect(&self.url).await.expect("the test database answers")
    }
}

/// A database that exists nowhere else.
pub(crate) fn sqlite() -> TestDatabase {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("gephyra.db");
    TestDatabase {
        url: format!("sqlite://{}", file.display()),
        key: random_key(),
        file: Some(file),
        directory,
    }
}

/// A database that exists nowhere else.
pub(crate) async fn postgres() -> TestDatabase {
    sqlx::any::install_default_drivers();
    let mut url = url::Url::parse(server_url()).expect("the URL of a PostgreSQL server");
    let name = format!("gephyra_test_{:016x}", OsRng.next_u64());
    let mut connection =
        AnyConnection::connect(url.as_str()).await.expect("the PostgreSQL server answers");
    connection
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("a database may be created");
    url.set_path(&name);
    let directory = tempfile::tempdir().expect("a temporary directory");
    TestDatabase { url: url.into(), key: random_key(), file: None, directory }
}

fn random_key() -> [u8; StoreKey::LENGTH] {
    let mut key = [0; StoreKey::LENGTH];
    OsRng.fill_bytes(&mut key);
    key
}

fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        std::env::var("GEPHYRA_TEST_POSTGRES").unwrap_or_else(|_| {
            static SERVER: OnceLock<PrivateServer> = OnceLock::new();
            SERVER.get_or_init(PrivateServer::start).url.clone()
        })
    })
}

/// A server that ends with this process, because the shell that minds it then reads the end of
/// its input.
struct PrivateServer {
    url: String,
    _shell: Child,
}

const START_AND_MIND: &str = r#"
    set -e
    "$1/initdb" -D "$2/data" -A trust -U postgres --no-sync >"$2/log" 2>&1
    "$1/pg_ctl" -D "$2/data" -l "$2/log" -w -o "$3" start >/dev/null
    echo ready
    cat >/dev/null
    "$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null
    rm -rf "$2"
"#;

impl PrivateServer {
    fn start() -> Self {
        let programs = find_programs();
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let port = free_port();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= \
             -c fsync=off -c max_connections=200"
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", START_AND_MIND, "sh"])
            .arg(programs)
            .arg(&directory)
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir(&directory);
        if let Some((uid, gid)) = account_instead_of_root() {
            std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).expect("root may chown");
            command.uid(uid).gid(gid);
        }
        let mut shell = command.spawn().expect("sh starts");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the shell's output");
        assert_eq!(line, "ready\n", "PostgreSQL did not start: see {}/log", directory.display());
        Self { url: format!("postgres://postgres@127.0.0.1:{port}/postgres"), _shell: shell }
    }
}

/// The newest installed server.
fn find_programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|programs| programs.join("initdb").exists());
    versions.sort();
    versions.pop().expect(
        "these tests need PostgreSQL: install it (Debian: apt-get install postgresql), or set \
         GEPHYRA_TEST_POSTGRES to the URL of a server on which databases may be created",
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("it is bound").port()
}

/// PostgreSQL refuses to run as root: user and group id of its own account then.
fn account_instead_of_root() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let own_uid = std::fs::metadata("/proc/self").expect("/proc").uid();
    (own_uid == 0).then(|| {
        let accounts = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = accounts
            .lines()
            .find(|line| line.starts_with("postgres:"))
            .expect("an account named postgres");
        let fields: Vec<&str> = line.split(':').collect();
        (fields[2].parse().expect("a uid"), fields[3].parse().expect("a gid"))
    })
}
