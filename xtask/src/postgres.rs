//! A PostgreSQL of the tests' own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{is_root, run_quietly};

/// A running server. It is stopped, and its data removed, when it is dropped.
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    programs: PathBuf,
}

/// The folder of the server's programs, of the newest version that is installed.
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    found.filter(|dir| dir.join("initdb").is_file()).max()
}

impl Postgres {
    /// Makes an empty cluster and starts it on a free loopback port.
    pub fn start() -> Result<Self> {
        let programs = programs().context("PostgreSQL is not installed")?;
        let dir = std::env::temp_dir().join(format!("gephyra-postgres-{}", std::process::id()));
        fs::create_dir_all(&dir).context("making the folder for PostgreSQL")?;
        if is_root()? {
            run_quietly(Command::new("chown").arg("postgres").arg(&dir))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { dir, port, programs };
        let data = server.data();
        let mut initdb = server.program("initdb")?;
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync"]);
        run_quietly(initdb.arg("-D").arg(&data))?;
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
             -c max_connections=200"
        );
        let mut start = server.program("pg_ctl")?;
        start.args(["-w", "-o", &options, "-l"]).arg(server.dir.join("log"));
        run_quietly(start.arg("-D").arg(&data).arg("start"))?;
        Ok(server)
    }

    /// How the tests reach it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// One of its programs, as a user that it accepts: it refuses to run as root.
    fn program(&self, name: &str) -> Result<Command> {
        let path = self.programs.join(name);
        let mut command = if is_root()? {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(Path::new("/"));
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = self.program("pg_ctl").and_then(|mut stop| {
            run_quietly(stop.args(["-m", "immediate", "-D"]).arg(self.data()).arg("stop"))
        });
        if stopped.is_ok() {
            // Only a folder in the system's temporary files is left if this fails.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
