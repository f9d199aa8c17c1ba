//! A client in another language, driven by lines of JSON.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};
use tokio::sync::Mutex;

use crate::journal::{Journal, SOON};
use crate::process::Process;

/// The process of such a client.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    input: Mutex<Input>,
}

#[derive(Debug)]
struct Input {
    pipe: ChildStdin,
    last_id: u64,
}

impl Peer {
    /// Starts the client and waits until it is `ready`; gives what it said then.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(name: &str, command: Command, dir: &Path) -> Result<(Self, Value)> {
        let mut process = Process::start(name, command, dir)?;
        let pipe = process.take_input().context("a peer without standard input")?;
        let peer = Self { process, input: Mutex::new(Input { pipe, last_id: 0 }) };
        let ready = peer.wait_for("ready", SOON, |event| Some(event.clone())).await?;
        Ok((peer, ready))
    }

    /// Gives the client a command and waits until it is done.
    ///
    /// # Errors
    /// With the client's own words when it failed.
    pub async fn ask(&self, what: &str, mut command: Value) -> Result<Value> {
        let before = self.lines().len();
        let id = self.write(what, &mut command).await?;
        let answer = self
            .lines()
            .wait_for_after(before, &format!("the answer to `{what}`"), SOON * 2, |line| {
                let event: Value = serde_json::from_str(line).ok()?;
                let mine = event.get("id")?.as_u64()? == id && is_answer(&event);
                mine.then_some(event)
            })
            .await
            .with_context(|| format!("see {}", self.process.log().display()))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => bail!("`{what}` failed: {error}"),
            None => Ok(answer.get("value").cloned().unwrap_or(Value::Null)),
        }
    }

    /// Waits for an event of a kind for which `pick` gives something.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn wait_for<R>(
        &self,
        kind: &str,
        within: Duration,
        mut pick: impl FnMut(&Value) -> Option<R>,
    ) -> Result<R> {
        let what = format!("a `{kind}` event, see {}", self.process.log().display());
        self.lines()
            .wait_for(&what, within, |line| {
                let event: Value = serde_json::from_str(line).ok()?;
                if event.get("event")? == kind { pick(&event) } else { None }
            })
            .await
    }

    /// Waits until this many events of a kind have come.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn wait_for_number(&self, kind: &str, number: usize, within: Duration) -> Result<()> {
        let mut seen = 0;
        self.wait_for(kind, within, |_| {
            seen += 1;
            (seen >= number).then_some(())
        })
        .await
    }

    /// All events of a kind so far.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let parse = |line: &String| serde_json::from_str::<Value>(line).ok();
        let of_kind = |event: &Value| event.get("event").is_some_and(|name| name == kind);
        self.lines().read(|lines| lines.iter().filter_map(parse).filter(of_kind).collect())
    }

    /// Everything the client has printed.
    pub fn lines(&self) -> &Journal<String> {
        self.process.lines()
    }

    /// Ends the client.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(mut self) -> Result<()> {
        self.process.kill().await
    }

    async fn write(&self, what: &str, command: &mut Value) -> Result<u64> {
        let mut input = self.input.lock().await;
        input.last_id += 1;
        let id = input.last_id;
        let fields = command.as_object_mut().context("a command must be an object")?;
        fields.insert("id".to_owned(), json!(id));
        fields.insert("do".to_owned(), json!(what));
        let line = format!("{command}\n");
        input.pipe.write_all(line.as_bytes()).await.context("the client has ended")?;
        Ok(id)
    }
}

fn is_answer(event: &Value) -> bool {
    matches!(event.get("event").and_then(Value::as_str), Some("done" | "failed"))
}

/// A text field of an event or answer.
///
/// # Errors
/// When it is not there.
pub fn text(value: &Value, field: &str) -> Result<String> {
    let found = value.get(field).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no text `{field}` in {value}"))
}
