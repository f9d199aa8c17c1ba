//! From the inbox to the seam: decrypt one stanza, and commit everything that follows from it.

use e2ee::omemo::{
    Answer, DecryptError, Decrypted, DeviceId, EncryptedElement, IdentityKey, KeptPrekeys, Machine,
    Namespace, Payload, Recipient, Sender, SessionList,
};
use jid::BareJid;
use minidom::Element;

use super::{
    convert::{
        from_matrix::{self, Route},
        from_stanza::{self, Body, Incoming, Message},
    },
    core::{AccountError, Core},
    encrypt::load_sessions,
    outbox,
    trust::{MAX_PINNED_DEVICES, Verdict, hold_for, judge, present},
    xml,
};
use crate::{
    network::{ChatKey, LegSecurity, RemoteEvent, RemoteEventKind, RemoteMessageId},
    store::{DevicePin, PendingStanza, Presented, Remedy, StoreError, Transaction},
};

/// What is to be done once the commit has happened.
#[derive(Default)]
struct Afterwards {
    /// The portal has something to do.
    event: bool,
    /// The outbox has something to send.
    outgoing: bool,
    /// A prekey was used: the bundles are to be published again.
    bundles: bool,
    /// The contact does not know our device.
    announce: bool,
    /// The session with this device is to be replaced.
    heal: Option<(DeviceId, Namespace)>,
}

/// One `<encrypted>` element that is for our device.
struct Ciphertext {
    element: EncryptedElement,
    own: BareJid,
}

impl Core {
    /// Works on the oldest stanza of a chat. Returns whether there was one.
    pub(super) async fn take_next(&self, chat: &ChatKey) -> Result<bool, AccountError> {
        let mut tx = self.db.begin().await?;
        let Some(pending) = tx.xmpp_inbox().find_next(chat).await? else { return Ok(false) };
        failpoint!("w03_stanza_pending");
        let afterwards = self.digest(&mut tx, chat, &pending).await?;
        failpoint!("w04_stanza_decrypted");
        let committed = tx.commit().await;
        failpoint!("w05_ratchet_committed");
        // Rung also where the confirmation was lost: what was committed may be there, and nobody comes back to it.
        self.ring(chat, &afterwards);
        committed?;
        self.follow_up(chat, afterwards).await;
        Ok(true)
    }

    fn ring(&self, chat: &ChatKey, afterwards: &Afterwards) {
        if afterwards.event {
            self.events.committed(chat);
        }
        if afterwards.outgoing {
            self.outbox_bell.notify_one();
        }
    }

    async fn follow_up(&self, chat: &ChatKey, afterwards: Afterwards) {
        if afterwards.bundles {
            failpoint!("w12_prekey_used");
            self.publish_bundles(&chat.local).await;
        }
        if afterwards.announce {
            self.announce(chat).await;
        }
        if let Some((device, namespace)) = afterwards.heal {
            self.begin_heal((chat.clone(), device, namespace));
        }
    }

    async fn digest(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
    ) -> Result<Afterwards, AccountError> {
        let stanza = std::str::from_utf8(&pending.stanza).ok().and_then(|text| text.parse().ok());
        let incoming = stanza.as_ref().map_or(Incoming::Ignored, from_stanza::read);
        let afterwards = match incoming {
            Incoming::Ignored => Afterwards::default(),
            Incoming::Delivered(id) => {
                answered(tx, chat, &id).await?;
                insert(tx, chat, None, RemoteEventKind::Delivered { id }).await?
            }
            Incoming::Failed(id, reason) => {
                answered(tx, chat, &id).await?;
                insert(tx, chat, None, RemoteEventKind::Failed { id, reason }).await?
            }
            Incoming::Message(message) => match &message.body {
                Body::Omemo(elements) => {
                    return self.digest_omemo(tx, chat, pending, &message, elements).await;
                }
                Body::OtherEncryption => {
                    let reason = "it is encrypted in a way that this bridge does not know";
                    undecryptable(tx, chat, &message, reason).await?
                }
                Body::Plain(text) => {
                    self.deliver(tx, chat, &message, text, LegSecurity::Plaintext).await?
                }
            },
        };
        tx.xmpp_inbox().mark_done(pending.id).await?;
        Ok(afterwards)
    }

