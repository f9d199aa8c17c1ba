use std::{fs, path::PathBuf};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use ruma::{ServerName, server_name, user_id};
use tempfile::TempDir;

use super::*;

/// A folder with the example configuration and everything that it names.
struct Operator {
    folder: TempDir,
}

impl Operator {
    fn new() -> Self {
        let operator = Self { folder: tempfile::tempdir().unwrap() };
        operator.write("config.toml", &example_config().unwrap());
        operator.write("xmpp-secret", "hunter2\n");
        operator.write("appservice.yaml", &registration(server_name!("example.org"), 1));
        operator
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, &text.replace(from, to));
    }

    fn load_with(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Config::load(&self.path("config.toml"), owned)
    }

    fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(&[])
    }

    /// The whole chain as the operator sees it.
    fn complaint(&self, environment: &[(&str, &str)]) -> String {
        format!("{:#}", anyhow::Error::from(self.load_with(environment).unwrap_err()))
    }
}

fn registration(server_name: &ServerName, seed: u64) -> String {
    let url: url::Url = "http://127.0.0.1:29340".parse().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    Registration::generate(server_name, &url, &mut rng).to_yaml().unwrap()
}

fn at_top_level(name: &str) -> String {
    fs::read_to_string(
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..").join(name),
    )
    .unwrap()
}

#[test]
fn the_committed_example_configuration_is_the_generated_one() {
    let fresh = example_config().unwrap();
    assert_eq!(
        at_top_level("config.example.toml"),
        fresh,
        "stale: `cargo run -p bridge -- config-example > config.example.toml`"
    );
}

#[test]
fn the_committed_example_registration_is_the_generated_one() {
    let fresh = example_registration().unwrap();
    assert_eq!(
        at_top_level("appservice.yaml"),
        fresh,
        "stale: `cargo run -p bridge -- registration-example > appservice.yaml`"
    );
}

#[test]
fn the_example_explains_every_key_there_is() {
    let example = example_config().unwrap();
    for section in ["homeserver", "appservice", "database", "xmpp", "policy", "logging"] {
        let operator = Operator::new();
        operator.edit("config.toml", &format!("[{section}]"), &format!("[{section}]\nzzz = 1"));
        let complaint = operator.complaint(&[]);
        let known = complaint.rsplit(": ").next().unwrap();
        for key in known.split(", ") {
            let explained =
                example.contains(&format!("\n{key} = ")) || example.contains(&format!("`{key}`"));
            assert!(explained, "{section}.{key} is missing in the example");
        }
    }
}

#[test]
fn every_key_of_the_example_has_a_comment_above_it() {
    let example = example_config().unwrap();
    let lines: Vec<_> = example.lines().collect();
    for pair in lines.windows(2) {
        let is_permission = pair[1].starts_with('"');
        if pair[1].contains(" = ") && !pair[1].starts_with('#') && !is_permission {
            assert!(pair[0].starts_with('#'), "{}", pair[1]);
        }
    }
}

#[test]
fn the_example_loads() {
    let config = Operator::new().load().unwrap();
    assert_eq!(config.permissions.of(user_id!("@admin:example.org")), Permission::Admin);
    assert_eq!(config.permissions.of(user_id!("@alice:example.org")), Permission::User);
    assert_eq!(config.permissions.of(user_id!("@alice:example.net")), Permission::Block);
    assert_eq!(config.logging, LoggingConfig::default());
    assert_eq!(config.xmpp.secret.expose(), "hunter2");
}

#[test]
fn a_relative_name_of_the_file_leads_to_absolute_paths() {
    let operator = Operator::new();
    let up: PathBuf = std::env::current_dir().unwrap().components().map(|_| "..").collect();
    let name = up.join(operator.path("config.toml").strip_prefix("/").unwrap());
    let database = Config::load(&name, std::iter::empty()).unwrap().database;
    let path = database.url.as_str().strip_prefix("sqlite://").unwrap();
    for path in [Path::new(path), &database.key_file, &database.witness_file] {
        assert!(path.is_absolute(), "{}", path.display());
        let folder = path.parent().unwrap().canonicalize().unwrap();
        assert_eq!(folder, operator.folder.path().canonicalize().unwrap());
    }
}

