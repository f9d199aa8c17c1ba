//! From the seam to the outbox: choose the devices, encrypt, commit.

use std::collections::{BTreeMap, BTreeSet};

use e2ee::omemo::{
    Account, Bundle, DeviceError, DeviceFailure, DeviceId, EncryptError, Encrypted, Machine,
    Namespace, OmemoChanges, Payload, Recipient, SessionList,
};
use jid::BareJid;

use super::{
    MAX_TEXT_BYTES,
    convert::from_matrix::{self, Route},
    core::{AccountError, Core},
    devices::{Devices, DevicesError},
};
use crate::{
    error_chain,
    network::{
        ChatKey, Hold, IdentityTrust, LegSecurity, OutgoingMessage, PlaintextPolicy, SendError,
        Sent,
    },
    store::{DevicePin, SentMessage, StoreError, Transaction},
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
    async fn recipients(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pins: &[DevicePin],
    ) -> Result<Vec<Recipient>, AccountError> {
        let mut recipients = Vec::new();
        for device in &self.devices {
            recipients.push(Recipient {
                jid: chat.contact.as_str().to_owned(),
                device: *device,
                sessions: load_sessions(tx, chat, *device, self.namespace).await?,
                bundle: self.bundles.get(device).cloned(),
                pinned: pins.iter().find(|pin| pin.device == *device).map(|pin| pin.identity),
            });
        }
        Ok(recipients)
    }
}

/// The outcome of one attempt to encrypt.
enum Attempt {
    Done,
    /// No device could be encrypted to in this namespace.
    NoUsableDevice,
    /// The identities that wait for approval.
    Changed(Vec<String>),
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
        for namespace in devices.preference() {
            match self.try_namespace(&sending, &devices, namespace).await? {
                Attempt::Done => {
                    self.outbox_bell.notify_one();
                    let identity = IdentityTrust::Pinned;
                    return Ok(Sent { security: LegSecurity::Encrypted { identity } });
                }
                Attempt::Changed(fingerprints) => {
                    return Err(SendError::Held(Hold::IdentityChanged { fingerprints }));
                }
                Attempt::NoUsableDevice => {}
            }
        }
        Err(SendError::Held(Hold::NoUsableDevice))
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
        finish(&mut tx, message, LegSecurity::Plaintext, &stanza).await.map_err(temporary)?;
        tx.commit().await.map_err(temporary)?;
        self.outbox_bell.notify_one();
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
        let attempt = self.encrypt_in(&mut tx, sending, devices, &audiences).await?;
        // What was noted of changed identities stays, whether or not the message leaves.
        tx.commit().await.map_err(temporary)?;
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
        let checked = self.fetch_bundles(chat, namespace, unchecked.clone());
        let new = self.fetch_bundles(chat, namespace, new);
        let (checked, new) = tokio::join!(checked, new);
        let mut bundles = new.map_err(devices_error)?;
        if let Ok(checked) = checked {
            for device in unchecked {
                self.seen.is_now_checked(chat, device);
            }
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
        for (device, bundle) in audiences.iter().flat_map(|audience| &audience.bundles) {
            tx.xmpp_omemo()
                .note_change(chat, *device, bundle.identity())
                .await
                .map_err(temporary)?;
        }
        let pins = tx.xmpp_omemo().load_pins(chat).await.map_err(temporary)?;
        let changed = changed_fingerprints(&pins, &devices.all());
        if !changed.is_empty() {
            return Ok(Attempt::Changed(changed));
        }
        let account = self.ensure_account_in(tx, &chat.local).await.map_err(failed)?.account;
        let mut elements = Vec::new();
        for audience in audiences {
            let recipients = audience.recipients(tx, chat, &pins).await.map_err(failed)?;
            let payload = from_matrix::payload(&sending.text, audience.namespace);
            let encrypted = match self.encrypt(&account, &sending.own, chat, recipients, &payload) {
                Ok(encrypted) => encrypted,
                Err(error) => match encrypt_error(tx, chat, error).await? {
                    // The others can read it.
                    Attempt::NoUsableDevice if !elements.is_empty() => continue,
                    attempt => return Ok(attempt),
                },
            };
            let changed = note_failures(tx, chat, &encrypted.failures).await.map_err(temporary)?;
            if !changed.is_empty() {
                return Ok(Attempt::Changed(changed));
            }
            save_changes(tx, chat, &encrypted.changes).await.map_err(failed)?;
            elements.push(encrypted.element);
        }
        let route = Route { from: &sending.own, to: &sending.contact };
        let stanza = from_matrix::encrypted_message(route, &message.id, &elements);
        let security = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };
        finish(tx, message, security, &stanza).await.map_err(temporary)?;
        Ok(Attempt::Done)
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
}