    async fn digest_omemo(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        message: &Message,
        elements: &[Element],
    ) -> Result<Afterwards, AccountError> {
        tx.xmpp_roster().meet(chat).await?;
        let (own, _) = match self.jids(chat) {
            Ok(jids) => jids,
            Err(_) => return self.give_up(tx, pending).await,
        };
        let mut account = self.ensure_account_in(tx, &chat.local).await?.account;
        if let Some(kept) = &pending.prekeys {
            account = account.with_prekeys(KeptPrekeys::from_bytes(kept)?);
        }
        let device = account.device_id();
        let mut parsed = elements.iter().filter_map(|e| EncryptedElement::from_element(e).ok());
        let Some(first) = parsed.next() else {
            let reason = "its OMEMO element is malformed";
            let afterwards = undecryptable(tx, chat, message, reason).await?;
            tx.xmpp_inbox().mark_done(pending.id).await?;
            return Ok(afterwards);
        };
        let is_for_us = |element: &EncryptedElement| element.is_for(own.as_str(), device);
        let element =
            if is_for_us(&first) { first } else { parsed.find(is_for_us).unwrap_or(first) };
        let namespace = element.namespace();
        let sender = element.sender();
        let stored = load_sessions(tx, chat, sender, namespace).await?;
        let pins = tx.xmpp_omemo().load_pins(chat).await?;
        let pin = pins.iter().find(|pin| pin.device == sender).copied();
        let pinned = pin.map(|pin| pin.identity);
        if pinned.is_none() && pins.len() >= MAX_PINNED_DEVICES {
            let reason = "it comes from one device too many of your contact";
            let afterwards = undecryptable(tx, chat, message, reason).await?;
            tx.xmpp_inbox().mark_done(pending.id).await?;
            return Ok(afterwards);
        }
        let from = Sender { jid: chat.contact.as_str().to_owned(), sessions: stored, pinned };
        let machine = Machine::new(&account, own.as_str());
        let is_repeated = pending.prekeys.is_some()
            && has_come_as_another(tx, chat, &pins, &machine, &element).await?;
        let decrypted = match is_repeated {
            true => Err(DecryptError::Replayed),
            false => machine.decrypt(from, &element),
        };
        let kept = machine.keep_prekeys(&element);
        let ciphertext = Ciphertext { element, own };
        self.follow_verdict(tx, chat, pending, message, (ciphertext, kept, pin), decrypted).await
    }

    /// Does with a message what the trust in its device means.
    async fn follow_verdict(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        message: &Message,
        (ciphertext, kept, pin): (Ciphertext, Option<KeptPrekeys>, Option<DevicePin>),
        decrypted: Result<Decrypted, DecryptError>,
    ) -> Result<Afterwards, AccountError> {
        let sender = ciphertext.element.sender();
        let verdict = judge(tx, chat, pin, &decrypted).await?;
        match (verdict, decrypted) {
            (Verdict::Refused(refused), decrypted) => {
                if let Err(DecryptError::IdentityChanged { presented }) = decrypted {
                    // Only so can a person name it who trusts the device again.
                    let now_ms = self.now_ms();
                    let _ = present(tx, chat, sender, presented, now_ms).await?;
                }
                self.refuse_device(tx, chat, pending, message, refused).await
            }
            (Verdict::Waits(presented), _) => {
                self.hold(tx, chat, pending, (sender, presented), kept).await
            }
            (Verdict::Judged(identity), Ok(decrypted)) => {
                let security = LegSecurity::Encrypted { identity };
                self.accept(tx, chat, pending, message, &ciphertext, (decrypted, security)).await
            }
            (Verdict::Judged(_), Err(error)) => {
                self.cannot(tx, chat, pending, message, &ciphertext.element, &error).await
            }
        }
    }

    /// Puts a stanza aside whose device is not trusted under the identity that it presents; that
    /// is told once.
    async fn hold(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        (device, presented): (DeviceId, IdentityKey),
        kept: Option<KeptPrekeys>,
    ) -> Result<Afterwards, AccountError> {
        let kept = kept.map(|kept| kept.to_bytes()).transpose()?;
        tx.xmpp_inbox().hold(pending.id, kept.as_ref().map(|kept| kept.as_slice())).await?;
        let now_ms = self.now_ms();
        let is_news = match present(tx, chat, device, presented, now_ms).await? {
            Presented::Known | Presented::Returned => false,
            Presented::News => true,
            Presented::Unpinned => {
                tx.xmpp_omemo().pin(chat, device, presented, now_ms).await?.is_some()
            }
        };
        if !is_news {
            return Ok(Afterwards::default());
        }
        let pins = tx.xmpp_omemo().load_pins(chat).await?;
        insert(tx, chat, None, RemoteEventKind::Held(hold_for(&pins, device))).await
    }

    /// Ends what a distrusted device has sent, with a word to the person.
    async fn refuse_device(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        message: &Message,
        identity: IdentityKey,
    ) -> Result<Afterwards, AccountError> {
        tx.xmpp_inbox().mark_done(pending.id).await?;
        let fingerprint = identity.fingerprint();
        insert(tx, chat, message.sent_at_ms, RemoteEventKind::Refused { fingerprint }).await
    }

