//! From the seam to the outbox: choose the devices, encrypt, commit.

use std::collections::{BTreeMap, BTreeSet};

use e2ee::omemo::{
    Account, Bundle, DeviceError, DeviceFailure, DeviceId, EncryptError, Encrypted, Machine,
    Namespace, OmemoChanges, Payload, Recipient, SessionList,
};
use jid::BareJid;

use super::{
    MAX_TEXT_BYTES, NAME,
    convert::from_matrix::{self, Route},
    core::{AccountError, Core},
    devices::{Devices, DevicesError},
    trust::{MAX_PINNED_DEVICES, changed_fingerprints, hold_without_reader},
};
use crate::{
    error_chain,
    network::{
        Author, ChatKey, Hold, IdentityTrust, LegSecurity, OutgoingMessage, PlaintextPolicy,
        SendError, Sent,
    },
    store::{DevicePin, PinTrust, SentMessage, StoreError, Transaction},
};

/// Everything a send works with.
struct Sending<'a> {
    message: &'a OutgoingMessage,
    text: String,
    own: BareJid,
    contact: BareJid,
}

/// The devices that read a message in one namespace.
struct Audience {
    namespace: Namespace,
    devices: Vec<DeviceId>,
    /// Of those that need one.
    bundles: BTreeMap<DeviceId, Bundle>,
}

impl Audience {
    /// Those that may read. A device without a pin may where it is pinned by this message: on first use, while there is
    /// room for it.
    async fn recipients(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pins: &[DevicePin],
    ) -> Result<Vec<Recipient>, AccountError> {
        let mut room = MAX_PINNED_DEVICES.saturating_sub(tx.xmpp_omemo().count_pins(chat).await?);
        let mut recipients = Vec::new();
        for device in &self.devices {
            let pin = pins.iter().find(|pin| pin.device == *device);
            let may_read = match (pin, self.bundles.get(device)) {
                (Some(pin), _) => pin.may_read(),
                (None, Some(bundle)) if room > 0 => {
                    room = room.saturating_sub(1);
                    !tx.xmpp_omemo().keeps_out(chat, bundle.identity()).await?
                }
                (None, _) => false,
            };
            if !may_read {
                continue;
            }
            recipients.push(Recipient {
                jid: chat.contact.as_str().to_owned(),
                device: *device,
                sessions: load_sessions(tx, chat, *device, self.namespace).await?,
                bundle: self.bundles.get(device).cloned(),
                pinned: pin.map(|pin| pin.identity),
            });
        }
        Ok(recipients)
    }
}

/// The outcome of one attempt to encrypt.
enum Attempt {
    Done(LegSecurity),
    /// No device could be encrypted to in this namespace.
    NoUsableDevice,
    /// The identities that wait for approval.
    Changed(Vec<String>),
    /// The contact has distrusted the author.
    Distrusted,
}

impl Core {
    /// See [`crate::network::NetworkClient::send`].
    pub(super) async fn send_message(&self, message: &OutgoingMessage) -> Result<Sent, SendError> {
        let text = from_matrix::text(&message.content);
        if text.len() > MAX_TEXT_BYTES {
            return Err(SendError::Rejected("it is too long for XMPP".to_owned()));
        }
        let (own, contact) =
            self.jids(&message.chat).map_err(|error| SendError::Rejected(error.to_string()))?;
        let sending = Sending { message, text, own, contact };
        self.meet(&message.chat).await.map_err(temporary)?;
        let devices = self.ensure_devices(&message.chat).await.map_err(devices_error)?;
        if devices.all().is_empty() {
            return self.send_plain(&sending).await;
        }
        match self.send_encrypted(&sending, &devices).await {
            Err(SendError::Held(_)) if is_public(message) => self.send_plain(&sending).await,
            sent => sent,
        }
    }

