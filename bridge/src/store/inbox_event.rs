//! One event of the homeserver, as far as the inbox must understand it.
//!
//! <https://spec.matrix.org/v1.17/client-server-api/#room-event-format>

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::NewInboxEvent;

/// The keys that every event has.
#[derive(Deserialize)]
struct Envelope {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    r#type: String,
    #[serde(default)]
    state_key: Option<String>,
    origin_server_ts: i64,
    #[serde(rename = "content")]
    _content: Map<String, Value>,
}

impl NewInboxEvent {
    /// Reads an event for the inbox.
    ///
    /// What is stored is written anew from what was read: so a key that stands twice means the same to
    /// everyone who reads the row, and nothing nested deeper than the parser allows gets that far.
    ///
    /// # Errors
    /// [`MalformedEvent`], which says nothing of the content.
    pub fn parse(raw: &RawValue) -> Result<Self, MalformedEvent> {
        let event: Value = serde_json::from_str(raw.get()).map_err(|_| MalformedEvent::Json)?;
        let json = event.to_string();
        let envelope: Envelope = serde_json::from_value(event).map_err(|_| MalformedEvent::Keys)?;
        let Envelope { event_id, room_id, sender, r#type, state_key, origin_server_ts, .. } =
            envelope;
        let texts = [event_id.as_str(), room_id.as_str(), sender.as_str(), &r#type];
        // PostgreSQL cannot store the character, and no event of good faith has it here.
        if texts.into_iter().chain(state_key.as_deref()).any(|text| text.contains('\0')) {
            return Err(MalformedEvent::NulCharacter);
        }
        Ok(Self {
            event_id,
            room_id,
            sender,
            event_type: r#type,
            state_key,
            origin_ts: origin_server_ts,
            json,
        })
    }
}

/// An event that cannot be stored. The others that came with it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEvent {
    /// Not JSON, or nested too deep.
    #[error("not JSON of a bearable depth")]
    Json,
    /// Not an event.
    #[error("a key that every event has is missing or has the wrong type")]
    Keys,
    /// PostgreSQL could not store it.
    #[error("a NUL character in an id, the type or the state key")]
    NulCharacter,
}
