//! Keys that must be used once, as they went over the wire.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::evil_hs::EvilHomeserver;
use vodozemac::megolm::MegolmMessage;
use vodozemac::olm::OlmMessage;

/// How many keys were seen, and how many of them were used for a second thing.
#[derive(Debug)]
pub(super) struct KeysUsed {
    pub(super) keys: usize,
    pub(super) twice: usize,
}

impl KeysUsed {
    /// What the homeserver was given so far, and what was sent into a room.
    pub(super) fn seen(evil: &EvilHomeserver, room: &str) -> Result<Self> {
        let mut notes = Notes::default();
        notes.note_room_messages(evil, room)?;
        notes.note_requests(evil)?;
        Ok(Self { keys: notes.keys.len(), twice: notes.twice })
    }
}

#[derive(Default)]
struct Notes {
    keys: BTreeMap<String, Value>,
    twice: usize,
}

impl Notes {
    fn note(&mut self, key: String, used_for: &Value) {
        let before = self.keys.insert(key, used_for.clone());
        self.twice += usize::from(before.is_some_and(|before| before != *used_for));
    }

    /// Megolm messages by session and index.
    fn note_room_messages(&mut self, evil: &EvilHomeserver, room: &str) -> Result<()> {
        for sent in evil.sent_into(room) {
            let Some(session) = sent.session() else { continue };
            let ciphertext = sent.content.get("ciphertext").context("a ciphertext")?;
            let message = MegolmMessage::from_base64(ciphertext.as_str().unwrap_or_default())?;
            self.note(format!("megolm {session} {}", message.message_index()), ciphertext);
        }
        Ok(())
    }

    /// Olm messages by ratchet key and index, and one-time keys by their public half and by their id.
    fn note_requests(&mut self, evil: &EvilHomeserver) -> Result<()> {
        for request in evil.requests().read(<[_]>::to_vec) {
            let user = request.user.clone().unwrap_or_default();
            let keys = request.body.get("one_time_keys").and_then(Value::as_object);
            for (id, key) in
                keys.filter(|_| request.path.ends_with("/keys/upload")).into_iter().flatten()
            {
                let public = key.get("key").context("a one-time key")?;
                self.note(format!("one-time key {public}"), &json!([user, id]));
                let device = request.device.clone().unwrap_or_default();
                self.note(format!("id of a one-time key {user} {device} {id}"), public);
            }
            let messages = request.body.get("messages").and_then(Value::as_object);
            let devices = messages.into_iter().flatten().filter_map(|(_, all)| all.as_object());
            for (_, message) in devices.flatten() {
                let ciphertexts = message.get("ciphertext").and_then(Value::as_object);
                for (receiver, ciphertext) in ciphertexts.into_iter().flatten() {
                    self.note_olm_message(receiver, ciphertext)?;
                }
            }
        }
        Ok(())
    }

    fn note_olm_message(&mut self, receiver: &str, ciphertext: &Value) -> Result<()> {
        let parsed: OlmMessage = serde_json::from_value(ciphertext.clone())?;
        let message = match &parsed {
            OlmMessage::Normal(message) => message,
            OlmMessage::PreKey(message) => message.message(),
        };
        let (key, index) = (message.ratchet_key().to_base64(), message.chain_index());
        self.note(format!("olm {receiver} {key} {index}"), ciphertext);
        Ok(())
    }
}
