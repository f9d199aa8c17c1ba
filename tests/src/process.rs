//! Child processes. Their output is logged and can be waited on, and they never outlive the test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::task::TaskTracker;

use crate::journal::{Journal, Writer, journal};

/// A command whose process ends with the thread that starts it, however that ends.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running program. Its standard output is a journal of lines and, like its standard error, a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Journal<String>,
    log: PathBuf,
}

impl Process {
    /// Starts a program that logs to `dir/name.log`.
    ///
    /// # Errors
    /// When the program or its log cannot be opened.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("opening a log")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file.try_clone().context("sharing a log")?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("a child without standard output")?;
        let (writer, lines) = journal();
        TaskTracker::new().spawn(copy_lines(stdout, file, writer));
        Ok(Self { name: name.to_owned(), child, lines, log })
    }

    /// What the program has printed, line by line.
    pub fn lines(&self) -> &Journal<String> {
        &self.lines
    }

    /// The program's standard input; once.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where the program's output is kept.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until the program prints a line that contains `text`.
    ///
    /// # Errors
    /// When it does not in time, or ends before.
    pub async fn wait_for_line(&self, text: &str, within: Duration) -> Result<String> {
        let what = format!("`{text}` from {}, see {}", self.name, self.log.display());
        self.lines.wait_for(&what, within, |line| line.contains(text).then(|| line.clone())).await
    }

    /// Asks the process to end and waits until it has.
    ///
    /// # Errors
    /// When it has not ended within 30 seconds.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let ended =
            ended.map_err(|_| anyhow!("{} did not end in 30 s when asked to", self.name))?;
        ended.with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn ends(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        ended
            .map_err(|_| anyhow!("{} still runs after {} s", self.name, within.as_secs()))?
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Kills the process with no chance to tidy up, and waits until it has gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id of zero")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }
}

async fn copy_lines(stdout: ChildStdout, mut log: File, lines: Writer<String>) {
    let mut reader = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        // A full disk must not end the test that this log is for.
        let _ = writeln!(log, "{line}");
        lines.push(line);
    }
}

/// Runs a program to its end.
///
/// # Errors
/// With its output, when it fails.
pub async fn run(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(anyhow!("{:?} failed: {text}{}", command.as_std(), String::from_utf8_lossy(&output.stderr)))
}
