//! Errors as the homeserver reads them.
//!
//! <https://spec.matrix.org/v1.17/client-server-api/#standard-error-response>

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A request that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the Authorization header with the hs_token is missing")]
    MissingToken,
    #[error("this is not the hs_token of the registration")]
    WrongToken,
    #[error("there is no such path here; the application service API is at /_matrix/app/v1")]
    UnrecognizedPath,
    #[error("this path has no such method")]
    UnrecognizedMethod,
    #[error("the body is not JSON")]
    NotJson,
    #[error("the body is JSON but not what this path takes")]
    BadJson,
    #[error("the body is too large")]
    TooLarge,
    #[error("a part of the path is not a valid identifier")]
    InvalidParam,
    #[error("the body could not be read")]
    Unreadable,
    #[error("nothing here has this name")]
    NotFound,
    #[error("nothing was stored; the same request may succeed later")]
    NotStored,
    #[error("an earlier transaction has not come; send the oldest first")]
    OutOfOrder,
}

impl ApiError {
    fn code(self) -> (StatusCode, &'static str) {
        match self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::WrongToken => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::UnrecognizedPath => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::UnrecognizedMethod => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
            Self::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            Self::BadJson => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::InvalidParam => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::Unreadable => (StatusCode::BAD_REQUEST, "M_UNKNOWN"),
            Self::NotFound => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::NotStored => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
            Self::OutOfOrder => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, errcode) = self.code();
        (status, Json(json!({ "errcode": errcode, "error": self.to_string() }))).into_response()
    }
}

pub(super) async fn unrecognized_path() -> ApiError {
    ApiError::UnrecognizedPath
}

pub(super) async fn unrecognized_method() -> ApiError {
    ApiError::UnrecognizedMethod
}
