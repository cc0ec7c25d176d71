//! The one narrow door to STS: assume a role, ask who one is. The real one and its fake stand beside this file.
//!
//! What must not live here: which role, which external ID, what an answer means. Credentials are wiped when dropped and never printed.

pub mod budget;
mod clock;
#[cfg(test)]
pub mod fake;
mod real;

use std::fmt;

use async_trait::async_trait;
use aws::Failure;
use aws_credential_types::Credentials;
use contracts::{AccountId, ExternalId, Region, RoleArn, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};

use crate::tags::SessionTags;

pub use clock::AwsClock;
pub use real::RealSts;

/// Shortest and longest session that a chained role gives, in seconds. AWS ends role chaining at one hour whatever the role's own maximum is
/// ([Roles terms and concepts](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining)), and none is shorter
/// than 15 minutes ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
const SHORTEST: u32 = 900;
const LONGEST: u32 = 3600;

/// Seconds that a session lasts: 900, 1,800, 2,700 or 3,600. There is no other value to call STS with.
///
/// Few values, so that requests which differ by seconds share one cached session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionDuration(u32);

impl SessionDuration {
    pub const SHORTEST: Self = Self(SHORTEST);
    pub const LONGEST: Self = Self(LONGEST);

    /// The shortest that lasts as long as `wanted` seconds, clamped to what STS allows; the longest when nothing is wanted.
    #[must_use]
    pub fn clamp(wanted: Option<u32>) -> Self {
        let seconds = wanted.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
        Self(seconds.div_ceil(SHORTEST) * SHORTEST)
    }

    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

/// An access key or the keys of a session.
#[derive(Clone)]
pub struct Keys {
    pub access_key_id: SecretString,
    pub secret_access_key: SecretString,
    /// Absent for the long-lived key of a user.
    pub session_token: Option<SecretString>,
}

impl Keys {
    /// For a client that shall use these and no others.
    pub(crate) fn for_sdk(&self) -> Credentials {
        Credentials::new(
            self.access_key_id.expose_secret(),
            self.secret_access_key.expose_secret(),
            self.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            None,
            "rolebridge",
        )
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What `AssumeRole` gives.
#[derive(Debug, Clone)]
pub struct Session {
    pub keys: Keys,
    /// By AWS's clock.
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// One call of `AssumeRole`.
#[derive(Debug, Clone, Copy)]
pub struct AssumeRole<'a> {
    pub role: &'a RoleArn,
    pub external_id: Option<&'a ExternalId>,
    /// JSON, at most 2,048 characters: narrows what the session may do, never widens it.
    pub session_policy: Option<&'a str>,
    pub duration: SessionDuration,
    /// 2 to 64 characters of `[\w+=,.@-]`; stands in the customer's CloudTrail.
    pub session_name: &'a str,
    /// Whose regional endpoint is asked; the broker's own region when absent.
    pub region: Option<&'a Region>,
    /// Stand in the customer's CloudTrail, too. None of them is ever transitive.
    pub tags: Option<SessionTags>,
}

/// A good answer, with AWS's request ID for the evidence.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    pub value: T,
    pub request_id: Option<String>,
}

/// STS, as far as we need it. Each call is made by a client of its own: nothing of one tenant's session can leak into another's.
///
/// Cancel: dropping the future abandons the call; AWS may have made a session that nobody will use. Failure: see [`aws::FailureKind`].
#[async_trait]
pub trait Sts: Send + Sync {
    async fn assume_role(&self, keys: &Keys, call: &AssumeRole<'_>) -> Result<Answer<Session>, Failure>;

    /// The account that the keys belong to. Needs no permission, and no policy can deny it.
    async fn caller_account(&self, keys: &Keys, region: Option<&Region>) -> Result<Answer<AccountId>, Failure>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attack_25_more_than_an_hour_on_a_chained_hop_is_clamped() {
        assert_eq!(SessionDuration::clamp(Some(43_200)).seconds(), 3600);
        assert_eq!(SessionDuration::clamp(Some(u32::MAX)).seconds(), 3600);
        assert_eq!(SessionDuration::clamp(None).seconds(), 3600);
        assert_eq!(SessionDuration::clamp(Some(0)).seconds(), 900);
        assert_eq!(SessionDuration::clamp(Some(901)).seconds(), 1800);
    }

    proptest! {
        #[test]
        fn any_wish_becomes_a_duration_that_sts_takes_and_no_shorter_one(wanted: u32) {
            let given = SessionDuration::clamp(Some(wanted)).seconds();
            prop_assert!((900..=3600).contains(&given));
            prop_assert!(given >= wanted.min(3600));
            prop_assert_eq!(given % 900, 0);
        }
    }

    #[test]
    fn keys_do_not_print() {
        let keys = Keys {
            access_key_id: "AKIACANARY".into(),
            secret_access_key: "canary".into(),
            session_token: Some("canary".into()),
        };
        let session = Session { keys, issued_at: Timestamp::now(), expires_at: Timestamp::now() };
        assert!(!format!("{session:?}").to_lowercase().contains("canary"));
    }
}
