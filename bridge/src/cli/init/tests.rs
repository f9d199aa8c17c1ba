use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use clap::Parser as _;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

use super::*;
use crate::{cli::Cli, config::Config};

/// A folder with the secret in it, and the arguments that point there.
fn operator() -> (tempfile::TempDir, InitArgs) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("xmpp-secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let args = InitArgs {
        homeserver_url: "http://localhost:8008".parse().unwrap(),
        server_name: "example.org".try_into().unwrap(),
        appservice_listen: "127.0.0.1:29340".parse().unwrap(),
        xmpp_component: parse_domain("matrix.example.org").unwrap(),
        xmpp_server: "127.0.0.1:5347".parse().unwrap(),
        xmpp_secret_file: secret,
        database_url: "sqlite:gephyra.db".parse().unwrap(),
        dir: folder.path().join("new/bridge"),
    };
    (folder, args)
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Names and contents of the files in a folder; nothing for a folder that is not there.
fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn what_init_writes_the_bridge_can_load() {
    let (_folder, args) = operator();
    init(&args, &mut rng(1)).unwrap();

    let config = Config::load(&args.dir.join("config.toml"), []).unwrap();

    assert_eq!(config.homeserver.url, args.homeserver_url);
    assert_eq!(config.bot, "@gephyra:example.org");
    assert_eq!(config.appservice.listen, args.appservice_listen);
    assert_eq!(config.registration.url, "http://127.0.0.1:29340");
    assert_eq!(config.xmpp.secret.expose(), "hunter2");
    assert_eq!(config.xmpp.component, args.xmpp_component);
    assert!(config.database.url.as_str().ends_with("/new/bridge/gephyra.db"));
    StoreKey::load(&config.database.key_file).unwrap();
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    let (_folder, args) = operator();
    init(&args, &mut rng(1)).unwrap();

    for (name, mode) in
        [("gephyra.key", 0o400), ("appservice.yaml", 0o600), ("config.toml", 0o600), (".", 0o700)]
    {
        let metadata = std::fs::metadata(args.dir.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn every_bridge_has_tokens_and_a_key_of_its_own() {
    let (_one, first) = operator();
    let (_two, second) = operator();
    init(&first, &mut rng(1)).unwrap();
    init(&second, &mut rng(2)).unwrap();

    let (first, second) = (files_in(&first.dir), files_in(&second.dir));
    assert_ne!(first["gephyra.key"], second["gephyra.key"]);
    assert_ne!(first["appservice.yaml"], second["appservice.yaml"]);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_done() {
    for occupied in ["config.toml", "appservice.yaml", "gephyra.key"] {
        let (_folder, args) = operator();
        std::fs::create_dir_all(&args.dir).unwrap();
        std::fs::write(args.dir.join(occupied), "mine").unwrap();

        let error = init(&args, &mut rng(1)).unwrap_err();

        assert!(matches!(&error, InitError::Exists { path } if path.ends_with(occupied)));
        let expected = BTreeMap::from([(occupied.to_owned(), b"mine".to_vec())]);
        assert_eq!(files_in(&args.dir), expected);
    }
}

#[test]
fn without_a_secret_nothing_is_written() {
    for content in [None, Some(""), Some("\n")] {
        let (_folder, args) = operator();
        match content {
            None => std::fs::remove_file(&args.xmpp_secret_file).unwrap(),
            Some(content) => std::fs::write(&args.xmpp_secret_file, content).unwrap(),
        }
        let error = init(&args, &mut rng(1)).unwrap_err();
        assert!(matches!(error, InitError::Secret(_)));
        assert!(!args.dir.exists());
    }
}

#[test]
fn the_next_steps_show_no_secret() {
    let (_folder, args) = operator();
    let steps = init(&args, &mut rng(1)).unwrap();

    let config = Config::load(&args.dir.join("config.toml"), []).unwrap();
    for secret in ["hunter2", config.registration.as_token.expose()] {
        assert!(!steps.contains(secret));
    }
    assert!(steps.contains("Component \"matrix.example.org\""));
    assert!(steps.contains(&args.dir.join("appservice.yaml").display().to_string()));
}

#[test]
fn arguments_that_cannot_work_are_refused_by_name() {
    let good = [
        ("--homeserver-url", "http://localhost:8008"),
        ("--server-name", "example.org"),
        ("--appservice-listen", "127.0.0.1:29340"),
        ("--xmpp-component", "matrix.example.org"),
        ("--xmpp-server", "127.0.0.1:5347"),
        ("--xmpp-secret-file", "secret"),
        ("--database-url", "sqlite:gephyra.db"),
    ];
    let command = |bad: Option<(&str, &'static str)>| {
        let arguments = good.iter().flat_map(|&(name, value)| {
            [name, bad.filter(|(bad_name, _)| *bad_name == name).map_or(value, |(_, bad)| bad)]
        });
        Cli::try_parse_from(["gephyra", "init"].into_iter().chain(arguments))
    };
    command(None).unwrap();
    for bad in [
        ("--homeserver-url", "http://matrix.example.org"),
        ("--server-name", "https://example.org"),
        ("--appservice-listen", "0.0.0.0:29340"),
        ("--xmpp-component", "not a domain"),
        ("--xmpp-server", "xmpp.example.org:5347"),
        ("--database-url", "mysql://localhost/gephyra"),
    ] {
        let error = command(Some(bad)).unwrap_err().to_string();
        assert!(error.contains(bad.0), "{error}");
    }
}
