//! Rooms that the bridge makes: for a contact who writes first, and on a person's word.

use std::time::Duration;

use ruma::{OwnedRoomId, RoomId, UserId};

use super::{Hub, StepError, room_state};
use crate::{
    namespace::AddressTooLong,
    network::RemoteUserId,
    store::{BotPresence, NewPortal, Portal, PortalState, RoomEncryption},
};

/// How long a room waits for the name of its contact.
const NAME_PATIENCE: Duration = Duration::from_secs(3);

/// Longest display name a contact may give themselves, in characters.
const LONGEST_NAME: usize = 100;

impl Hub {
    /// The portal of a chat; makes the encrypted room and invites the person if there is none, or
    /// if they have left it.
    pub(super) async fn ensure_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Result<Portal, AddressTooLong>, StepError> {
        let usable = |portal: &Portal| portal.state != PortalState::Closed;
        if let Some(portal) = self.find_portal(user, contact).await?.filter(usable) {
            return Ok(Ok(portal));
        }
        let ghost = match self.parts.namespace.ghost_of(contact) {
            Ok(ghost) => ghost,
            Err(too_long) => return Ok(Err(too_long)),
        };
        self.parts.devices.ensure_published(&ghost).await?;
        self.name_ghost(&ghost, contact).await;
        let portal = {
            let _one_at_a_time = self.making_portals.lock().await;
            match self.find_portal(user, contact).await? {
                Some(portal) if usable(&portal) => return Ok(Ok(portal)),
                closed => self.make_portal(user, contact, &ghost, closed).await?,
            }
        };
        self.publish_name_of(&portal).await;
        Ok(Ok(portal))
    }

    pub(super) async fn find_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Option<Portal>, StepError> {
        let mut tx = self.parts.db.read().await?;
        Ok(tx.portals().find_by_chat(self.parts.network.name(), user, contact).await?)
    }

    async fn make_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
        ghost: &UserId,
        closed: Option<Portal>,
    ) -> Result<Portal, StepError> {
        let (network, bot) = (self.parts.network.name(), self.parts.namespace.bot());
        let request = room_state::new_portal(network, contact, ghost, user, bot);
        let room = self.parts.client.create_room(ghost, request).await?;
        let portal = NewPortal {
            room_id: room.clone(),
            network: network.to_owned(),
            local: user.to_owned(),
            contact: contact.clone(),
            ghost: ghost.to_owned(),
            encryption: RoomEncryption::Encrypted,
            state: PortalState::Pending,
        };
        let portal = self.store_portal(portal, closed).await?;
        self.bring_bot(&portal).await?;
        Ok(portal)
    }

    /// Stores a new portal, or moves a chat from its old room to a new one.
    pub(super) async fn store_portal(
        &self,
        new: NewPortal,
        old: Option<Portal>,
    ) -> Result<Portal, StepError> {
        let mut tx = self.parts.db.begin().await?;
        match old {
            Some(old) => {
                tx.portals().replace_room(&old.room_id, &new.room_id, new.encryption).await?;
                tx.portals().set_state(&new.room_id, new.state).await?;
            }
            None => tx.portals().insert(&new).await?,
        }
        let stored = tx.portals().find_by_room(&new.room_id).await?;
        tx.commit().await?;
        stored.ok_or(StepError::Store(crate::store::StoreError::NoSuchRow { table: "portals" }))
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
        let about = room_state::about_portal(&portal.network, &portal.contact, &portal.ghost, bot);
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
    ) -> Result<Result<OwnedRoomId, AddressTooLong>, StepError> {
        let portal = match self.ensure_portal(user, contact).await? {
            Ok(portal) => portal,
            Err(too_long) => return Ok(Err(too_long)),
        };
        self.invite_again(&portal.ghost, &portal.room_id, user).await?;
        Ok(Ok(portal.room_id))
    }

    async fn invite_again(
        &self,
        ghost: &UserId,
        room: &RoomId,
        user: &UserId,
    ) -> Result<(), StepError> {
        Ok(self.parts.client.invite(ghost, room, user).await?)
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
