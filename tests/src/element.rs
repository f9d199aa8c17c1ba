//! A person on Element: matrix-js-sdk, which is Element Web's own crypto.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::journal::SOON;
use crate::peer::{Peer, text};
use crate::synapse::{Account, Synapse};
use crate::{paths, process};

/// The shield beside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shield {
    /// None: the message is as it should be.
    None,
    /// A grey one.
    Grey,
    /// A red one.
    Red,
}

/// A message as the client shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The room.
    pub room: String,
    /// The event.
    pub event_id: String,
    /// The Matrix id of the sender.
    pub sender: String,
    /// The text; `None` when it could not be decrypted.
    pub body: Option<String>,
    /// The kind of message, such as `m.text` or `m.notice`.
    pub msgtype: Option<String>,
    /// The whole content, as far as it could be read.
    pub content: Value,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// Why it could not be decrypted.
    pub failure: Option<String>,
    /// The shield, for an encrypted message that could be read.
    pub shield: Option<Shield>,
    /// The reason that the client gives for the shield.
    pub reason: Option<String>,
}

/// An invitation.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The room.
    pub room: String,
    /// Who invited.
    pub by: String,
}

/// One device of one person.
#[derive(Debug)]
pub struct ElementUser {
    account: Account,
    device: String,
    pub(crate) peer: Peer,
}

