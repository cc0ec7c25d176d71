//! Request-reply, from the requester's side.

use std::time::Duration;

use async_nats::{HeaderMap, Request, client::RequestErrorKind, service::NATS_SERVICE_ERROR};
use contracts::{Endpoint, ErrorCode, ErrorReply, Subject};
use tracing::Instrument as _;

use crate::{Bus, publish::TRACEPARENT};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The service answered with an error.
    #[error("{0}")]
    Refused(ErrorReply),
    #[error("nobody serves {subject}: check that {service} runs and that this user may ask it")]
    NoResponders { subject: String, service: &'static str },
    #[error(
        "NATS user {user} may not publish on {subject}: ask whoever keeps the server for the permission (deploy/nats/README.md), or be another user (ROLEBRIDGE_NATS_USER, ROLEBRIDGE_NATS_SEED_FILE)"
    )]
    Denied { subject: String, user: String },
    #[error("{service} did not answer within {waited_ms} ms on {subject}")]
    TimedOut { subject: String, service: &'static str, waited_ms: u128 },
    #[error("the request to {subject} could not be sent")]
    Send {
        subject: String,
        #[source]
        source: async_nats::RequestError,
    },
    #[error(
        "the request for {endpoint} could not be written, or its answer has not the form of its contract: are both sides of the same version?"
    )]
    Malformed {
        endpoint: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl RequestError {
    /// The service's error, if it gave one.
    #[must_use]
    pub fn refusal(&self) -> Option<&ErrorReply> {
        match self {
            Self::Refused(reply) => Some(reply),
            _ => None,
        }
    }
}

impl Bus {
    /// Asks `E` at `subject` (made by the endpoint's own `subject` function) and waits at most `timeout`.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::Refused`] holds the service's own words.
    pub async fn request<E: Endpoint>(
        &self,
        subject: Subject,
        request: &E::Request,
        timeout: Duration,
    ) -> Result<E::Response, RequestError> {
        let span = tracing::info_span!("request", endpoint = E::NAME, service = E::SERVICE, otel.kind = "client");
        self.ask::<E>(subject, request, timeout).instrument(span).await
    }

    async fn ask<E: Endpoint>(
        &self,
        subject: Subject,
        request: &E::Request,
        timeout: Duration,
    ) -> Result<E::Response, RequestError> {
        let malformed = |source| RequestError::Malformed { endpoint: E::NAME, source };
        let payload = serde_json::to_vec(request).map_err(malformed)?;
        let mut headers = HeaderMap::new();
        if let Some(traceparent) = telemetry::traceparent() {
            headers.insert(TRACEPARENT, traceparent);
        }
        let asked = Request::new().payload(payload.into()).headers(headers).timeout(Some(timeout));
        let name = subject.as_str().to_owned();
        let mut denials = self.denials.listen();
        let sent = tokio::select! {
            sent = self.client.send_request(name.clone(), asked) => sent,
            () = denials.denied(&name) => {
                return Err(RequestError::Denied { subject: name, user: self.user.to_string() });
            }
        };
        let reply = sent.map_err(|source| match source.kind() {
            RequestErrorKind::NoResponders => RequestError::NoResponders { subject: name, service: E::SERVICE },
            RequestErrorKind::TimedOut => {
                RequestError::TimedOut { subject: name, service: E::SERVICE, waited_ms: timeout.as_millis() }
            }
            _ => RequestError::Send { subject: name, source },
        })?;
        if let Some(refusal) = reply.headers.as_ref().and_then(refusal) {
            return Err(RequestError::Refused(refusal));
        }
        serde_json::from_slice(&reply.payload).map_err(malformed)
    }
}

/// The error that a reply's headers carry, if it is one.
fn refusal(headers: &HeaderMap) -> Option<ErrorReply> {
    let message = headers.get(NATS_SERVICE_ERROR)?.to_string();
    let code = headers
        .get(ErrorReply::CODE_HEADER)
        .and_then(|code| ErrorCode::from_text(code.as_str()))
        .unwrap_or(ErrorCode::Internal);
    let retry_after_ms =
        headers.get(ErrorReply::RETRY_HEADER).and_then(|milliseconds| milliseconds.as_str().parse().ok());
    Some(ErrorReply { code, message, retry_after_ms })
}
