//! Comparing keys with a person (SAS): the library's state machine, behind one list of states.
//!
//! A verification lives in the machine's memory only. One that has ended is seen until the next
//! sync: look at [`Machine::verifications`] after everything that may have moved one.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#short-authentication-string-sas-verification>

use matrix_sdk_crypto::{
    CancelInfo, Sas, SasState, UserIdentity, Verification as Begun, VerificationRequest,
    VerificationRequestState,
    types::requests::{AnyOutgoingRequest, OutgoingRequest},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId,
    RoomId, UserId,
    events::{
        AnyMessageLikeEvent, key::verification::VerificationMethod,
        room::message::RoomMessageEventContent,
    },
    serde::JsonObject,
};
use serde_json::json;

use super::{Machine, MachineError, Request};

/// The `msgtype` of the message that asks for a verification in a room.
const REQUEST: &str = "m.key.verification.request";

/// One verification with a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Verification {
    /// With whom.
    pub user: OwnedUserId,
    /// What names it: the id of the event that asked for it, or a transaction id.
    pub flow: String,
    /// The room it goes through; `None` when it goes from device to device.
    pub room: Option<OwnedRoomId>,
    /// Their device, once it is known.
    pub device: Option<OwnedDeviceId>,
    /// Whether that device was signed by its owner.
    pub is_device_signed: bool,
    /// How far it is.
    pub state: VerificationState,
}

/// How far a verification is.
#[derive(Clone, PartialEq, Eq)]
pub enum VerificationState {
    /// They ask for it: [`Machine::accept_verification`] says yes.
    Requested,
    /// We have asked for it.
    Asked,
    /// Both want it, and either may begin: [`Machine::begin_comparing`].
    Ready,
    /// Keys are on their way.
    Exchanging,
    /// Both show the same to their people, or somebody stands between them.
    Comparing(Box<ShortAuthString>),
    /// Our side has confirmed.
    Confirmed,
    /// Both sides have confirmed, and their identity is signed.
    Done {
        /// Their public master key, in unpadded base64.
        master_key: String,
    },
    /// It has ended without a result.
    Cancelled {
        /// Whether we have ended it.
        by_us: bool,
        /// The code of the specification, such as `m.timeout`.
        code: String,
    },
}

impl VerificationState {
    fn key_mismatch() -> Self {
        Self::Cancelled { by_us: true, code: "m.key_mismatch".to_owned() }
    }
}

/// What people compare.
#[derive(Clone, PartialEq, Eq)]
pub struct ShortAuthString {
    /// Seven symbols, each with its English name.
    pub emoji: [(&'static str, &'static str); 7],
    /// Three numbers from 1000 to 9191, which stand for the same.
    pub numbers: [u16; 3],
}

/// Why we end a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The person on our side does not want it, or cannot do it.
    Declined,
    /// They compared, and it was not the same.
    Mismatch,
}

/// A decrypted room event that may belong to a verification.
#[derive(Clone)]
pub struct RoomEvent {
    /// Its room.
    pub room: OwnedRoomId,
    /// Its id.
    pub event_id: OwnedEventId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When it was sent.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// Its type inside the ciphertext.
    pub event_type: String,
    /// Its content inside the ciphertext.
    pub content: JsonObject,
}

impl RoomEvent {
    /// Whether a verification may be meant.
    pub fn is_verification(event_type: &str, content: &JsonObject) -> bool {
        event_type.starts_with("m.key.verification.")
            || event_type == "m.room.message"
                && content.get("msgtype").and_then(|kind| kind.as_str()) == Some(REQUEST)
    }
}

