//! What an SDK error proves. Three-valued: AWS refused, AWS said no for another reason, or nothing is known.
//!
//! An error of the SDK holds the raw response, which for STS may hold credentials. It is therefore read here, once, and dropped: a [`Failure`]
//! keeps the code, the request ID and the status, and is safe to log. AWS's own message is kept apart, since it may repeat a parameter.

use std::{error::Error, fmt};

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::StatusCode,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

/// Codes that say "too much at once" with whatever status
/// ([SDK retry behaviour](https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html)).
const THROTTLES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];

/// Codes that say "not now" or "the way here was bad", whatever their status is.
const TRANSIENT: [&str; 8] = [
    "IDPCommunicationError",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
];

/// What a failed call proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The code `AccessDenied` with HTTP 403, and nothing else: whoever decides about the right to do this has decided against it.
    Refused,
    /// Proves nothing; the same call may succeed.
    Indeterminate(Unclear),
    /// AWS understood, and said no for another reason, which the code names (`ValidationError`, `InvalidClientTokenId`, `ExpiredToken`,
    /// `RegionDisabled`, ...). About the right to do it, this says nothing either.
    Other,
}

/// Why nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unclear {
    Throttled,
    TimedOut,
    /// No connection, or it broke.
    Unreachable,
    /// 5xx, or a code that says the same.
    ServerFault,
    /// An answer that is none of AWS's, from AWS or from something in between.
    Garbage,
    /// The request never left us.
    NotSent,
}

impl Unclear {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::ServerFault => "a fault of the server",
            Self::Garbage => "an answer that cannot be read",
            Self::NotSent => "not sent",
        }
    }
}

/// A failed call to AWS, safe to log.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// AWS's code, such as `AccessDenied`.
    pub code: Option<String>,
    /// For a question to AWS or a look into CloudTrail.
    pub request_id: Option<String>,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    message: Option<String>,
}

impl Failure {
    /// AWS's sentence, or why there was no connection. It may repeat a parameter of the call: never log that of a call that carried an
    /// external ID or a secret.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Whether the code is this one.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Without an SDK error behind it: for fakes, and for answers that the SDK takes for good.
    #[must_use]
    pub fn new(kind: FailureKind, code: Option<&str>) -> Self {
        Self { kind, code: code.map(str::to_owned), request_id: None, status: None, message: None }
    }

