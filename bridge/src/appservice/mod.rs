//! What the homeserver pushes.
//!
//! Owns the HTTP server, the check of the hs_token and the commit into the inbox. Knows no portal
//! and no network: what follows a commit is behind [`Intake`].
//!
//! <https://spec.matrix.org/v1.17/application-service-api/>

mod auth;
mod error;
mod gaps;
mod health;
mod ping;
mod queries;
mod transaction;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post, put},
};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::gaps::Gaps;
use crate::{clock::Clock, config::Secret, store::Database};

/// More than a homeserver sends at once: a hundred events of 64 KiB, each with the state that it
/// replaced and the aggregations that hang on it. What is refused for its size comes again and again.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// How long requests under way may take to end when the bridge stops.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Who is told what the homeserver said.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Whether a user of our namespace exists. Makes the ghost when its name stands for a valid
    /// contact.
    async fn user_exists(&self, user: &UserId) -> bool;

    /// Events in these rooms are in the inbox. Only a doorbell: it may ring twice.
    fn events_committed(&self, rooms: &[OwnedRoomId]);

    /// To-device messages for these users are on the homeserver. Only a doorbell: the small sync
    /// brings them.
    fn to_device_hint(&self, users: &[OwnedUserId]);
}

/// What the routes need.
#[derive(Clone)]
pub struct AppserviceState {
    /// What the homeserver must show.
    pub hs_token: Secret,
    /// Where events are committed.
    pub db: Database,
    /// The highest number of a transaction that is in it.
    pub last_transaction: Option<u64>,
    /// Who is told.
    pub intake: Arc<dyn Intake>,
    /// The time of arrival.
    pub clock: Arc<dyn Clock>,
}

/// All routes. Paths that are not of this API's version 1, the unversioned legacy ones among them,
/// are answered 404 `M_UNRECOGNIZED`.
pub fn router(state: AppserviceState) -> Router {
    let for_homeserver = Router::new()
        .route("/_matrix/app/v1/transactions/{txn_id}", put(transaction::push))
        .route("/_matrix/app/v1/users/{user_id}", get(queries::user))
        .route("/_matrix/app/v1/rooms/{alias}", get(queries::room_alias))
        .route("/_matrix/app/v1/ping", post(ping::ping))
        .layer(Extension(Arc::new(Gaps::new(state.last_transaction))))
        .route_layer(middleware::from_fn_with_state(state.clone(), auth::require_hs_token));
    Router::new()
        .merge(for_homeserver)
        .route("/health", get(health::health))
        .fallback(error::unrecognized_path)
        .method_not_allowed_fallback(error::unrecognized_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Serves until `stop`, then lets requests under way end, for ten seconds at most: what was not
/// answered by then comes again.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let out_of_patience = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = served => result,
        () = out_of_patience => {
            tracing::warn!("appservice.stop_grace_over: requests under way were cut off");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
