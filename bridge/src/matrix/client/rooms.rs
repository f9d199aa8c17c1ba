//! Rooms: making them, membership, state and events.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#rooms>

use std::collections::BTreeSet;

use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, TransactionId,
    UserId,
    api::client::{
        membership::{get_member_events, invite_user, join_room_by_id, joined_members, leave_room},
        message::{get_message_events, send_message_event},
        room::create_room,
        state::{get_state_event_for_key, get_state_events, send_state_event},
    },
    events::{MessageLikeEventType, StateEventType, room::member::MembershipState},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{ClientError, Identity, MatrixClient, Repeat};

/// The power level of a room's maker, where makers have one.
const FULL_POWER: u8 = 100;

/// Events that are asked for at a time.
const HISTORY_PAGE: u16 = 100;

/// How often is asked for older events.
const HISTORY_PAGES: u8 = 10;

/// Who is in a room, and who may be.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Joined.
    pub joined: BTreeSet<OwnedUserId>,
    /// Invited.
    pub invited: BTreeSet<OwnedUserId>,
}

impl Members {
    /// As the state of a room tells.
    pub fn of(state: &[StateEvent]) -> Self {
        let mut members = Self::default();
        for event in state.iter().filter(|event| event.event_type == "m.room.member") {
            let Ok(user) = OwnedUserId::try_from(event.state_key.as_str()) else { continue };
            match event.content.get("membership").and_then(Value::as_str) {
                Some("join") => members.joined.insert(user),
                Some("invite") => members.invited.insert(user),
                _ => continue,
            };
        }
        members
    }
}

/// A state event, as far as the bridge reads it.
#[derive(Clone, Deserialize)]
pub struct StateEvent {
    /// Event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// Content.
    pub content: Value,
}