impl ElementUser {
    /// A new person, whose first device is signed by their own keys. Gives the recovery key too.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn start(server: &Synapse, localpart: &str, dir: &Path) -> Result<(Self, String)> {
        let account = server.register(localpart).await?;
        let user = Self::log_in(server, &account, "first", dir).await?;
        let recovery_key = user.set_up_cross_signing().await?;
        Ok((user, recovery_key))
    }

    /// A device of an existing person, not yet signed.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn log_in(
        server: &Synapse,
        account: &Account,
        device: &str,
        dir: &Path,
    ) -> Result<Self> {
        let dir = dir.join(format!("{}-{device}", account.localpart));
        std::fs::create_dir_all(&dir).context("making the client's folder")?;
        let mut command = process::command(paths::node()?);
        command.arg(paths::peers().join("js/element.mjs"));
        command.env("ELEMENT_HOMESERVER", server.url());
        command.env("ELEMENT_USER", &account.localpart);
        command.env("ELEMENT_PASSWORD", &account.password);
        let (peer, ready) = Peer::start("element", command, &dir).await?;
        Ok(Self { account: account.clone(), device: text(&ready, "device")?, peer })
    }

    /// The full Matrix id.
    pub fn user_id(&self) -> &str {
        &self.account.user_id
    }

    /// The device id.
    pub fn device_id(&self) -> &str {
        &self.device
    }

    /// The account, for another device.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Makes cross-signing keys and signs this device; gives the recovery key.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn set_up_cross_signing(&self) -> Result<String> {
        let answer = self.peer.ask("set_up_cross_signing", json!({})).await?;
        text(&answer, "recovery_key")
    }

    /// Signs this device with the person's keys, which the recovery key opens.
    ///
    /// # Errors
    /// When the key does not fit.
    pub async fn recover(&self, recovery_key: &str) -> Result<()> {
        self.peer.ask("recover", json!({ "recovery_key": recovery_key })).await.map(drop)
    }

    /// From now on, only shows messages of devices that their owners have signed, and only sends to such (MSC4153).
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn exclude_insecure_devices(&self) -> Result<()> {
        self.peer.ask("only_signed_devices", json!({ "on": true })).await.map(drop)
    }

    /// From now on, sends no keys to devices that this person has not verified (“never send encrypted messages to
    /// unverified sessions”).
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn exclude_unverified_devices(&self) -> Result<()> {
        self.peer.ask("only_verified_devices", json!({ "on": true })).await.map(drop)
    }

    /// Sends keys to unverified devices again.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn include_unverified_devices(&self) -> Result<()> {
        self.peer.ask("only_verified_devices", json!({ "on": false })).await.map(drop)
    }

    /// Takes a device of somebody for verified, here and for this person only.
    ///
    /// # Errors
    /// When there is no such device.
    pub async fn verify_device(&self, user: &str, device: &str) -> Result<()> {
        let command = json!({ "user": user, "device": device });
        self.peer.ask("verify_device", command).await.map(drop)
    }

    /// Makes an encrypted direct chat.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn create_chat_with(&self, user: &str) -> Result<String> {
        self.create_room(json!({ "invite": [user], "encrypted": true, "direct": true })).await
    }

    /// Makes a direct chat without encryption.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn create_plain_chat_with(&self, user: &str) -> Result<String> {
        self.create_room(json!({ "invite": [user], "encrypted": false, "direct": true })).await
    }

    /// Invites somebody into a room.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn invite(&self, room: &str, user: &str) -> Result<()> {
        self.peer.ask("invite", json!({ "room": room, "user": user })).await.map(drop)
    }

    /// Logs this device out.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn log_out(&self) -> Result<()> {
        self.peer.ask("log_out", json!({})).await.map(drop)
    }

    /// Joins a room.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn join(&self, room: &str) -> Result<()> {
        self.peer.ask("join", json!({ "room": room })).await.map(drop)
    }

    /// Sends a text, encrypted where the room is; gives the event's id.
    ///
    /// # Errors
    /// When the client or the homeserver could not.
    pub async fn send(&self, room: &str, body: &str) -> Result<String> {
        text(&self.peer.ask("send", json!({ "room": room, "body": body })).await?, "event_id")
    }

    /// Sends the content of an `m.room.message`, encrypted where the room is; gives the event's id.
    ///
    /// # Errors
    /// When the client or the homeserver could not.
    pub async fn send_content(&self, room: &str, content: Value) -> Result<String> {
        let command = json!({ "room": room, "content": content });
        text(&self.peer.ask("send_content", command).await?, "event_id")
    }

    /// Sends a text past all encryption; gives the event's id.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn send_in_the_clear(&self, room: &str, body: &str) -> Result<String> {
        let command = json!({ "room": room, "body": body });
        text(&self.peer.ask("send_in_clear", command).await?, "event_id")
    }

    /// Encrypts under a new room key from the next message on.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn discard_room_key(&self, room: &str) -> Result<()> {
        self.peer.ask("discard_room_key", json!({ "room": room })).await.map(drop)
    }

    /// Waits for an invitation from somebody.
    ///
    /// # Errors
    /// When none comes.
    pub async fn invitation_from(&self, user: &str) -> Result<Invitation> {
        self.peer
            .wait_for("invited", SOON, |event| invitation(event).filter(|found| found.by == user))
            .await
            .with_context(|| format!("no invitation from {user}"))
    }

    /// Waits until somebody has joined a room.
    ///
    /// # Errors
    /// When they do not.
    pub async fn sees_join(&self, room: &str, user: &str) -> Result<()> {
        let waited = self.sees_membership(room, user, "join").await;
        waited.with_context(|| format!("{user} did not join"))
    }

    /// Waits until somebody is invited into a room. From then on the client encrypts for them.
    ///
    /// # Errors
    /// When they are not.
    pub async fn sees_invitation(&self, room: &str, user: &str) -> Result<()> {
        let waited = self.sees_membership(room, user, "invite").await;
        waited.with_context(|| format!("{user} was not invited"))
    }

    /// Waits until somebody has left a room or refused its invitation.
    ///
    /// # Errors
    /// When they do not.
    pub async fn sees_leave(&self, room: &str, user: &str) -> Result<()> {
        let waited = self.sees_membership(room, user, "leave").await;
        waited.with_context(|| format!("{user} did not leave"))
    }

    /// Waits until the client shows a message with this text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn receives(&self, body: &str) -> Result<Shown> {
        self.receives_within(body, SOON).await
    }

    /// Waits, no longer than told, until the client shows a message with this text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn receives_within(&self, body: &str, within: Duration) -> Result<Shown> {
        self.message_where(within, |message| message.body.as_deref() == Some(body))
            .await
            .with_context(|| format!("{} waited for `{body}`", self.account.user_id))
    }

    /// Waits until the client shows a message of somebody that contains these words.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn hears(&self, sender: &str, words: &str) -> Result<Shown> {
        let says = |message: &Shown| {
            let body = message.body.as_deref().unwrap_or_default();
            message.sender == sender && body.contains(words)
        };
        let waited = self.message_where(SOON, says).await;
        waited.with_context(|| format!("{sender} did not say `{words}`"))
    }

    /// Waits until the client shows a message that the story looks for.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn message_where(
        &self,
        within: Duration,
        wanted: impl Fn(&Shown) -> bool,
    ) -> Result<Shown> {
        self.peer.wait_for("message", within, |event| shown(event).filter(&wanted)).await
    }

    /// All messages of others as they stand now: one that was decrypted late counts once.
    pub fn messages(&self) -> Vec<Shown> {
        let all = self.peer.events("message").into_iter();
        let latest: BTreeMap<_, _> = all
            .filter_map(|event| shown(&event))
            .enumerate()
            .map(|(position, message)| (message.event_id.clone(), (position, message)))
            .collect();
        let mut latest: Vec<_> = latest.into_values().collect();
        latest.sort_by_key(|(position, _)| *position);
        latest.into_iter().map(|(_, message)| message).collect()
    }

    /// Waits until somebody reports this status of a message (`com.beeper.message_send_status`); gives the report.
    ///
    /// # Errors
    /// When no such report comes.
    pub async fn status_from(&self, by: &str, event_id: &str, status: &str) -> Result<Value> {
        let is_it = |content: &Value| content.get("status").is_some_and(|found| found == status);
        self.report_from(by, event_id, is_it)
            .await
            .with_context(|| format!("no status {status} of {event_id}"))
    }

    /// Waits until somebody reports that a message has reached its reader.
    ///
    /// # Errors
    /// When no such report comes.
    pub async fn delivery_from(&self, by: &str, event_id: &str, reader: &str) -> Result<Value> {
        let readers = json!([reader]);
        let is_it = |content: &Value| content.get("delivered_to_users") == Some(&readers);
        self.report_from(by, event_id, is_it)
            .await
            .with_context(|| format!("no delivery of {event_id}"))
    }

    /// Whether the room is encrypted.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn sees_encryption(&self, room: &str) -> Result<bool> {
        let answer = self.peer.ask("is_encrypted", json!({ "room": room })).await?;
        Ok(answer.get("encrypted").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Waits until a room has some state; gives its content.
    ///
    /// # Errors
    /// When it does not get it.
    pub async fn sees_state(&self, room: &str, kind: &str, key: &str) -> Result<Value> {
        let found = |event: &Value| {
            let here = event.get("room")? == room;
            let fits = event.get("type")? == kind && event.get("key")? == key;
            (here && fits).then(|| event.get("content").cloned()).flatten()
        };
        let waited = self.peer.wait_for("state", SOON, found).await;
        waited.with_context(|| format!("no state `{kind}` of `{key}`"))
    }

    /// The devices of a user, and of each whether its owner has signed it.
    ///
    /// # Errors
    /// When the client could not ask.
    pub async fn devices_of(&self, user: &str) -> Result<BTreeMap<String, bool>> {
        let answer = self.peer.ask("trust", json!({ "user": user })).await?;
        let devices = answer.get("signed_by_owner").cloned().context("no devices")?;
        Ok(serde_json::from_value(devices)?)
    }

    /// Waits until a device of a user is known to be signed by its owner.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn sees_signed(&self, user: &str, device: &str) -> Result<()> {
        let is_signed = |devices: &BTreeMap<String, bool>| devices.get(device) == Some(&true);
        self.sees_devices(user, is_signed)
            .await
            .with_context(|| format!("no signature of {user} on {device}"))
    }

    /// Waits until the known devices of a user, each with whether its owner has signed it, are as the story wants them.
    ///
    /// # Errors
    /// When they do not become so.
    pub async fn sees_devices(
        &self,
        user: &str,
        wanted: impl Fn(&BTreeMap<String, bool>) -> bool,
    ) -> Result<()> {
        loop {
            let changes = self.peer.events("devices_changed").len();
            if wanted(&self.devices_of(user).await?) {
                return Ok(());
            }
            self.peer.wait_for_number("devices_changed", changes + 1, SOON).await?;
        }
    }

    /// Ends the client.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(self) -> Result<()> {
        self.peer.stop().await
    }

    async fn sees_membership(&self, room: &str, user: &str, membership: &str) -> Result<()> {
        let changed = |event: &Value| {
            let here = event.get("room")? == room && event.get("user")? == user;
            (here && event.get("membership")? == membership).then_some(())
        };
        self.peer.wait_for("membership", SOON, changed).await
    }

    async fn report_from(
        &self,
        by: &str,
        event_id: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let of = |event: &Value| {
            let content = event.get("content")?;
            let related = content.get("m.relates_to")?.get("event_id")?;
            let fits = related == event_id && event.get("sender")? == by && wanted(content);
            fits.then(|| content.clone())
        };
        self.peer.wait_for("status", SOON, of).await
    }

    async fn create_room(&self, command: Value) -> Result<String> {
        text(&self.peer.ask("create_room", command).await?, "room")
    }
}

fn invitation(event: &Value) -> Option<Invitation> {
    Some(Invitation { room: text(event, "room").ok()?, by: text(event, "by").ok()? })
}

fn shown(event: &Value) -> Option<Shown> {
    let optional = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
    let shield = match optional("shield").as_deref() {
        Some("NONE") => Some(Shield::None),
        Some("GREY") => Some(Shield::Grey),
        Some(_) => Some(Shield::Red),
        None => None,
    };
    Some(Shown {
        room: text(event, "room").ok()?,
        event_id: text(event, "event_id").ok()?,
        sender: text(event, "sender").ok()?,
        body: optional("body"),
        msgtype: optional("msgtype"),
        content: event.get("content").cloned().unwrap_or_default(),
        encrypted: event.get("encrypted")?.as_bool()?,
        failure: optional("failure"),
        shield,
        reason: optional("reason"),
    })
}
