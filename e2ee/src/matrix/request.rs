//! What a machine asks of the homeserver.

use std::sync::Arc;

use matrix_sdk_crypto::types::requests::{
    AnyIncomingResponse, AnyOutgoingRequest, KeysQueryRequest, OutgoingRequest,
    OutgoingVerificationRequest, RoomMessageRequest, ToDeviceRequest, UploadSigningKeysRequest,
};
use ruma::{
    OwnedRoomId, OwnedTransactionId,
    api::client::{
        keys::{claim_keys, get_keys, upload_keys, upload_signatures, upload_signing_keys},
        message::send_message_event,
        to_device::send_event_to_device,
    },
    events::MessageLikeEventContent as _,
    serde::JsonObject,
};

/// A request, and the id under which its response comes back.
#[derive(Clone)]
pub struct Request {
    /// For [`super::Machine::receive_response`].
    pub id: OwnedTransactionId,
    /// What to send, as this device.
    pub body: RequestBody,
}

/// What to send.
#[derive(Clone)]
pub enum RequestBody {
    /// Publish the cross-signing identity.
    SigningKeysUpload(upload_signing_keys::v3::Request),
    /// Publish device, one-time and fallback keys.
    KeysUpload(upload_keys::v3::Request),
    /// Publish signatures.
    SignaturesUpload(upload_signatures::v3::Request),
    /// Fetch the keys of users.
    KeysQuery(get_keys::v3::Request),
    /// Take one-time keys of devices.
    KeysClaim(claim_keys::v3::Request),
    /// Send messages to devices.
    ToDevice(send_event_to_device::v3::Request),
    /// Send an event into a room, encrypted if the room is; the request's id is its transaction id.
    RoomEvent {
        /// The room.
        room: OwnedRoomId,
        /// The event's type, as it is to be inside the ciphertext.
        event_type: String,
        /// The event's content.
        content: JsonObject,
    },
}

/// The homeserver's answer to a [`Request`] of the same kind.
#[derive(Debug)]
pub enum Response {
    /// The cross-signing identity is published.
    SigningKeysUpload(upload_signing_keys::v3::Response),
    /// Keys are published.
    KeysUpload(upload_keys::v3::Response),
    /// Signatures are published.
    SignaturesUpload(upload_signatures::v3::Response),
    /// The keys of users.
    KeysQuery(get_keys::v3::Response),
    /// One-time keys.
    KeysClaim(claim_keys::v3::Response),
    /// The messages are sent.
    ToDevice(send_event_to_device::v3::Response),
    /// The event is sent.
    RoomEvent(send_message_event::v3::Response),
}

impl Response {
    pub(super) fn as_any(&self) -> AnyIncomingResponse<'_> {
        match self {
            Self::SigningKeysUpload(response) => AnyIncomingResponse::SigningKeysUpload(response),
            Self::KeysUpload(response) => AnyIncomingResponse::KeysUpload(response),
            Self::SignaturesUpload(response) => AnyIncomingResponse::SignatureUpload(response),
            Self::KeysQuery(response) => AnyIncomingResponse::KeysQuery(response),
            Self::KeysClaim(response) => AnyIncomingResponse::KeysClaim(response),
            Self::ToDevice(response) => AnyIncomingResponse::ToDevice(response),
            Self::RoomEvent(response) => AnyIncomingResponse::RoomMessage(response),
        }
    }
}

impl Request {
    pub(super) fn to_device(request: &Arc<ToDeviceRequest>) -> Self {
        Self { id: request.txn_id.clone(), body: to_device_body(request) }
    }

    pub(super) fn keys_query(id: OwnedTransactionId, request: &KeysQueryRequest) -> Self {
        Self { id, body: keys_query_body(request) }
    }

    pub(super) fn signing_keys_upload(
        id: OwnedTransactionId,
        request: &UploadSigningKeysRequest,
    ) -> Self {
        let mut body = upload_signing_keys::v3::Request::new();
        body.master_key = request.master_key.as_ref().map(|key| key.to_raw());
        body.self_signing_key = request.self_signing_key.as_ref().map(|key| key.to_raw());
        body.user_signing_key = request.user_signing_key.as_ref().map(|key| key.to_raw());
        Self { id, body: RequestBody::SigningKeysUpload(body) }
    }

    /// A message of a verification.
    pub(super) fn verification(request: OutgoingVerificationRequest) -> Self {
        let id = request.request_id().to_owned();
        let body = match request {
            OutgoingVerificationRequest::ToDevice(request) => to_device_body(&request),
            OutgoingVerificationRequest::InRoom(request) => room_event_body(&request),
        };
        Self { id, body }
    }

    /// A message that the machine wants to send into a room by itself.
    pub(super) fn room_event(request: &OutgoingRequest) -> Option<Self> {
        let AnyOutgoingRequest::RoomMessage(message) = request.request() else { return None };
        Some(Self { id: request.request_id().to_owned(), body: room_event_body(message) })
    }

    /// `None` for messages into rooms: see [`Self::room_event`].
    pub(super) fn outgoing(request: &OutgoingRequest) -> Option<Self> {
        let body = match request.request() {
            AnyOutgoingRequest::KeysUpload(body) => RequestBody::KeysUpload(body.clone()),
            AnyOutgoingRequest::KeysQuery(body) => keys_query_body(body),
            AnyOutgoingRequest::KeysClaim(body) => RequestBody::KeysClaim(body.clone()),
            AnyOutgoingRequest::ToDeviceRequest(body) => to_device_body(body),
            AnyOutgoingRequest::SignatureUpload(body) => {
                RequestBody::SignaturesUpload(body.clone())
            }
            AnyOutgoingRequest::RoomMessage(_) => return None,
        };
        Some(Self { id: request.request_id().to_owned(), body })
    }
}

fn keys_query_body(request: &KeysQueryRequest) -> RequestBody {
    let mut body = get_keys::v3::Request::new();
    body.timeout = request.timeout;
    body.device_keys = request.device_keys.clone();
    RequestBody::KeysQuery(body)
}

fn room_event_body(request: &RoomMessageRequest) -> RequestBody {
    // The library's own contents are objects.
    let content = serde_json::to_value(&*request.content).ok();
    let content = content.and_then(|content| content.as_object().cloned()).unwrap_or_default();
    RequestBody::RoomEvent {
        room: request.room_id.clone(),
        event_type: request.content.event_type().to_string(),
        content: JsonObject::from_iter(content),
    }
}

fn to_device_body(request: &ToDeviceRequest) -> RequestBody {
    RequestBody::ToDevice(send_event_to_device::v3::Request::new_raw(
        request.event_type.clone(),
        request.txn_id.clone(),
        request.messages.clone(),
    ))
}
