//! Why a request to the homeserver failed.

use std::time::Duration;

use ruma::api::error::IntoHttpError;
use serde::Deserialize;

/// Why a request to the homeserver failed. Names no user, room or token.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The homeserver refused the request, and would refuse it again.
    #[error("the homeserver refused the request with {status} {errcode}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The `errcode`, such as `M_FORBIDDEN`; empty when there was none.
        errcode: String,
    },
    /// Too many requests.
    #[error("the homeserver asks to slow down")]
    Limited {
        /// How long the homeserver asks to wait.
        retry_after: Option<Duration>,
    },
    /// The homeserver, or a proxy before it, failed.
    #[error("the homeserver failed with {status}")]
    Server {
        /// HTTP status, 500 or above.
        status: u16,
    },
    /// No connection stood: the request was not carried out.
    #[error("the homeserver cannot be reached; check its address and that it runs")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke or timed out: the request may have been carried out.
    #[error("the homeserver did not answer")]
    NoAnswer(#[source] reqwest::Error),
    /// The answer was not what the specification says.
    #[error("the homeserver's answer is not valid")]
    Malformed,
    /// An id, which others chose, has a backslash: URLs take it for a slash, and the request would be another one.
    #[error("an id cannot stand in the path of a request")]
    Path,
    /// The request could not be built.
    #[error("the request is not valid")]
    Request(#[source] IntoHttpError),
}

#[derive(Default, Deserialize)]
struct StandardBody {
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Limited { .. }
            | Self::Server { .. }
            | Self::Unreachable(_)
            | Self::NoAnswer(_)
            | Self::Malformed => true,
            // The token may be wrong today; what it was shown for is not refused by that.
            Self::Refused { status, .. } => *status == 401,
            Self::Path | Self::Request(_) => false,
        }
    }

    /// The `errcode` of a refusal.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Refused { errcode, .. } => Some(errcode),
            _ => None,
        }
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the homeserver does not know the device that the request was made as.
    pub fn is_unknown_device(&self) -> bool {
        self.errcode() == Some("M_UNKNOWN_DEVICE")
    }

    /// Whether it is sure that the request changed nothing, and may be made again.
    pub(super) fn was_not_carried_out(&self) -> bool {
        matches!(self, Self::Limited { .. } | Self::Unreachable(_))
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// The address is left out: it names users and rooms.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() { Self::Unreachable(error) } else { Self::NoAnswer(error) }
    }

    pub(super) fn from_response(response: &http::Response<Vec<u8>>) -> Self {
        let body: StandardBody = serde_json::from_slice(response.body()).unwrap_or_default();
        match response.status().as_u16() {
            429 => Self::Limited { retry_after: retry_after(response, &body) },
            status @ 500.. => Self::Server { status },
            // A homeserver names its reason. What does not is something before it, and only one of
            // its answers will be the same tomorrow.
            status if body.errcode.is_empty() && status != 413 => Self::Malformed,
            status => Self::Refused { status, errcode: printable(&body.errcode) },
        }
    }
}

/// The header counts before the older field of the body.
fn retry_after(response: &http::Response<Vec<u8>>, body: &StandardBody) -> Option<Duration> {
    response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs)
        .or(body.retry_after_ms.map(Duration::from_millis))
}

/// An `errcode` is upper-case ASCII by the specification; anything else is not repeated.
fn printable(errcode: &str) -> String {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '.';
    if errcode.len() <= 64 && errcode.chars().all(plain) {
        errcode.to_owned()
    } else {
        String::new()
    }
}
