//! A person on an independent OMEMO client: slixmpp-omemo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::journal::SOON;
use crate::peer::{Peer, text};
use crate::xmpp_server::XmppServer;
use crate::{paths, process};

/// One of the two forms of OMEMO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `eu.siacs.conversations.axolotl`.
    Legacy,
    /// `urn:xmpp:omemo:2`.
    Omemo2,
}

impl Namespace {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Legacy, Self::Omemo2];

    /// The XML namespace.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Legacy => "eu.siacs.conversations.axolotl",
            Self::Omemo2 => "urn:xmpp:omemo:2",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Omemo2 => "omemo2",
        }
    }
}

/// A message as the client showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The bare JID it came from.
    pub sender: String,
    /// The text.
    pub body: String,
    /// The namespace it was encrypted in; `None` for one in the clear.
    pub namespace: Option<String>,
    /// What the client thinks of the sending device.
    pub trust: Option<String>,
}

/// What came of an ad-hoc command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandAnswer {
    /// What it says.
    pub text: String,
    /// The people among whom a form let choose; none where no form was needed.
    pub people: Vec<String>,
}

/// How a client is set up.
#[derive(Debug, Clone)]
pub struct Device<'a> {
    /// Tells this device's files from those of the person's others.
    pub name: &'a str,
    /// What it speaks; nothing for a client without OMEMO.
    pub speaks: &'a [Namespace],
    /// Come up under this device id with new keys.
    pub device_id: Option<u64>,
}

impl Default for Device<'_> {
    fn default() -> Self {
        Self { name: "phone", speaks: &Namespace::BOTH, device_id: None }
    }
}

/// One device of one person.
#[derive(Debug)]
pub struct OmemoUser {
    jid: String,
    full_jid: String,
    password: String,
    device: Option<u64>,
    fingerprint: Option<String>,
    dir: PathBuf,
    pub(crate) peer: Peer,
}

