//! Which of a contact's devices are read and written to: what they present against their pins, and
//! what people decide about them.

use std::collections::BTreeSet;

use e2ee::omemo::{DecryptError, Decrypted, DeviceId, EncryptedElement, IdentityKey};

use super::{
    convert::from_stanza::{self, Body, Incoming},
    core::Core,
    devices::{Devices, DevicesError},
    uri::AccountUri,
};
use crate::{
    error_chain,
    network::{
        ChatKey, Decider, DeviceDecision, DeviceTrust, Hold, IdentityTrust, RemoteDevice,
        RemoteEvent, RemoteEventKind, Undecided, VerifyUriError,
    },
    store::{DevicePin, PinTrust, Presented, StoreError, Transaction},
};

/// Devices of one contact that are ever pinned. Each costs room, and a device list holds no more.
pub(super) const MAX_PINNED_DEVICES: usize = 2 * e2ee::omemo::limits::MAX_DEVICES;

/// Held stanzas looked at at a time: each may be as large as a stanza can be.
const HELD_BATCH: u32 = 20;

/// What the trust in a device means for what it has sent.
pub(super) enum Verdict {
    /// It may be delivered, if it could be decrypted.
    Judged(IdentityTrust),
    /// It waits for a person's word about this identity.
    Waits(IdentityKey),
    /// It is refused, for this identity.
    Refused(IdentityKey),
}

/// A device of a contact, and the identity that it presents.
pub(super) struct PresentedDevice {
    pub device: DeviceId,
    pub identity: IdentityKey,
    /// `None` for one that was never written to nor heard.
    pub pin: Option<DevicePin>,
}

impl PresentedDevice {
    fn of(pin: DevicePin) -> Self {
        Self { device: pin.device, identity: pin.presented(), pin: Some(pin) }
    }

    pub(super) fn describe(&self) -> RemoteDevice {
        RemoteDevice {
            id: self.device.to_string(),
            fingerprint: self.identity.fingerprint(),
            trust: self.pin.map_or(DeviceTrust::Unknown, |pin| pin.device_trust()),
            since_ms: self.pin.and_then(|pin| pin.device_trust_since_ms()),
        }
    }
}

impl Core {
    /// All devices of a contact that are listed or pinned.
    pub(super) async fn presented_devices(
        &self,
        chat: &ChatKey,
    ) -> Result<Vec<PresentedDevice>, DevicesError> {
        let pins = self.db.read().await?.xmpp_omemo().load_pins(chat).await?;
        let devices = match self.ensure_devices(chat).await {
            // Whom people know they can decide about, whatever the contact's server does.
            Err(DevicesError::NoAnswer) if !pins.is_empty() => Devices::default(),
            devices => devices?,
        };
        let mut ids: BTreeSet<DeviceId> = devices.all();
        ids.extend(pins.iter().map(|pin| pin.device));
        let mut presented = Vec::new();
        for device in ids {
            let pin = pins.iter().find(|pin| pin.device == device).copied();
            let identity = match pin {
                Some(pin) => Some(pin.presented()),
                None => self.fetch_identity(chat, &devices, device).await,
            };
            presented.extend(identity.map(|identity| PresentedDevice { device, identity, pin }));
        }
        Ok(presented)
    }

    /// See [`crate::network::NetworkClient::match_uri`].
    pub(super) async fn match_uri(
        &self,
        chat: &ChatKey,
        uri: &str,
    ) -> Result<Vec<String>, VerifyUriError> {
        let AccountUri { jid, devices: named } = AccountUri::parse(uri)?;
        if jid.as_str() != chat.contact.as_str() {
            return Err(VerifyUriError::OtherContact);
        }
        let temporary = |error: DevicesError| {
            tracing::warn!(error = error_chain(&error), "xmpp.trust: a URI was not compared");
            VerifyUriError::Temporary
        };
        let presented = self.presented_devices(chat).await.map_err(temporary)?;
        let matches = |(id, key): &&(DeviceId, IdentityKey)| {
            presented.iter().any(|known| known.device == *id && known.identity == *key)
        };
        let others = named.iter().filter(|named| !matches(named));
        let others: Vec<String> = others.map(|(id, _)| format!("device {id}")).collect();
        if !others.is_empty() {
            return Err(VerifyUriError::Mismatch { devices: others });
        }
        Ok(named.iter().map(|(_, key)| key.fingerprint()).collect())
    }

    /// See [`crate::network::NetworkClient::undecided`].
    pub(super) async fn load_undecided(&self, chat: &ChatKey) -> Result<Undecided, StoreError> {
        let mut tx = self.db.read().await?;
        let held = tx.xmpp_inbox().count_held(chat).await?;
        let pins = tx.xmpp_omemo().load_pins(chat).await?;
        let undecided = pins.into_iter().filter(|pin| {
            matches!(pin.device_trust(), DeviceTrust::Waiting | DeviceTrust::Changed)
        });
        let devices = undecided.map(|pin| PresentedDevice::of(pin).describe()).collect();
        Ok(Undecided { held, devices })
    }

