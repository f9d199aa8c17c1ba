//! The room that the bridge makes for a conversation, and the state that tells clients what it
//! is. Pure.

use ruma::{
    UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::AnyInitialStateEvent,
    serde::Raw,
};
use serde_json::{Value, json};

use crate::network::RemoteUserId;

/// Users that do not count when a client decides whether a room is a direct chat.
pub const FUNCTIONAL_MEMBERS: &str = "io.element.functional_members";

/// One event of a room's state.
pub struct State {
    /// Event type.
    pub kind: &'static str,
    /// State key.
    pub key: String,
    /// Content.
    pub content: Value,
}

/// What every portal says of itself: MSC2346 in both spellings, and that the bot is no party, like
/// those of whom that was said before.
pub fn about_portal(
    network: &str,
    contact: &RemoteUserId,
    ghost: &UserId,
    functional: &[String],
    bot: &UserId,
) -> Vec<State> {
    let mut members: Vec<&str> = functional.iter().map(String::as_str).collect();
    if !members.contains(&bot.as_str()) {
        members.push(bot.as_str());
    }
    let key = format!("dev.gephyra://{network}/{}", contact.as_str());
    let bridge = json!({
        "bridgebot": bot,
        "creator": ghost,
        "protocol": { "id": network, "displayname": network.to_uppercase() },
        "channel": { "id": contact.as_str(), "external_url": format!("{network}:{}", contact.as_str()) },
    });
    vec![
        State { kind: "m.bridge", key: key.clone(), content: bridge.clone() },
        State { kind: "uk.half-shot.bridge", key, content: bridge },
        State {
            kind: FUNCTIONAL_MEMBERS,
            key: String::new(),
            content: json!({ "service_members": members }),
        },
    ]
}

/// An encrypted room of a ghost. Nobody is invited with it: an invitation that fails would leave a
/// room that nobody knows.
pub fn new_portal(network: &str, contact: &RemoteUserId, ghost: &UserId, bot: &UserId) -> Request {
    let mut state = about_portal(network, contact, ghost, &[], bot);
    state.push(State {
        kind: "m.room.encryption",
        key: String::new(),
        content: json!({ "algorithm": "m.megolm.v1.aes-sha2" }),
    });
    let mut request = Request::new();
    request.preset = Some(RoomPreset::TrustedPrivateChat);
    request.is_direct = true;
    request.initial_state = state.into_iter().filter_map(initial_state).collect();
    request
}

fn initial_state(state: State) -> Option<Raw<AnyInitialStateEvent>> {
    let event = json!({ "type": state.kind, "state_key": state.key, "content": state.content });
    Raw::new(&event).ok().map(Raw::cast_unchecked)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_new_portal_is_encrypted_from_its_first_event() {
        let request = new_portal(
            "xmpp",
            &RemoteUserId::new("bob@example.net"),
            user_id!("@xmpp_bob=40example.net:example.org"),
            user_id!("@gephyra:example.org"),
        );
        insta::assert_json_snapshot!(request.initial_state);
        assert!(request.is_direct);
    }

    #[test]
    fn other_functional_members_stay() {
        let functional = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(|&user| user.to_owned()).collect();
            let (bob, bot) = (RemoteUserId::new("bob@example.net"), user_id!("@gephyra:a.example"));
            let state = about_portal("xmpp", &bob, user_id!("@bob:a.example"), &known, bot);
            state.into_iter().find(|state| state.kind == FUNCTIONAL_MEMBERS).unwrap().content
        };
        let both = json!({ "service_members": ["@helper:a.example", "@gephyra:a.example"] });
        assert_eq!(functional(&["@helper:a.example"]), both);
        assert_eq!(functional(&["@helper:a.example", "@gephyra:a.example"]), both);
    }
}
