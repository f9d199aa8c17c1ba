//! Rooms that the bridge makes: for a contact who writes first, and on a person's word.

use std::time::Duration;

use ruma::{OwnedRoomId, UserId};
use serde_json::Value;

use super::{Hub, StepError, from_remote::chat_of, room_state, say::Wording};
use crate::{
    matrix::ClientError,
    namespace::AddressTooLong,
    network::RemoteUserId,
    store::{
        BotPresence, InboxEvent, Lane, NewPortal, Portal, PortalState, RoomEncryption, StoreError,
        Transaction,
    },
};

/// How long a room waits for the name of its contact.
const NAME_PATIENCE: Duration = Duration::from_secs(3);

/// Rows looked at in one go.
const BATCH: u32 = 500;

/// Longest display name a contact may give themselves, in characters.
const LONGEST_NAME: usize = 100;

/// What waited in a room when its chat moved to another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// Nothing.
    Nothing,
    /// Messages of the person, which are ended.
    Messages,
}

/// Why a chat has no room, for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    /// The ghost's id would be too long.
    #[error("the address is too long")]
    AddressTooLong(#[source] AddressTooLong),
    /// The homeserver knows no such user.
    #[error("there is no such user")]
    NoSuchUser,
    /// The homeserver does not let the ghost invite the person.
    #[error("the person could not be invited")]
    Refused(#[source] ClientError),
}

/// Whether a message of the contact can go there.
pub(super) fn is_usable(portal: &Portal) -> bool {
    match portal.state {
        PortalState::Pending | PortalState::Active => true,
        PortalState::Made | PortalState::Closed => false,
    }
}

impl Hub {
    /// The portal of a chat; makes the encrypted room and invites the person if there is none, or
    /// if they have left it. A room that was made and not ended is ended first.
    pub(super) async fn ensure_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Result<Portal, NoRoom>, StepError> {
        if let Some(portal) = self.find_portal(user, contact).await?.filter(is_usable) {
            return Ok(Ok(portal));
        }
        let ghost = match self.parts.namespace.ghost_of(contact) {
            Ok(ghost) => ghost,
            Err(too_long) => return Ok(Err(NoRoom::AddressTooLong(too_long))),
        };
        let bot = self.parts.namespace.bot();
        let is_local = user.server_name() == bot.server_name();
        if is_local && !self.parts.client.may_exist(bot, user).await? {
            return Ok(Err(NoRoom::NoSuchUser));
        }
        self.parts.devices.ensure_published(&ghost).await?;
        self.name_ghost(&ghost, contact).await;
        let made = async {
            let (portal, left) = match self.find_portal(user, contact).await? {
                Some(portal) if is_usable(&portal) => return Ok(Ok(portal)),
                Some(made) if made.state == PortalState::Made => (made, LeftBehind::Nothing),
                closed => self.make_room(user, contact, &ghost, closed).await?,
            };
            let opened = self.open_room(portal).await?;
            if let Ok(portal) = &opened {
                self.tell_left_behind(portal, left).await?;
                // Some may have waited for this room.
                self.chats.ring((chat_of(portal), Lane::Reports));
            }
            Ok(opened)
        };
        // Two makers of a portal for the same chat would make two rooms.
        self.making_portals.alone((user, contact), made).await
    }

    pub(super) async fn find_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Option<Portal>, StoreError> {
        let mut tx = self.parts.db.read().await?;
        tx.portals().find_by_chat(self.parts.network.name(), user, contact).await
    }

    async fn make_room(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
        ghost: &UserId,
        closed: Option<Portal>,
    ) -> Result<(Portal, LeftBehind), StepError> {
        let (network, bot) = (self.parts.network.name(), self.parts.namespace.bot());
        let request = room_state::new_portal(network, contact, ghost, bot);
        let room = self.parts.client.create_room(ghost, request).await?;
        let portal = NewPortal {
            room_id: room,
            network: network.to_owned(),
            local: user.to_owned(),
            contact: contact.clone(),
            ghost: ghost.to_owned(),
            encryption: RoomEncryption::Encrypted,
            state: PortalState::Made,
        };
        self.store_portal(portal, closed).await
    }

    /// Brings bot and person into a room that was made for them. One to which the person cannot
    /// be invited is given up.
    async fn open_room(&self, portal: Portal) -> Result<Result<Portal, NoRoom>, StepError> {
        if portal.bot == BotPresence::Absent {
            self.bring_bot(&portal).await?;
        }
        let (client, room) = (&self.parts.client, &portal.room_id);
        client.empower(&portal.ghost, room, &portal.local).await?;
        let invited = client.invite_to_chat(&portal.ghost, room, &portal.local).await;
        let refused = match invited {
            Ok(()) => None,
            Err(error) if error.is_temporary() => return Err(error.into()),
            Err(error) => Some(error),
        };
        let state = if refused.is_some() { PortalState::Closed } else { PortalState::Pending };
        let mut tx = self.parts.db.begin().await?;
        tx.portals().set_state(room, state).await?;
        let stored = tx.portals().find_by_room(room).await?;
        tx.commit().await?;
        if let Some(error) = refused {
            self.leave_room(&portal).await?;
            return Ok(Err(NoRoom::Refused(error)));
        }
        let portal = stored.ok_or(StoreError::NoSuchRow { table: "portals" })?;
        self.publish_name_of(&portal).await;
        Ok(Ok(portal))
    }

    /// Stores a new portal, or moves a chat from its old room to a new one. Says whether messages
    /// were left behind there.
    pub(super) async fn store_portal(
        &self,
        new: NewPortal,
        old: Option<Portal>,
    ) -> Result<(Portal, LeftBehind), StepError> {
        let mut tx = self.parts.db.begin().await?;
        let mut left_behind = LeftBehind::Nothing;
        match old {
            Some(old) => {
                left_behind = Self::end_messages_of(&mut tx, &old).await?;
                tx.portals().replace_room(&old.room_id, &new.room_id, new.encryption).await?;
                tx.portals().set_state(&new.room_id, new.state).await?;
            }
            None => tx.portals().insert(&new).await?,
        }
        let stored = tx.portals().find_by_room(&new.room_id).await?;
        tx.commit().await?;
        let stored = stored.ok_or(StoreError::NoSuchRow { table: "portals" })?;
        Ok((stored, left_behind))
    }

    pub(super) async fn tell_left_behind(
        &self,
        portal: &Portal,
        left: LeftBehind,
    ) -> Result<(), StepError> {
        match left {
            LeftBehind::Nothing => Ok(()),
            LeftBehind::Messages => {
                let text = "Messages that you wrote in our old room, and that waited there, were \
                    not delivered.";
                self.say(portal, Wording::Public, text).await
            }
        }
    }

    /// Ends what the person has written in a room that is not the chat's any more.
    async fn end_messages_of(tx: &mut Transaction, old: &Portal) -> Result<LeftBehind, StepError> {
        let mut left = LeftBehind::Nothing;
        let mut after = None;
        loop {
            let rows = tx.matrix_inbox().load_pending(&old.room_id, after, BATCH).await?;
            let Some(last) = rows.last() else { return Ok(left) };
            after = Some(last.id);
            let from_person =
                |row: &&InboxEvent| row.event.sender == old.local && row.event.state_key.is_none();
            for row in rows.iter().filter(from_person) {
                tx.matrix_inbox().mark_done(row.id).await?;
                left = LeftBehind::Messages;
            }
        }
    }

    /// Brings the bot into a portal, as a member that does not count.
    pub(super) async fn bring_bot(&self, portal: &Portal) -> Result<(), StepError> {
        let bot = self.parts.namespace.bot();
        self.parts.client.invite(&portal.ghost, &portal.room_id, bot).await?;
        self.parts.client.join(bot, &portal.room_id).await?;
        self.parts.devices.room_changed(&portal.room_id);
        let mut tx = self.parts.db.begin().await?;
        tx.portals().set_bot(&portal.room_id, BotPresence::Joined).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Says in the room's state what it is. A room in which the ghost may not set state stays
    /// without it.
    pub(super) async fn describe_room(&self, portal: &Portal) {
        let bot = self.parts.namespace.bot();
        let functional = self.functional_members(portal).await;
        let (network, contact) = (&portal.network, &portal.contact);
        let about = room_state::about_portal(network, contact, &portal.ghost, &functional, bot);
        for state in about {
            let sent = self
                .parts
                .client
                .send_state(&portal.ghost, &portal.room_id, state.kind, &state.key, &state.content)
                .await;
            if let Err(error) = sent {
                tracing::info!(error = %error, kind = state.kind, "portal.describe.refused");
            }
        }
    }

    /// Who does not count in a room already.
    async fn functional_members(&self, portal: &Portal) -> Vec<String> {
        let (ghost, room) = (&portal.ghost, &portal.room_id);
        let kind = room_state::FUNCTIONAL_MEMBERS;
        let content = self.parts.client.fetch_state_content(ghost, room, kind, "").await;
        let content = content.ok().flatten().unwrap_or_default();
        let members = content.get("service_members").and_then(Value::as_array);
        members.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Gives a ghost the name that its contact has chosen, or the address. Names are decoration:
    /// a failure is logged only.
    pub(super) async fn name_ghost(&self, ghost: &UserId, contact: &RemoteUserId) {
        let asked = self.parts.remote.contact_name(contact);
        let chosen = tokio::time::timeout(NAME_PATIENCE, asked).await.ok().flatten();
        let name = chosen
            .map(|name| printable_name(&name))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| contact.as_str().to_owned());
        if let Err(error) = self.parts.client.set_display_name(ghost, &name).await {
            tracing::info!(error = %error, "portal.ghost.name_refused");
        }
    }

    /// Tells the network how the Matrix user wants to be called.
    pub(super) async fn publish_name_of(&self, portal: &Portal) {
        match self.parts.client.fetch_display_name(&portal.ghost, &portal.local).await {
            Ok(Some(name)) => self.parts.remote.publish_name(&portal.local, &name).await,
            Ok(None) => {}
            Err(error) => tracing::info!(error = %error, "portal.name.not_found"),
        }
    }

    /// Opens the room of a chat for a person who asked for it.
    pub(super) async fn open(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Result<OwnedRoomId, NoRoom>, StepError> {
        let portal = match self.ensure_portal(user, contact).await? {
            Ok(portal) => portal,
            Err(none) => return Ok(Err(none)),
        };
        self.parts.client.invite_to_chat(&portal.ghost, &portal.room_id, user).await?;
        Ok(Ok(portal.room_id))
    }
}

/// A name without what could imitate other people or break lines: control and formatting
/// characters go, and it is cut at [`LONGEST_NAME`].
fn printable_name(name: &str) -> String {
    let is_formatting = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let cleaned: String = name.chars().filter(|&c| !is_formatting(c)).take(LONGEST_NAME).collect();
    cleaned.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_is_not_seen() {
        assert_eq!(printable_name("  Bob\n\u{202e}eciffO \u{200b}"), "BobeciffO");
        assert_eq!(printable_name(&"x".repeat(500)).len(), LONGEST_NAME);
    }
}
