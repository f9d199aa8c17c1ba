//! `GET /health`: whether the bridge can do its work, for whoever watches it.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::json;

use super::AppserviceState;
use crate::error_chain;

/// 200 when the database answers and takes writes, else 503.
pub(super) async fn health(State(state): State<AppserviceState>) -> impl IntoResponse {
    match state.db.read().await {
        Ok(_) if state.db.takes_writes() => (StatusCode::OK, Json(json!({ "status": "ok" }))),
        Ok(_) => {
            let status = json!({ "status": "the database takes no writes" });
            (StatusCode::SERVICE_UNAVAILABLE, Json(status))
        }
        Err(error) => {
            tracing::error!(error = error_chain(&error), "health.database_failed");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "database" })))
        }
    }
}
