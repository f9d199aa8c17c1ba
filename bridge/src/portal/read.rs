//! Matrix to XMPP, step 2: what an event says, and whether it is a command.

use ruma::UserId;
use serde_json::Value;

use super::Hub;
use crate::{
    commands,
    matrix::{DecryptError, Decrypted, SenderTrust},
    network::{IdentityTrust, LegSecurity},
    store::{InboxEvent, RoomEncryption},
};

/// A message that could be read.
pub(super) struct Message {
    pub event_type: String,
    pub content: Value,
    pub security: LegSecurity,
    pub trust: Option<SenderTrust>,
    /// The public master key behind it.
    pub identity: Option<String>,
    /// Whether its sender presents another identity than the pinned one now.
    pub new_identity_waits: bool,
}

impl Hub {
    /// Step 2: what the event says. `None` when it says nothing that could cross: plaintext in an
    /// encrypted room.
    pub(super) async fn read(
        &self,
        row: &InboxEvent,
        receiver: &UserId,
        encryption: RoomEncryption,
    ) -> Result<Option<Message>, DecryptError> {
        let event = &row.event;
        if event.event_type == "m.room.encrypted" {
            let bot = self.parts.namespace.bot();
            let second = (receiver != bot).then_some(bot);
            let decrypted =
                self.parts.devices.decrypt(receiver, second, &event.room_id, &event.json).await;
            match &decrypted {
                // Its time begins now, even if others before it wait too.
                Err(DecryptError::MissingRoomKey { .. }) => {
                    self.key_may_take(row);
                }
                Err(DecryptError::Device(_)) => {}
                _ => self.key_waits.end(&event.event_id),
            }
            return Ok(Some(message_of(decrypted?)));
        }
        if encryption == RoomEncryption::Encrypted {
            return Err(DecryptError::NotEncrypted);
        }
        Ok(plain_message(row))
    }
}

/// What an event says that came in the clear; `None` when it has no content or came encrypted.
pub(super) fn plain_message(row: &InboxEvent) -> Option<Message> {
    let event = &row.event;
    if event.event_type == "m.room.encrypted" {
        return None;
    }
    let mut parsed: Value = serde_json::from_str(&event.json).ok()?;
    Some(Message {
        event_type: event.event_type.clone(),
        content: parsed.get_mut("content")?.take(),
        security: LegSecurity::Plaintext,
        trust: None,
        identity: None,
        new_identity_waits: false,
    })
}

fn message_of(decrypted: Decrypted) -> Message {
    let identity = match decrypted.sender_trust {
        SenderTrust::Verified => IdentityTrust::Verified,
        SenderTrust::Pinned => IdentityTrust::Pinned,
        SenderTrust::Changed => IdentityTrust::Changed,
        SenderTrust::UnsignedDevice | SenderTrust::Outdated => IdentityTrust::Unknown,
    };
    Message {
        event_type: decrypted.event_type,
        content: decrypted.content,
        security: LegSecurity::Encrypted { identity },
        trust: Some(decrypted.sender_trust),
        identity: decrypted.identity,
        new_identity_waits: decrypted.new_identity_waits,
    }
}

/// The command in a message's content; an edit is none, whatever it replaces.
pub(super) fn command_in(content: &Value, in_portal: bool) -> Option<&str> {
    let is_text = content.get("msgtype").and_then(Value::as_str) == Some("m.text");
    let relation = content.get("m.relates_to").and_then(|relation| relation.get("rel_type"));
    let is_edit = content.get("m.new_content").is_some()
        || relation.and_then(Value::as_str) == Some("m.replace");
    let body = content.get("body").and_then(Value::as_str)?;
    if is_text && !is_edit { commands::parse(body, in_portal) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edit_or_an_emote_is_no_command() {
        let text = json!({"msgtype": "m.text", "body": "!xmpp approve"});
        assert_eq!(command_in(&text, true), Some("approve"));
        let edit = json!({"msgtype": "m.text", "body": "!xmpp approve",
            "m.new_content": {"msgtype": "m.text", "body": "!xmpp approve"}});
        assert_eq!(command_in(&edit, true), None);
        let edit = json!({"msgtype": "m.text", "body": "!xmpp approve",
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$e"}});
        assert_eq!(command_in(&edit, true), None);
        let answer = json!({"msgtype": "m.text", "body": "!xmpp approve",
            "m.relates_to": {"rel_type": "m.thread", "event_id": "$e"}});
        assert_eq!(command_in(&answer, true), Some("approve"));
        let emote = json!({"msgtype": "m.emote", "body": "!xmpp approve"});
        assert_eq!(command_in(&emote, true), None);
    }
}