async fn encrypt_error(
    tx: &mut Transaction,
    chat: &ChatKey,
    error: EncryptError,
) -> Result<Attempt, SendError> {
    match error {
        EncryptError::NoRecipient => Ok(Attempt::NoUsableDevice),
        EncryptError::NoUsableDevice { failures } => {
            let changed = note_failures(tx, chat, &failures).await.map_err(temporary)?;
            Ok(if changed.is_empty() { Attempt::NoUsableDevice } else { Attempt::Changed(changed) })
        }
        EncryptError::PayloadTooLarge | EncryptError::Xml => {
            Err(SendError::Rejected(error.to_string()))
        }
    }
}

/// Notes the devices that present another identity than the pinned one, and returns those
/// identities' fingerprints.
async fn note_failures(
    tx: &mut Transaction,
    chat: &ChatKey,
    failures: &[DeviceFailure],
) -> Result<Vec<String>, StoreError> {
    let mut fingerprints = Vec::new();
    for failure in failures {
        if let DeviceError::IdentityChanged { presented } = &failure.error {
            tx.xmpp_omemo().note_change(chat, failure.device, *presented).await?;
            fingerprints.push(presented.fingerprint());
        } else {
            tracing::info!(reason = %failure.error, "xmpp.encrypt: a device was left out");
        }
    }
    Ok(fingerprints)
}

/// The identities of listed devices that wait for approval.
pub(super) fn changed_fingerprints(pins: &[DevicePin], listed: &BTreeSet<DeviceId>) -> Vec<String> {
    pins.iter()
        .filter(|pin| listed.contains(&pin.device))
        .filter_map(|pin| pin.changed_to.map(|identity| identity.fingerprint()))
        .collect()
}

/// The exact bytes that will leave, and the inbox row that is done with them.
async fn finish(
    tx: &mut Transaction,
    message: &OutgoingMessage,
    security: LegSecurity,
    stanza: &minidom::Element,
) -> Result<(), StoreError> {
    let bytes = super::xml::to_bytes(stanza);
    tx.xmpp_outbox().insert(&message.chat, Some((&message.id, security)), &bytes).await?;
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

/// Saves what one call of the engine altered, but for the account.
pub(super) async fn save_changes(
    tx: &mut Transaction,
    chat: &ChatKey,
    changes: &OmemoChanges,
) -> Result<(), AccountError> {
    for change in &changes.sessions {
        let bytes = change.sessions.to_bytes()?;
        tx.xmpp_omemo().save_sessions(chat, change.device, change.namespace, &bytes).await?;
    }
    for pin in &changes.pins {
        tx.xmpp_omemo().pin(chat, pin.device, pin.identity).await?;
    }
    Ok(())
}

pub(super) fn temporary(error: StoreError) -> SendError {
    tracing::error!(error = error_chain(&error), "xmpp.encrypt: the store failed");
    SendError::Temporary
}

fn failed(error: AccountError) -> SendError {
    tracing::error!(error = error_chain(&error), "xmpp.encrypt: OMEMO state cannot be used");
    SendError::Temporary
}

pub(super) fn devices_error(error: DevicesError) -> SendError {
    match error {
        DevicesError::Store(error) => temporary(error),
        DevicesError::NoAnswer => SendError::Temporary,
    }
}
