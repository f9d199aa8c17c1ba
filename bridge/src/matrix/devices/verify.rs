//! Verifications of one device: who compares keys with it, and the messages of that.
//!
//! The machine keeps them in memory only, so a device that has any stays loaded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

use e2ee::matrix::{
    CancelReason, Machine, Request, RequestBody, Response, RoomEvent, Verification,
    VerificationState,
};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, TransactionId, UserId,
    api::client::{message::send_message_event, to_device::send_event_to_device},
    serde::JsonObject,
};
use serde_json::{json, value::to_raw_value};

use super::{Devices, device::Device, directory::Interest};
use crate::matrix::{EncryptError, MatrixError, error::DeviceFault as _};

/// People who verify one device at a time.
const MAX_PEOPLE: usize = 16;

/// What a person on our side has decided about a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerificationStep {
    /// It is wanted.
    Accept,
    /// Keys are to be exchanged.
    Begin,
    /// The exchange that the other side has begun is accepted.
    GoAlong,
    /// What was compared was the same; the three numbers that were shown.
    Confirm([u16; 3]),
    /// It is ended.
    Cancel(CancelReason),
    /// It has ended, and everybody knows.
    Forget,
}

/// What a device knows of its verifications.
#[derive(Default)]
pub(super) struct Verifying {
    /// Who has sent something of a verification.
    users: BTreeSet<OwnedUserId>,
    /// All of them as they were seen last; the ended ones until they are forgotten.
    seen: BTreeMap<(OwnedUserId, String), Verification>,
    /// Those that have ended and are forgotten here, until the machine has cleared them away too.
    forgotten: BTreeSet<(OwnedUserId, String)>,
    /// What is to be sent, in order.
    unsent: VecDeque<Request>,
    /// What the homeserver has refused for good: the machine would offer it again.
    refused: BTreeSet<OwnedTransactionId>,
}

impl Verifying {
    /// Another machine knows nothing of the verifications of the one before.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn heard_of(&mut self, users: impl IntoIterator<Item = OwnedUserId>) {
        for user in users {
            if self.users.len() < MAX_PEOPLE {
                self.users.insert(user);
            }
        }
    }

    fn has_any(&self) -> bool {
        !self.seen.is_empty() || !self.unsent.is_empty()
    }

    /// The people a room's verifications are with.
    fn people_in(&self, room: &RoomId) -> BTreeSet<OwnedUserId> {
        let in_room = |it: &&Verification| it.room.as_deref() == Some(room);
        self.seen.values().filter(in_room).map(|it| it.user.clone()).collect()
    }
}

fn has_ended(state: &VerificationState) -> bool {
    matches!(state, VerificationState::Done { .. } | VerificationState::Cancelled { .. })
}

impl Device {
    /// Looks at all verifications, and rings if one has moved.
    pub(super) async fn look_at_verifications(
        &mut self,
        machine: &Machine,
    ) -> Result<(), MatrixError> {
        let mut now = BTreeMap::new();
        for user in &self.verifying.users {
            for seen in machine.verifications(user).await? {
                now.insert((user.clone(), seen.flow.clone()), seen);
            }
        }
        self.verifying.forgotten.retain(|key| now.contains_key(key));
        now.retain(|key, _| !self.verifying.forgotten.contains(key));
        for (key, seen) in &self.verifying.seen {
            if has_ended(&seen.state) && !now.contains_key(key) {
                now.insert(key.clone(), seen.clone());
            }
        }
        self.verifying.users.retain(|user| now.keys().any(|(known, _)| known == user));
        let has_moved = now != self.verifying.seen;
        self.verifying.seen = now;
        self.needs.busy.store(self.verifying.has_any(), Ordering::Relaxed);
        if self.verifying.has_any() {
            self.needs.listen.notify_one();
        }
        if has_moved {
            self.shared.events.verifications_changed(&self.user);
        }
        Ok(())
    }

    /// Rings for what may not have been done the last time.
    pub(super) fn remind_of_verifications(&self) {
        if self.verifying.has_any() {
            self.shared.events.verifications_changed(&self.user);
        }
    }

    async fn take_verification_event(&mut self, event: RoomEvent) -> Result<(), MatrixError> {
        let machine = self.ready().await?;
        // What has ended is cleared away by a sync, and the sender's devices are known after it.
        self.sync().await?;
        let senders = [event.sender.clone()].into();
        machine.track(&senders).await?;
        let exchange = self.exchange(&machine).await?;
        let begins = event.event_type == "m.room.message";
        if begins && !exchange.queried.is_superset(&senders) {
            self.send_all(&machine, vec![machine.query(&senders)]).await?;
        }
        machine.receive_verification_event(&event).await?;
        self.verifying.heard_of(senders);
        self.look_at_verifications(&machine).await?;
        self.answer_now(&machine).await?;
        self.look_at_verifications(&machine).await
    }

