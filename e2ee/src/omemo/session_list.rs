//! All sessions with one device.
//!
//! Both sides may start at once, and a device may start again after it has lost its state: so the
//! newest session encrypts and a few older ones can still decrypt. A session that decrypts becomes
//! the one that encrypts, so both sides settle on the same one.

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Answer, IdentityKey, Namespace, StateError,
    debug::hidden_debug,
    encrypted::KeyKind,
    error::{DecryptError, DeviceError},
    limits::{MAX_SESSIONS, MAX_SKIPPED_KEYS},
    session::Session,
    state,
    wire::ratchet_message::{KeyExchange, RatchetMessage},
};

hidden_debug!(SessionList);

const STATE_VERSION: u8 = 1;

/// What a `<key>` held, and the identity of the session that opened it.
pub(crate) type OpenedKey = (IdentityKey, Zeroizing<Vec<u8>>);

/// All sessions with one device in one namespace: the one that encrypts, and a few older ones
/// that may still decrypt.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionList {
    namespace: Namespace,
    current: Option<Session>,
    /// Newest first.
    previous: Vec<Session>,
}

impl SessionList {
    pub(crate) const fn new(namespace: Namespace) -> Self {
        Self { namespace, current: None, previous: Vec::new() }
    }

    /// The namespace of the sessions.
    pub const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The identity of the device, while there is a session to encrypt with.
    pub fn identity(&self) -> Option<IdentityKey> {
        self.current.as_ref().map(Session::identity)
    }

    /// Whether the device waits for an empty message: it has started a session and heard nothing,
    /// or has used one ratchet key for [`super::limits::HEARTBEAT`] messages.
    pub fn answer(&self) -> Answer {
        self.current.as_ref().map_or(Answer::NotDue, Session::answer)
    }

    /// Stops encrypting with the current session; the next message needs a bundle. What is under
    /// way in it can still be decrypted. For a device that has lost its state.
    pub fn retire_current(&mut self) {
        if let Some(session) = self.current.take() {
            self.previous.insert(0, session);
            self.previous.truncate(MAX_SESSIONS - 1);
        }
    }

    /// Stops encrypting with any session, for a list that was restored from an older copy: keys
    /// that follow this state may have been used. The next message needs a bundle. What comes can
    /// still be decrypted, and a session in which the other side answers this very state encrypts
    /// again, under a fresh ratchet key.
    pub fn receive_only(&mut self) {
        self.retire_current();
        self.previous.iter_mut().for_each(Session::receive_only);
    }

    /// Everything, secrets included, in a versioned format. To be sealed before it is stored.
    ///
    /// # Errors
    /// [`StateError`] never in practice: the format can hold every list.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        state::to_bytes(STATE_VERSION, self)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`StateError`] when the version is unknown or the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        state::from_bytes(STATE_VERSION, bytes)
    }

    /// Makes a session the one that encrypts.
    pub(crate) fn start(&mut self, session: Session) {
        self.retire_current();
        self.current = Some(session);
        self.bound_skipped(0);
    }

    /// Drops every session of another identity.
    pub(crate) fn keep_identity(&mut self, identity: IdentityKey) {
        self.current = self.current.take().filter(|session| session.identity() == identity);
        self.previous.retain(|session| session.identity() == identity);
    }

    /// An identity that any of the sessions belongs to.
    pub(crate) fn any_identity(&self) -> Option<IdentityKey> {
        self.sessions().map(Session::identity).next()
    }

    /// Encrypts a payload's key with the current session.
    pub(crate) fn encrypt(
        &mut self,
        plaintext: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(KeyKind, Vec<u8>), DeviceError> {
        let session = self.current.as_mut().ok_or(DeviceError::NoBundle)?;
        session.encrypt(self.namespace, plaintext, rng)
    }

    /// Reads a message that repeats the key exchange of a session there is, and makes that the one
    /// that encrypts. `None` when no session was started by this key exchange.
    ///
    /// On an error nothing has changed.
    pub(crate) fn decrypt_repeated(
        &mut self,
        exchange: &KeyExchange,
        message: &RatchetMessage,
    ) -> Option<Result<OpenedKey, DecryptError>> {
        let position = self.sessions().position(|session| session.started_by(exchange))?;
        Some(self.decrypt_with(position, message))
    }

    /// Reads a message with whichever session can, and makes that the one that encrypts.
    ///
    /// On an error nothing has changed.
    pub(crate) fn decrypt(&mut self, message: &RatchetMessage) -> Result<OpenedKey, DecryptError> {
        let mut reason = DecryptError::NoSession;
        for position in 0..self.sessions().count() {
            match self.decrypt_with(position, message) {
                Err(error) => reason = more_telling(reason, error),
                opened => return opened,
            }
        }
        Err(reason)
    }

    /// Whether one of the sessions was started by this key exchange.
    pub(crate) fn was_started_by(&self, exchange: &KeyExchange) -> bool {
        self.sessions().any(|session| session.started_by(exchange))
    }

    /// The current session, then the others.
    fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.current.iter().chain(&self.previous)
    }

    fn decrypt_with(
        &mut self,
        position: usize,
        message: &RatchetMessage,
    ) -> Result<OpenedKey, DecryptError> {
        let session = self.sessions().nth(position).ok_or(DecryptError::NoSession)?;
        let (next, plaintext) = session.decrypt(self.namespace, message)?;
        let identity = next.identity();
        // The first of the previous ones comes after the current one, if there is one.
        if let Some(previous) = position.checked_sub(usize::from(self.current.is_some())) {
            if next.is_receive_only() {
                self.previous.splice(previous..=previous, [next]);
                self.bound_skipped(position);
                return Ok((identity, plaintext));
            }
            self.previous.remove(previous);
            self.retire_current();
        }
        self.current = Some(next);
        self.bound_skipped(0);
        Ok((identity, plaintext))
    }

    /// Bounds the keys of messages that have not come, over all sessions. The one at `used` has its own bound and keeps
    /// what it has; the others share the rest, the newest first.
    fn bound_skipped(&mut self, used: usize) {
        let of_used = self.sessions().nth(used).map_or(0, Session::skipped_count);
        let mut rest = MAX_SKIPPED_KEYS.saturating_sub(of_used);
        for (position, session) in self.current.iter_mut().chain(&mut self.previous).enumerate() {
            if position != used {
                rest = session.keep_skipped(rest);
            }
        }
    }
}

/// Any session that recognises a message knows more than those that do not.
fn more_telling(one: DecryptError, other: DecryptError) -> DecryptError {
    match one {
        DecryptError::NoSession | DecryptError::Authentication => other,
        _ => one,
    }
}
