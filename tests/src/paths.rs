//! Where the tested program, the servers and the peers lie. `cargo xtask` installs them there.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where `cargo xtask` puts what it installs for the tests: `GEPHYRA_CACHE`, else `~/.cache/gephyra`.
///
/// # Errors
/// When neither that variable nor `HOME` is set.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("GEPHYRA_CACHE") {
        return Ok(dir.into());
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/gephyra"))
}

/// The Python interpreter of one of the environments that `cargo xtask` makes.
///
/// # Errors
/// When it is not installed.
pub fn python(environment: &str) -> Result<PathBuf> {
    installed(cache()?.join(environment).join("bin/python"))
}

/// The folder of the peers' programs.
pub fn peers() -> PathBuf {
    // As Cargo says now: one cache of builds may serve several checkouts.
    let here =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("peers")
}

/// The Node.js that came with the peers' packages.
///
/// # Errors
/// When it is not installed.
pub fn node() -> Result<PathBuf> {
    installed(peers().join("js/node_modules/.bin/node"))
}

/// The tested program: `GEPHYRA_BIN`, else the one that Cargo built beside the running test.
///
/// # Errors
/// When it has not been built.
pub fn gephyra() -> Result<PathBuf> {
    if let Some(path) = env::var_os("GEPHYRA_BIN") {
        return installed(path.into());
    }
    let running = env::current_exe().context("finding the running test")?;
    let beside = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("gephyra"))
        .find(|path| path.exists());
    beside.context("the bridge is not built: run `cargo build -p bridge`")
}

/// The program with failpoints: `GEPHYRA_FAILPOINTS_BIN`.
///
/// # Errors
/// When it has not been built.
pub fn gephyra_with_failpoints() -> Result<PathBuf> {
    let path = env::var_os("GEPHYRA_FAILPOINTS_BIN");
    let path =
        path.context("`cargo xtask test` and `cargo xtask crash` name the bridge with failpoints")?;
    installed(path.into())
}

/// A folder for one test, under Cargo's target directory, so that its logs outlive a failure.
///
/// # Errors
/// When it cannot be made.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("finding the running test")?;
    let target = running
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .map_or_else(env::temp_dir, Path::to_path_buf);
    let dir = target.join("tmp");
    std::fs::create_dir_all(&dir).context("making the folder for test data")?;
    let scratch = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(dir)?;
    Ok(scratch.keep())
}

/// Clears the folder of a test that ended well. A file that a server writes while it is ending may stay: it harms nobody.
pub fn clear(scratch: &Path) {
    let _ = std::fs::remove_dir_all(scratch);
}

fn installed(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run `cargo xtask install`", path.display());
    Ok(path)
}
