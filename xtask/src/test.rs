//! `cargo xtask test`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

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
    let tested = Tested::build()?;
    announce("Starting PostgreSQL");
    let postgres = Postgres::start()?;
    announce("Tests");
    let mut tests = cargo();
    if find_program("cargo-nextest").is_some() {
        let threads = threads()?.to_string();
        tests.args(["nextest", "run", "--workspace", "--test-threads", &threads]);
    } else {
        tests.args(["test", "--workspace"]);
    }
    run(tested.name_in(&mut tests).env("GEPHYRA_TEST_POSTGRES", postgres.url()))
}

/// How many tests run at once. Stories often wait for a timer: two for each processor keep it busy.
fn threads() -> Result<usize> {
    let processors = thread::available_parallelism().context("counting the processors")?;
    Ok(processors.get() * 2)
}

/// Builds of the bridge alone, where building the tests (which bring more features of the same crates) does not
/// overwrite them.
pub struct Tested {
    as_shipped: PathBuf,
    with_failpoints: PathBuf,
}

impl Tested {
    /// Builds both, the one with the features that an operator's build has last: Cargo puts it in the same place.
    pub fn build() -> Result<Self> {
        let with_failpoints = build_as("gephyra-failpoints", &["--features", "failpoints"])?;
        Ok(Self { with_failpoints, as_shipped: build_as("gephyra", &[])? })
    }

    /// Tells a program where they are.
    pub fn name_in<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("GEPHYRA_BIN", &self.as_shipped);
        command.env("GEPHYRA_FAILPOINTS_BIN", &self.with_failpoints)
    }
}

fn build_as(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    run(cargo().args(["build", "-p", "bridge"]).args(arguments))?;
    let built = built()?;
    let dir = built.join("tested");
    fs::create_dir_all(&dir).context("making the folder of the tested programs")?;
    let tested = dir.join(name);
    fs::copy(built.join("gephyra"), &tested).context("copying a tested program")?;
    Ok(tested)
}