    async fn send_encrypted(
        &self,
        sending: &Sending<'_>,
        devices: &Devices,
    ) -> Result<Sent, SendError> {
        let chat = &sending.message.chat;
        // Devices that get nothing have no say in how the others are written to.
        let readers = devices.only(&self.possible_readers(chat, devices).await?);
        for namespace in readers.preference() {
            match self.try_namespace(sending, &readers, namespace).await? {
                Attempt::Done(security) => return Ok(Sent { security }),
                Attempt::Changed(fingerprints) => {
                    return Err(SendError::Held(Hold::IdentityChanged { fingerprints }));
                }
                Attempt::Distrusted => return Err(SendError::Held(Hold::DistrustedByContact)),
                Attempt::NoUsableDevice => {}
            }
        }
        let pins = self.load_pins(chat).await.map_err(temporary)?;
        Err(SendError::Held(hold_without_reader(&pins, &devices.all())))
    }

    async fn load_pins(&self, chat: &ChatKey) -> Result<Vec<DevicePin>, StoreError> {
        self.db.read().await?.xmpp_omemo().load_pins(chat).await
    }

    /// The devices that are not known to wait or to be distrusted.
    async fn possible_readers(
        &self,
        chat: &ChatKey,
        devices: &Devices,
    ) -> Result<BTreeSet<DeviceId>, SendError> {
        let pins = self.load_pins(chat).await.map_err(temporary)?;
        let mut readers = devices.all();
        readers.retain(|id| pins.iter().all(|pin| pin.device != *id || pin.is_trusted()));
        Ok(readers)
    }

    /// Remembers the contact, and introduces our user to them the first time.
    async fn meet(&self, chat: &ChatKey) -> Result<(), StoreError> {
        if !self.db.read().await?.xmpp_roster().has_met(chat).await? {
            let mut tx = self.db.begin().await?;
            tx.xmpp_roster().meet(chat).await?;
            tx.commit().await?;
            self.announce(chat).await;
        }
        self.ask_for_presence(chat).await
    }

    async fn send_plain(&self, sending: &Sending<'_>) -> Result<Sent, SendError> {
        let message = sending.message;
        match message.plaintext {
            PlaintextPolicy::Refuse => return Err(SendError::Held(Hold::NoEncryption)),
            PlaintextPolicy::Allow => {}
        }
        let route = Route { from: &sending.own, to: &sending.contact };
        let stanza = from_matrix::plain_message(route, &message.id, &sending.text);
        let mut tx = self.db.begin().await.map_err(temporary)?;
        if tx.contact_decisions().is_distrusted(&message.chat).await.map_err(temporary)? {
            return Err(SendError::Held(Hold::DistrustedByContact));
        }
        finish(&mut tx, message, LegSecurity::Plaintext, &stanza).await.map_err(temporary)?;
        let committed = tx.commit().await;
        // Rung also where the confirmation was lost: the message may be there, and is not sent again.
        self.outbox_bell.notify_one();
        committed.map_err(temporary)?;
        Ok(Sent { security: LegSecurity::Plaintext })
    }

    async fn try_namespace(
        &self,
        sending: &Sending<'_>,
        devices: &Devices,
        namespace: Namespace,
    ) -> Result<Attempt, SendError> {
        let chat = &sending.message.chat;
        let mut audiences = Vec::new();
        for (namespace, devices) in devices.audiences(namespace) {
            let bundles = self.bundles_for(chat, namespace, &devices).await?;
            audiences.push(Audience { namespace, devices, bundles });
        }
        let mut tx = self.db.begin().await.map_err(temporary)?;
        let mut is_news = false;
        for (device, bundle) in audiences.iter().flat_map(|audience| &audience.bundles) {
            let presented = bundle.identity();
            is_news |=
                self.take_presented(&mut tx, chat, *device, presented).await.map_err(temporary)?;
        }
        let attempt = self.encrypt_in(&mut tx, sending, devices, &audiences).await?;
        failpoint!("w06_stanza_encrypted");
        // What was noted of changed identities stays, whether or not the message leaves.
        let committed = tx.commit().await;
        failpoint!("w06_stanza_committed");
        // Rung also where the confirmation was lost: the message may be there, and is not sent again.
        if is_news {
            self.events.committed(chat);
        }
        if matches!(attempt, Attempt::Done(_)) {
            self.outbox_bell.notify_one();
        }
        committed.map_err(temporary)?;
        Ok(attempt)
    }

