//! Who rings at the hub: intake, the machines and the other network.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio_util::task::TaskTracker;

use super::{Hub, verification::Verifier};
use crate::{
    appservice::Intake,
    matrix::{DeviceEvents, OutboxEvents},
    network::{Answer, Author, ChatKey, Inquiries, Inquiry, NoAnswer, RemoteEvents, RemoteUserId},
    queue::{Drain, Drained},
};

/// How long a message that the server has is not told as sent: it may be told as delivered, and one event is less for
/// everybody than two.
const RECEIPT_FOLLOWS: Duration = Duration::from_secs(1);

/// The doorbells of a hub that is built after those who ring. What rings before the hub is there
/// is in the store, and found by [`Hub::start`].
pub struct Doorbells {
    hub: OnceLock<Weak<Hub>>,
    tracker: TaskTracker,
}

impl Doorbells {
    /// Doorbells that reach nobody yet.
    pub fn new(tracker: TaskTracker) -> Arc<Self> {
        Arc::new(Self { hub: OnceLock::new(), tracker })
    }

    /// Connects the hub, once.
    pub fn connect(&self, hub: &Arc<Hub>) {
        // A second hub does not exist: there is one composition root.
        let _ = self.hub.set(Arc::downgrade(hub));
    }

    fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.get()?.upgrade()
    }

    /// What waits in chats of these people is looked at again. Each of a person's ghosts learns by itself that the
    /// person's devices have changed: however many ring during a look, one more follows.
    fn ring_people(&self, users: &[OwnedUserId]) {
        let Some(hub) = self.hub() else { return };
        users.iter().for_each(|user| hub.people.ring(user.clone()));
    }
}

#[async_trait]
impl Drain<OwnedUserId> for Hub {
    #[tracing::instrument(name = "portal.ring", skip_all)]
    async fn drain(&self, user: &OwnedUserId) -> Drained {
        match self.ring_all_of(user).await {
            Ok(()) => Drained::Empty,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.ring.failed");
                Drained::Failed
            }
        }
    }
}

#[async_trait]
impl Intake for Doorbells {
    async fn user_exists(&self, user: &UserId) -> bool {
        match self.hub() {
            Some(hub) => hub.ensure_user(user).await,
            None => false,
        }
    }

    fn events_committed(&self, rooms: &[OwnedRoomId]) {
        let Some(hub) = self.hub() else { return };
        rooms.iter().for_each(|room| hub.ring_room(room));
    }

    fn to_device_hint(&self, users: &[OwnedUserId]) {
        if let Some(hub) = self.hub() {
            hub.parts.devices.sync_soon(users);
        }
    }
}

impl DeviceEvents for Doorbells {
    fn keys_arrived(&self, room: &RoomId) {
        if let Some(hub) = self.hub() {
            hub.ring_room(room);
        }
    }

    fn device_lists_changed(&self, users: &[OwnedUserId]) {
        self.ring_people(users);
    }

    fn verifications_changed(&self, user: &UserId) {
        if let Some(hub) = self.hub() {
            hub.verifiers.ring(Verifier(user.to_owned()));
        }
    }
}

impl OutboxEvents for Doorbells {
    fn refused(&self, chat: &ChatKey) {
        if let Some(hub) = self.hub() {
            hub.ring_chat(chat);
        }
    }
}

impl RemoteEvents for Doorbells {
    fn committed(&self, chat: &ChatKey) {
        if let Some(hub) = self.hub() {
            hub.ring_chat(chat);
        }
    }

    fn accepted(&self, chat: &ChatKey) {
        let (hub, chat) = (self.hub.get().cloned(), chat.clone());
        self.tracker.spawn(async move {
            tokio::time::sleep(RECEIPT_FOLLOWS).await;
            if let Some(hub) = hub.and_then(|hub| hub.upgrade()) {
                hub.ring_reports(&chat);
            }
        });
    }

    fn unblocked(&self, chat: &ChatKey) {
        match &chat.local {
            Author::Person(user) => self.ring_people(std::slice::from_ref(user)),
            Author::Bridge => self.committed(chat),
        }
    }
}

#[async_trait]
impl Inquiries for Doorbells {
    async fn inquire(
        &self,
        contact: &RemoteUserId,
        inquiry: Inquiry,
        about: Option<&UserId>,
    ) -> Result<Answer, NoAnswer> {
        let hub = self.hub().ok_or(NoAnswer)?;
        hub.answer_inquiry(contact, inquiry, about).await.map_err(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.inquiry.failed");
            NoAnswer
        })
    }
}