impl Machine {
    /// Takes an event of a verification that goes through a room. What is malformed, not meant for
    /// this user or of no known verification changes nothing. The sender's devices should be known.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn receive_verification_event(&self, event: &RoomEvent) -> Result<(), MachineError> {
        let is_request = event.event_type == "m.room.message";
        let to = event.content.get("to").and_then(|to| to.as_str());
        if is_request && to != Some(self.user_id().as_str()) {
            return Ok(());
        }
        let parsed: Result<AnyMessageLikeEvent, _> = serde_json::from_value(json!({
            "type": event.event_type,
            "content": event.content,
            "sender": event.sender,
            "event_id": event.event_id,
            "origin_server_ts": event.origin_server_ts,
            "room_id": event.room,
        }));
        let Ok(parsed) = parsed else { return Ok(()) };
        Ok(self.olm.receive_verification_event(&parsed).await?)
    }

    /// All verifications with a person, the ended ones until the next sync.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn verifications(&self, user: &UserId) -> Result<Vec<Verification>, MachineError> {
        let mut seen = Vec::new();
        let identity = self.recipient(user).await?.identity.map(|identity| identity.master_key);
        for request in self.olm.get_verification_requests(user) {
            // Another device of ours has taken it: there is none.
            if request.is_passive() {
                continue;
            }
            let mut state = self.verification_state(&request);
            // The library ends well even if their identity was replaced meanwhile, but signs nothing.
            let is_replaced = |key: &String| Some(key) != identity.as_ref();
            if matches!(&state, VerificationState::Done { master_key } if is_replaced(master_key)) {
                state = VerificationState::key_mismatch();
            }
            let device = request.other_device_id();
            let known = match &device {
                Some(device) => self.olm.get_device(user, device, None).await?,
                None => None,
            };
            seen.push(Verification {
                user: user.to_owned(),
                flow: request.flow_id().as_str().to_owned(),
                room: request.room_id().map(ToOwned::to_owned),
                device,
                is_device_signed: known.is_some_and(|it| it.is_cross_signed_by_owner()),
                state,
            });
        }
        Ok(seen)
    }

    fn verification_state(&self, request: &VerificationRequest) -> VerificationState {
        match request.state() {
            VerificationRequestState::Created { .. } => VerificationState::Asked,
            VerificationRequestState::Requested { .. } => VerificationState::Requested,
            VerificationRequestState::Ready { .. } => VerificationState::Ready,
            VerificationRequestState::Cancelled(info) => cancelled(&info),
            VerificationRequestState::Transitioned { verification: Begun::SasV1(sas), .. } => {
                sas_state(&sas)
            }
            // The request is over when their side says so; what it has led to is with the SAS.
            VerificationRequestState::Done | VerificationRequestState::Transitioned { .. } => self
                .find_sas(request.other_user(), request.flow_id().as_str())
                .map_or(VerificationState::Exchanging, |sas| sas_state(&sas)),
        }
    }

    fn find_sas(&self, user: &UserId, flow: &str) -> Option<Box<Sas>> {
        self.olm.get_verification(user, flow).and_then(Begun::sas_v1)
    }

    /// Says yes to a verification that they ask for.
    pub fn accept_verification(&self, user: &UserId, flow: &str) -> Vec<Request> {
        let request = self.olm.get_verification_request(user, flow);
        let accepted =
            request.and_then(|it| it.accept_with_methods(vec![VerificationMethod::SasV1]));
        accepted.map(Request::verification).into_iter().collect()
    }

    /// Begins to exchange keys.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn begin_comparing(
        &self,
        user: &UserId,
        flow: &str,
    ) -> Result<Vec<Request>, MachineError> {
        let Some(request) = self.olm.get_verification_request(user, flow) else {
            return Ok(Vec::new());
        };
        let begun = request.start_sas().await?;
        Ok(begun.map(|(_, start)| Request::verification(start)).into_iter().collect())
    }

    /// Accepts the exchange of keys that they have begun, if they have.
    pub fn go_along(&self, user: &UserId, flow: &str) -> Vec<Request> {
        let accept = self.find_sas(user, flow).and_then(|sas| sas.accept());
        accept.map(Request::verification).into_iter().collect()
    }

    /// The person on our side saw the same; `numbers` is what they were shown, as in
    /// [`ShortAuthString::numbers`]. The other side can begin anew under the same flow: what was not
    /// shown is not confirmed but ends the verification.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn confirm_verification(
        &self,
        user: &UserId,
        flow: &str,
        numbers: [u16; 3],
    ) -> Result<Vec<Request>, MachineError> {
        let Some(sas) = self.find_sas(user, flow) else { return Ok(Vec::new()) };
        if sas.is_done() || sas.is_cancelled() || sas.have_we_confirmed() {
            return Ok(Vec::new());
        }
        if sas.decimals().map(<[u16; 3]>::from) != Some(numbers) {
            return Ok(self.cancel_verification(user, flow, CancelReason::Mismatch));
        }
        let (macs, signature) = sas.confirm().await?;
        let mut requests: Vec<Request> = macs.into_iter().map(Request::verification).collect();
        let signature = signature.map(OutgoingRequest::from);
        requests.extend(signature.and_then(|signature| Request::outgoing(&signature)));
        Ok(requests)
    }

    /// Ends a verification.
    pub fn cancel_verification(
        &self,
        user: &UserId,
        flow: &str,
        reason: CancelReason,
    ) -> Vec<Request> {
        use ruma::events::key::verification::cancel::CancelCode;

        let cancel = match (self.find_sas(user, flow), reason) {
            (Some(sas), CancelReason::Mismatch) => sas.cancel_with_code(CancelCode::MismatchedSas),
            _ => self.olm.get_verification_request(user, flow).and_then(|it| it.cancel()),
        };
        cancel.map(Request::verification).into_iter().collect()
    }

    /// Ends what is left of a verification in memory, so that it is in no other one's way. Nobody
    /// is told.
    pub fn drop_verification(&self, user: &UserId, flow: &str) {
        if let Some(request) = self.olm.get_verification_request(user, flow) {
            let _untold = request.cancel();
        }
    }

    /// The message that asks a person for a verification in a room, of type `m.room.message`.
    /// `None` when they have no identity.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn verification_request(
        &self,
        user: &UserId,
    ) -> Result<Option<JsonObject>, MachineError> {
        let Some(UserIdentity::Other(identity)) = self.olm.get_identity(user, None).await? else {
            return Ok(None);
        };
        let methods = Some(vec![VerificationMethod::SasV1]);
        let content = RoomMessageEventContent::new(identity.verification_request_content(methods));
        let content = serde_json::to_value(content).ok();
        Ok(content.and_then(|content| content.as_object().cloned().map(JsonObject::from_iter)))
    }

    /// The message of [`Self::verification_request`] was sent under this id: an answer may come.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn expect_answer(
        &self,
        user: &UserId,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<(), MachineError> {
        if let Some(UserIdentity::Other(identity)) = self.olm.get_identity(user, None).await? {
            let methods = Some(vec![VerificationMethod::SasV1]);
            identity.request_verification(room, event_id, methods);
        }
        Ok(())
    }

    /// Messages of verifications that the machine wants to send into rooms, until they are marked
    /// as sent.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn verification_messages(&self) -> Result<Vec<Request>, MachineError> {
        let requests = self.olm.outgoing_requests().await?;
        let is_room_message = |request: &&OutgoingRequest| {
            matches!(request.request(), AnyOutgoingRequest::RoomMessage(_))
        };
        Ok(requests.iter().filter(is_room_message).filter_map(Request::room_event).collect())
    }
}