    /// The bundles of devices without a session, and, once per stream and after every push, of
    /// the others too: that is how a device that has a new identity is noticed.
    async fn bundles_for(
        &self,
        chat: &ChatKey,
        namespace: Namespace,
        devices: &[DeviceId],
    ) -> Result<BTreeMap<DeviceId, Bundle>, SendError> {
        let mut new = Vec::new();
        let mut unchecked = Vec::new();
        let mut tx = self.db.read().await.map_err(temporary)?;
        for device in devices {
            let sessions =
                load_sessions(&mut tx, chat, *device, namespace).await.map_err(failed)?;
            if sessions.is_none_or(|sessions| sessions.identity().is_none()) {
                new.push(*device);
            } else if !self.seen.is_checked(chat, *device) {
                unchecked.push(*device);
            }
        }
        drop(tx);
        let checked = self.fetch_bundles(chat, namespace, unchecked);
        let new = self.fetch_bundles(chat, namespace, new);
        let (checked, new) = tokio::join!(checked, new);
        let mut bundles = new.map_err(devices_error)?;
        if let Ok(checked) = checked {
            checked.keys().for_each(|device| self.seen.is_now_checked(chat, *device));
            bundles.extend(checked);
        }
        Ok(bundles)
    }

    async fn encrypt_in(
        &self,
        tx: &mut Transaction,
        sending: &Sending<'_>,
        devices: &Devices,
        audiences: &[Audience],
    ) -> Result<Attempt, SendError> {
        let message = sending.message;
        let chat = &message.chat;
        // In the transaction of the outbox, so that nothing leaves once it is decided.
        if tx.contact_decisions().is_distrusted(chat).await.map_err(temporary)? {
            return Ok(Attempt::Distrusted);
        }
        let pins = tx.xmpp_omemo().load_pins(chat).await.map_err(temporary)?;
        let changed = changed_fingerprints(&pins, &devices.all());
        if !changed.is_empty() {
            return Ok(Attempt::Changed(changed));
        }
        let text = from_matrix::text_to_encrypt(message);
        let account = self.ensure_account_in(tx, &chat.local).await.map_err(failed)?.account;
        let (mut elements, mut reached) = (Vec::new(), BTreeSet::new());
        for audience in audiences {
            let recipients = audience.recipients(tx, chat, &pins).await.map_err(failed)?;
            let asked: Vec<DeviceId> = recipients.iter().map(|to| to.device).collect();
            let payload = from_matrix::payload(&text, audience.namespace);
            let encrypted = match self.encrypt(&account, &sending.own, chat, recipients, &payload) {
                Ok(encrypted) => encrypted,
                Err(error) => match self.encrypt_error(tx, chat, error).await? {
                    // The others can read it.
                    Attempt::NoUsableDevice if !elements.is_empty() => continue,
                    attempt => return Ok(attempt),
                },
            };
            let changed =
                self.note_failures(tx, chat, &encrypted.failures).await.map_err(temporary)?;
            if !changed.is_empty() {
                return Ok(Attempt::Changed(changed));
            }
            self.save_changes(tx, chat, &encrypted.changes).await.map_err(failed)?;
            let is_left_out = |id: &DeviceId| encrypted.failures.iter().any(|f| f.device == *id);
            reached.extend(asked.into_iter().filter(|id| !is_left_out(id)));
            elements.push(encrypted.element);
        }
        let route = Route { from: &sending.own, to: &sending.contact };
        let stanza = from_matrix::encrypted_message(route, &message.id, &elements);
        let security = LegSecurity::Encrypted { identity: trust_of_all(&pins, &reached) };
        finish(tx, message, security, &stanza).await.map_err(temporary)?;
        Ok(Attempt::Done(security))
    }

    /// Calls the engine.
    pub(super) fn encrypt(
        &self,
        account: &Account,
        own: &BareJid,
        chat: &ChatKey,
        recipients: Vec<Recipient>,
        payload: &Payload,
    ) -> Result<Encrypted, EncryptError> {
        let machine = Machine::new(account, own.as_str());
        let to = chat.contact.as_str();
        machine.encrypt(to, recipients, payload, self.clock.now(), &mut self.rng())
    }

    async fn encrypt_error(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        error: EncryptError,
    ) -> Result<Attempt, SendError> {
        match error {
            EncryptError::NoRecipient => Ok(Attempt::NoUsableDevice),
            EncryptError::NoUsableDevice { failures } => {
                let changed = self.note_failures(tx, chat, &failures).await.map_err(temporary)?;
                Ok(match changed.is_empty() {
                    true => Attempt::NoUsableDevice,
                    false => Attempt::Changed(changed),
                })
            }
            EncryptError::PayloadTooLarge | EncryptError::Xml => {
                Err(SendError::Rejected(error.to_string()))
            }
        }
    }

