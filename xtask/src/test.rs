//! `cargo xtask test`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::install;
use crate::postgres::Postgres;
use crate::shell::{announce, built, cargo, find_program, run};

/// Installs what is missing and runs every check and test.
pub fn test() -> Result<()> {
    install::install(&install::EVERYTHING)?;
    announce("Checking the format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    announce("Linting");
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    announce("Building the bridge");
    let tested = build_tested()?;
    announce("Starting PostgreSQL");
    let postgres = Postgres::start()?;
    let prepare = |command: &mut Command| {
        command.env("GEPHYRA_BIN", &tested).env("GEPHYRA_TEST_POSTGRES", postgres.url());
    };
    announce("Documentation tests");
    let mut doctests = cargo();
    prepare(doctests.args(["test", "--workspace", "--doc"]));
    run(&mut doctests)?;
    announce("Tests");
    let mut tests = cargo();
    if find_program("cargo-nextest").is_some() {
        prepare(tests.args(["nextest", "run", "--workspace"]));
    } else {
        prepare(tests.args(["test", "--workspace", "--lib", "--bins", "--tests"]));
    }
    run(&mut tests)
}

/// Builds the bridge alone, with the features that an operator's build has, and puts it where building the tests (which
/// bring more features of the same crates) does not overwrite it.
pub fn build_tested() -> Result<PathBuf> {
    run(cargo().args(["build", "-p", "bridge"]))?;
    let built = built()?;
    let dir = built.join("tested");
    fs::create_dir_all(&dir).context("making the folder of the tested program")?;
    let tested = dir.join("gephyra");
    fs::copy(built.join("gephyra"), &tested).context("copying the tested program")?;
    Ok(tested)
}