    /// Commits a decrypted message with its ratchet.
    async fn accept(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        message: &Message,
        ciphertext: &Ciphertext,
        (decrypted, security): (Decrypted, LegSecurity),
    ) -> Result<Afterwards, AccountError> {
        let mut bundles = false;
        if let Some(account) = &decrypted.changes.account {
            tx.xmpp_omemo().save_account(&chat.local, &account.to_bytes()?).await?;
            // Refills the prekeys when they run low.
            self.ensure_account_in(tx, &chat.local).await?;
            bundles = true;
        }
        self.save_changes(tx, chat, &decrypted.changes).await?;
        self.notice_new_device(tx, chat, &ciphertext.element).await?;
        let text = decrypted.plaintext.as_ref().and_then(from_stanza::decrypted_text);
        let mut afterwards = match text {
            Some(text) => self.deliver(tx, chat, message, &text, security).await?,
            None => Afterwards::default(),
        };
        afterwards.bundles = bundles;
        if decrypted.answer == Answer::Due {
            let (device, namespace) = (ciphertext.element.sender(), ciphertext.element.namespace());
            let sessions = load_sessions(tx, chat, device, namespace).await?;
            afterwards.outgoing |= self
                .send_empty(tx, chat, &ciphertext.own, (device, namespace), sessions, None)
                .await?;
        }
        tx.xmpp_inbox().mark_done(pending.id).await?;
        Ok(afterwards)
    }

    /// A device that is not on the list as we know it: no push told us of it, so the list is fetched again.
    async fn notice_new_device(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        element: &EncryptedElement,
    ) -> Result<(), StoreError> {
        let known = tx.xmpp_omemo().find_devices(chat, element.namespace()).await?;
        if known.is_some_and(|known| !known.devices.contains(&element.sender())) {
            self.seen.forget(chat);
        }
        Ok(())
    }

    /// Ends a stanza that cannot be decrypted. No session, prekey or pin changes here.
    async fn cannot(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        pending: &PendingStanza,
        message: &Message,
        element: &EncryptedElement,
        error: &DecryptError,
    ) -> Result<Afterwards, AccountError> {
        tracing::info!(reason = %error, "xmpp.decrypt: a message could not be decrypted");
        tx.xmpp_inbox().mark_done(pending.id).await?;
        let mut afterwards = match element.has_payload() {
            true => undecryptable(tx, chat, message, why(error)).await?,
            false => Afterwards::default(),
        };
        match self.take_remedy(tx, chat, element, error).await? {
            Some(Remedy::Announcement) => afterwards.announce = true,
            Some(Remedy::NewSession(namespace)) => {
                afterwards.heal = Some((element.sender(), namespace));
            }
            None => {}
        }
        Ok(afterwards)
    }

    async fn give_up(
        &self,
        tx: &mut Transaction,
        pending: &PendingStanza,
    ) -> Result<Afterwards, AccountError> {
        tx.xmpp_inbox().mark_done(pending.id).await?;
        Ok(Afterwards::default())
    }

    /// Puts a message into the portal's inbox, and its receipt into the outbox.
    async fn deliver(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        message: &Message,
        text: &str,
        security: LegSecurity,
    ) -> Result<Afterwards, AccountError> {
        tx.xmpp_roster().meet(chat).await?;
        let content = from_stanza::content(text);
        let kind = RemoteEventKind::Message { id: message.id.clone(), content, security };
        let mut afterwards = insert(tx, chat, message.sent_at_ms, kind).await?;
        if let (Some(to), Some(id), Ok(own)) =
            (&message.receipt_to, &message.id, self.addresses.jid(&chat.local))
        {
            let stanza = from_matrix::receipt(&own, to.as_str(), &self.random_id(), id.as_str());
            tx.xmpp_outbox().insert(chat, None, &xml::to_bytes(&stanza)).await?;
            afterwards.outgoing = true;
        }
        Ok(afterwards)
    }

