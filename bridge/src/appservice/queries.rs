//! `GET /_matrix/app/v1/users/{userId}` and `…/rooms/{roomAlias}`.
//!
//! <https://spec.matrix.org/v1.17/application-service-api/#querying>

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use ruma::{OwnedRoomAliasId, OwnedUserId};
use serde_json::{Value, json};

use super::{AppserviceState, error::ApiError};

/// Whether a user exists; a ghost comes into being by this question.
pub(super) async fn user(
    State(state): State<AppserviceState>,
    user: Result<Path<OwnedUserId>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(user) = user.map_err(|_| ApiError::InvalidParam)?;
    if state.intake.user_exists(&user).await {
        Ok(Json(json!({})))
    } else {
        Err(ApiError::NotFound)
    }
}

/// The registration reserves no aliases, so there are none.
pub(super) async fn room_alias(
    alias: Result<Path<OwnedRoomAliasId>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    alias.map_err(|_| ApiError::InvalidParam)?;
    Err(ApiError::NotFound)
}
