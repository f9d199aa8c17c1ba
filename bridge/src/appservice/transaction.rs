//! `PUT /_matrix/app/v1/transactions/{txnId}`: committed before it is acknowledged.
//!
//! <https://spec.matrix.org/v1.17/application-service-api/#put_matrixappv1transactionstxnid>
//!
//! The transaction's id only shows gaps ([`Gaps`]): a homeserver that was restored may use one
//! again, and a repeated transaction may carry less. Events are recognised by their own ids.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use super::{AppserviceState, error::ApiError, gaps::Gaps};
use crate::{
    error_chain,
    store::{NewInboxEvent, StoreError},
};

/// What is read of the body; the rest is for other application services.
#[derive(Deserialize)]
struct Body {
    events: Vec<Box<RawValue>>,
    /// Only where the homeserver has an experimental feature switched on (MSC2409).
    #[serde(default, rename = "de.sorunome.msc2409.to_device")]
    to_device: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ToDevice {
    to_user_id: OwnedUserId,
}

pub(super) async fn push(
    State(state): State<AppserviceState>,
    Extension(gaps): Extension<Arc<Gaps>>,
    Path(txn_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let Body { events, to_device } = parse(&body.map_err(unreadable)?)?;
    if !gaps.admits(&txn_id) {
        tracing::info!("appservice.transaction_gap: the homeserver starts over with the oldest");
        return Err(ApiError::OutOfOrder);
    }
    let events = well_formed(&events);
    if !events.is_empty() {
        commit(&state, &txn_id, &events).await.map_err(|error| {
            tracing::error!(
                error = error_chain(&error),
                "appservice.transaction_not_stored: the homeserver will send it again"
            );
            gaps.absent();
            ApiError::NotStored
        })?;
        state.intake.events_committed(&rooms_of(events));
    }
    let receivers = receivers_of(&to_device);
    if !receivers.is_empty() {
        state.intake.to_device_hint(&receivers);
    }
    Ok(Json(json!({})))
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        tracing::error!("appservice.transaction_too_large: the homeserver will send it again");
        ApiError::TooLarge
    } else {
        ApiError::Unreadable
    }
}

fn parse(body: &[u8]) -> Result<Body, ApiError> {
    serde_json::from_slice(body).map_err(|_| match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(IgnoredAny) => ApiError::BadJson,
        Err(_) => ApiError::NotJson,
    })
}

/// The events that can be stored. One that cannot is left out: refused, it would come again and
/// again and keep all others waiting.
fn well_formed(events: &[Box<RawValue>]) -> Vec<NewInboxEvent> {
    let parsed = events.iter().filter_map(|raw| {
        NewInboxEvent::parse(raw)
            .inspect_err(|error| tracing::warn!(%error, "appservice.event_skipped"))
            .ok()
    });
    parsed.collect()
}

/// Stores all events or none. Those that were there already count as stored.
async fn commit(
    state: &AppserviceState,
    txn_id: &str,
    events: &[NewInboxEvent],
) -> Result<(), StoreError> {
    let now_ms = i64::try_from(state.clock.now_ms()).unwrap_or(i64::MAX);
    let mut tx = state.db.begin().await?;
    let stored = tx.matrix_inbox().insert(events, now_ms).await?;
    if let Ok(number) = txn_id.parse() {
        tx.matrix_inbox().note_transaction(number).await?;
    }
    failpoint!("w01_transaction_received");
    tx.commit().await?;
    failpoint!("w02_transaction_committed");
    let new = stored.iter().flatten().count();
    tracing::debug!(new, repeated = stored.len() - new, "appservice.transaction_stored");
    Ok(())
}

fn rooms_of(events: Vec<NewInboxEvent>) -> Vec<OwnedRoomId> {
    events.into_iter().map(|event| event.room_id).collect::<BTreeSet<_>>().into_iter().collect()
}

fn receivers_of(to_device: &[Box<RawValue>]) -> Vec<OwnedUserId> {
    let receivers: BTreeSet<_> = to_device
        .iter()
        .filter_map(|raw| serde_json::from_str::<ToDevice>(raw.get()).ok())
        .map(|message| message.to_user_id)
        .collect();
    receivers.into_iter().collect()
}
