//! `appservice.yaml`: the registration, which the homeserver reads too.
//!
//! <https://spec.matrix.org/v1.17/application-service-api/#registration>

use std::path::Path;

use rand_core::CryptoRngCore;
use ruma::ServerName;
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::{BOT_LOCALPART, GHOST_PREFIX, Secret};

const HEADER: &str = "\
# The registration of Gephyra: what the homeserver must know of it. The homeserver reads this file, and the
# bridge takes its tokens from it. Whoever can read it can speak as any of the bridge's users: mode 0600.
";

/// Tokens are at least this long, in bytes.
const MIN_TOKEN_BYTES: usize = 32;

/// Stands in the example where `init` writes a token; too short to be taken for one.
const PLACEHOLDER: &str = "written by gephyra init";

/// What the homeserver knows of the bridge. Keys that only the homeserver reads may be added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// Names the bridge among the homeserver's application services.
    pub id: String,
    /// Where the homeserver reaches the bridge, without a slash at its end.
    pub url: String,
    /// What the bridge shows the homeserver.
    #[serde(serialize_with = "serialize_secret")]
    pub as_token: Secret,
    /// What the homeserver shows the bridge.
    #[serde(serialize_with = "serialize_secret")]
    pub hs_token: Secret,
    /// A user that the registration must name and the bridge does not use: it cannot sync, so it
    /// cannot have keys.
    pub sender_localpart: String,
    namespaces: Namespaces,
    rate_limited: bool,
    receive_ephemeral: bool,
    /// Devices are made without a password (MSC4190). Newer homeservers do not ask for this key.
    #[serde(rename = "io.element.msc4190")]
    msc4190: bool,
    /// Device lists and key counts come with the transactions, where the homeserver has it on.
    #[serde(rename = "org.matrix.msc3202")]
    msc3202: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Namespaces {
    #[serde(default)]
    users: Vec<UserNamespace>,
    #[serde(default)]
    aliases: Vec<serde_json::Value>,
    #[serde(default)]
    rooms: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UserNamespace {
    exclusive: bool,
    regex: String,
}

impl Registration {
    /// A registration with fresh tokens for a bridge that the homeserver reaches at `url`.
    pub fn generate(server_name: &ServerName, url: &Url, rng: &mut impl CryptoRngCore) -> Self {
        Self {
            as_token: random_token(rng),
            hs_token: random_token(rng),
            sender_localpart: format!("_gephyra_{}", random_hex::<8>(rng)),
            ..Self::template(server_name, url)
        }
    }

    /// The example at the top of the repository: every key, and no usable token.
    pub fn example(server_name: &ServerName, url: &Url) -> Self {
        Self::template(server_name, url)
    }

    fn template(server_name: &ServerName, url: &Url) -> Self {
        let users = user_namespaces(server_name).to_vec();
        Self {
            id: "gephyra".to_owned(),
            url: url.as_str().trim_end_matches('/').to_owned(),
            as_token: Secret::new(PLACEHOLDER),
            hs_token: Secret::new(PLACEHOLDER),
            sender_localpart: "_gephyra_0123456789abcdef".to_owned(),
            namespaces: Namespaces { users, aliases: Vec::new(), rooms: Vec::new() },
            rate_limited: false,
            receive_ephemeral: true,
            msc4190: true,
            msc3202: true,
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for a registration made here; the type is the serialiser's.
    pub fn to_yaml(&self) -> Result<String, serde_yaml_ng::Error> {
        Ok(format!("{HEADER}{}", serde_yaml_ng::to_string(self)?))
    }

    /// Reads a registration and checks that it serves a bridge on `server_name`.
    ///
    /// # Errors
    /// [`RegistrationError`] says what is wrong with the file and what to do.
    pub fn load(path: &Path, server_name: &ServerName) -> Result<Self, RegistrationError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| RegistrationError::Unreadable { path: shown(), source })?;
        let registration: Self = serde_yaml_ng::from_str(&text)
            .map_err(|source| RegistrationError::Malformed { path: shown(), source })?;
        registration
            .check(server_name)
            .map_err(|source| RegistrationError::Unfit { path: shown(), source })?;
        Ok(registration)
    }

    fn check(&self, server_name: &ServerName) -> Result<(), UnfitRegistration> {
        let (as_token, hs_token) = (self.as_token.expose(), self.hs_token.expose());
        if !is_token(as_token) || !is_token(hs_token) {
            return Err(UnfitRegistration::Token);
        }
        if as_token == hs_token {
            return Err(UnfitRegistration::EqualTokens);
        }
        if self.sender_localpart == BOT_LOCALPART || self.sender_localpart.starts_with(GHOST_PREFIX)
        {
            return Err(UnfitRegistration::Sender);
        }
        match user_namespaces(server_name).into_iter().find(|n| !self.namespaces.users.contains(n))
        {
            Some(missing) => Err(UnfitRegistration::Namespace { regex: missing.regex }),
            None => Ok(()),
        }
    }
}

/// The ghosts and the bridge bot, anchored: some homeservers look for a match anywhere.
fn user_namespaces(server_name: &ServerName) -> [UserNamespace; 2] {
    let server = escape_regex(server_name.as_str());
    [format!("^@{GHOST_PREFIX}.+:{server}$"), format!("^@{BOT_LOCALPART}:{server}$")]
        .map(|regex| UserNamespace { exclusive: true, regex })
}

/// Escapes what the grammar of server names allows and regular expressions read otherwise.
fn escape_regex(server_name: &str) -> String {
    server_name.replace('.', r"\.").replace('[', r"\[").replace(']', r"\]")
}

/// Long enough not to be guessed, and safe in a header.
fn is_token(token: &str) -> bool {
    token.len() >= MIN_TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn random_token(rng: &mut impl CryptoRngCore) -> Secret {
    Secret::new(random_hex::<32>(rng))
}

fn random_hex<const BYTES: usize>(rng: &mut impl CryptoRngCore) -> String {
    let mut bytes = [0_u8; BYTES];
    rng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

fn serialize_secret<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// The registration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The file is missing or not allowed to us.
    #[error("cannot read the registration {path}; `gephyra init` makes one")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not YAML, or a key is missing or of the wrong type.
    #[error("{path} is not a registration")]
    Malformed {
        /// The file.
        path: String,
        /// What the parser said.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// It does not fit this bridge.
    #[error("the registration {path} does not fit this bridge")]
    Unfit {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: UnfitRegistration,
    },
}

/// Why a registration does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitRegistration {
    /// A token is missing, short, or has characters that a header cannot carry.
    #[error(
        "as_token and hs_token must be at least {MIN_TOKEN_BYTES} visible ASCII characters each; \
         `gephyra init` writes good ones"
    )]
    Token,
    /// One token for both directions.
    #[error("as_token and hs_token must differ")]
    EqualTokens,
    /// The sender would be the bot or a ghost.
    #[error(
        "sender_localpart must be a name that nothing else uses: this user cannot have keys, so it \
         is neither the bot nor a ghost"
    )]
    Sender,
    /// A namespace is missing: another server name, or edited.
    #[error("namespaces.users lacks the exclusive entry {regex} for the configured server_name")]
    Namespace {
        /// What should be there.
        regex: String,
    },
}