impl OmemoUser {
    /// A new person with one device that speaks both namespaces.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn start(server: &XmppServer, localpart: &str, dir: &Path) -> Result<Self> {
        Self::start_device(server, localpart, dir, &Device::default()).await
    }

    /// A device of a person, who is registered with the first.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn start_device(
        server: &XmppServer,
        localpart: &str,
        dir: &Path,
        device: &Device<'_>,
    ) -> Result<Self> {
        let (jid, password) = server.register(localpart).await?;
        let dir = dir.join(format!("{localpart}-{}", device.name));
        std::fs::create_dir_all(&dir).context("making the client's folder")?;
        let names: Vec<_> = device.speaks.iter().map(|namespace| namespace.name()).collect();
        let mut command = process::command(paths::python("venv-peers")?);
        command.arg("-u").arg(paths::peers().join("xmpp_peer.py"));
        command.args(["--jid", &jid, "--port", &server.client_port().to_string()]);
        command.arg("--store").arg(dir.join("omemo.json"));
        command.args(["--namespaces", &names.join(",")]);
        if let Some(id) = device.device_id {
            command.args(["--device-id", &id.to_string()]);
        }
        command.env("XMPP_PEER_PASSWORD", &password);
        let (peer, ready) = Peer::start("omemo", command, &dir).await?;
        let device = ready.get("device").and_then(Value::as_u64);
        let full_jid = text(&ready, "full_jid")?;
        let fingerprint = text(&ready, "fingerprint").ok();
        Ok(Self { jid, full_jid, password, device, fingerprint, dir, peer })
    }

    /// The bare JID.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The address of this very client.
    pub fn full_jid(&self) -> &str {
        &self.full_jid
    }

    /// What to type at login.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The OMEMO device id, where the client speaks OMEMO.
    pub fn device_id(&self) -> Option<u64> {
        self.device
    }

    /// The fingerprint of this device, as the client prints it.
    ///
    /// # Errors
    /// When the client does not speak OMEMO.
    pub fn fingerprint(&self) -> Result<&str> {
        self.fingerprint.as_deref().context("a client without OMEMO")
    }

    /// Where the client's log and keys are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends an encrypted message; gives the stanza's id.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn send(&self, to: &str, body: &str, namespace: Namespace) -> Result<String> {
        let command = json!({ "to": to, "body": body, "namespace": namespace.name() });
        text(&self.peer.ask("send", command).await?, "stanza_id")
    }

    /// Sends a message in the clear; gives the stanza's id.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn send_plain(&self, to: &str, body: &str) -> Result<String> {
        let command = json!({ "to": to, "body": body });
        text(&self.peer.ask("send_plain", command).await?, "stanza_id")
    }

    /// Begins new sessions with all devices of a contact, and tells them so.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn replace_sessions_with(&self, jid: &str) -> Result<()> {
        self.peer.ask("replace_sessions", json!({ "jid": jid })).await.map(drop)
    }

    /// Sends the very same stanza again.
    ///
    /// # Errors
    /// When the client never sent it.
    pub async fn send_again(&self, stanza_id: &str) -> Result<()> {
        self.peer.ask("send_again", json!({ "stanza_id": stanza_id })).await.map(drop)
    }

    /// Sends raw XML over the client's stream.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn send_xml(&self, xml: &str) -> Result<()> {
        self.peer.ask("send_xml", json!({ "xml": xml })).await.map(drop)
    }

    /// The device ids that a contact publishes now.
    ///
    /// # Errors
    /// When the client could not ask.
    pub async fn devices_of(&self, jid: &str) -> Result<BTreeSet<u64>> {
        let answer = self.peer.ask("devices", json!({ "jid": jid })).await?;
        let devices = answer.get("devices").and_then(Value::as_array).context("no devices")?;
        Ok(devices.iter().filter_map(|device| device.get("id")?.as_u64()).collect())
    }

    /// The fingerprints of the devices that a contact publishes now, by device id, as the client prints them.
    ///
    /// # Errors
    /// When the client could not ask.
    pub async fn fingerprints_of(&self, jid: &str) -> Result<BTreeMap<u64, String>> {
        let answer = self.peer.ask("devices", json!({ "jid": jid })).await?;
        let devices = answer.get("devices").and_then(Value::as_array).context("no devices")?;
        let printed = devices.iter().filter_map(|device| {
            Some((device.get("id")?.as_u64()?, text(device, "fingerprint").ok()?))
        });
        Ok(printed.collect())
    }

    /// What an address says it can do (XEP-0030).
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn disco(&self, jid: &str) -> Result<Value> {
        self.peer.ask("disco", json!({ "jid": jid })).await
    }

    /// The ad-hoc commands (XEP-0050) that an address lists.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn commands_of(&self, jid: &str) -> Result<BTreeSet<String>> {
        let answer = self.peer.ask("commands", json!({ "jid": jid })).await?;
        let commands = answer.get("commands").cloned().context("no commands")?;
        Ok(serde_json::from_value(commands)?)
    }

    /// Runs an ad-hoc command to its end; where a form asks for a person, it is this one.
    ///
    /// # Errors
    /// When it is refused: the condition.
    pub async fn runs_command(&self, jid: &str, node: &str, person: &str) -> Result<CommandAnswer> {
        let command = json!({ "jid": jid, "node": node, "person": person });
        let answer = self.peer.ask("command", command).await?;
        if let Some(condition) = answer.get("refused").and_then(Value::as_str) {
            anyhow::bail!("refused: {condition}");
        }
        let people = answer.get("people").cloned().unwrap_or_default();
        Ok(CommandAnswer { text: text(&answer, "text")?, people: serde_json::from_value(people)? })
    }

    /// Asks for a contact's presence.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn subscribe(&self, jid: &str) -> Result<()> {
        self.peer.ask("subscribe", json!({ "to": jid })).await?;
        let granted = |event: &Value| (event.get("sender")? == jid).then_some(());
        self.peer.wait_for("subscribed", SOON, granted).await
    }

    /// Waits until somebody asks for this person's presence. The client grants it.
    ///
    /// # Errors
    /// When they do not.
    pub async fn is_asked_for_presence_by(&self, jid: &str) -> Result<()> {
        let asked = |event: &Value| (event.get("sender")? == jid).then_some(());
        self.peer.wait_for("asked", SOON, asked).await
    }

    /// Waits until the client is told of a contact's devices without having asked.
    ///
    /// # Errors
    /// When it is not.
    pub async fn is_told_of_devices_of(&self, jid: &str, namespace: Namespace) -> Result<()> {
        let told = |event: &Value| {
            let of_it = event.get("node")?.as_str()?.starts_with(namespace.uri());
            (of_it && event.get("sender")? == jid).then_some(())
        };
        self.peer.wait_for("announced", SOON, told).await
    }

    /// Takes this person's device lists off the server.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn leave_omemo(&self) -> Result<()> {
        self.peer.ask("leave_omemo", json!({})).await.map(drop)
    }

    /// Waits until the client shows a message with this text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn receives(&self, body: &str) -> Result<Received> {
        self.receives_within(body, SOON).await
    }

    /// Waits, no longer than told, until the client shows a message with this text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn receives_within(&self, body: &str, within: Duration) -> Result<Received> {
        self.message_where(within, |message| message.body == body)
            .await
            .with_context(|| format!("{} waited for `{body}`", self.jid))
    }

    /// Waits until the client shows a message that the story looks for.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn message_where(
        &self,
        within: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> Result<Received> {
        self.peer.wait_for("message", within, |event| received(event).filter(&wanted)).await
    }

    /// All messages shown so far.
    pub fn messages(&self) -> Vec<Received> {
        self.peer.events("message").iter().filter_map(received).collect()
    }

    /// The texts of somebody's messages so far, in order.
    pub fn texts_from(&self, jid: &str) -> Vec<String> {
        let theirs = self.messages().into_iter().filter(|message| message.sender == jid);
        theirs.map(|message| message.body).collect()
    }

    /// Waits until an empty message comes, as one does that sets up a new session.
    ///
    /// # Errors
    /// When none comes.
    pub async fn gets_empty_message(&self, from: &str) -> Result<()> {
        let empty = |event: &Value| (event.get("sender")? == from).then_some(());
        self.peer.wait_for("empty", SOON, empty).await
    }

    /// How many empty messages have come from somebody.
    pub fn empty_messages_from(&self, jid: &str) -> usize {
        let theirs = |event: &&Value| event.get("sender").is_some_and(|sender| sender == jid);
        self.peer.events("empty").iter().filter(theirs).count()
    }

    /// How many stanzas could not be decrypted. One that was opened before does not count: a bridge that was killed sends
    /// what was not confirmed again, byte for byte, and the ratchet refuses it.
    pub fn undecryptable(&self) -> usize {
        let id = |event: &Value| event.get("stanza_id").and_then(Value::as_str).map(str::to_owned);
        let opened = ["message", "empty"].map(|kind| self.peer.events(kind));
        let opened: BTreeSet<_> = opened.iter().flatten().filter_map(id).collect();
        let is_new = |event: &&Value| id(event).is_none_or(|id| !opened.contains(&id));
        self.peer.events("undecryptable").iter().filter(is_new).count()
    }

    /// Waits for the receipt (XEP-0184) of a stanza.
    ///
    /// # Errors
    /// When none comes.
    pub async fn receipt_for(&self, stanza_id: &str) -> Result<()> {
        let of = |event: &Value| (event.get("of")? == stanza_id).then_some(());
        self.peer.wait_for("receipt", SOON, of).await
    }

    /// Whether the receipt of a stanza has come.
    pub fn has_receipt_for(&self, stanza_id: &str) -> bool {
        let of = |event: &Value| event.get("of").is_some_and(|of| of == stanza_id);
        self.peer.events("receipt").iter().any(of)
    }

    /// Waits until a stanza comes back as an error; gives the condition.
    ///
    /// # Errors
    /// When it does not.
    pub async fn bounce_of(&self, stanza_id: &str) -> Result<String> {
        let of = |event: &Value| {
            (event.get("of")? == stanza_id).then(|| text(event, "condition").unwrap_or_default())
        };
        self.peer.wait_for("bounced", SOON, of).await
    }

    /// Ends the client.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(self) -> Result<()> {
        self.peer.stop().await
    }
}

fn received(event: &Value) -> Option<Received> {
    let optional = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
    Some(Received {
        sender: text(event, "sender").ok()?,
        body: text(event, "body").ok()?,
        namespace: optional("namespace"),
        trust: optional("trust"),
    })
}
