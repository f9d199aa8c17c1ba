//! Writes configuration files: the example, and what `gephyra init` makes.

use std::{fmt::Write as _, path::PathBuf};

use jid::DomainPart;
use ruma::OwnedServerName;
use url::Url;

use super::{
    AppserviceConfig, Comments, ConfigFile, DatabaseUrl, HomeserverConfig, LoggingConfig,
    LoopbackAddress, Permission, Permissions, PolicyConfig, Registration, Subject, appservice,
    database, homeserver, logging, permissions, policy, xmpp,
};

/// The sections in the order of the file, each with what its keys mean.
const SECTIONS: &[(&str, Comments)] = &[
    ("homeserver", homeserver::COMMENTS),
    ("appservice", appservice::COMMENTS),
    ("database", database::COMMENTS),
    ("xmpp", xmpp::COMMENTS),
    ("permissions", permissions::COMMENTS),
    ("policy", policy::COMMENTS),
    ("logging", logging::COMMENTS),
];

const HEADER: &str = "\
# Configuration of Gephyra. An unknown key is an error. Paths are relative to this file. An environment
# variable GEPHYRA_SECTION__KEY counts more than that key in this file, for example GEPHYRA_DATABASE__URL.
";

/// What an operator must say to get a first configuration.
#[derive(Debug, Clone)]
pub struct InitialConfig {
    /// Base address of the homeserver.
    pub homeserver_url: Url,
    /// The homeserver's name.
    pub server_name: OwnedServerName,
    /// Where the homeserver will reach the bridge.
    pub listen: std::net::SocketAddr,
    /// The registration's file name.
    pub registration: PathBuf,
    /// The database.
    pub database_url: DatabaseUrl,
    /// The key file's name.
    pub key_file: PathBuf,
    /// The component's domain.
    pub component: DomainPart,
    /// The XMPP server's component port.
    pub xmpp_server: LoopbackAddress,
    /// The file with the component's secret.
    pub secret_file: PathBuf,
}

impl InitialConfig {
    /// The configuration file's text. The homeserver's own users may use the bridge.
    ///
    /// # Errors
    /// When a path is not UTF-8, which TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let own_users = Subject::Server(self.server_name.clone());
        self.to_toml_with(Permissions::from_iter([(own_users, Permission::User)]))
    }

    fn to_toml_with(&self, permissions: Permissions) -> Result<String, toml::ser::Error> {
        let this = self.clone();
        render(&ConfigFile {
            homeserver: HomeserverConfig {
                url: this.homeserver_url,
                server_name: this.server_name,
            },
            appservice: AppserviceConfig { listen: this.listen, registration: this.registration },
            database: database::DatabaseSection {
                url: Some(this.database_url),
                url_file: None,
                key_file: this.key_file,
                witness_file: None,
            },
            xmpp: xmpp::XmppSection {
                component: this.component,
                server: this.xmpp_server,
                secret: None,
                secret_file: Some(this.secret_file),
            },
            permissions,
            policy: PolicyConfig::default(),
            logging: LoggingConfig::default(),
        })
    }
}

/// The text of `config.example.toml`.
///
/// # Errors
/// [`ExampleError`] when the values built in here are wrong.
pub fn example_config() -> Result<String, ExampleError> {
    let example = example_values()?;
    let permissions = Permissions::from_iter([
        (Subject::Everyone, Permission::Block),
        (Subject::Server(example.server_name.clone()), Permission::User),
        ("@admin:example.org".parse::<Subject>().map_err(|_| ExampleError)?, Permission::Admin),
    ]);
    example.to_toml_with(permissions).map_err(|_| ExampleError)
}

/// The text of the example `appservice.yaml`.
///
/// # Errors
/// [`ExampleError`] when the values built in here are wrong.
pub fn example_registration() -> Result<String, ExampleError> {
    let example = example_values()?;
    let url = Url::parse(&format!("http://{}", example.listen)).map_err(|_| ExampleError)?;
    Registration::example(&example.server_name, &url).to_yaml().map_err(|_| ExampleError)
}

fn example_values() -> Result<InitialConfig, ExampleError> {
    Ok(InitialConfig {
        homeserver_url: Url::parse("http://localhost:8008").map_err(|_| ExampleError)?,
        server_name: "example.org".try_into().map_err(|_| ExampleError)?,
        listen: ([127, 0, 0, 1], 29340).into(),
        registration: "appservice.yaml".into(),
        database_url: "sqlite:gephyra.db".parse().map_err(|_| ExampleError)?,
        key_file: "gephyra.key".into(),
        component: xmpp::parse_domain("bridge.example.org").map_err(|_| ExampleError)?,
        xmpp_server: "127.0.0.1:5347".parse().map_err(|_| ExampleError)?,
        secret_file: "xmpp-secret".into(),
    })
}

/// The examples are wrong: an error of this program, which its tests would have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the built-in example is not valid; please report this")]
pub struct ExampleError;

/// The file's text: every section and key, each under its comment.
fn render(file: &ConfigFile) -> Result<String, toml::ser::Error> {
    let table = toml::Table::try_from(file)?;
    let mut text = HEADER.to_owned();
    for (section, comments) in SECTIONS {
        text.push('\n');
        push_comment(&mut text, comments, "");
        push_line(&mut text, format_args!("[{section}]"));
        for (key, value) in
            table.get(*section).and_then(toml::Value::as_table).into_iter().flatten()
        {
            push_comment(&mut text, comments, key);
            let line = toml::Table::from_iter([(key.clone(), value.clone())]);
            text.push_str(&toml::to_string(&line)?);
        }
    }
    Ok(text)
}

fn push_comment(text: &mut String, comments: Comments, key: &str) {
    let comment = comments.iter().find(|(commented, _)| *commented == key);
    for line in comment.into_iter().flat_map(|(_, comment)| comment.lines()) {
        push_line(text, format_args!("# {line}"));
    }
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