    /// Sends what the machine has to say, signatures too. The event or step is taken: what could not
    /// be sent now is sent when the next sync reminds of it.
    async fn answer_now(&mut self, machine: &Machine) -> Result<(), MatrixError> {
        let sent = async {
            self.send_verification_messages(machine).await?;
            self.exchange(machine).await
        };
        match sent.await {
            Err(error) if !error.is_machine_fault() => {
                tracing::info!(error = %error, "matrix.verification.not_sent_yet");
                Ok(())
            }
            sent => sent.map(drop),
        }
    }

    async fn step(
        &mut self,
        user: &UserId,
        flow: &str,
        step: VerificationStep,
    ) -> Result<(), MatrixError> {
        let machine = self.ready().await?;
        let requests = match step {
            VerificationStep::Accept => machine.accept_verification(user, flow),
            VerificationStep::Begin => machine.begin_comparing(user, flow).await?,
            VerificationStep::GoAlong => machine.go_along(user, flow),
            VerificationStep::Confirm(numbers) => {
                machine.confirm_verification(user, flow, numbers).await?
            }
            VerificationStep::Cancel(reason) => machine.cancel_verification(user, flow, reason),
            VerificationStep::Forget => {
                machine.drop_verification(user, flow);
                let key = (user.to_owned(), flow.to_owned());
                self.verifying.seen.remove(&key);
                self.verifying.forgotten.insert(key);
                Vec::new()
            }
        };
        self.verifying.unsent.extend(requests);
        // What has ended by this is gone with the sync before the sending.
        self.look_at_verifications(&machine).await?;
        self.answer_now(&machine).await?;
        self.look_at_verifications(&machine).await
    }

    /// All verifications, after everything that they have to say is sent, signatures too.
    async fn tell_verifications(&mut self) -> Result<Vec<Verification>, MatrixError> {
        let machine = self.ready().await?;
        self.send_verification_messages(&machine).await?;
        if self.verifying.has_any() {
            self.exchange(&machine).await?;
        }
        Ok(self.verifying.seen.values().cloned().collect())
    }

    async fn ask_for_verification(
        &mut self,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<String>, MatrixError> {
        let machine = self.ready().await?;
        self.sync().await?;
        let readers = [user.to_owned()].into();
        machine.track(&readers).await?;
        self.exchange(&machine).await?;
        let Some(content) = machine.verification_request(user).await? else { return Ok(None) };
        let txn = TransactionId::new();
        let sent =
            self.send_room_event(&machine, &txn, room, readers, "m.room.message", content).await?;
        machine.expect_answer(user, room, &sent.event_id).await?;
        self.verifying.heard_of([user.to_owned()]);
        self.look_at_verifications(&machine).await?;
        Ok(Some(sent.event_id.to_string()))
    }

    /// Sends what verifications have to say, in order. What could not be sent is sent next time.
    async fn send_verification_messages(&mut self, machine: &Machine) -> Result<(), MatrixError> {
        let new = machine.verification_messages().await?;
        let is_queued = |new: &Request| {
            self.verifying.refused.contains(&new.id)
                || self.verifying.unsent.iter().any(|it| it.id == new.id)
        };
        let new: Vec<Request> = new.into_iter().filter(|new| !is_queued(new)).collect();
        self.verifying.unsent.extend(new);
        while let Some(Request { id, body }) = self.verifying.unsent.front().cloned() {
            let refused = match body {
                RequestBody::RoomEvent { room, event_type, content } => {
                    let readers = self.verifying.people_in(&room);
                    match self
                        .send_room_event(machine, &id, &room, readers, &event_type, content)
                        .await
                    {
                        Ok(response) => {
                            let response = Response::RoomEvent(response);
                            machine.receive_response(&id, &response).await?;
                            None
                        }
                        Err(error) => Some(error),
                    }
                }
                body => self.send_all(machine, vec![Request { id: id.clone(), body }]).await.err(),
            };
            match refused {
                Some(error) if !is_refused_for_good(&error) => return Err(error),
                Some(error) => {
                    tracing::info!(error = %error, "matrix.verification.message_refused");
                    self.verifying.refused.insert(id);
                }
                None => {}
            }
            self.verifying.unsent.pop_front();
        }
        Ok(())
    }

    /// Sends an event of a verification, encrypted where that can be: an identity that nobody has
    /// approved gets no room key, and nothing in these events is secret.
    async fn send_room_event(
        &mut self,
        machine: &Machine,
        txn: &TransactionId,
        room: &RoomId,
        readers: BTreeSet<OwnedUserId>,
        event_type: &str,
        content: JsonObject,
    ) -> Result<send_message_event::v3::Response, MatrixError> {
        let plain = json!(content);
        let content = content.into_iter().collect();
        let (event_type, content) = match self
            .try_encrypt(room, &readers, event_type, Box::new(|_| content))
            .await
        {
            Ok(sealed) => {
                let content = serde_json::value::RawValue::from_string(sealed.content.into_json());
                ("m.room.encrypted", content.unwrap_or_default())
            }
            Err(
                EncryptError::IdentityChanged
                | EncryptError::NoSignedDevice
                | EncryptError::Device(MatrixError::NotEncrypted | MatrixError::NobodyReachable),
            ) => (event_type, to_raw_value(&plain).unwrap_or_default()),
            Err(EncryptError::Device(error)) => return Err(error),
        };
        let event_id = self
            .shared
            .client
            .send_message_event(self.who(machine), room, event_type, txn, &content)
            .await?;
        Ok(send_message_event::v3::Response::new(event_id))
    }
}

fn is_refused_for_good(error: &MatrixError) -> bool {
    matches!(error, MatrixError::Client(error) if !error.is_temporary())
        || matches!(error, MatrixError::NotThere | MatrixError::NobodyThere)
}

impl Devices {
    /// The verifications of a ghost, after what they have to say was sent. Those that have ended
    /// are among them until [`VerificationStep::Forget`].
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn verifications(&self, ghost: &UserId) -> Result<Vec<Verification>, MatrixError> {
        self.directory
            .call(ghost, Interest::Wanted, |device| {
                Box::pin(async move {
                    let seen = device.tell_verifications().await;
                    device.settle(seen)
                })
            })
            .await?
    }

