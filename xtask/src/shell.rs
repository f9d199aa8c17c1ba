//! Running other programs, and telling the person at the terminal about it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Tells what happens next.
pub fn announce(step: &str) {
    println!("==> {step}");
}

/// Runs a program to its end, with its output on the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Runs a program to its end and shows its output only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&text))
}

/// What a program prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The Cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Where a program lies, looking also where administrators' programs are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A command as the administrator: as it is for root, through `sudo` for others, which asks for a
/// password at the terminal.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Whether the administrator runs this.
pub fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// The top folder of the project.
pub fn workspace() -> PathBuf {
    // As Cargo says now: one cache of builds may serve several checkouts.
    let here =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where Cargo puts what it builds: beside this program.
pub fn built() -> Result<PathBuf> {
    let running = env::current_exe().context("finding this program")?;
    Ok(running.parent().context("this program lies nowhere")?.to_path_buf())
}

/// Where the tests look for what is installed for them.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("GEPHYRA_CACHE") {
        return Ok(dir.into());
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/gephyra"))
}