    /// Encrypts an empty message to one device. Returns whether there is one in the outbox.
    pub(super) async fn send_empty(
        &self,
        tx: &mut Transaction,
        chat: &ChatKey,
        own: &BareJid,
        (device, namespace): (DeviceId, Namespace),
        sessions: Option<SessionList>,
        bundle: Option<e2ee::omemo::Bundle>,
    ) -> Result<bool, AccountError> {
        let Ok(contact) = BareJid::new(chat.contact.as_str()) else { return Ok(false) };
        let account = self.ensure_account_in(tx, &chat.local).await?.account;
        let pin = tx.xmpp_omemo().find_pin(chat, device).await?;
        let may_read = match (pin, &bundle) {
            (Some(pin), _) => pin.may_read(),
            (None, Some(bundle)) => {
                tx.xmpp_omemo().count_pins(chat).await? < MAX_PINNED_DEVICES
                    && !tx.xmpp_omemo().keeps_out(chat, bundle.identity()).await?
            }
            (None, None) => false,
        };
        if !may_read {
            return Ok(false);
        }
        let recipient = Recipient {
            jid: chat.contact.as_str().to_owned(),
            device,
            sessions,
            bundle,
            pinned: pin.map(|pin| pin.identity),
        };
        let payload = Payload::Empty(namespace);
        match self.encrypt(&account, own, chat, vec![recipient], &payload) {
            Ok(encrypted) => {
                self.save_changes(tx, chat, &encrypted.changes).await?;
                let route = Route { from: own, to: &contact };
                let id = self.random_id();
                let stanza = from_matrix::empty_message(route, &id, &encrypted.element);
                tx.xmpp_outbox().insert(chat, None, &xml::to_bytes(&stanza)).await?;
                Ok(true)
            }
            Err(error) => {
                tracing::info!(reason = %error, "xmpp.decrypt: no empty message could be sent");
                Ok(false)
            }
        }
    }
}

/// Whether the key exchange of a message, which kept prekeys would read, has started a session with another device.
async fn has_come_as_another(
    tx: &mut Transaction,
    chat: &ChatKey,
    pins: &[DevicePin],
    machine: &Machine<'_>,
    element: &EncryptedElement,
) -> Result<bool, AccountError> {
    // Sessions with a device are of the identity that is pinned; those of one before are forgotten with its pin.
    let named = machine.named_identity(element);
    let others = pins.iter().filter(|pin| pin.device != element.sender());
    for pin in others.filter(|pin| Some(pin.identity) == named) {
        let sessions = load_sessions(tx, chat, pin.device, element.namespace()).await?;
        if sessions.is_some_and(|sessions| machine.has_started(&sessions, element)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server has taken a message for which an answer came: it is accepted before it is
/// delivered or refused.
async fn answered(
    tx: &mut Transaction,
    chat: &ChatKey,
    id: &RemoteMessageId,
) -> Result<(), AccountError> {
    if let Some(row) = tx.xmpp_outbox().find_message(chat, id).await? {
        outbox::accept(tx, &row).await?;
    }
    Ok(())
}

async fn insert(
    tx: &mut Transaction,
    chat: &ChatKey,
    sent_at_ms: Option<u64>,
    kind: RemoteEventKind,
) -> Result<Afterwards, AccountError> {
    tx.remote_inbox().insert(&RemoteEvent { chat: chat.clone(), sent_at_ms, kind }).await?;
    Ok(Afterwards { event: true, ..Afterwards::default() })
}

async fn undecryptable(
    tx: &mut Transaction,
    chat: &ChatKey,
    message: &Message,
    reason: &str,
) -> Result<Afterwards, AccountError> {
    let kind = RemoteEventKind::Undecryptable { reason: reason.to_owned() };
    insert(tx, chat, message.sent_at_ms, kind).await
}

/// A failed decryption in words, for the receiver.
fn why(error: &DecryptError) -> &'static str {
    match error {
        DecryptError::NotForUs => {
            "the contact's client did not encrypt it for you; it has been told of your device"
        }
        DecryptError::NoSession
        | DecryptError::UnknownPrekey
        | DecryptError::NoPrekey
        | DecryptError::TooManySkipped
        | DecryptError::Authentication => {
            "its encryption session is broken; a new one is being set up, and what the contact \
             sends next should be readable"
        }
        // A stanza that came twice was recognised before it was decrypted.
        DecryptError::Replayed => {
            "its key was used before: the contact's client has lost its state, or somebody has \
             altered a repetition"
        }
        DecryptError::Affix("from") => {
            "the contact's client does not name its author inside the encryption, or it is another"
        }
        _ => "it is malformed or was altered on its way",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_why_a_message_could_not_be_decrypted() {
        for (error, words) in [
            (DecryptError::NotForUs, "did not encrypt it for you"),
            (DecryptError::NoSession, "session is broken; a new one is being set up"),
            (DecryptError::UnknownPrekey, "session is broken; a new one is being set up"),
            (DecryptError::Authentication, "session is broken; a new one is being set up"),
            (DecryptError::Replayed, "its key was used before"),
            (DecryptError::Payload, "malformed or was altered"),
        ] {
            assert!(why(&error).contains(words), "{error}: {}", why(&error));
        }
    }
}