    /// Takes a decrypted event of a verification that goes through a room.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn take_verification_event(
        &self,
        ghost: &UserId,
        event: RoomEvent,
    ) -> Result<(), MatrixError> {
        self.directory
            .call(ghost, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let taken = device.take_verification_event(event).await;
                    device.settle(taken)
                })
            })
            .await?
    }

    /// Goes on with a verification. One that is not at that point stays as it is.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn step_verification(
        &self,
        ghost: &UserId,
        user: &UserId,
        flow: &str,
        step: VerificationStep,
    ) -> Result<(), MatrixError> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        self.directory
            .call(ghost, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let stepped = device.step(&user, &flow, step).await;
                    device.settle(stepped)
                })
            })
            .await?
    }

    /// Asks a person, as a ghost and in their room, to compare keys. Returns what names the
    /// verification; `None` when the person has no identity to compare.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn ask_for_verification(
        &self,
        ghost: &UserId,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<String>, MatrixError> {
        let (user, room) = (user.to_owned(), room.to_owned());
        self.directory
            .call(ghost, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let asked = device.ask_for_verification(&user, &room).await;
                    device.settle(asked)
                })
            })
            .await?
    }

    /// Ends a verification that no machine knows any more, as the ghost.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn end_lost_verification(
        &self,
        ghost: &UserId,
        user: &UserId,
        flow: &str,
        through: LostFlow,
        end: LostEnd,
    ) -> Result<(), MatrixError> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        self.directory
            .call(ghost, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let ended = device.end_lost(&user, &flow, through, end).await;
                    device.settle(ended)
                })
            })
            .await?
    }
}

/// Where the messages of a verification went.
#[derive(Clone)]
pub enum LostFlow {
    /// Through this room.
    Room(OwnedRoomId),
    /// To this device.
    Device(OwnedDeviceId),
}

/// How a lost verification is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostEnd {
    /// Nothing has come of it.
    Interrupted,
    /// The ghost has signed the person's identity: their client may wait for the last word.
    Succeeded,
}

impl LostEnd {
    fn event(self) -> (&'static str, serde_json::Value) {
        match self {
            Self::Interrupted => (
                "m.key.verification.cancel",
                json!({ "code": "m.user", "reason": "The bridge was interrupted" }),
            ),
            Self::Succeeded => ("m.key.verification.done", json!({})),
        }
    }
}

impl Device {
    async fn end_lost(
        &mut self,
        user: &UserId,
        flow: &str,
        through: LostFlow,
        end: LostEnd,
    ) -> Result<(), MatrixError> {
        let (event_type, mut content) = end.event();
        let machine = self.ready().await?;
        let txn = TransactionId::new();
        let (key, value) = match &through {
            LostFlow::Room(_) => {
                ("m.relates_to", json!({ "rel_type": "m.reference", "event_id": flow }))
            }
            LostFlow::Device(_) => ("transaction_id", json!(flow)),
        };
        if let Some(content) = content.as_object_mut() {
            content.insert(key.to_owned(), value);
        }
        let result = match through {
            LostFlow::Room(room) => {
                let content = content.as_object().cloned().unwrap_or_default();
                let (content, readers) = (content.into_iter().collect(), [user.to_owned()].into());
                let sent =
                    self.send_room_event(&machine, &txn, &room, readers, event_type, content).await;
                sent.map(drop)
            }
            LostFlow::Device(device) => {
                let content = to_raw_value(&content).unwrap_or_default();
                let to = ruma::to_device::DeviceIdOrAllDevices::DeviceId(device);
                let messages =
                    [(user.to_owned(), [(to, ruma::serde::Raw::from_json(content))].into())];
                let request = send_event_to_device::v3::Request::new_raw(
                    event_type.into(),
                    txn.clone(),
                    messages.into(),
                );
                let client = &self.shared.client;
                let sent = client.send_to_device(self.who(&machine), request).await;
                sent.map(drop).map_err(MatrixError::from)
            }
        };
        match result {
            Err(error) if !is_refused_for_good(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