    /// An error answer that was read without the SDK: status, AWS's code and request ID. Judged as [`classify`] does.
    #[must_use]
    pub fn answered(status: u16, code: Option<String>, request_id: Option<String>) -> Self {
        Self { kind: of_answer(status, code.as_deref()), code, request_id, status: Some(status), message: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.as_deref().unwrap_or("no code");
        match self.kind {
            FailureKind::Refused => write!(f, "AWS refused it ({code})")?,
            FailureKind::Indeterminate(why) => write!(f, "AWS gave no clear answer: {} ({code})", why.as_str())?,
            FailureKind::Other => write!(f, "AWS answered {code}")?,
        }
        match &self.request_id {
            Some(id) => write!(f, ", request {id}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("request_id", &self.request_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Error for Failure {}

/// Reads an error of the SDK.
pub fn classify<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Failure {
    let status = error.raw_response().map(HttpResponse::status);
    let code = error_code(error);
    let kind = match error {
        SdkError::ConstructionFailure(_) => FailureKind::Indeterminate(Unclear::NotSent),
        SdkError::TimeoutError(_) => FailureKind::Indeterminate(Unclear::TimedOut),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => FailureKind::Indeterminate(Unclear::TimedOut),
        SdkError::DispatchFailure(failure) if failure.is_user() => FailureKind::Indeterminate(Unclear::NotSent),
        SdkError::DispatchFailure(_) => FailureKind::Indeterminate(Unclear::Unreachable),
        SdkError::ServiceError(_) => of_answer(status.map_or(0, StatusCode::as_u16), code),
        // ResponseError, and whatever a later SDK adds.
        _ => FailureKind::Indeterminate(Unclear::Garbage),
    };
    Failure {
        kind,
        code: code.map(str::to_owned),
        request_id: request_id(error).map(str::to_owned),
        status: status.map(StatusCode::as_u16),
        message: message(error),
    }
}

fn of_answer(status: u16, code: Option<&str>) -> FailureKind {
    match code {
        // Read first: AWS sends throttles as 400, 403, 429 and 503 alike.
        Some(code) if THROTTLES.contains(&code) => FailureKind::Indeterminate(Unclear::Throttled),
        _ if status == 429 => FailureKind::Indeterminate(Unclear::Throttled),
        _ if status >= 500 => FailureKind::Indeterminate(Unclear::ServerFault),
        Some(code) if TRANSIENT.contains(&code) => FailureKind::Indeterminate(Unclear::ServerFault),
        Some("AccessDenied") if status == 403 => FailureKind::Refused,
        Some(_) if (400..500).contains(&status) => FailureKind::Other,
        // No code: a proxy's page, a cut body. A code with a status that is no error: not AWS as we know it.
        _ => FailureKind::Indeterminate(Unclear::Garbage),
    }
}

/// AWS's code, such as `AccessDenied`; `None` where there was no answer or it had none.
pub fn error_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// AWS's request ID; `None` where there was no answer.
pub fn request_id<E>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.request_id()
}

fn message<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    match error {
        SdkError::ServiceError(context) => context.err().message().map(str::to_owned),
        // No body can be in these: there was no answer. (The errors of unreadable answers may quote them.)
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => error.source().map(with_sources),
        _ => None,
    }
}

/// A chain in one line.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::{body::SdkBody, error::ErrorMetadata};
    use rstest::rstest;

    use super::*;

    fn response(status: u16) -> HttpResponse {
        let mut response =
            HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from("canary-in-the-body"));
        response.headers_mut().insert("x-amzn-requestid", "req-1");
        response
    }

    fn answered(status: u16, code: Option<&str>) -> SdkError<ErrorMetadata, HttpResponse> {
        let mut metadata = ErrorMetadata::builder();
        if let Some(code) = code {
            metadata = metadata.code(code).message("a sentence of AWS");
        }
        SdkError::service_error(metadata.build(), response(status))
    }

    #[rstest]
    #[case(403, "AccessDenied", FailureKind::Refused)]
    // Only both together refuse.
    #[case(400, "AccessDenied", FailureKind::Other)]
    #[case(500, "AccessDenied", FailureKind::Indeterminate(Unclear::ServerFault))]
    #[case(403, "AccessDeniedException", FailureKind::Other)]
    #[case(403, "InvalidClientTokenId", FailureKind::Other)]
    #[case(403, "ExpiredToken", FailureKind::Other)]
    #[case(403, "SignatureDoesNotMatch", FailureKind::Other)]
    #[case(403, "RegionDisabledException", FailureKind::Other)]
    #[case(400, "ValidationError", FailureKind::Other)]
    #[case(400, "Throttling", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(403, "RequestLimitExceeded", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(400, "ThrottlingException", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(429, "TooManyRequestsException", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(429, "AccessDenied", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(503, "SlowDown", FailureKind::Indeterminate(Unclear::Throttled))]
    #[case(500, "InternalFailure", FailureKind::Indeterminate(Unclear::ServerFault))]
    #[case(400, "InternalFailure", FailureKind::Indeterminate(Unclear::ServerFault))]
    #[case(400, "RequestTimeout", FailureKind::Indeterminate(Unclear::ServerFault))]
    #[case(200, "AccessDenied", FailureKind::Indeterminate(Unclear::Garbage))]
    fn by_status_and_code(#[case] status: u16, #[case] code: &str, #[case] expected: FailureKind) {
        let failure = classify(&answered(status, Some(code)));
        assert_eq!(failure.kind, expected);
        assert_eq!(
            (failure.code.as_deref(), failure.request_id.as_deref(), failure.status),
            (Some(code), Some("req-1"), Some(status))
        );
    }

    #[rstest]
    #[case(403, FailureKind::Indeterminate(Unclear::Garbage))]
    #[case(400, FailureKind::Indeterminate(Unclear::Garbage))]
    #[case(200, FailureKind::Indeterminate(Unclear::Garbage))]
    #[case(502, FailureKind::Indeterminate(Unclear::ServerFault))]
    fn without_a_code(#[case] status: u16, #[case] expected: FailureKind) {
        assert_eq!(classify(&answered(status, None)).kind, expected);
    }

    #[test]
    fn without_an_answer() {
        let boxed = || Box::<dyn Error + Send + Sync>::from("told why");
        let cases: [(SdkError<ErrorMetadata, HttpResponse>, Unclear); 6] = [
            (SdkError::timeout_error(boxed()), Unclear::TimedOut),
            (SdkError::construction_failure(boxed()), Unclear::NotSent),
            (SdkError::dispatch_failure(ConnectorError::io(boxed())), Unclear::Unreachable),
            (SdkError::dispatch_failure(ConnectorError::timeout(boxed())), Unclear::TimedOut),
            (SdkError::dispatch_failure(ConnectorError::user(boxed())), Unclear::NotSent),
            (SdkError::response_error(boxed(), response(200)), Unclear::Garbage),
        ];
        for (error, expected) in cases {
            let failure = classify(&error);
            assert_eq!(failure.kind, FailureKind::Indeterminate(expected), "{error:?}");
            assert_eq!(failure.code, None);
        }
        let unreachable: SdkError<ErrorMetadata, HttpResponse> =
            SdkError::dispatch_failure(ConnectorError::io(boxed()));
        assert!(classify(&unreachable).message().is_some_and(|text| text.contains("told why")));
    }

    #[test]
    fn neither_body_nor_message_is_shown() {
        for error in [
            answered(403, Some("AccessDenied")),
            SdkError::response_error(Box::<dyn Error + Send + Sync>::from("x"), response(200)),
        ] {
            let failure = classify(&error);
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("canary-in-the-body"), "{shown}");
            assert!(!shown.contains("a sentence of AWS"), "{shown}");
        }
        assert_eq!(classify(&answered(403, Some("AccessDenied"))).message(), Some("a sentence of AWS"));
    }
}