#[test]
fn an_unknown_key_is_refused_by_its_name_with_what_is_known() {
    for (section, known) in [
        ("homeserver", "url, server_name"),
        ("appservice", "listen, registration"),
        ("database", "url, url_file, key_file, witness_file"),
        ("xmpp", "component, server, secret, secret_file"),
        ("policy", "plaintext_from_contacts, hold_hours"),
        ("logging", "level, format"),
    ] {
        let operator = Operator::new();
        operator.edit("config.toml", &format!("[{section}]"), &format!("[{section}]\nulr = \"x\""));
        let complaint = operator.complaint(&[]);
        assert!(complaint.contains("config.toml"), "{complaint}");
        assert!(complaint.contains(&format!("{section}.ulr: unknown key")), "{complaint}");
        assert!(complaint.ends_with(&format!("known here: {known}")), "{complaint}");
    }
    let operator = Operator::new();
    operator.edit("config.toml", "[xmpp]", "[irc]\nserver = \"x\"\n[xmpp]");
    assert!(operator.complaint(&[]).contains("irc: unknown key"), "{}", operator.complaint(&[]));
}

#[test]
fn a_missing_key_or_section_is_named() {
    let operator = Operator::new();
    operator.edit("config.toml", "server_name = \"example.org\"", "");
    let complaint = operator.complaint(&[]);
    assert!(complaint.contains("homeserver.server_name: is missing"), "{complaint}");

    let operator = Operator::new();
    operator.write("config.toml", "");
    assert!(operator.complaint(&[]).contains("homeserver: is missing"));
}

#[test]
fn a_value_that_cannot_be_is_refused_by_its_key() {
    for (from, to, key) in [
        ("\"http://localhost:8008/\"", "\"http://example.org\"", "homeserver.url"),
        ("\"http://localhost:8008/\"", "5", "homeserver.url"),
        ("\"127.0.0.1:29340\"", "\"0.0.0.0:29340\"", "appservice.listen"),
        ("\"127.0.0.1:5347\"", "\"xmpp.example.org:5347\"", "xmpp.server"),
        ("\"bridge.example.org\"", "\"a b\"", "xmpp.component"),
        ("\"sqlite:gephyra.db\"", "\"mysql:x\"", "database.url"),
        ("\"info\"", "\"loud\"", "logging.level"),
        ("\"block\"", "\"relay\"", "permissions.*"),
        ("\"mark\"", "\"drop\"", "policy.plaintext_from_contacts"),
        ("= 168", "= 0", "policy.hold_hours"),
    ] {
        let operator = Operator::new();
        operator.edit("config.toml", from, to);
        let complaint = operator.complaint(&[]);
        assert!(complaint.contains(&format!("config.toml: {key}: ")), "{complaint}");
    }
}

#[test]
fn a_syntax_error_is_found_by_its_line() {
    let operator = Operator::new();
    operator.write("config.toml", "[xmpp]\nsecret = hunter2\n");
    let complaint = operator.complaint(&[]);
    assert!(complaint.contains("config.toml, line 2: not valid TOML"), "{complaint}");
    assert!(!complaint.contains("hunter2"));
}

#[test]
fn the_environment_stands_above_the_file() {
    let operator = Operator::new();
    let config = operator
        .load_with(&[
            ("GEPHYRA_HOMESERVER__URL", "https://matrix.example.org"),
            ("GEPHYRA_LOGGING__LEVEL", "debug"),
            ("GEPHYRA_POLICY__HOLD_HOURS", "36"),
            ("GEPHYRA_DATABASE__URL", "postgres://gephyra@localhost/gephyra"),
        ])
        .unwrap();
    assert_eq!(config.homeserver.url.as_str(), "https://matrix.example.org/");
    assert_eq!(config.logging.level, LogLevel::Debug);
    assert_eq!(config.policy.hold_hours.to_string(), "36 hours");
    assert_eq!(config.database.url.as_str(), "postgres://gephyra@localhost/gephyra");
}

