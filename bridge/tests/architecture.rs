//! The invariants of ARCHITECTURE.md that the shape of the source can break.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn repository() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder, or the file itself.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"))
        .flat_map(|path| rust_files(&path))
        .collect();
    files.sort();
    files
}

/// Source without comments, strings being rare enough in paths not to matter.
fn code(path: &Path) -> String {
    let text = read(path);
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules of the crate that a piece of source names, by `crate::…` (alone or in braces) or up
/// through `super::…`. What has a file in `folder` is the folder's own, when named by `super`.
fn modules_named(code: &str, folder: &Path) -> BTreeSet<String> {
    let is_own =
        |name: &String| folder.join(name).is_dir() || folder.join(format!("{name}.rs")).is_file();
    let mut named = names_after(code, "super::");
    named.retain(|name| !is_own(name));
    named.extend(names_after(code, "crate::"));
    named
}

fn names_after(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split(root).skip(1).map(str::trim_start) {
        match rest.strip_prefix('{') {
            Some(group) => names.extend(heads_of_group(group)),
            None => names.extend(identifier(rest)),
        }
    }
    names
}

/// The first path segment of every entry of a use group, from after its opening brace.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut heads = Vec::new();
    let mut entry = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.extend(identifier(std::mem::take(&mut entry).trim())),
            _ if depth == 1 => entry.push(character),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.extend(identifier(entry.trim()));
    heads
}

fn identifier(text: &str) -> Option<String> {
    let name: String =
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Fails when a module of the bridge names one of those that it must not know.
fn assert_does_not_know(module: &str, strangers: &[&str]) {
    let source = repository().join("bridge/src");
    let folder = source.join(module);
    let path = if folder.is_dir() { folder } else { source.join(format!("{module}.rs")) };
    let files = rust_files(&path);
    assert!(!files.is_empty(), "{module} has no source");
    for file in files {
        let named = modules_named(&code(&file), &path);
        for stranger in strangers {
            assert!(
                !named.contains(*stranger),
                "{} names `{stranger}`, which `{module}` must not know",
                file.display()
            );
        }
    }
}

#[test]
fn the_search_for_modules_finds_every_form() {
    let source =
        "use crate::{a::{b, c}, d, e::F}; crate::g::h(); pub(in crate::i) x; super::super::j::k";
    let named = modules_named(source, Path::new("nowhere"));
    for module in ["a", "d", "e", "g", "i", "j"] {
        assert!(named.contains(module), "{module}");
    }
    assert!(!named.contains("b") && !named.contains("c") && !named.contains("h"));
}

#[test]
fn the_seam_knows_no_network_and_no_matrix() {
    assert_does_not_know(
        "network",
        &["xmpp", "matrix", "portal", "appservice", "commands", "config", "app"],
    );
}

#[test]
fn a_network_does_not_know_the_matrix_side() {
    assert_does_not_know("xmpp", &["matrix", "portal", "appservice", "commands", "app"]);
}

#[test]
fn the_matrix_side_does_not_know_a_network() {
    for module in ["matrix", "portal", "appservice", "commands"] {
        assert_does_not_know(module, &["xmpp"]);
    }
}

#[test]
fn what_is_pushed_goes_to_the_portals_through_the_store_only() {
    assert_does_not_know("appservice", &["portal", "matrix", "commands", "network"]);
    assert_does_not_know("matrix", &["portal", "appservice", "commands", "app"]);
}

#[test]
fn the_store_and_the_configuration_know_none_of_their_users() {
    let users = ["xmpp", "matrix", "portal", "appservice", "commands", "cli", "app"];
    assert_does_not_know("store", &users);
    assert_does_not_know("config", &users);
}

/// The direct dependencies of a member, for all targets, without those of its tests.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest: toml::Table =
        read(repository().join(member).join("Cargo.toml")).parse().expect("a manifest is TOML");
    let mut names = BTreeSet::new();
    for section in ["dependencies", "build-dependencies"] {
        if let Some(table) = manifest.get(section).and_then(toml::Value::as_table) {
            names.extend(table.keys().cloned());
        }
    }
    assert!(!manifest.contains_key("target"), "{member}: look at target dependencies here too");
    names
}

