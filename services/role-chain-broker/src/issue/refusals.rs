//! What a requester is told when there are no credentials: what happened, to what, and what to do. Nothing of what is behind it, which is in the log.

use std::time::Duration;

use aws::{Failure, FailureKind, Unclear};
use contracts::{ConnectionId, ErrorCode, ErrorReply};

use super::sessions::{NoSession, THROTTLED};
use crate::{
    chain::{ChainError, Hop},
    principal::PrincipalError,
};

/// What a requester is told when there is no session for him.
pub(super) fn no_session(connection: ConnectionId, error: &NoSession) -> ErrorReply {
    let again = |code, message: &str, wait| ErrorReply::new(code, message).retry_after(wait);
    match error {
        NoSession::Chain { error, remembered } => {
            let mut reply = refusal(connection, error);
            if let (Some(wait), Some(longer)) = (&mut reply.retry_after_ms, remembered) {
                *wait = u64::try_from(longer.as_millis()).unwrap_or(u64::MAX).max(1);
            }
            reply
        }
        NoSession::Journal(error) => ErrorReply::from(&**error),
        NoSession::Withdrawn | NoSession::Denied => {
            again(ErrorCode::Unavailable, "the session was withdrawn while it was made: try again", 100)
        }
        NoSession::TooShort => again(
            ErrorCode::Unavailable,
            "the session that AWS gave ends sooner than min_remaining_s allows: try again, or ask for less",
            1_000,
        ),
        NoSession::Lost | NoSession::Unwritable => {
            ErrorReply::new(ErrorCode::Internal, "a fault of ours: role-chain-broker's log says more; please report it")
        }
    }
}

/// What is behind an error: these hold no secrets.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What a requester is told when the chain broke.
pub(super) fn refusal(connection: ConnectionId, error: &ChainError) -> ErrorReply {
    match error {
        ChainError::Principal(PrincipalError::NotReady) => {
            let message = "the tenant's principal is still being made: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(2_000)
        }
        ChainError::Principal(PrincipalError::Store(_)) => {
            let message = "the tenant's principal could not be read just now: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(1_000)
        }
        ChainError::Principal(PrincipalError::Unwrap(error)) if error.may_pass() => {
            let message =
                "AWS KMS gave no clear answer, and without it the tenant's principal cannot be used: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(2_000)
        }
        ChainError::Principal(_) => {
            let message = "the tenant's principal cannot be used: an operator must look at role-chain-broker's log";
            ErrorReply::new(ErrorCode::Internal, message)
        }
        ChainError::Busy(busy) => {
            let message = "too much is asked of AWS STS at the moment: try again after retry_after_ms";
            let wait = u64::try_from(busy.again_after.as_millis()).unwrap_or(u64::MAX);
            ErrorReply::new(ErrorCode::Throttled, message).retry_after(wait.max(100))
        }
        ChainError::Sts { hop, failure } => sts_refusal(connection, *hop, failure),
    }
}

fn sts_refusal(connection: ConnectionId, hop: Hop, failure: &Failure) -> ErrorReply {
    let later = |code, message: &str, wait: Duration| {
        ErrorReply::new(code, message).retry_after(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    };
    match (failure.kind, hop) {
        (FailureKind::Indeterminate(Unclear::Throttled), _) => {
            later(ErrorCode::Throttled, "AWS STS is asked too much at the moment: try again", THROTTLED)
        }
        (FailureKind::Indeterminate(_), _) => {
            later(ErrorCode::Unavailable, "AWS STS gave no clear answer: try again", Duration::from_secs(1))
        }
        (FailureKind::Refused, Hop::Customer) => {
            let message = format!(
                "AWS refused the role of connection {connection}: the customer has removed or changed it; ask for a new verification, or let the customer launch the stack again"
            );
            ErrorReply::new(ErrorCode::Denied, message)
        }
        // A principal that was just made, or whose key was: IAM settles within seconds.
        (_, Hop::Principal) => later(
            ErrorCode::Unavailable,
            "the tenant's principal cannot be used yet: try again; if it lasts, an operator must look at role-chain-broker's log",
            Duration::from_secs(5),
        ),
        (FailureKind::Other, Hop::Customer) if failure.is("ExpiredToken") || failure.is("InvalidClientTokenId") => {
            later(
                ErrorCode::Unavailable,
                "the session that was begun with is over: try again",
                Duration::from_millis(200),
            )
        }
        (FailureKind::Other, Hop::Customer) => {
            let code = failure.code.as_deref().unwrap_or("no code");
            let message = format!(
                "AWS STS does not take the request for connection {connection} ({code}): an operator must look at role-chain-broker's log"
            );
            ErrorReply::new(ErrorCode::Internal, message)
        }
    }
}
