//! What a contact decides about a person: that their identity is the one they have compared, or
//! that nothing is to cross between the two.
//!
//! Only what came encrypted gets here. Distrust is enforced where messages are committed to an
//! outbox: [`from_remote`](super::from_remote), and the network for the other direction.

use super::{
    Hub, StepError, from_remote::chat_of, notices::contact_trust as words, say::Wording,
    standing::Standing, trust::DecideError,
};
use crate::{
    network::{Decider, Hold, RemoteUserId},
    store::{
        ContactDecision, ContactTrust, KeyEvent, KeyLogEntry, LoggedKey, Notice, Pin, PinState,
        Portal, RemoteInboxId, RoomEncryption, StoreError, StoredVerification, Transaction,
    },
};

/// The short word for a person whom the contact has distrusted, in the room of the two.
pub(super) const DISTRUSTED_BY_CONTACT: &str = "distrusted_by_contact";

impl Hub {
    /// The contact has compared a fingerprint with a person. Returns the answer for them.
    pub(super) async fn contact_trusts(
        &self,
        portal: &Portal,
        fingerprint: &str,
    ) -> Result<String, StepError> {
        let person = &portal.local;
        if fingerprint.is_empty() {
            return Ok(words::usage(person));
        }
        if self.standing(person, &portal.contact).await == Standing::Doubtful {
            return Ok(words::DOUBTFUL.to_owned());
        }
        let mut tx = self.parts.db.read().await?;
        let pin = tx.pins().find(person).await?;
        let before = tx.contact_decisions().find(&chat_of(portal)).await?;
        drop(tx);
        if let Err(refusal) = named_identity(pin.as_ref(), fingerprint) {
            return Ok(refusal.to_owned());
        }
        if before.is_some_and(|decision| decision.has_verified(fingerprint)) {
            return Ok(words::trusted_before(person));
        }
        self.forget_keys_of_distrust(portal).await?;
        let mut tx = self.parts.db.begin().await?;
        if !self.trust_in(&mut tx, portal, ContactTrust::Fingerprint, fingerprint).await? {
            return Ok(words::CHANGED.to_owned());
        }
        tx.commit().await?;
        self.release(portal, &[]).await?;
        if let Err(error) = self.say(portal, Wording::Public, words::TRUSTED).await {
            tracing::warn!(error = %crate::error_chain(&error), "portal.contact_trust.not_told");
        }
        Ok(words::trusted(person))
    }

    /// The contact wants nothing of a person any more. With the decision the row of their word is done, which waits
    /// for nobody else.
    pub(super) async fn contact_distrusts(
        &self,
        portal: &Portal,
        row: RemoteInboxId,
    ) -> Result<(), StepError> {
        if !self.distrust(portal, row).await? {
            let text = words::distrusted_before(&portal.local);
            self.tell_contact(&portal.contact, "answer", &text).await;
            return Ok(());
        }
        let told = async {
            self.tell_contact_of_distrust(portal).await?;
            self.tell_held(portal, &Hold::DistrustedByContact).await
        };
        // It is decided: whoever could not be told now is told when the first message waits.
        if let Err(error) = told.await {
            tracing::warn!(error = %crate::error_chain(&error), "portal.contact_trust.not_told");
        }
        // The ghost ends a comparison that has no row any more, while the contact's next word is taken.
        self.parts.devices.sync_soon(std::slice::from_ref(&portal.ghost));
        Ok(())
    }

    /// Returns whether it is news.
    async fn distrust(&self, portal: &Portal, row: RemoteInboxId) -> Result<bool, StepError> {
        let between = (&*portal.local, &portal.contact);
        let mut tx = self.parts.db.begin().await?;
        tx.remote_inbox().mark_done(row).await?;
        let is_news = !tx.contact_decisions().is_distrusted(&chat_of(portal)).await?;
        if is_news {
            let pin = tx.pins().find(&portal.local).await?;
            let decision = ContactDecision {
                trust: ContactTrust::Distrusted,
                master_key: pin.map(|pin| pin.presented().to_owned()).unwrap_or_default(),
                decided_ms: self.now_ms(),
            };
            tx.contact_decisions().decide(between, &decision).await?;
            // What was compared before this word must not lift it afterwards.
            tx.verifications().delete_between(between).await?;
        }
        tx.commit().await?;
        Ok(is_news)
    }

