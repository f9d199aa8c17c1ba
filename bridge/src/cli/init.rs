//! `gephyra init`: all files of a new bridge, or none.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use jid::DomainPart;
use rand_core::CryptoRngCore;
use ruma::OwnedServerName;
use url::Url;
use zeroize::Zeroizing;

use super::next_steps;
use crate::{
    config::{
        DatabaseUrl, InitialConfig, LoopbackAddress, Registration, Secret, SecretFileError,
        parse_domain, parse_listen, parse_protected_url,
    },
    store::StoreKey,
};

pub(super) const CONFIG_FILE: &str = "config.toml";
pub(super) const REGISTRATION_FILE: &str = "appservice.yaml";
const KEY_FILE: &str = "gephyra.key";

/// What `gephyra init` must be told.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Base address of the homeserver, for example http://localhost:8008
    #[arg(long, value_name = "URL", value_parser = parse_protected_url)]
    pub(super) homeserver_url: Url,
    /// The part of its users' ids after the colon, for example example.org
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: OwnedServerName,
    /// Where the homeserver will reach the bridge
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:29340", value_parser = parse_listen)]
    pub(super) appservice_listen: SocketAddr,
    /// Domain of the XMPP component, for example bridge.example.org
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub(super) xmpp_component: DomainPart,
    /// Component port of the XMPP server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5347")]
    pub(super) xmpp_server: LoopbackAddress,
    /// File with the secret of the component; it must exist
    #[arg(long, value_name = "FILE")]
    pub(super) xmpp_secret_file: PathBuf,
    /// The database: sqlite:FILE, beside the configuration unless it starts with /, or postgres://…
    #[arg(long, value_name = "URL", default_value = "sqlite:gephyra.db")]
    pub(super) database_url: DatabaseUrl,
    /// Folder to write to; made if it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
}

/// Writes the files and returns what to do next.
pub(super) fn init(args: &InitArgs, rng: &mut impl CryptoRngCore) -> Result<String, InitError> {
    Secret::load_file(&args.xmpp_secret_file)?;
    let secret_file = std::path::absolute(&args.xmpp_secret_file).map_err(InitError::Folder)?;
    let dir = std::path::absolute(&args.dir).map_err(InitError::Folder)?;
    let files = prepare(args, secret_file, rng)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(InitError::Folder)?;
    write_all_or_none(&dir, &files)?;
    Ok(next_steps::text(args, &dir))
}

struct NewFile {
    name: &'static str,
    mode: u32,
    content: Zeroizing<Vec<u8>>,
}

/// The configuration comes last: once it is there, all that it names is there.
fn prepare(
    args: &InitArgs,
    secret_file: PathBuf,
    rng: &mut impl CryptoRngCore,
) -> Result<[NewFile; 3], InitError> {
    let url = Url::parse(&format!("http://{}", args.appservice_listen))?;
    let registration = Registration::generate(&args.server_name, &url, rng).to_yaml()?;
    let mut key = Zeroizing::new(vec![0; StoreKey::LENGTH]);
    rng.fill_bytes(&mut key);
    let config = InitialConfig {
        homeserver_url: args.homeserver_url.clone(),
        server_name: args.server_name.clone(),
        listen: args.appservice_listen,
        registration: REGISTRATION_FILE.into(),
        database_url: args.database_url.clone(),
        key_file: KEY_FILE.into(),
        component: args.xmpp_component.clone(),
        xmpp_server: args.xmpp_server.clone(),
        secret_file,
    };
    let text = |text: String| Zeroizing::new(text.into_bytes());
    Ok([
        NewFile { name: KEY_FILE, mode: 0o400, content: key },
        NewFile { name: REGISTRATION_FILE, mode: 0o600, content: text(registration) },
        NewFile { name: CONFIG_FILE, mode: 0o600, content: text(config.to_toml()?) },
    ])
}

/// Makes files that are not there yet. When one fails, those made before it are removed.
fn write_all_or_none(dir: &Path, files: &[NewFile]) -> Result<(), InitError> {
    for (done, file) in files.iter().enumerate() {
        let path = dir.join(file.name);
        if let Err(source) = write_new(&path, file) {
            for made in files.iter().take(done) {
                // Whatever the file system refuses now, the first error is the one to tell.
                let _ = std::fs::remove_file(dir.join(made.name));
            }
            let path = path.display().to_string();
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists => InitError::Exists { path },
                _ => InitError::Write { path, source },
            });
        }
    }
    Ok(())
}

fn write_new(path: &Path, file: &NewFile) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    let written = open.write_all(&file.content).and_then(|()| open.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// `init` did not write its files; none of them is there that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is no secret to configure.
    #[error(
        "the component's secret cannot be used; make one first, for example with \
         `(umask 077; openssl rand -hex 32 > FILE)`"
    )]
    Secret(#[from] SecretFileError),
    /// The folder cannot be made.
    #[error("the folder cannot be made")]
    Folder(#[source] io::Error),
    /// A file is there already.
    #[error("{path} exists already; choose another --dir, or move it away if it is not needed")]
    Exists {
        /// The file.
        path: String,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address to listen on makes no URL.
    #[error("--appservice-listen makes no URL")]
    Url(#[from] url::ParseError),
    /// The registration cannot be written as YAML.
    #[error("the registration cannot be written as YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// The configuration cannot be written as TOML: a path is not UTF-8.
    #[error("the configuration cannot be written as TOML; use paths in UTF-8")]
    Toml(#[from] toml::ser::Error),
}

#[cfg(test)]
mod tests;
