//! The hs_token, on every route that the homeserver calls.
//!
//! <https://spec.matrix.org/v1.17/application-service-api/#authorization>

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use subtle::ConstantTimeEq as _;

use super::{AppserviceState, error::ApiError};
use crate::config::Secret;

/// Lets a request through that shows the hs_token in its one `Authorization` header. A token in the
/// query counts for nothing: it would stand in the logs of every proxy.
pub(super) async fn require_hs_token(
    State(state): State<AppserviceState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check(&state.hs_token, request.headers())
        .inspect_err(|error| tracing::warn!(%error, "appservice.request_refused"))?;
    Ok(next.run(request).await)
}

fn check(hs_token: &Secret, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let shown = match (values.next(), values.next()) {
        (Some(only), None) => only.as_bytes(),
        (None, _) => return Err(ApiError::MissingToken),
        (Some(_), Some(_)) => return Err(ApiError::WrongToken),
    };
    let token = bearer_token(shown).ok_or(ApiError::WrongToken)?;
    if bool::from(token.ct_eq(hs_token.expose().as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::WrongToken)
    }
}

fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
