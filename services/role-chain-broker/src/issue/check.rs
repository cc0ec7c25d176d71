//! What a request must be, and what a connection must be for it. No I/O.

use contracts::{
    ConnectionId, ErrorCode, ErrorReply,
    connection::{ConnectionState, Grant},
    credentials::{IssueRequest, Purpose},
};

use crate::{purpose::declared, sts::SessionDuration};

/// Seconds that credentials have left at least when they are handed out.
const USUAL_REMAINING: u32 = 300;
const MOST_REMAINING: u32 = 3000;
/// The time that the chain itself may take out of a fresh session, in seconds.
const SLACK: u32 = 60;

/// A request that can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub requester: String,
    pub duration: SessionDuration,
    pub min_remaining: std::time::Duration,
}

/// # Errors
/// `invalid-request`, saying what to change.
pub(crate) fn wish(request: &IssueRequest, purpose: Purpose) -> Result<Wish, ErrorReply> {
    let invalid = |message: String| ErrorReply::new(ErrorCode::InvalidRequest, message);
    if !is_requester(&request.requester) {
        return Err(invalid("requester must be 2 to 32 characters of A-Z a-z 0-9 _ + = , . @ -".to_owned()));
    }
    let duration = declared(purpose).durations.of(request.duration_s);
    let most = MOST_REMAINING.min(duration.seconds() - SLACK);
    let remaining = request.min_remaining_s.unwrap_or(USUAL_REMAINING);
    if remaining > most {
        let seconds = duration.seconds();
        return Err(invalid(format!("min_remaining_s must be at most {most} for a session of {seconds} seconds")));
    }
    Ok(Wish {
        requester: request.requester.clone(),
        duration,
        min_remaining: std::time::Duration::from_secs(remaining.into()),
    })
}

/// Whether this is a name that a requester may give itself.
pub(crate) fn is_requester(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    (2..=32).contains(&text.len()) && text.bytes().all(letters)
}

/// # Errors
/// `denied` when there is no such purpose.
pub(crate) fn purpose(text: &str) -> Result<Purpose, ErrorReply> {
    text.parse()
        .map_err(|error: contracts::credentials::UnknownPurpose| ErrorReply::new(ErrorCode::Denied, error.to_string()))
}

/// Whether credentials of a purpose may be issued under this grant.
///
/// # Errors
/// `not-found`, `denied` or `not-verified`, saying what to do.
pub(crate) fn may_issue<G: AsRef<Grant>>(
    connection: ConnectionId,
    purpose: Purpose,
    grant: Option<G>,
) -> Result<G, ErrorReply> {
    let Some(found) = grant else {
        let message = format!(
            "the tenant has no connection {connection}, or it has never been verified: check the IDs, or wait for connection.verified"
        );
        return Err(ErrorReply::new(ErrorCode::NotFound, message));
    };
    let grant = found.as_ref();
    if !grant.tenant_active {
        let message = format!("the tenant {} is suspended: resume it first", grant.tenant);
        return Err(ErrorReply::new(ErrorCode::Denied, message));
    }
    if grant.role_arn.account() != &grant.account {
        let message = format!("the connection {connection} names a role of another account: have it verified again");
        return Err(ErrorReply::new(ErrorCode::Denied, message));
    }
    if !grant.state.may_be_issued_for() {
        return Err(ErrorReply::new(
            ErrorCode::NotVerified,
            format!("the connection {connection} is {}: {}", grant.state, advice(grant.state)),
        ));
    }
    if grant.missing.contains(&purpose) {
        let message = format!(
            "the customer's role lacks permissions that {purpose} needs: `rolebridge connections show` names them; the customer updates the stack or mends the role, and {purpose} is issued again after the next probe. Other purposes of connection {connection} go on"
        );
        return Err(ErrorReply::new(ErrorCode::Denied, message));
    }
    Ok(found)
}

const fn advice(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Registered | ConnectionState::Verifying => "wait for connection.verified",
        ConnectionState::Rejected | ConnectionState::Insecure => {
            "the customer's role must be mended; the connection's evidence says how"
        }
        ConnectionState::Disconnected => "the customer's role refuses us; ask the customer to launch the stack again",
        ConnectionState::Revoked => "it has ended for good; offer a new enrollment",
        ConnectionState::Verified | ConnectionState::Degraded => "try again",
    }
}

