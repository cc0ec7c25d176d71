//! One span per call to AWS. A span says which call it was and what came of it, and never what was in it: no role, no external ID, no name.

use tracing::{Instrument as _, Span, field};

use crate::{Failure, FailureKind};

/// A client's span for `operation` of `service`, both as AWS writes them: `("STS", "AssumeRole")`. Named and labelled as OpenTelemetry wants it
/// ([AWS SDK spans](https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/)).
#[must_use]
pub fn call_span(service: &'static str, operation: &'static str) -> Span {
    tracing::info_span!(
        "aws",
        otel.name = format!("{service}.{operation}"),
        otel.kind = "client",
        rpc.system = "aws-api",
        rpc.service = service,
        rpc.method = operation,
        error.r#type = field::Empty,
        otel.status_code = field::Empty,
        aws.request_id = field::Empty,
    )
}

/// Sends `call` inside of its [`call_span`], and notes there the failure, if it is one.
///
/// # Errors
/// The call's own.
pub async fn traced<T>(
    service: &'static str,
    operation: &'static str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let span = call_span(service, operation);
    let result = call.instrument(span.clone()).await;
    if let Err(failure) = &result {
        note(&span, failure);
    }
    result
}

/// The code and the request ID; both are AWS's, and safe. A clear no is an answer, which a probe may even hope for: only the lack of one is an error.
pub fn note(span: &Span, failure: &Failure) {
    let unclear = match failure.kind {
        FailureKind::Indeterminate(unclear) => Some(unclear.as_str()),
        FailureKind::Refused | FailureKind::Other => None,
    };
    span.record("error.type", failure.code.as_deref().or(unclear).unwrap_or("unknown"));
    if unclear.is_some() {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(id) = &failure.request_id {
        span.record("aws.request_id", id.as_str());
    }
}
