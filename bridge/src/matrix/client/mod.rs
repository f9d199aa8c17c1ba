//! The client-server API as an application service uses it.
//!
//! Owns the token, the masquerading (`user_id`, `device_id`), time-outs and retries. Knows no
//! room, no portal and no key.
//!
//! Spec: <https://spec.matrix.org/v1.17/application-service-api/#client-server-api-extensions>

mod error;
mod keys;
mod media;
mod rooms;
#[cfg(test)]
mod tests;
mod users;

use std::{borrow::Cow, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use ruma::{
    DeviceId, UserId,
    api::{
        IncomingResponse, MatrixVersion, OutgoingRequest, SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        path_builder::PathBuilder,
    },
};
use url::Url;
use zeroize::Zeroizing;

pub use self::{
    error::ClientError,
    keys::SMALL_SYNC_FILTER,
    rooms::{Members, StateEvent},
};

/// How long one attempt may take, apart from calls that wait on purpose.
const ATTEMPT: Duration = Duration::from_secs(60);
/// The longest that a homeserver's `Retry-After` is followed inside one call.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes: far more than the state of a chat or a sync without rooms takes.
const LONGEST_ANSWER: usize = 64 << 20;

/// As whom a request is made.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The user, one of our namespaces.
    pub user: &'a UserId,
    /// The device, where the request concerns one.
    pub device: Option<&'a DeviceId>,
}

impl<'a> Identity<'a> {
    /// A user without naming a device.
    pub fn user(user: &'a UserId) -> Self {
        Self { user, device: None }
    }

    /// One device of a user.
    pub fn device(user: &'a UserId, device: &'a DeviceId) -> Self {
        Self { user, device: Some(device) }
    }
}

/// Whether a request may be made again when nobody knows whether it was carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Twice is like once: reads, and writes with a transaction id or a fixed body.
    Safe,
    /// Twice is not like once: only a refusal or a connection that never stood is retried.
    Unsafe,
}

/// A client of the homeserver that speaks as any user of our namespaces.
#[derive(Clone)]
pub struct MatrixClient {
    http: reqwest::Client,
    base: String,
    as_token: Zeroizing<String>,
    versions: SupportedVersions,
    backoff: ExponentialBuilder,
}

/// Shows no token.
impl std::fmt::Debug for MatrixClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MatrixClient").finish_non_exhaustive()
    }
}

impl MatrixClient {
    /// A client for the homeserver at `base`, with the `as_token` of the registration.
    pub fn new(http: reqwest::Client, base: &Url, as_token: Zeroizing<String>) -> Self {
        let versions = [MatrixVersion::V1_1, MatrixVersion::V1_7, MatrixVersion::V1_11].into();
        Self {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            as_token,
            versions: SupportedVersions { versions, features: Default::default() },
            backoff: ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_delay(Duration::from_secs(10))
                .with_max_times(6)
                .with_jitter(),
        }
    }

    /// The same client with other waits between attempts: six attempts, `first` doubling.
    #[must_use]
    pub fn with_first_wait(mut self, first: Duration) -> Self {
        self.backoff = self.backoff.with_min_delay(first);
        self
    }

    async fn send<R>(
        &self,
        who: Option<Identity<'_>>,
        repeat: Repeat,
        request: R,
    ) -> Result<R::IncomingResponse, ClientError>
    where
        R: OutgoingRequest,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = Cow<'a, SupportedVersions>>,
    {
        let attempt = || async { self.attempt(who, request.clone(), ATTEMPT).await };
        attempt
            .retry(self.backoff)
            .when(|error| match repeat {
                Repeat::Safe => error.is_temporary(),
                Repeat::Unsafe => error.was_not_carried_out(),
            })
            .adjust(|error, wait| match (error.retry_after(), wait) {
                (Some(asked), Some(_)) if asked > LONGEST_WAIT => None,
                (Some(asked), Some(wait)) => Some(asked.max(wait)),
                (_, wait) => wait,
            })
            .notify(|error, wait| {
                tracing::debug!(wait_ms = wait.as_millis(), %error, "homeserver call is retried");
            })
            .await
    }

    /// One attempt of one request.
    async fn attempt<R>(
        &self,
        who: Option<Identity<'_>>,
        request: R,
        timeout: Duration,
    ) -> Result<R::IncomingResponse, ClientError>
    where
        R: OutgoingRequest,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = Cow<'a, SupportedVersions>>,
    {
        let mut request = request
            .try_into_http_request::<Vec<u8>>(
                &self.base,
                SendAccessToken::Always(&self.as_token),
                Cow::Borrowed(&self.versions),
            )
            .map_err(ClientError::Request)?;
        if request.uri().path().contains('\\') {
            return Err(ClientError::Path);
        }
        if let Some(who) = who {
            masquerade(&mut request, who)?;
        }
        let mut request =
            reqwest::Request::try_from(request).map_err(|_| ClientError::Malformed)?;
        *request.timeout_mut() = Some(timeout);
        let response = self.http.execute(request).await.map_err(ClientError::transport)?;
        let response = buffer(response).await?;
        if !response.status().is_success() {
            return Err(ClientError::from_response(&response));
        }
        R::IncomingResponse::try_from_http_response(response).map_err(|_| ClientError::Malformed)
    }
}

/// Adds `user_id` and, where it is named, `device_id` to the query.
fn masquerade(request: &mut http::Request<Vec<u8>>, who: Identity<'_>) -> Result<(), ClientError> {
    let mut identity = ruma::api::AppserviceUserIdentity::new(who.user);
    identity.device_id = who.device;
    identity.maybe_add_to_uri(request.uri_mut()).map_err(ClientError::Request)
}

/// Reads the whole answer, if it has an end.
async fn buffer(mut response: reqwest::Response) -> Result<http::Response<Vec<u8>>, ClientError> {
    let mut builder = http::Response::builder().status(response.status());
    if let Some(headers) = builder.headers_mut() {
        headers.clone_from(response.headers());
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(ClientError::transport)? {
        if part.len() > LONGEST_ANSWER.saturating_sub(body.len()) {
            return Err(ClientError::Malformed);
        }
        body.extend_from_slice(&part);
    }
    builder.body(body).map_err(|_| ClientError::Malformed)
}
