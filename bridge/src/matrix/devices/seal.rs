//! XMPP to Matrix, step 5: sharing the room key and encrypting, in the one order that loses and
//! leaks nothing.

use std::{collections::BTreeSet, sync::Arc};

use e2ee::matrix::{
    EncryptError as MachineEncryptError, EncryptedContent, Machine, Recipient, RoomKeySettings,
};
use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};

use super::{
    Shared,
    device::{Device, Exchange},
};
use crate::{
    matrix::{EncryptError, MatrixError},
    network::IdentityTrust,
    store::{PinOutcome, PinState},
};

/// A room key that wears out between sharing and encrypting is followed by one more.
const MAX_SHARES: usize = 2;

/// An encrypted event.
pub struct Sealed {
    /// Its content, to be sent exactly as it is.
    pub content: EncryptedContent,
    /// What was known of the identities of all who can read it.
    pub identity: IdentityTrust,
}

/// Writes the content of an event, told what is known of the identities of all who can read it.
pub(super) type Write = Box<dyn FnOnce(IdentityTrust) -> Map<String, Value> + Send>;

impl Device {
    /// See [`super::Devices::encrypt`].
    pub(super) async fn encrypt(
        &mut self,
        room: &RoomId,
        audience: &BTreeSet<OwnedUserId>,
        event_type: &str,
        write: Write,
    ) -> Result<Sealed, EncryptError> {
        let result = self.try_encrypt(room, audience, event_type, write).await;
        if result.is_err() {
            // Its reader's keys may be right in a moment.
            self.needs.listen.notify_one();
        }
        self.settle(result)
    }

    /// See [`super::Devices::was_encrypted`].
    pub(super) async fn was_encrypted(&mut self, room: &RoomId) -> Result<bool, MatrixError> {
        Ok(self.ready().await?.was_encrypted(room).await?)
    }

    pub(super) async fn try_encrypt(
        &mut self,
        room: &RoomId,
        audience: &BTreeSet<OwnedUserId>,
        event_type: &str,
        write: Write,
    ) -> Result<Sealed, EncryptError> {
        let machine = self.ready().await?;
        let mut exchange = self.sync().await?;
        let about = self.shared.rooms.fetch(&self.user, room).await?;
        let settings = about.settings.as_ref().ok_or(MatrixError::NotEncrypted)?;
        let mut readers = about.readers(audience);
        readers.retain(|reader| !self.shared.namespace.is_ours(reader));
        if readers.is_empty() {
            return Err(MatrixError::NobodyThere.into());
        }
        exchange.add(self.learn_devices(&machine, (room, about.change), &readers).await?);
        let checked = self.check_identities(&machine, &readers, &exchange).await;
        if checked.is_err() {
            // Whatever was wrong may be right in the next answer.
            self.shared.asked.forget_room(&self.user, room);
        }
        let identity = checked?;
        if let Some(claim) = machine.claim(&readers).await? {
            self.send_all(&machine, vec![claim]).await?;
        }
        ensure_reachable(&machine, &readers).await?;
        let content = write(identity).into_iter().collect();
        let content = self
            .share_and_encrypt(&machine, room, &readers, settings, event_type, &content)
            .await?;
        Ok(Sealed { content, identity })
    }

    /// See [`super::Devices::rotate`].
    pub(super) async fn rotate(&mut self, room: &RoomId) -> Result<(), MatrixError> {
        let rotated = async {
            let machine = self.ready().await?;
            Ok(machine.discard_room_key(room).await?)
        };
        let rotated = rotated.await;
        self.settle(rotated)
    }

    /// Keys of people are asked for when they are new to the machine, when a sync says that they
    /// changed, and once in each room after a start and after a change of its state: they may have
    /// joined it, with other devices than they were invited with.
    async fn learn_devices(
        &mut self,
        machine: &Machine,
        room: (&RoomId, u64),
        readers: &BTreeSet<OwnedUserId>,
    ) -> Result<Exchange, MatrixError> {
        machine.track(readers).await?;
        let mut exchange = self.exchange(machine).await?;
        let mut new = self.shared.asked.unasked(&self.user, room, readers);
        new.retain(|reader| !exchange.queried.contains(reader));
        if !new.is_empty() {
            exchange.add(self.send_all(machine, vec![machine.query(&new)]).await?);
        }
        let mut answered = readers.clone();
        answered.retain(|reader| !Self::is_silent(&exchange, reader));
        self.shared.asked.note(&self.user, room, answered);
        Ok(exchange)
    }

    /// Everybody with an identity must have the pinned one; somebody must have a signed device.
    /// Returns what is known of all these identities together.
    async fn check_identities(
        &self,
        machine: &Machine,
        readers: &BTreeSet<OwnedUserId>,
        exchange: &Exchange,
    ) -> Result<IdentityTrust, EncryptError> {
        let mut known = Vec::new();
        for user in readers {
            let recipient = machine.recipient(user).await?;
            known.push(Reader {
                has_signed_device: recipient.signed_devices > 0,
                is_silent: Self::is_silent(exchange, user),
                identity: self.check_identity(machine, &recipient).await?,
            });
        }
        together(&known)
    }