    /// The contact learns once that nothing crosses.
    pub(super) async fn tell_contact_of_distrust(&self, portal: &Portal) -> Result<(), StepError> {
        let text = words::distrusted(&portal.local, &self.parts.policy.hold_hours.to_string());
        self.tell_contact_once(&portal.contact, of_distrust(portal), &text).await
    }

    /// Whether nothing may cross.
    pub(super) async fn is_distrusted(&self, portal: &Portal) -> Result<bool, StoreError> {
        self.parts.db.read().await?.contact_decisions().is_distrusted(&chat_of(portal)).await
    }

    /// Before a contact trusts a person whom they had distrusted: no later message goes under a room
    /// key from before.
    pub(super) async fn forget_keys_of_distrust(&self, portal: &Portal) -> Result<(), StepError> {
        if portal.encryption == RoomEncryption::Encrypted && self.is_distrusted(portal).await? {
            self.rotate(portal).await?;
        }
        Ok(())
    }

    /// Notes the contact's trust, and that nothing waits for it any more. Returns whether it could
    /// be: the identity must be the one that is pinned, and that the person presents.
    pub(super) async fn trust_in(
        &self,
        tx: &mut Transaction,
        portal: &Portal,
        trust: ContactTrust,
        master_key: &str,
    ) -> Result<bool, StepError> {
        let pin = tx.pins().find(&portal.local).await?;
        if named_identity(pin.as_ref(), master_key).is_err() {
            return Ok(false);
        }
        let (master_key, decided_ms) = (master_key.to_owned(), self.now_ms());
        let decision = ContactDecision { trust, master_key, decided_ms };
        tx.contact_decisions().decide((&portal.local, &portal.contact), &decision).await?;
        Self::forget_told(tx, portal, &[DISTRUSTED_BY_CONTACT]).await?;
        tx.notices().forget_about(of_distrust(portal)).await?;
        Ok(true)
    }

    /// Notes that the contact has compared emoji with success. The first identity that is known of the person is
    /// pinned by that; where it is not the pinned one, it stands in the key log alone.
    pub(super) async fn note_compared(
        &self,
        tx: &mut Transaction,
        row: &StoredVerification,
        master_key: &str,
    ) -> Result<(), StepError> {
        if tx.pins().find(&row.user_id).await?.is_none() {
            let _ = tx.pins().pin_or_check(&row.user_id, master_key, self.now_ms()).await?;
        }
        let network = self.parts.network.name();
        let portal = tx.portals().find_by_chat(network, &row.user_id, &row.contact).await?;
        if let Some(portal) = portal
            && self.trust_in(tx, &portal, ContactTrust::Emoji, master_key).await?
        {
            return Ok(());
        }
        let entry = KeyLogEntry {
            time_ms: self.now_ms(),
            key: LoggedKey::Matrix { user: &row.user_id, master_key },
            event: KeyEvent::Verified,
            decided_by: &Decider::Contact(row.contact.clone()),
        };
        Ok(tx.key_log().append(&entry).await?)
    }

    /// What the contact of a portal has decided about its person.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn find_contact_decision(
        &self,
        portal: &Portal,
    ) -> Result<Option<ContactDecision>, DecideError> {
        Ok(self.parts.db.read().await?.contact_decisions().find(&chat_of(portal)).await?)
    }

    /// The contacts who have distrusted a person.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn distrusting_contacts(
        &self,
        user: &ruma::UserId,
    ) -> Result<Vec<RemoteUserId>, DecideError> {
        Ok(self.parts.db.read().await?.contact_decisions().load_distrusting(user).await?)
    }
}

/// What a contact is told of their distrust.
fn of_distrust(portal: &Portal) -> Notice<'_> {
    let (scope, subject) = (portal.contact.as_str(), portal.local.as_str());
    Notice { scope, subject, kind: "distrusted_person" }
}

/// Whether a fingerprint is that of the identity that a person presents and that is pinned; or the
/// refusal.
fn named_identity(pin: Option<&Pin>, fingerprint: &str) -> Result<(), &'static str> {
    let Some(pin) = pin else { return Err(words::UNSEEN) };
    match pin.state {
        PinState::Changed { .. } => Err(words::CHANGED),
        PinState::Pinned if pin.master_key == fingerprint => Ok(()),
        PinState::Pinned if pin.master_key.starts_with(fingerprint) => Err(words::NOT_WHOLE),
        PinState::Pinned => Err(words::NOT_THEIRS),
    }
}
