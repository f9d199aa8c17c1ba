//! `POST /_matrix/app/v1/ping`: the homeserver's half of a ping that the bridge asked for.
//!
//! <https://spec.matrix.org/v1.17/application-service-api/#post_matrixappv1ping>

use axum::Json;
use serde_json::{Value, json};

/// Answers. The body has a known length, so the answer has a `Content-Length`, without which
/// Synapse counts the ping as failed.
pub(super) async fn ping() -> Json<Value> {
    Json(json!({}))
}