    /// The identity that a device's bundle presents.
    async fn fetch_identity(
        &self,
        chat: &ChatKey,
        devices: &Devices,
        device: DeviceId,
    ) -> Option<IdentityKey> {
        for namespace in devices.preference() {
            if !devices.of(namespace).contains(&device) {
                continue;
            }
            let bundles = self.fetch_bundles(chat, namespace, vec![device]).await;
            if let Some(bundle) = bundles.ok().and_then(|mut bundles| bundles.remove(&device)) {
                return Some(bundle.identity());
            }
        }
        None
    }

    /// Takes an identity that a bundle presents. Returns whether the portal has something to tell:
    /// a change of a trusted device holds the message, and is told with it.
    pub(super) async fn take_presented(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        device: DeviceId,
        identity: IdentityKey,
    ) -> Result<bool, StoreError> {
        let now_ms = self.now_ms();
        match present(tx, chat, device, identity, now_ms).await? {
            Presented::Known => Ok(false),
            // That the other one is given up is to be told.
            Presented::News => Ok(true),
            Presented::Returned => {
                end_held(tx, chat, device).await?;
                Ok(true)
            }
            // Whom it may be written to without a pin is decided where that is done, by the same rules.
            Presented::Unpinned => {
                let is_room = tx.xmpp_omemo().count_pins(chat).await? < MAX_PINNED_DEVICES;
                if !is_room || !tx.xmpp_omemo().keeps_out(chat, identity).await? {
                    return Ok(false);
                }
                let pinned = tx.xmpp_omemo().pin(chat, device, identity, now_ms).await?;
                if pinned != Some(PinTrust::Waiting) {
                    return Ok(false);
                }
                tell_waiting(tx, chat).await?;
                Ok(true)
            }
        }
    }

    /// Carries out a decision about those devices that have one of these fingerprints. What was
    /// not named stays as it is: the contact's server may present something else at any moment.
    /// Returns about how many devices something was decided.
    pub(super) async fn decide_about(
        &self,
        chat: &ChatKey,
        fingerprints: &[String],
        decision: DeviceDecision,
        decided_by: &Decider,
    ) -> Result<usize, DevicesError> {
        let is_named = |identity: &IdentityKey| fingerprints.contains(&identity.fingerprint());
        let unpinned = match decision {
            // What waits has a pin.
            DeviceDecision::Approve => Vec::new(),
            // One key may stand under more than one number.
            DeviceDecision::Verify | DeviceDecision::Distrust => {
                self.presented_devices(chat).await?
            }
        };
        let now_ms = self.now_ms();
        let mut tx = self.db.begin().await?;
        let unpinned = unpinned.iter().filter(|presented| presented.pin.is_none());
        for presented in unpinned.filter(|presented| is_named(&presented.identity)) {
            tx.xmpp_omemo().pin(chat, presented.device, presented.identity, now_ms).await?;
        }
        let mut decided = 0;
        for pin in tx.xmpp_omemo().load_pins(chat).await? {
            let named = [pin.presented(), pin.identity].into_iter().find(is_named);
            let Some(identity) = named else { continue };
            let about = (pin.device, identity);
            let done = tx.xmpp_omemo().decide(chat, about, decision, decided_by, now_ms).await?;
            decided += usize::from(done);
        }
        if decided > 0 {
            tx.xmpp_inbox().release(chat).await?;
        }
        tx.commit().await?;
        self.seen.bundles_may_be_new(chat);
        self.inbox.ring(chat.clone());
        self.events.unblocked(chat);
        Ok(decided)
    }
}

/// Compares what a device presents with its pin; what it has given up by that is told.
pub(super) async fn present(
    tx: &mut Transaction,
    chat: &ChatKey,
    device: DeviceId,
    identity: IdentityKey,
    now_ms: i64,
) -> Result<Presented, StoreError> {
    let before = tx.xmpp_omemo().find_pin(chat, device).await?;
    let presented = tx.xmpp_omemo().present(chat, device, identity, now_ms).await?;
    let was_open = before.filter(|pin| pin.change.is_some() || pin.trust == PinTrust::Waiting);
    if let (Presented::News | Presented::Returned, Some(pin)) = (presented, was_open) {
        let kind = RemoteEventKind::GivenUp { fingerprint: pin.presented().fingerprint() };
        let event = RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind };
        tx.remote_inbox().insert(&event).await?;
    }
    Ok(presented)
}

