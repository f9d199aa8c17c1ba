//! What a Matrix message says, and how a contact's message is written in Matrix. Pure.

use ruma::events::room::message::{MessageType, RoomMessageEventContent};
use serde_json::{Map, Value, json};

use crate::network::{LegSecurity, MessageContent};

/// Stands before the text of a message that came unencrypted where encryption is expected.
pub const PLAINTEXT_MARK: &str = "⚠️ not encrypted by the sender: ";

/// A message that this version does not carry; the text is for its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCarried(pub &'static str);

/// What clients show as said by somebody, though it is no `m.room.message`: nothing of it is carried.
const NOT_CARRIED: [(&str, NotCarried); 3] = [
    ("m.sticker", NotCarried("stickers")),
    ("m.poll.start", NotCarried("polls")),
    ("org.matrix.msc3381.poll.start", NotCarried("polls")),
];

/// Whether an event of this type is something that its sender says, and expects to arrive.
pub fn is_said(event_type: &str) -> bool {
    event_type == "m.room.message" || NOT_CARRIED.iter().any(|(name, _)| *name == event_type)
}

/// Reads an event that [`is_said`].
///
/// # Errors
/// [`NotCarried`] names what the bridge does not carry.
pub fn read(event_type: &str, content: &Value) -> Result<MessageContent, NotCarried> {
    match NOT_CARRIED.iter().find(|(name, _)| *name == event_type) {
        Some((_, what)) => Err(*what),
        None => from_matrix(content),
    }
}

/// Reads the content of an `m.room.message`.
///
/// # Errors
/// [`NotCarried`] names what the bridge does not carry.
pub fn from_matrix(content: &Value) -> Result<MessageContent, NotCarried> {
    let relation = content.get("m.relates_to").and_then(|relation| relation.get("rel_type"));
    if relation.and_then(Value::as_str) == Some("m.replace") {
        return Err(NotCarried("edits"));
    }
    let content: RoomMessageEventContent =
        serde_json::from_value(content.clone()).map_err(|_| NotCarried("malformed messages"))?;
    match content.msgtype {
        MessageType::Text(text) => Ok(MessageContent::Text { body: text.body }),
        MessageType::Notice(notice) => Ok(MessageContent::Text { body: notice.body }),
        MessageType::Emote(emote) => Ok(MessageContent::Emote { body: emote.body }),
        _ => Err(NotCarried("files, media and other special messages")),
    }
}

/// Writes a contact's message as the content of an `m.room.message`.
///
/// `marked` puts [`PLAINTEXT_MARK`] before what came in the clear.
pub fn to_matrix(
    content: &MessageContent,
    security: LegSecurity,
    marked: bool,
) -> Map<String, Value> {
    let (msgtype, body) = match content {
        MessageContent::Text { body } => ("m.text", body),
        MessageContent::Emote { body } => ("m.emote", body),
    };
    let mark = if marked && security == LegSecurity::Plaintext { PLAINTEXT_MARK } else { "" };
    let mut written = Map::new();
    written.insert("msgtype".to_owned(), json!(msgtype));
    written.insert("body".to_owned(), json!(format!("{mark}{body}")));
    written.insert("m.mentions".to_owned(), json!({}));
    written
}

/// A notice of the bridge itself.
pub fn notice(text: &str) -> Map<String, Value> {
    let mut written = Map::new();
    written.insert("msgtype".to_owned(), json!("m.notice"));
    written.insert("body".to_owned(), json!(text));
    written.insert("m.mentions".to_owned(), json!({}));
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::IdentityTrust;

    const PINNED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };

    fn text(body: &str) -> MessageContent {
        MessageContent::Text { body: body.to_owned() }
    }

    #[test]
    fn plain_messages_are_marked_only_where_encryption_is_expected() {
        insta::assert_json_snapshot!([
            to_matrix(&text("hi"), PINNED, true),
            to_matrix(&text("hi"), LegSecurity::Plaintext, true),
            to_matrix(&text("hi"), LegSecurity::Plaintext, false),
            to_matrix(&MessageContent::Emote { body: "waves".into() }, PINNED, true),
        ]);
    }

    #[test]
    fn what_is_said_is_read_or_named_and_all_else_is_not_said() {
        let hi = json!({"msgtype": "m.text", "body": "hi"});
        assert!(read("m.room.message", &hi) == Ok(text("hi")));
        for (event_type, what) in [
            ("m.sticker", "stickers"),
            ("m.poll.start", "polls"),
            ("org.matrix.msc3381.poll.start", "polls"),
        ] {
            assert!(is_said(event_type) && read(event_type, &hi) == Err(NotCarried(what)));
        }
        for event_type in ["m.reaction", "m.room.redaction", "m.poll.response", "m.call.invite"] {
            assert!(!is_said(event_type), "{event_type}");
        }
    }

    #[test]
    fn what_is_not_carried_is_named() {
        let edit = json!({"msgtype": "m.text", "body": "* b", "m.new_content": {"msgtype": "m.text",
            "body": "b"}, "m.relates_to": {"rel_type": "m.replace", "event_id": "$a"}});
        assert!(from_matrix(&edit) == Err(NotCarried("edits")));
        let without_new_content = json!({"msgtype": "m.text", "body": "* b",
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$a"}});
        assert!(from_matrix(&without_new_content) == Err(NotCarried("edits")));
        let image = json!({"msgtype": "m.image", "body": "a.png", "url": "mxc://a/b"});
        assert!(from_matrix(&image).is_err());
        assert!(from_matrix(&json!({"body": 1})) == Err(NotCarried("malformed messages")));
        assert!(from_matrix(&json!({"msgtype": "m.text", "body": "hi"})) == Ok(text("hi")));
    }
}
