//! `cargo xtask mutants`: changes the code in small ways, and tells which changes no unit test notices.
//!
//! Each change that remains is explained in `docs/mutants.md`; one that is not makes this fail.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::postgres::Postgres;
use crate::shell::{announce, built, cargo, output, run, workspace};

/// The version whose descriptions of changes `docs/mutants.md` repeats.
const VERSION: &str = "27.1.0";

/// Cases of each property: a property that needs more of them to notice a change is not what holds the code.
const PROPTEST_CASES: &str = "8";

/// Files that the same tests stand behind.
struct Part {
    /// For the folder of its results.
    name: &'static str,
    package: &'static str,
    /// Arguments of `cargo nextest run`.
    tests: &'static [&'static str],
    files: &'static [&'static str],
}

/// Ratchet, trust, policy and dedupe.
const PARTS: [Part; 5] = [
    Part {
        name: "omemo",
        package: "e2ee",
        tests: &["--lib"],
        files: &[
            "e2ee/src/omemo/ratchet/*.rs",
            "e2ee/src/omemo/session.rs",
            "e2ee/src/omemo/session_list.rs",
            "e2ee/src/omemo/handshake.rs",
            "e2ee/src/omemo/machine.rs",
        ],
    },
    Part {
        name: "matrix",
        package: "e2ee",
        tests: &["--test", "matrix"],
        files: &["e2ee/src/matrix/decrypt.rs", "e2ee/src/matrix/encrypt.rs"],
    },
    Part {
        name: "store",
        package: "bridge",
        tests: &["--lib"],
        files: &[
            "bridge/src/store/pins.rs",
            "bridge/src/store/megolm_index.rs",
            "bridge/src/store/contact_decisions.rs",
            "bridge/src/store/notices.rs",
            "bridge/src/store/xmpp_inbox.rs",
        ],
    },
    Part {
        name: "hub",
        package: "bridge",
        tests: &["--lib", "-E", "test(/^(matrix|portal)::/)"],
        files: &[
            "bridge/src/matrix/devices/asked.rs",
            "bridge/src/matrix/devices/sender_trust.rs",
            "bridge/src/matrix/devices/open.rs",
            "bridge/src/matrix/devices/seal.rs",
            "bridge/src/portal/downgrade.rs",
            "bridge/src/portal/expiry.rs",
        ],
    },
    Part {
        name: "xmpp",
        package: "bridge",
        tests: &["--lib", "-E", "test(/^xmpp::/)"],
        files: &[
            "bridge/src/xmpp/trust.rs",
            "bridge/src/xmpp/decrypt.rs",
            "bridge/src/xmpp/heal.rs",
            "bridge/src/xmpp/encrypt.rs",
        ],
    },
];

/// Runs over all files, or only over these.
///
/// # Errors
/// When a change that no test noticed is not explained.
pub fn mutants(only: &[String]) -> Result<()> {
    let known = |file: &String| PARTS.iter().any(|part| part.files.contains(&file.as_str()));
    if let Some(unknown) = only.iter().find(|file| !known(file)) {
        let all: Vec<_> = PARTS.iter().flat_map(|part| part.files).copied().collect();
        bail!("{unknown} is not among the files:\n{}", all.join("\n"));
    }
    ensure_installed()?;
    announce("Starting PostgreSQL");
    let postgres = Postgres::start()?;
    let mut missed = Vec::new();
    for part in &PARTS {
        let is_wanted = |file: &&str| only.is_empty() || only.iter().any(|wanted| wanted == file);
        let files: Vec<&str> = part.files.iter().copied().filter(is_wanted).collect();
        if !files.is_empty() {
            missed.extend(run_part(part, &files, &postgres)?);
        }
    }
    let explained = fs::read_to_string(workspace().join("docs/mutants.md"))
        .context("reading docs/mutants.md")?;
    let (explained, unexplained): (Vec<_>, Vec<_>) =
        missed.iter().partition(|mutant| explained.contains(description(mutant)));
    println!("\n{} changes that no test notices and docs/mutants.md explains", explained.len());
    for mutant in &unexplained {
        println!("not noticed: {mutant}");
    }
    ensure!(
        unexplained.is_empty(),
        "{} changes are neither noticed nor explained",
        unexplained.len()
    );
    Ok(())
}

fn ensure_installed() -> Result<()> {
    let found = output(cargo().args(["mutants", "--version"])).unwrap_or_default();
    if found.trim().ends_with(VERSION) {
        return Ok(());
    }
    announce("Installing cargo-mutants");
    run(cargo().args(["install", "cargo-mutants", "--locked", "--version", VERSION]))
}

/// The changes that the tests of a part did not notice.
fn run_part(part: &Part, files: &[&str], postgres: &Postgres) -> Result<Vec<String>> {
    announce(&format!("Changing {}", files.join(", ")));
    let results = built()?.parent().context("no target folder")?.join("mutants");
    let report = results.join(part.name);
    fs::create_dir_all(&report).context("making the folder of the results")?;
    let mut command = cargo();
    command.args(["mutants", "--package", part.package]);
    command.args(["--test-tool", "nextest", "--jobs", "1"]);
    command.args(["--minimum-test-timeout", "60", "--timeout-multiplier", "3"]);
    for file in files {
        command.args(["--file", file]);
    }
    for argument in part.tests {
        command.arg(format!("--cargo-arg={argument}"));
    }
    command.arg("--output").arg(&report);
    // Kept for the next run: what others wrote is built once.
    command.env("CARGO_TARGET_DIR", results.join("build"));
    command.env("GEPHYRA_TEST_POSTGRES", postgres.url());
    command.env("NEXTEST_PROFILE", "mutants").env("PROPTEST_CASES", PROPTEST_CASES);
    let status = command.status().context("starting cargo-mutants")?;
    // 2: some were missed; 3: some did not end in time, which a test would notice.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants ended with {status}");
    lines_of(&report.join("mutants.out/missed.txt"))
}

fn lines_of(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A change without its place, which moves with every edit: `replace … in …`.
fn description(mutant: &str) -> &str {
    mutant.splitn(2, ": ").last().unwrap_or(mutant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_known_by_what_it_does_and_not_by_its_line() {
        let mutant = "e2ee/src/omemo/session.rs:10:9: replace + with - in Session::decrypt";
        assert_eq!(description(mutant), "replace + with - in Session::decrypt");
    }

    #[test]
    fn all_files_are_there() {
        for file in PARTS.iter().flat_map(|part| part.files) {
            let path = workspace().join(file.trim_end_matches("*.rs"));
            assert!(path.exists(), "{file}");
        }
    }
}