    /// The pins of the bridge decide; the machine's own memory of identities follows them.
    async fn check_identity(
        &self,
        machine: &Machine,
        recipient: &Recipient,
    ) -> Result<IdentityTrust, EncryptError> {
        let Some(identity) = &recipient.identity else { return Ok(IdentityTrust::Unknown) };
        if !self.shared.presents_pin(&recipient.user, &identity.master_key).await? {
            return Err(EncryptError::IdentityChanged);
        }
        if identity.needs_approval {
            machine.approve(&recipient.user).await?;
        }
        Ok(if identity.is_verified { IdentityTrust::Verified } else { IdentityTrust::Pinned })
    }

    async fn share_and_encrypt(
        &mut self,
        machine: &Arc<Machine>,
        room: &RoomId,
        readers: &BTreeSet<OwnedUserId>,
        settings: &RoomKeySettings,
        event_type: &str,
        content: &ruma::serde::JsonObject,
    ) -> Result<EncryptedContent, EncryptError> {
        for _ in 0..MAX_SHARES {
            let requests = machine.share(room, readers, settings).await?;
            self.send_all(machine, requests).await?;
            match machine.encrypt(room, event_type, content).await {
                Err(MachineEncryptError::NotShared) => {}
                result => return Ok(result?),
            }
        }
        Err(MachineEncryptError::NotShared.into())
    }
}

/// What is known of one who is to read an event.
#[derive(Clone, Copy)]
struct Reader {
    has_signed_device: bool,
    /// Their server did not say what devices they have.
    is_silent: bool,
    identity: IdentityTrust,
}

/// What is known of the identities of all readers, of whom one at least must be able to read.
fn together(readers: &[Reader]) -> Result<IdentityTrust, EncryptError> {
    if readers.iter().any(|reader| reader.has_signed_device) {
        let identities = readers.iter().map(|reader| reader.identity);
        return Ok(identities.fold(IdentityTrust::Verified, IdentityTrust::and));
    }
    if readers.iter().any(|reader| reader.is_silent) {
        return Err(MatrixError::NobodyReachable.into());
    }
    Err(EncryptError::NoSignedDevice)
}

impl Shared {
    /// Whether a user presents the pinned identity; the first one is pinned.
    async fn presents_pin(&self, user: &UserId, master_key: &str) -> Result<bool, MatrixError> {
        let mut tx = self.db.read().await?;
        let pin = tx.pins().find(user).await?;
        drop(tx);
        match pin {
            Some(pin) if pin.master_key == master_key && pin.state == PinState::Pinned => Ok(true),
            _ => Ok(self.pin_or_check(user, master_key).await? != PinOutcome::Changed),
        }
    }

    /// Compares with the pin, or pins.
    pub(super) async fn pin_or_check(
        &self,
        user: &UserId,
        master_key: &str,
    ) -> Result<PinOutcome, MatrixError> {
        let mut tx = self.db.begin().await?;
        let outcome = tx.pins().pin_or_check(user, master_key, self.now_ms()).await?;
        tx.commit().await?;
        Ok(outcome)
    }
}

/// Somebody must be able to open the room key.
async fn ensure_reachable(
    machine: &Machine,
    readers: &BTreeSet<OwnedUserId>,
) -> Result<(), MatrixError> {
    for reader in readers {
        if machine.recipient(reader).await?.reachable_devices > 0 {
            return Ok(());
        }
    }
    Err(MatrixError::NobodyReachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(has_signed_device: bool, is_silent: bool, identity: IdentityTrust) -> Reader {
        Reader { has_signed_device, is_silent, identity }
    }

    #[test]
    fn somebody_must_have_a_signed_device_and_the_least_known_identity_counts() {
        use IdentityTrust::{Pinned, Unknown, Verified};
        let known = |readers: &[Reader]| together(readers).ok();
        let verified = reader(true, false, Verified);
        assert_eq!(known(&[verified]), Some(Verified));
        assert_eq!(known(&[verified, reader(true, false, Pinned)]), Some(Pinned));
        assert_eq!(known(&[reader(false, false, Unknown), verified]), Some(Unknown));
        assert_eq!(known(&[verified, reader(false, true, Pinned)]), Some(Pinned));
    }

    #[test]
    fn a_server_that_is_silent_is_not_taken_for_a_person_without_devices() {
        let nobody = reader(false, false, IdentityTrust::Unknown);
        let unasked = reader(false, true, IdentityTrust::Unknown);
        assert!(matches!(together(&[nobody, nobody]), Err(EncryptError::NoSignedDevice)));
        for readers in [[unasked, nobody], [nobody, unasked], [unasked, unasked]] {
            let answer = together(&readers);
            assert!(matches!(answer, Err(EncryptError::Device(MatrixError::NobodyReachable))));
        }
    }
}
