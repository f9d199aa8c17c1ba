//! What is done where a message cannot be understood: its session is replaced, or its author's client is told of our
//! device. Each at most once in a while, and never more at a time than has room.

use e2ee::omemo::{DecryptError, DeviceId, EncryptedElement, IdentityKey, Namespace};

use super::{
    core::{AccountError, Core, SLOTS},
    encrypt::load_sessions,
    trust::hold_for,
};
use crate::{
    error_chain,
    network::{ChatKey, RemoteEvent, RemoteEventKind},
    store::{DevicePin, Remedy, StoreError, Transaction},
};

/// A broken session with a device is replaced at most this often.
const HEAL_EVERY_MS: i64 = 60 * 60 * 1000;

/// Sessions with the devices of one contact that are being replaced at the same time. Whoever makes up devices keeps no
/// more busy; what is left out is tried with the next message that cannot be understood.
const HEALS_OF_CHAT: usize = 4;
/// With those of all contacts on one server.
const HEALS_OF_SERVER: usize = SLOTS;
/// In all.
const HEALS: usize = 16 * HEALS_OF_SERVER;

/// A session that is to be replaced.
pub(super) type Broken = (ChatKey, DeviceId, Namespace);

impl Core {
    /// What is to be done about a message that could not be decrypted, if that is due. An announcement is remembered
    /// with this transaction, a new session when it is there.
    pub(super) async fn take_remedy(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        element: &EncryptedElement,
        error: &DecryptError,
    ) -> Result<Option<Remedy>, AccountError> {
        let (device, namespace) = (element.sender(), element.namespace());
        let heals = matches!(
            error,
            DecryptError::NoSession
                | DecryptError::NotForUs
                | DecryptError::UnknownPrekey
                | DecryptError::Authentication
                | DecryptError::TooManySkipped
        );
        let pin = tx.xmpp_omemo().find_pin(chat, device).await?;
        let is_known = pin.is_some() || is_listed(tx, chat, device, namespace).await?;
        if !heals || !is_known {
            return Ok(None);
        }
        let now_ms = self.now_ms();
        let times = (now_ms, now_ms.saturating_sub(HEAL_EVERY_MS));
        let mut omemo = tx.xmpp_omemo();
        let (remedy, is_due) = if *error == DecryptError::NotForUs {
            let remedy = Remedy::Announcement;
            (remedy, omemo.use_remedy(chat, device, remedy, times).await?)
        } else if pin.is_none_or(|pin| pin.may_read()) {
            let remedy = Remedy::NewSession(namespace);
            (remedy, omemo.is_remedy_due(chat, device, remedy, times.1).await?)
        } else {
            return Ok(None);
        };
        Ok(is_due.then_some(remedy))
    }

    /// Replaces a session, beside everything else, if there is room.
    pub(super) fn begin_heal(&self, broken: Broken) {
        if self.may_heal(&broken) {
            self.spawn(|core| async move {
                let (chat, device, namespace) = &broken;
                core.heal(chat, *device, *namespace).await;
                core.healing().remove(&broken);
            });
        }
    }

    /// Whether nobody replaces this session yet, and there is room: then the caller does.
    pub(super) fn may_heal(&self, broken: &Broken) -> bool {
        let server = |chat: &ChatKey| chat.contact.as_str().rsplit('@').next().map(str::to_owned);
        let mut healing = self.healing();
        let of_chat = healing.iter().filter(|other| other.0 == broken.0).count();
        let of_server =
            healing.iter().filter(|other| server(&other.0) == server(&broken.0)).count();
        of_chat < HEALS_OF_CHAT
            && of_server < HEALS_OF_SERVER
            && healing.len() < HEALS
            && healing.insert(broken.clone())
    }

    /// Replaces the session with a device that cannot be understood any more: a new one, told by
    /// an empty message. In a commit of its own, which remembers it too: where there is no bundle it is tried with the
    /// next message that cannot be understood.
    async fn heal(&self, chat: &ChatKey, device: DeviceId, namespace: Namespace) {
        let Ok((own, _)) = self.jids(chat) else { return };
        self.seen.bundles_may_be_new(chat);
        let fetched = self.fetch_bundles(chat, namespace, vec![device]).await;
        let Some(bundle) = fetched.ok().and_then(|mut bundles| bundles.remove(&device)) else {
            tracing::info!("xmpp.decrypt: a session is not replaced: its device has no bundle");
            return;
        };
        let healed = async {
            let now_ms = self.now_ms();
            let times = (now_ms, now_ms.saturating_sub(HEAL_EVERY_MS));
            let mut tx = self.db.begin().await?;
            let remedy = Remedy::NewSession(namespace);
            if !tx.xmpp_omemo().is_remedy_due(chat, device, remedy, times.1).await? {
                return Ok((false, false));
            }
            let is_news = self.tell_presented(&mut tx, chat, device, bundle.identity()).await?;
            let mut sessions = load_sessions(&mut tx, chat, device, namespace).await?;
            if let Some(sessions) = &mut sessions {
                sessions.retire_current();
            }
            let to = (device, namespace);
            let is_sent = self.send_empty(&mut tx, chat, &own, to, sessions, Some(bundle)).await?;
            // Committed with the message, or not at all.
            if is_sent && !tx.xmpp_omemo().use_remedy(chat, device, remedy, times).await? {
                return Ok((false, false));
            }
            tx.commit().await?;
            Ok::<_, AccountError>((is_sent, is_news))
        };
        match healed.await {
            Ok((is_sent, is_news)) => {
                tracing::info!(is_sent, "xmpp.decrypt: a session is replaced");
                self.outbox_bell.notify_one();
                if is_news {
                    self.events.committed(chat);
                }
            }
            Err(error) => tracing::error!(
                error = error_chain(&error),
                "xmpp.decrypt: a session was not healed"
            ),
        }
    }

    /// A device that cannot be understood may have come back with another identity: that is told, and a session with it
    /// waits for a word. Returns whether there is something to tell.
    async fn tell_presented(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        device: DeviceId,
        identity: IdentityKey,
    ) -> Result<bool, StoreError> {
        let is_news = self.take_presented(tx, chat, device, identity).await?;
        let pins = tx.xmpp_omemo().load_pins(chat).await?;
        let is_of_it = |pin: &DevicePin| pin.device == device && pin.waiting_change().is_some();
        if is_news && pins.iter().any(is_of_it) {
            let kind = RemoteEventKind::Held(hold_for(&pins, device));
            let event = RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind };
            tx.remote_inbox().insert(&event).await?;
        }
        Ok(is_news)
    }
}

/// Whether a device is one that the contact has listed. Anybody can make up others.
async fn is_listed(
    tx: &mut Transaction,
    chat: &ChatKey,
    device: DeviceId,
    namespace: Namespace,
) -> Result<bool, AccountError> {
    let listed = tx.xmpp_omemo().find_devices(chat, namespace).await?;
    Ok(listed.is_none_or(|listed| listed.devices.contains(&device)))
}