#[test]
fn a_secret_of_digits_stays_a_text() {
    let operator = Operator::new();
    operator.edit("config.toml", "secret_file = \"xmpp-secret\"", "");
    let config = operator.load_with(&[("GEPHYRA_XMPP__SECRET", "0123456789")]).unwrap();
    assert_eq!(config.xmpp.secret.expose(), "0123456789");
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    let operator = Operator::new();
    for (variable, key) in [
        ("GEPHYRA_HOMESERVER__ULR", "homeserver.ulr"),
        ("GEPHYRA_IRC__SERVER", "irc"),
        ("GEPHYRA_XMPP__SERVER", "xmpp.server"),
    ] {
        let complaint = operator.complaint(&[(variable, "hunter2")]);
        assert!(complaint.contains(variable), "{complaint}");
        assert!(complaint.contains(key), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

#[test]
fn other_variables_are_none_of_ours() {
    let others = [("GEPHYRA_TEST_POSTGRES", "x"), ("HOME", "/"), ("XMPP__SERVER", "x")];
    Operator::new().load_with(&others).unwrap();
}

#[test]
fn the_secret_stands_in_one_place() {
    let operator = Operator::new();
    operator.edit("config.toml", "secret_file =", "secret = \"hunter3\"\nsecret_file =");
    assert!(matches!(operator.load(), Err(ConfigError::TwoSecrets)));

    let operator = Operator::new();
    operator.edit("config.toml", "secret_file = \"xmpp-secret\"", "");
    assert!(matches!(operator.load(), Err(ConfigError::NoSecret)));

    let operator = Operator::new();
    fs::remove_file(operator.path("xmpp-secret")).unwrap();
    assert!(operator.complaint(&[]).contains("xmpp-secret"));
}

#[test]
fn the_database_address_stands_in_one_place() {
    let in_file = |address: &str| {
        let operator = Operator::new();
        operator.edit("config.toml", "url = \"sqlite:gephyra.db\"", "url_file = \"db-url\"");
        operator.write("db-url", address);
        operator
    };
    let config = in_file("postgres://me:hunter2@localhost/g\n").load().unwrap();
    assert_eq!(config.database.url.as_str(), "postgres://me:hunter2@localhost/g");

    let complaint = in_file("hunter2").complaint(&[]);
    assert!(complaint.contains("db-url") && complaint.contains("sqlite:FILE"), "{complaint}");
    assert!(!complaint.contains("hunter2"), "{complaint}");

    let both = in_file("sqlite:x.db");
    both.edit("config.toml", "url_file =", "url = \"sqlite:y.db\"\nurl_file =");
    assert!(matches!(both.load(), Err(ConfigError::TwoDatabaseUrls)));

    let neither = Operator::new();
    neither.edit("config.toml", "url = \"sqlite:gephyra.db\"", "");
    assert!(matches!(neither.load(), Err(ConfigError::NoDatabaseUrl)));
}

#[test]
fn no_complaint_and_no_debug_output_shows_a_secret() {
    let operator = Operator::new();
    let secret = "secret = 123454321";
    operator.edit("config.toml", "secret_file = \"xmpp-secret\"", secret);
    let complaint = operator.complaint(&[]);
    assert!(complaint.contains("xmpp.secret: must be a text in quotes"), "{complaint}");
    assert!(!complaint.contains("123454321"));

    let config = Operator::new().load().unwrap();
    let shown = format!("{config:?}");
    let registration = &config.registration;
    for secret in ["hunter2", registration.as_token.expose(), registration.hs_token.expose()] {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn a_registration_that_does_not_fit_is_refused() {
    let tokens = registration(server_name!("example.org"), 1);
    let token = |key: &str| {
        let line = tokens.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    let (as_token, hs_token) = (token("as_token"), token("hs_token"));
    for (from, to, complaint) in [
        (as_token.as_str(), hs_token.as_str(), "must differ"),
        (&as_token, "short", "at least 32"),
        (&hs_token, "'with a space in the middle of the token'", "visible ASCII"),
        ("sender_localpart: ", "sender_localpart: gephyra # ", "sender_localpart must be"),
        ("sender_localpart: ", "sender_localpart: xmpp_a # ", "sender_localpart must be"),
        ("@xmpp_.+", "@irc_.+", r"@xmpp_.+:example\.org"),
        ("exclusive: true", "exclusive: false", "exclusive entry"),
        ("id: gephyra", "nothing", "is not a registration"),
        (&as_token, "[1, 2]", "must be a text"),
    ] {
        let operator = Operator::new();
        operator.edit("appservice.yaml", from, to);
        let shown = operator.complaint(&[]);
        assert!(shown.contains(complaint) && shown.contains("appservice.yaml"), "{shown}");
        assert!(!shown.contains(&as_token) && !shown.contains(&hs_token), "{shown}");
    }
}

#[test]
fn a_registration_for_another_server_is_refused() {
    let operator = Operator::new();
    operator.write("appservice.yaml", &registration(server_name!("example.net"), 1));
    assert!(operator.complaint(&[]).contains(r"@xmpp_.+:example\.org"));
}

#[test]
fn the_example_registration_has_no_usable_token() {
    let operator = Operator::new();
    operator.write("appservice.yaml", &example_registration().unwrap());
    assert!(operator.complaint(&[]).contains("`gephyra init` writes good ones"));
}

#[test]
fn keys_that_only_the_homeserver_reads_may_be_added_to_the_registration() {
    let operator = Operator::new();
    operator.edit("appservice.yaml", "id: gephyra", "id: gephyra\norg.example.extra: 1");
    operator.load().unwrap();
}