#[test]
fn the_engines_need_no_runtime_no_database_and_no_other_crate_of_ours() {
    let dependencies = dependencies("e2ee");
    assert!(dependencies.contains("vodozemac"));
    for stranger in [
        "bridge",
        "tests",
        "xtask",
        "tokio",
        "async-std",
        "smol",
        "sqlx",
        "rusqlite",
        "axum",
        "hyper",
        "reqwest",
        "tokio-xmpp",
        "xmpp-parsers",
    ] {
        assert!(!dependencies.contains(stranger), "e2ee depends on {stranger}");
    }
}

#[test]
fn the_omemo_engine_takes_time_and_randomness_from_its_caller() {
    let files = rust_files(&repository().join("e2ee/src/omemo"));
    for file in
        files.into_iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
    {
        let code = code(&file);
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for ambient in ["SystemTime::now", "Instant::now", "OsRng", "thread_rng", "from_entropy"] {
            assert!(!code.contains(ambient), "{} uses {ambient}", file.display());
        }
    }
}

#[test]
fn no_channel_is_unbounded_and_no_task_is_untracked() {
    for folder in ["bridge/src", "e2ee/src"] {
        for file in rust_files(&repository().join(folder)) {
            let code = code(&file);
            for call in ["unbounded_channel", "mpsc::unbounded", "tokio::spawn(", "task::spawn("] {
                assert!(!code.contains(call), "{} calls {call}", file.display());
            }
        }
    }
}

#[test]
fn only_a_build_for_tests_has_failpoints() {
    let manifest: toml::Table =
        read(repository().join("bridge/Cargo.toml")).parse().expect("a manifest is TOML");
    let features = manifest["features"].as_table().expect("features");
    assert!(features.contains_key("failpoints") && !features.contains_key("default"));
    let optional = manifest["dependencies"]["fail"]["optional"].as_bool();
    assert_eq!(optional, Some(true), "every build would have them");
    let workspace: toml::Table =
        read(repository().join("Cargo.toml")).parse().expect("a manifest is TOML");
    let shared = &workspace["workspace"]["dependencies"]["rustix"]["features"];
    let own = manifest["dependencies"]["rustix"].get("features");
    for features in [Some(shared), own].into_iter().flatten() {
        let features = features.as_array().expect("features");
        assert!(!features.contains(&"process".into()), "every build could kill processes");
    }
}

#[test]
fn every_failpoint_is_known_to_the_killer_and_has_a_window() {
    const PLACED: &str = "failpoint!(\"";
    let names = |text: &str, before: &str| -> BTreeSet<String> {
        let named = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
        named.filter(|name| name.starts_with('w')).map(str::to_owned).collect()
    };
    let files = rust_files(&repository().join("bridge/src"));
    let placed: BTreeSet<_> = files.iter().flat_map(|file| names(&code(file), PLACED)).collect();
    let killer = read(repository().join("bridge/src/failpoints/killer.rs"));
    assert!(placed.len() > 20);
    assert_eq!(names(&killer, "    \""), placed);
    let windows = read(repository().join("tests/src/crash/windows.rs"));
    assert_eq!(names(&windows, ", \""), placed);
}

#[test]
fn every_path_that_the_map_names_exists() {
    let map = read(repository().join("ARCHITECTURE.md"));
    let named = map.split('`').skip(1).step_by(2).filter(|text| {
        let is_path = text.contains('/') && !text.contains([' ', '<', '{', ':', '*', '@', '(']);
        is_path && !text.starts_with('/')
    });
    let named: BTreeSet<_> = named.collect();
    assert!(named.len() >= 20, "the map names too few paths: {named:?}");
    for path in named {
        assert!(repository().join(path).exists(), "ARCHITECTURE.md names {path}, which is gone");
    }
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let map = read(repository().join("ARCHITECTURE.md"));
    let sources: String = ["bridge", "e2ee", "tests"]
        .iter()
        .flat_map(|member| rust_files(&repository().join(member)))
        .map(read)
        .collect();
    let mut invariants = 0;
    for invariant in map.split("**Architecture Invariant:**").skip(1) {
        let paragraph = invariant.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let (_, held_by) = paragraph.split_once("Held by").expect("an invariant names its tests");
        let names = held_by.split('`').skip(1).step_by(2);
        let tests: Vec<_> = names.filter(|name| !name.contains('.')).collect();
        assert!(!tests.is_empty(), "an invariant without a test: {paragraph}");
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or_default();
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
        invariants += 1;
    }
    assert!(invariants >= 7, "only {invariants} invariants");
}