fn sas_state(sas: &Sas) -> VerificationState {
    match sas.state() {
        SasState::Created { .. } | SasState::Started { .. } | SasState::Accepted { .. } => {
            VerificationState::Exchanging
        }
        SasState::KeysExchanged { emojis, decimals } => match emojis {
            Some(shown) => VerificationState::Comparing(Box::new(ShortAuthString {
                emoji: shown.emojis.map(|emoji| (emoji.symbol, emoji.description)),
                numbers: decimals.into(),
            })),
            None => VerificationState::Exchanging,
        },
        SasState::Confirmed => VerificationState::Confirmed,
        SasState::Done { verified_identities, .. } => {
            let identity =
                verified_identities.iter().find(|it| it.user_id() == sas.other_user_id());
            let key = identity.and_then(|it| it.master_key().get_first_key());
            match key {
                Some(key) => VerificationState::Done { master_key: key.to_base64() },
                // A device alone says nothing of the person.
                None => {
                    VerificationState::Cancelled { by_us: true, code: "m.key_mismatch".to_owned() }
                }
            }
        }
        SasState::Cancelled(info) => cancelled(&info),
    }
}

fn cancelled(info: &CancelInfo) -> VerificationState {
    VerificationState::Cancelled {
        by_us: info.cancelled_by_us(),
        code: info.cancel_code().as_str().to_owned(),
    }
}