impl MatrixClient {
    /// Makes a room. Never repeated when its outcome is unknown.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_room(
        &self,
        who: &UserId,
        request: create_room::v3::Request,
    ) -> Result<OwnedRoomId, ClientError> {
        let response = self.send(Some(Identity::user(who)), Repeat::Unsafe, request).await?;
        Ok(response.room_id)
    }

    /// Invites `user`. Succeeds when they are in the room or invited already.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn invite(
        &self,
        who: &UserId,
        room: &RoomId,
        user: &UserId,
    ) -> Result<(), ClientError> {
        let recipient = invite_user::v3::InviteUserId::new(user.to_owned()).into();
        let request = invite_user::v3::Request::new(room.to_owned(), recipient);
        let result = self.send(Some(Identity::user(who)), Repeat::Safe, request).await;
        self.unless_there(who, room, user, result.map(drop)).await
    }

    /// As [`Self::invite`], and says that the room is a chat of the two, as `is_direct` does for
    /// those who are invited while a room is made.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn invite_to_chat(
        &self,
        who: &UserId,
        room: &RoomId,
        user: &UserId,
    ) -> Result<(), ClientError> {
        let content = json!({ "membership": "invite", "is_direct": true });
        let result = self.send_state(who, room, "m.room.member", user.as_str(), &content).await;
        self.unless_there(who, room, user, result.map(drop)).await
    }

    /// A refused invitation of somebody who is in the room, or invited, is no failure.
    async fn unless_there(
        &self,
        who: &UserId,
        room: &RoomId,
        user: &UserId,
        result: Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        match result {
            Err(error) if error.errcode() == Some("M_FORBIDDEN") => {
                let members = self.fetch_members(who, room).await?;
                let there = members.joined.contains(user) || members.invited.contains(user);
                if there { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }

    /// Lets `user` do in a room what its maker may.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn empower(
        &self,
        who: &UserId,
        room: &RoomId,
        user: &UserId,
    ) -> Result<(), ClientError> {
        let levels = self.fetch_state_content(who, room, "m.room.power_levels", "").await?;
        let Some(Value::Object(mut levels)) = levels else { return Err(ClientError::Malformed) };
        let users = levels.entry("users").or_insert_with(|| json!({}));
        let Value::Object(users) = users else { return Err(ClientError::Malformed) };
        if users.insert(user.to_string(), json!(FULL_POWER)) == Some(json!(FULL_POWER)) {
            return Ok(());
        }
        self.send_state(who, room, "m.room.power_levels", "", &Value::Object(levels)).await?;
        Ok(())
    }

    /// Joins a room that `who` was invited to, or is in.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn join(&self, who: &UserId, room: &RoomId) -> Result<(), ClientError> {
        let request = join_room_by_id::v3::Request::new(room.to_owned());
        self.send(Some(Identity::user(who)), Repeat::Safe, request).await.map(drop)
    }

    /// Leaves a room, or refuses an invitation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leave(&self, who: &UserId, room: &RoomId) -> Result<(), ClientError> {
        let request = leave_room::v3::Request::new(room.to_owned());
        self.send(Some(Identity::user(who)), Repeat::Safe, request).await.map(drop)
    }

    /// Sends an event. `txn` is unique over the whole appservice and the same at every retry.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send_message_event(
        &self,
        who: Identity<'_>,
        room: &RoomId,
        event_type: &str,
        txn: &TransactionId,
        content: &RawValue,
    ) -> Result<OwnedEventId, ClientError> {
        let request = send_message_event::v3::Request::new_raw(
            room.to_owned(),
            OwnedTransactionId::from(txn),
            MessageLikeEventType::from(event_type),
            Raw::from_json(content.to_owned()),
        );
        Ok(self.send(Some(who), Repeat::Safe, request).await?.event_id)
    }

    /// What was said and done in a room since `event`, oldest first; a thousand events at most.
    /// Empty when `who` does not see `event` within them: what is older was not meant for them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_since(
        &self,
        who: &UserId,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<Box<RawValue>>, ClientError> {
        let mut newest_first = Vec::new();
        let mut from = None;
        for _ in 0..HISTORY_PAGES {
            let mut request = get_message_events::v3::Request::backward(room.to_owned());
            request.limit = HISTORY_PAGE.into();
            request.from = from;
            let page = self.send(Some(Identity::user(who)), Repeat::Safe, request).await?;
            for raw in page.chunk {
                let id = raw.get_field::<OwnedEventId>("event_id").ok().flatten();
                if id.is_some_and(|id| id == event) {
                    newest_first.reverse();
                    return Ok(newest_first);
                }
                newest_first.push(raw.into_json());
            }
            from = page.end;
            if from.is_none() {
                break;
            }
        }
        Ok(Vec::new())
    }

    /// Sets state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send_state(
        &self,
        who: &UserId,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<OwnedEventId, ClientError> {
        let content = Raw::new(content).map_err(|_| ClientError::Malformed)?;
        let request = send_state_event::v3::Request::new_raw(
            room.to_owned(),
            StateEventType::from(event_type),
            state_key.to_owned(),
            content.cast_unchecked(),
        );
        Ok(self.send(Some(Identity::user(who)), Repeat::Safe, request).await?.event_id)
    }

    /// The content of one state event; `None` when it was never set.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_state_content(
        &self,
        who: &UserId,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Value>, ClientError> {
        let request = get_state_event_for_key::v3::Request::new(
            room.to_owned(),
            StateEventType::from(event_type),
            state_key.to_owned(),
        );
        match self.send(Some(Identity::user(who)), Repeat::Safe, request).await {
            Ok(response) => serde_json::from_str(response.event_or_content.get())
                .map(Some)
                .map_err(|_| ClientError::Malformed),
            Err(error) if error.errcode() == Some("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The state of a room, as far as it is of these types. Events that are not well-formed are left out. To who has left
    /// the room it is shown as it was then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_state(
        &self,
        who: &UserId,
        room: &RoomId,
        types: &[&str],
    ) -> Result<Vec<StateEvent>, ClientError> {
        let request = get_state_events::v3::Request::new(room.to_owned());
        let response = self.send(Some(Identity::user(who)), Repeat::Safe, request).await?;
        let is_wanted = |raw: &Raw<_>| {
            let event_type = raw.get_field::<String>("type").ok().flatten();
            event_type.is_some_and(|found| types.contains(&found.as_str()))
        };
        let parse = |raw: Raw<_>| serde_json::from_str(raw.json().get()).ok();
        Ok(response.room_state.into_iter().filter(is_wanted).filter_map(parse).collect())
    }

    /// Who is joined and who is invited.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_members(&self, who: &UserId, room: &RoomId) -> Result<Members, ClientError> {
        let who = Identity::user(who);
        let request = joined_members::v3::Request::new(room.to_owned());
        let joined = self.send(Some(who), Repeat::Safe, request).await?.joined;
        let mut request = get_member_events::v3::Request::new(room.to_owned());
        request.membership = Some(MembershipState::Invite);
        let invited = self.send(Some(who), Repeat::Safe, request).await?.chunk;
        let state_key = |raw: &Raw<_>| raw.get_field::<OwnedUserId>("state_key").ok().flatten();
        Ok(Members {
            joined: joined.into_keys().collect(),
            invited: invited.iter().filter_map(state_key).collect(),
        })
    }
}