    /// Notes the devices that present another identity than the pinned one, and returns those
    /// identities' fingerprints.
    async fn note_failures(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        failures: &[DeviceFailure],
    ) -> Result<Vec<String>, StoreError> {
        let mut fingerprints = Vec::new();
        for failure in failures {
            if let DeviceError::IdentityChanged { presented } = &failure.error {
                let now_ms = self.now_ms();
                // Whether it is news or not, the message waits for it.
                let _ = tx.xmpp_omemo().present(chat, failure.device, *presented, now_ms).await?;
                fingerprints.push(presented.fingerprint());
            } else {
                tracing::info!(reason = %failure.error, "xmpp.encrypt: a device was left out");
            }
        }
        Ok(fingerprints)
    }

    /// Saves what one call of the engine altered, but for the account.
    pub(super) async fn save_changes(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        changes: &OmemoChanges,
    ) -> Result<(), AccountError> {
        for change in &changes.sessions {
            let bytes = change.sessions.to_bytes()?;
            tx.xmpp_omemo().save_sessions(chat, change.device, change.namespace, &bytes).await?;
        }
        for pin in &changes.pins {
            tx.xmpp_omemo().pin(chat, pin.device, pin.identity, self.now_ms()).await?;
        }
        Ok(())
    }
}

/// Whether it is the bridge's own words, which hold nothing of a conversation. Nobody decides about
/// devices in its chats, so what is held there would never go.
fn is_public(message: &OutgoingMessage) -> bool {
    message.chat.local == Author::Bridge && message.plaintext == PlaintextPolicy::Allow
}

/// What is known of the identities of all these devices together.
fn trust_of_all(pins: &[DevicePin], reached: &BTreeSet<DeviceId>) -> IdentityTrust {
    let is_verified =
        |id: &DeviceId| pins.iter().any(|pin| pin.device == *id && pin.trust == PinTrust::Verified);
    if reached.iter().all(is_verified) { IdentityTrust::Verified } else { IdentityTrust::Pinned }
}

/// The exact bytes that will leave, what they say of the chat, and the inbox row that is done with
/// them.
async fn finish(
    tx: &mut Transaction,
    message: &OutgoingMessage,
    security: LegSecurity,
    stanza: &minidom::Element,
) -> Result<(), StoreError> {
    let bytes = super::xml::to_bytes(stanza);
    tx.xmpp_outbox().insert(&message.chat, Some((&message.id, security)), &bytes).await?;
    if security != LegSecurity::Plaintext {
        tx.portals().encryption_was_used(NAME, &message.chat).await?;
    }
    if let Some(inbox) = message.inbox {
        let sent = SentMessage {
            chat: &message.chat,
            remote_id: &message.id,
            matrix_leg: message.security,
            remote_leg: security,
        };
        tx.message_map().insert_sent(inbox, sent).await?;
        tx.matrix_inbox().mark_done(inbox).await?;
    }
    Ok(())
}

/// The stored sessions with a device.
pub(super) async fn load_sessions(
    tx: &mut Transaction,
    chat: &ChatKey,
    device: DeviceId,
    namespace: Namespace,
) -> Result<Option<SessionList>, AccountError> {
    let bytes = tx.xmpp_omemo().find_sessions(chat, device, namespace).await?;
    Ok(bytes.map(|bytes| SessionList::from_bytes(&bytes)).transpose()?)
}

pub(super) fn temporary(error: StoreError) -> SendError {
    tracing::error!(error = error_chain(&error), "xmpp.encrypt: the store failed");
    SendError::Temporary
}

pub(super) fn failed(error: AccountError) -> SendError {
    tracing::error!(error = error_chain(&error), "xmpp.encrypt: OMEMO state cannot be used");
    SendError::Temporary
}

pub(super) fn devices_error(error: DevicesError) -> SendError {
    match error {
        DevicesError::Store(error) => temporary(error),
        DevicesError::NoAnswer => SendError::Temporary,
    }
}