/// The name of a new session in the customer's CloudTrail: `rolebridge.<purpose>.<12 hex>`, at most 64 characters.
///
/// A session is shared by all who ask for the same within its time, so nothing of whoever asked first is in it. The end, 48 random bits, makes it this very
/// session, and ties what stands in CloudTrail to every requester that was given it.
#[must_use]
pub(crate) fn session_name(purpose: Purpose) -> String {
    // The first 12 digits of a random UUID are random, all of them.
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("rolebridge.{purpose}.{}", unique.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contracts::SealingKey;
    use rstest::rstest;

    use super::*;
    use crate::grants::tests::grant;

    fn request(requester: &str, duration_s: Option<u32>, min_remaining_s: Option<u32>) -> IssueRequest {
        let requester_key = SealingKey::parse(&format!("X{}", "A".repeat(55))).unwrap();
        IssueRequest { requester_key, requester: requester.to_owned(), duration_s, min_remaining_s }
    }

    #[rstest]
    #[case("", None, None, false)]
    #[case("j", None, None, false)]
    #[case("job", None, None, true)]
    #[case("job 1", None, None, false)]
    #[case("jöb", None, None, false)]
    #[case("job/../x", None, None, false)]
    #[case("a-requester-of-32-characters-abc", None, None, true)]
    #[case("a-requester-of-33-characters-abcd", None, None, false)]
    #[case("job", Some(43_200), Some(3000), true)]
    #[case("job", Some(900), Some(841), false)]
    #[case("job", Some(900), Some(840), true)]
    #[case("job", None, Some(3001), false)]
    #[case("job", Some(0), Some(0), true)]
    fn wishes(
        #[case] requester: &str,
        #[case] duration: Option<u32>,
        #[case] remaining: Option<u32>,
        #[case] fine: bool,
    ) {
        assert_eq!(wish(&request(requester, duration, remaining), Purpose::CostRead).is_ok(), fine);
    }

    #[test]
    fn attack_25_the_wish_for_twelve_hours_is_one_for_one() {
        assert_eq!(wish(&request("job", Some(43_200), None), Purpose::CostRead).unwrap().duration.seconds(), 3600);
    }

    #[rstest]
    #[case::none(None, ErrorCode::NotFound)]
    #[case::suspended(Some(Grant { tenant_active: false, ..grant(1) }), ErrorCode::Denied)]
    #[case::verifying(Some(Grant { state: ConnectionState::Verifying, ..grant(1) }), ErrorCode::NotVerified)]
    #[case::insecure(Some(Grant { state: ConnectionState::Insecure, ..grant(1) }), ErrorCode::NotVerified)]
    #[case::revoked(Some(Grant { state: ConnectionState::Revoked, ..grant(1) }), ErrorCode::NotVerified)]
    #[case::purpose_missing(Some(Grant { state: ConnectionState::Degraded, missing: vec![Purpose::CostRead], ..grant(1) }), ErrorCode::Denied)]
    #[case::other_account(Some(Grant { account: contracts::AccountId::parse("333333333333").unwrap(), ..grant(1) }), ErrorCode::Denied)]
    fn refusals(#[case] grant: Option<Grant>, #[case] expected: ErrorCode) {
        let refused = may_issue(ConnectionId::new(), Purpose::CostRead, grant.map(Arc::new)).unwrap_err();
        assert_eq!(refused.code, expected);
        assert!(!refused.message.contains("arn:"));
    }

    #[test]
    fn verified_and_degraded_may() {
        for state in [ConnectionState::Verified, ConnectionState::Degraded] {
            assert!(
                may_issue(ConnectionId::new(), Purpose::CostRead, Some(Arc::new(Grant { state, ..grant(1) }))).is_ok()
            );
        }
    }

    #[test]
    fn session_names_are_of_the_form_that_sts_takes_and_each_another() {
        for purpose in Purpose::ALL {
            let (name, other) = (session_name(purpose), session_name(purpose));
            assert!((2..=64).contains(&name.len()));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b)));
            let unique = name.strip_prefix(&format!("rolebridge.{purpose}.")).unwrap();
            assert!(unique.len() == 12 && unique.bytes().all(|b| b.is_ascii_hexdigit()));
            assert_ne!(name, other);
        }
    }
}
