//! What is written down of an answer. Borrowed where it is looked up, owned where it is kept.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use contracts::{
    AccountId, ConnectionId, ErrorCode, TenantId, Timestamp,
    credentials::{CredentialsDenied, CredentialsIssued, Purpose},
};
use serde::{Deserialize, Serialize};

/// Credentials were given out. Those of the same contents are summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given<'a> {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub purpose: Purpose,
    pub account: Cow<'a, AccountId>,
    pub requester: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    pub session_name: Cow<'a, str>,
    pub expires_at: Timestamp,
}

/// Credentials were refused. Those of the same contents are summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused<'a> {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// Only what has the form of a requester: nothing else that a stranger wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    pub code: ErrorCode,
    pub reason: Cow<'a, str>,
}

/// Either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer<'a> {
    Given(Given<'a>),
    Refused(Refused<'a>),
}

fn owned<T: ToOwned + ?Sized>(text: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(text.into_owned())
}

impl Answer<'_> {
    pub(super) fn into_owned(self) -> Answer<'static> {
        match self {
            Self::Given(given) => Answer::Given(Given {
                tenant: given.tenant,
                connection: given.connection,
                purpose: given.purpose,
                account: owned(given.account),
                requester: owned(given.requester),
                user: given.user.map(owned),
                session_name: owned(given.session_name),
                expires_at: given.expires_at,
            }),
            Self::Refused(refused) => Answer::Refused(Refused {
                tenant: refused.tenant,
                connection: refused.connection,
                purpose: refused.purpose,
                requester: refused.requester.map(owned),
                user: refused.user.map(owned),
                code: refused.code,
                reason: owned(refused.reason),
            }),
        }
    }

    /// The NATS user that is answered.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::Given(given) => given.user.as_deref(),
            Self::Refused(refused) => refused.user.as_deref(),
        }
    }

    /// Equal for equal answers.
    pub(super) fn hash(&self, hasher: &RandomState) -> u64 {
        match self {
            Self::Given(given) => {
                hasher.hash_one((given.connection, &given.requester, &given.user, &given.session_name))
            }
            Self::Refused(refused) => {
                hasher.hash_one((refused.connection, &refused.requester, &refused.user, refused.code))
            }
        }
    }
}

impl Given<'_> {
    pub(super) fn event(self, new_session: bool, answers: u64, from: Timestamp, until: Timestamp) -> CredentialsIssued {
        CredentialsIssued {
            tenant: self.tenant,
            connection: self.connection,
            purpose: self.purpose,
            account: self.account.into_owned(),
            requester: self.requester.into_owned(),
            user: self.user.map(Cow::into_owned),
            session_name: self.session_name.into_owned(),
            expires_at: self.expires_at,
            new_session,
            answers,
            from,
            until,
        }
    }
}

impl Refused<'_> {
    pub(super) fn event(self, answers: u64, from: Timestamp, until: Timestamp) -> CredentialsDenied {
        CredentialsDenied {
            tenant: self.tenant,
            connection: self.connection,
            purpose: self.purpose,
            requester: self.requester.map(Cow::into_owned),
            user: self.user.map(Cow::into_owned),
            code: self.code,
            reason: self.reason.into_owned(),
            answers,
            from,
            until,
        }
    }
}