/// What the trust in the sending device means for what it sent.
pub(super) async fn judge(
    tx: &mut Transaction,
    chat: &ChatKey,
    pin: Option<DevicePin>,
    decrypted: &Result<Decrypted, DecryptError>,
) -> Result<Verdict, StoreError> {
    if let Some(pin) = pin.filter(|pin| pin.trust == PinTrust::Distrusted) {
        return Ok(Verdict::Refused(pin.identity));
    }
    // A distrusted identity is so under every number, also under that of a device that had another.
    let news = match (pin, decrypted) {
        (_, Err(DecryptError::IdentityChanged { presented })) => Some(*presented),
        (None, Ok(decrypted)) => Some(decrypted.identity),
        _ => None,
    };
    if let Some(identity) = news
        && tx.xmpp_omemo().is_distrusted(chat, identity).await?
    {
        return Ok(Verdict::Refused(identity));
    }
    if let Err(DecryptError::IdentityChanged { presented }) = decrypted {
        return Ok(Verdict::Waits(*presented));
    }
    let waits = match pin.map(|pin| pin.trust) {
        Some(PinTrust::Verified) => return Ok(Verdict::Judged(IdentityTrust::Verified)),
        Some(PinTrust::Pinned) => false,
        // The latter was refused above.
        Some(PinTrust::Waiting | PinTrust::Distrusted) => true,
        None => tx.xmpp_omemo().new_devices_wait(chat).await?,
    };
    // Anybody can name a device that waits; only what it has really sent is worth keeping.
    Ok(match decrypted {
        Ok(decrypted) if waits => Verdict::Waits(decrypted.identity),
        _ => Verdict::Judged(IdentityTrust::Pinned),
    })
}

/// What waits because of this device, in words for a person: all fingerprints of that kind.
pub(super) fn hold_for(pins: &[DevicePin], device: DeviceId) -> Hold {
    let pin = pins.iter().find(|pin| pin.device == device);
    match pin.map(|pin| pin.trust) {
        Some(PinTrust::Waiting) => Hold::NewDevices { fingerprints: waiting_fingerprints(pins) },
        _ => Hold::IdentityChanged {
            fingerprints: pins
                .iter()
                .filter(|pin| pin.is_trusted())
                .filter_map(|pin| pin.waiting_change().map(|identity| identity.fingerprint()))
                .collect(),
        },
    }
}

/// Why there is no device to encrypt to, among those that the contact has listed.
pub(super) fn hold_without_reader(pins: &[DevicePin], listed: &BTreeSet<DeviceId>) -> Hold {
    let listed: Vec<DevicePin> =
        pins.iter().filter(|pin| listed.contains(&pin.device)).copied().collect();
    let fingerprints = waiting_fingerprints(&listed);
    if listed.is_empty() || listed.iter().any(DevicePin::is_trusted) {
        Hold::NoUsableDevice
    } else if fingerprints.is_empty() {
        Hold::NoTrustedDevice
    } else {
        Hold::NewDevices { fingerprints }
    }
}

/// The identities of trusted devices, among those that the contact has listed, that have changed
/// and wait for approval. They hold back every message; a change of a device that gets nothing
/// anyway does not, nor one that the person has said no to.
pub(super) fn changed_fingerprints(pins: &[DevicePin], listed: &BTreeSet<DeviceId>) -> Vec<String> {
    pins.iter()
        .filter(|pin| listed.contains(&pin.device) && pin.is_trusted())
        .filter_map(|pin| pin.waiting_change().map(|identity| identity.fingerprint()))
        .collect()
}

fn waiting_fingerprints(pins: &[DevicePin]) -> Vec<String> {
    let waiting = pins.iter().filter(|pin| pin.device_trust() == DeviceTrust::Waiting);
    waiting.map(|pin| pin.identity.fingerprint()).collect()
}

/// Has the person told of all devices that wait.
async fn tell_waiting(tx: &mut Transaction, chat: &ChatKey) -> Result<(), StoreError> {
    let fingerprints = waiting_fingerprints(&tx.xmpp_omemo().load_pins(chat).await?);
    let kind = RemoteEventKind::Held(Hold::NewDevices { fingerprints });
    tx.remote_inbox().insert(&RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind }).await?;
    Ok(())
}

/// A change of a device has gone by itself. What came under the other identity can be approved no
/// more, and would raise the same change again if it were looked at: it is ended with a word.
async fn end_held(
    tx: &mut Transaction,
    chat: &ChatKey,
    device: DeviceId,
) -> Result<(), StoreError> {
    let (mut ended, mut after) = (0_u64, None);
    loop {
        let held = tx.xmpp_inbox().load_held(chat, after, HELD_BATCH).await?;
        let Some(last) = held.last() else { break };
        after = Some(last.id);
        for held in held.iter().filter(|held| sending_device(&held.stanza) == Some(device)) {
            tx.xmpp_inbox().mark_done(held.id).await?;
            ended = ended.saturating_add(1);
        }
    }
    if ended == 0 {
        return Ok(());
    }
    let reason = format!(
        "it came under another encryption identity, which the contact's device has given up again. \
         Ask your contact whether they know of it. Messages that have ended so: {ended}"
    );
    let kind = RemoteEventKind::Undecryptable { reason };
    tx.remote_inbox().insert(&RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind }).await?;
    Ok(())
}

/// The device that a stanza claims to come from.
fn sending_device(stanza: &[u8]) -> Option<DeviceId> {
    let stanza = std::str::from_utf8(stanza).ok()?.parse().ok()?;
    let Incoming::Message(message) = from_stanza::read(&stanza) else { return None };
    let Body::Omemo(elements) = &message.body else { return None };
    elements
        .iter()
        .find_map(|element| EncryptedElement::from_element(element).ok())
        .map(|e| e.sender())
}
