//! Invitations to ghosts and to the bot, and people who leave.

use ruma::{RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{Hub, StepError, create_room::LeftBehind, say::Wording};
use crate::{
    matrix::ClientError,
    network::RemoteUserId,
    queue::aside,
    store::{
        BotPresence, InboxEvent, ManagementRoom, NewInboxEvent, NewPortal, Portal, PortalState,
        RoomEncryption, StoreError,
    },
};

const WELCOME: &str = "Hello! I am the bridge. Write “chat name@example.org” to open an encrypted \
    chat with somebody, or “help” for all I can do.";

#[derive(Deserialize)]
struct MemberEvent {
    content: MemberContent,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

/// What a membership did to the open rows of its room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Nothing.
    AsTheyWere,
    /// There may be more of them, and they have other numbers.
    Renumbered,
}

/// What an invited ghost finds in its room.
struct Found {
    encryption: RoomEncryption,
    /// Only the inviter and users of ours are there.
    is_one_to_one: bool,
}

impl Hub {
    /// A membership changed. The row is not marked here.
    pub(super) async fn take_membership(
        &self,
        row: &InboxEvent,
        portal: Option<&Portal>,
    ) -> Result<Rows, StepError> {
        let (room, sender) = (&row.event.room_id, &row.event.sender);
        let Some(member) = member_of(row) else { return Ok(Rows::AsTheyWere) };
        let Ok(event) = serde_json::from_str::<MemberEvent>(&row.event.json) else {
            return Ok(Rows::AsTheyWere);
        };
        let namespace = &self.parts.namespace;
        match event.content.membership {
            MembershipState::Invite if member == namespace.bot() => {
                return self.accept_for_bot(row, sender, portal).await;
            }
            MembershipState::Invite if namespace.is_ours(&member) => {
                return self.accept_for_ghost(row, sender, &member, portal).await;
            }
            MembershipState::Join => self.person_joined(&member, portal).await?,
            MembershipState::Leave | MembershipState::Ban => {
                self.person_left(room, &member, portal).await?;
            }
            _ => {}
        }
        Ok(Rows::AsTheyWere)
    }

    async fn accept_for_bot(
        &self,
        row: &InboxEvent,
        inviter: &UserId,
        portal: Option<&Portal>,
    ) -> Result<Rows, StepError> {
        let (bot, room) = (self.parts.namespace.bot(), row.event.room_id.as_ref());
        if self.parts.namespace.is_ours(inviter) {
            // A ghost's invitation: whoever made the portal lets the bot join.
            return Ok(Rows::AsTheyWere);
        }
        if !self.may_use(inviter) {
            return self.refuse(bot, room, "not permitted").await;
        }
        if !joined(aside(self.parts.client.join(bot, room)).await)? {
            return Ok(Rows::AsTheyWere);
        }
        if portal.is_some() {
            let mut tx = self.parts.db.begin().await?;
            tx.portals().set_bot(room, BotPresence::Joined).await?;
            tx.commit().await?;
            return Ok(Rows::AsTheyWere);
        }
        let found = self.look_around(bot, room, inviter).await?;
        if !found.is_one_to_one {
            return self.refuse(bot, room, "more than one person").await;
        }
        let mut tx = self.parts.db.begin().await?;
        let management = ManagementRoom { room_id: room.to_owned(), user_id: inviter.to_owned() };
        tx.management_rooms().insert(&management).await?;
        tx.commit().await?;
        let rows = self.fill_in(row, bot).await?;
        self.answer((room, inviter), found.encryption, WELCOME).await?;
        Ok(rows)
    }

    async fn accept_for_ghost(
        &self,
        row: &InboxEvent,
        inviter: &UserId,
        ghost: &UserId,
        portal: Option<&Portal>,
    ) -> Result<Rows, StepError> {
        let room = row.event.room_id.as_ref();
        if self.parts.namespace.is_ours(inviter) {
            return Ok(Rows::AsTheyWere);
        }
        if portal.is_some_and(|portal| portal.ghost != ghost || portal.local != inviter)
            || self.is_management_room(room).await?
        {
            return self.refuse(ghost, room, "this room is another chat").await;
        }
        let Some(contact) = self.contact_of_ghost(ghost).filter(|_| self.may_use(inviter)) else {
            return self.refuse(ghost, room, "not permitted, or no valid address").await;
        };
        // Keys before membership: the first message may follow the invitation at once.
        self.parts.devices.ensure_published(ghost).await?;
        let old = self.find_portal(inviter, &contact).await?;
        if let Some(old) = old.as_ref().filter(|old| old.room_id != *room)
            && self.is_in_use(old, room).await?
        {
            self.refuse(ghost, room, "this chat has a room already").await?;
            let text = "This is our chat: I did not join a second one.";
            self.say(old, Wording::Private, text).await?;
            return Ok(Rows::AsTheyWere);
        }
        if !joined(aside(self.parts.client.join(ghost, room)).await)? {
            return Ok(Rows::AsTheyWere);
        }
        self.parts.devices.room_changed(room);
        let found = self.look_around(ghost, room, inviter).await?;
        if !found.is_one_to_one {
            return self.refuse(ghost, room, "rooms with several people are not supported").await;
        }
        if old.as_ref().is_some_and(|old| would_downgrade(old, room, found.encryption)) {
            return self.refuse(ghost, room, "the chat was encrypted, and this room is not").await;
        }
        self.make_portal_of(room, inviter, ghost, contact, found, old).await?;
        self.fill_in(row, ghost).await
    }

    /// Puts what was said between an invitation and the join into the inbox: the homeserver pushes
    /// only what happens while one of our users is in the room.
    async fn fill_in(&self, invitation: &InboxEvent, who: &UserId) -> Result<Rows, StepError> {
        let event = &invitation.event;
        let missed = match self.parts.client.fetch_since(who, &event.room_id, &event.event_id).await
        {
            Ok(missed) => missed,
            Err(error) if error.is_temporary() => return Err(error.into()),
            Err(error) => {
                tracing::info!(error = %error, "portal.history.refused");
                return Ok(Rows::AsTheyWere);
            }
        };
        let missed: Vec<_> =
            missed.iter().filter_map(|raw| NewInboxEvent::parse(raw).ok()).collect();
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_inbox().insert_history(invitation.id, &missed, self.now_ms()).await?;
        tx.commit().await?;
        Ok(Rows::Renumbered)
    }

    async fn make_portal_of(
        &self,
        room: &RoomId,
        inviter: &UserId,
        ghost: &UserId,
        contact: RemoteUserId,
        found: Found,
        old: Option<Portal>,
    ) -> Result<(), StepError> {
        let new = NewPortal {
            room_id: room.to_owned(),
            network: self.parts.network.name().to_owned(),
            local: inviter.to_owned(),
            contact,
            ghost: ghost.to_owned(),
            encryption: found.encryption,
            state: PortalState::Active,
        };
        let (portal, left) = match old {
            Some(same) if same.room_id == *room => {
                (self.reopen(room, new.encryption).await?, LeftBehind::Nothing)
            }
            old => self.store_portal(new, old).await?,
        };
        if let Err(error) = self.bring_bot(&portal).await {
            // In a room where ghosts may not invite, the person has to bring the bot.
            tracing::info!(error = %crate::error_chain(&error), "portal.bot.not_joined");
        }
        self.describe_room(&portal).await;
        self.name_ghost(ghost, &portal.contact).await;
        self.publish_name_of(&portal).await;
        self.tell_left_behind(&portal, left).await
    }

    /// The chat goes on in the room where it was: its ghost has come back.
    async fn reopen(&self, room: &RoomId, encryption: RoomEncryption) -> Result<Portal, StepError> {
        let mut tx = self.parts.db.begin().await?;
        tx.portals().set_state(room, PortalState::Active).await?;
        if encryption == RoomEncryption::Encrypted {
            // It may have become so while nobody of ours was there to be told.
            tx.portals().set_encrypted(room).await?;
        }
        let stored = tx.portals().find_by_room(room).await?;
        tx.commit().await?;
        Ok(stored.ok_or(StoreError::NoSuchRow { table: "portals" })?)
    }

    /// The contact behind a ghost, if its address is one that the network would write so.
    pub(super) fn contact_of_ghost(&self, ghost: &UserId) -> Option<RemoteUserId> {
        let contact = self.parts.namespace.contact_of(ghost)?;
        let canonical = self.parts.network.parse_contact(contact.as_str()).ok()?;
        (canonical == contact).then_some(contact)
    }

    async fn person_joined(
        &self,
        member: &UserId,
        portal: Option<&Portal>,
    ) -> Result<(), StepError> {
        let is_expected =
            |portal: &&Portal| portal.local == member && portal.state != PortalState::Closed;
        let Some(portal) = portal.filter(is_expected) else { return Ok(()) };
        let mut tx = self.parts.db.begin().await?;
        tx.portals().set_state(&portal.room_id, PortalState::Active).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn person_left(
        &self,
        room: &RoomId,
        member: &UserId,
        portal: Option<&Portal>,
    ) -> Result<(), StepError> {
        let bot = self.parts.namespace.bot();
        let mut tx = self.parts.db.begin().await?;
        let management = tx.management_rooms().find_by_room(room).await?;
        if management.is_some_and(|management| management.user_id == member) {
            tx.management_rooms().delete(room).await?;
            tx.commit().await?;
            self.refuse(bot, room, "nobody is left").await?;
            return Ok(());
        }
        if let Some(portal) = portal.filter(|_| member == bot) {
            tx.portals().set_bot(&portal.room_id, BotPresence::Absent).await?;
            return Ok(tx.commit().await?);
        }
        // A ghost that was put out cannot speak there any more: the chat needs another room.
        let ends = |portal: &&Portal| portal.local == member || portal.ghost == member;
        let Some(portal) = portal.filter(ends) else { return Ok(()) };
        tx.portals().set_state(room, PortalState::Closed).await?;
        tx.commit().await?;
        self.leave_room(portal).await
    }

    /// Bot and ghost leave a portal that has ended.
    pub(super) async fn leave_room(&self, portal: &Portal) -> Result<(), StepError> {
        self.refuse(self.parts.namespace.bot(), &portal.room_id, "nobody is left").await?;
        self.refuse(&portal.ghost, &portal.room_id, "nobody is left").await?;
        Ok(())
    }

    async fn is_management_room(&self, room: &RoomId) -> Result<bool, StepError> {
        let mut tx = self.parts.db.read().await?;
        Ok(tx.management_rooms().find_by_room(room).await?.is_some())
    }

    /// Whether the person of a portal is still in its room, or may still join it. A room that was
    /// replaced by `another` (`m.room.tombstone`) is not in use any more.
    async fn is_in_use(&self, portal: &Portal, another: &RoomId) -> Result<bool, StepError> {
        if portal.state == PortalState::Closed {
            return Ok(false);
        }
        let (client, ghost, room) = (&self.parts.client, &portal.ghost, &portal.room_id);
        match client.fetch_state_content(ghost, room, "m.room.tombstone", "").await {
            Ok(Some(tombstone))
                if tombstone
                    .get("replacement_room")
                    .is_some_and(|room| room == another.as_str()) =>
            {
                return Ok(false);
            }
            Err(error) if error.is_temporary() => return Err(error.into()),
            _ => {}
        }
        match self.parts.client.fetch_members(&portal.ghost, &portal.room_id).await {
            Ok(members) => {
                Ok(members.joined.contains(&portal.local)
                    || members.invited.contains(&portal.local))
            }
            Err(error) if error.is_temporary() => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    async fn look_around(
        &self,
        who: &UserId,
        room: &RoomId,
        inviter: &UserId,
    ) -> Result<Found, StepError> {
        let client = &self.parts.client;
        let members = client.fetch_members(who, room).await?;
        let others = members.joined.iter().chain(&members.invited);
        let is_one_to_one =
            others.into_iter().all(|user| user == inviter || self.parts.namespace.is_ours(user));
        let encryption =
            match client.fetch_state_content(who, room, "m.room.encryption", "").await? {
                Some(_) => RoomEncryption::Encrypted,
                None => RoomEncryption::Plain,
            };
        Ok(Found { encryption, is_one_to_one })
    }

    /// Leaves a room or refuses an invitation; that it is gone already is as good. The homeserver asks the inviter's
    /// about it, as with a join, and that one takes as long as it likes.
    async fn refuse(&self, who: &UserId, room: &RoomId, reason: &str) -> Result<Rows, StepError> {
        tracing::info!(reason, "portal.leave");
        match aside(self.parts.client.leave(who, room)).await {
            Err(error) if error.is_temporary() => Err(error.into()),
            _ => Ok(Rows::AsTheyWere),
        }
    }
}

/// Whether a chat that was encrypted would move into a room that is not. A homeserver can make
/// the leave and the invitation that lead there, so it does not happen.
fn would_downgrade(old: &Portal, room: &RoomId, found: RoomEncryption) -> bool {
    old.room_id != *room
        && old.encryption == RoomEncryption::Encrypted
        && found == RoomEncryption::Plain
}

/// Whose membership an event is about.
fn member_of(row: &InboxEvent) -> Option<ruma::OwnedUserId> {
    row.event.state_key.as_deref()?.try_into().ok()
}

/// Whether a join succeeded; an invitation that was taken back is no error.
fn joined(result: Result<(), ClientError>) -> Result<bool, StepError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_temporary() => Err(error.into()),
        Err(error) => {
            tracing::info!(error = %error, "portal.join.refused");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, room_id};

    use super::*;
    use crate::store::testing;

    #[test]
    fn an_encrypted_chat_does_not_move_into_a_plain_room() {
        let old = |encryption| Portal {
            room_id: owned_room_id!("!old:example.org"),
            ..testing::portal(encryption)
        };
        let (encrypted, plain) = (RoomEncryption::Encrypted, RoomEncryption::Plain);
        let (room, same) = (room_id!("!new:example.org"), room_id!("!old:example.org"));
        assert!(would_downgrade(&old(encrypted), room, plain));
        assert!(!would_downgrade(&old(encrypted), same, plain), "it stays what it is");
        assert!(!would_downgrade(&old(encrypted), room, encrypted));
        assert!(!would_downgrade(&old(plain), room, plain));
    }
}
