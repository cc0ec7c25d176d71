//! The error that a requester sees: one small code set for all endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of refusal; what a program decides by. `Nats-Service-Error-Code` carries [`ErrorCode::number`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request has not the form that the endpoint's schema asks for. Mend it; trying again is no use.
    InvalidRequest,
    /// The requester, or the tenant at this time, may not do this.
    Denied,
    /// There is no such thing, or not for this tenant.
    NotFound,
    /// It contradicts what is there already.
    Conflict,
    /// The connection is not in a state that allows it.
    NotVerified,
    /// Too much at once: try again after `retry_after_ms`.
    Throttled,
    /// A fault of ours.
    Internal,
    /// Something that is needed is not there yet or not reachable: try again after `retry_after_ms`.
    Unavailable,
}

impl ErrorCode {
    /// The whole set.
    pub const ALL: [Self; 8] = [
        Self::InvalidRequest,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::NotVerified,
        Self::Throttled,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The number sent as `Nats-Service-Error-Code`; HTTP's, for those who know them.
    #[must_use]
    pub const fn number(self) -> usize {
        match self {
            Self::InvalidRequest => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::NotVerified => 412,
            Self::Throttled => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// The code of this text, or `None` when there is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// As it stands on the wire: `not-verified`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::NotVerified => "not-verified",
            Self::Throttled => "throttled",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error reply. It has no body: the message is the header `Nats-Service-Error`, [`ErrorCode::number`] the header `Nats-Service-Error-Code`
/// (both ADR-32), the code's text and the milliseconds are the headers below. The message says what happened, to what, and what to do; it holds no secret and no source chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ErrorReply {
    pub code: ErrorCode,
    pub message: String,
    /// Milliseconds after which the same request may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorReply {
    /// Header with [`ErrorCode::as_str`].
    pub const CODE_HEADER: &'static str = "Rolebridge-Error";
    /// Header with `retry_after_ms`, if there is one.
    pub const RETRY_HEADER: &'static str = "Rolebridge-Retry-After-Ms";

    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    #[must_use]
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}
