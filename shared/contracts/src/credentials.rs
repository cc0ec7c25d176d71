//! Credentials: asked for by request-reply, answered sealed to the requester's key.

use std::fmt;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    AccountId, ConnectionId, ErrorCode, Region, RoleArn, SealedBox, SealingKey, TenantId, Timestamp,
    message::{endpoint, message},
};

/// A named, least-privilege use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Read the cost export that the stack named, and what finds it.
    CostRead,
}

impl Purpose {
    pub const ALL: [Self; 1] = [Self::CostRead];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CostRead => "cost-read",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no purpose of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no purpose of this name; there is: cost-read")]
pub struct UnknownPurpose;

impl std::str::FromStr for Purpose {
    type Err = UnknownPurpose;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(UnknownPurpose)
    }
}

/// Tenant, connection and purpose stand in the subject, where NATS permissions can see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueRequest {
    /// The requester's public X25519 key: the answer is sealed to it.
    pub requester_key: SealingKey,
    /// Who asks, for the audit: 2 to 32 characters of `[\w+=,.@-]`.
    pub requester: String,
    /// Seconds the session should last, 900 to 3,600; role chaining ends at 3,600, so more is clamped. 3,600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u32>,
    /// Never hand out credentials with fewer seconds left than this, 0 to 3,000; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_remaining_s: Option<u32>,
}

/// Everything about the credentials but the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuedCredentials {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub purpose: Purpose,
    pub account: AccountId,
    pub role_arn: RoleArn,
    pub region: Region,
    pub expires_at: Timestamp,
    /// The broker's public key. The requester compares it with the one it has pinned and opens the box with *that* one.
    pub broker_key: SealingKey,
    /// [`SealedCredentials`] as JSON, sealed by the broker's key to the requester's.
    pub sealed: SealedBox,
}

/// What is in the box. What stands beside the box is repeated inside, so that an answer cannot be passed off as another's: whoever opens it compares, or reads
/// here alone.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct SealedCredentials {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub purpose: Purpose,
    pub access_key_id: String,
    pub secret_access_key: SecretText,
    pub session_token: SecretText,
    pub expires_at: Timestamp,
    /// This and what follows: absent in boxes of brokers of before it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<RoleArn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl SealedCredentials {
    /// Whether what stands beside the box says the same as the box, as far as the box says something.
    #[must_use]
    pub fn agree_with(&self, beside: &IssuedCredentials) -> bool {
        fn same<T: PartialEq>(inside: Option<&T>, beside: &T) -> bool {
            inside.is_none_or(|inside| inside == beside)
        }
        (self.tenant, self.connection, self.purpose) == (beside.tenant, beside.connection, beside.purpose)
            && self.expires_at == beside.expires_at
            && same(self.account.as_ref(), &beside.account)
            && same(self.role_arn.as_ref(), &beside.role_arn)
            && same(self.region.as_ref(), &beside.region)
    }
}

impl fmt::Debug for SealedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedCredentials({} of {}, until {})", self.purpose, self.connection, self.expires_at)
    }
}

/// Text that is not printed and is wiped when dropped; written out only by serializing what holds it.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}

endpoint!(IssueCredentials { service: "role-chain-broker", name: "credentials-issue", subject: "rolebridge.rpc.v1.credentials.issue.*.*.*",
    keys: (purpose: Purpose, tenant: TenantId, connection: ConnectionId),
    request: IssueRequest, response: IssuedCredentials, summary: "Gives short-lived credentials for one connection and purpose, sealed to the requester." });

/// The access key of a tenant's principal was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialsRotated {
    pub tenant: TenantId,
    pub at: Timestamp,
}

message!(CredentialsRotated { type: "rolebridge.credentials.rotated.v1", subject: "rolebridge.events.v1.credentials.rotated.*", stream: CredentialsEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "The access key of a tenant's principal was replaced; the old one is gone." });

/// What a tenant's principal role had begun is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialsRevoked {
    pub tenant: TenantId,
    /// The connection whose revocation it is; absent when it is the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Sessions issued before this instant are denied.
    pub before: Timestamp,
}

message!(CredentialsRevoked { type: "rolebridge.credentials.revoked.v1", subject: "rolebridge.events.v1.credentials.revoked.*", stream: CredentialsEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "Sessions that a tenant's principal role began before an instant are denied." });

/// Credentials were given out: a new session, or answers out of the cache, which are summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialsIssued {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub purpose: Purpose,
    pub account: AccountId,
    /// Who asked, by its own word.
    pub requester: String,
    /// The NATS user whose private inbox was answered; absent where the reply went to no user's inbox. Who was answered, and no proof of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The session's name, which stands in the CloudTrail of the customer's account.
    pub session_name: String,
    /// When the session ends, by AWS's clock.
    pub expires_at: Timestamp,
    /// Whether the session was begun now: then `answers` is 1, or 0 where it was begun ahead of need. Otherwise it was in the cache.
    pub new_session: bool,
    /// Answers from `from` to `until`: of one requester, for one connection and purpose, out of one session, within one minute.
    pub answers: u64,
    pub from: Timestamp,
    pub until: Timestamp,
}

message!(CredentialsIssued { type: "rolebridge.credentials.issued.v1", subject: "rolebridge.events.v1.credentials.issued.*.*", stream: CredentialsEvents,
    producer: "role-chain-broker", keys: [tenant, connection], summary: "Credentials were given out: of a new session, or so often out of the cache within a minute." });

/// Credentials were asked for and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialsDenied {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// Absent when there is none of the name that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// Who asked, by its own word; absent when the word had not the form of a requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// As of [`CredentialsIssued::user`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub code: ErrorCode,
    /// What the requester was told.
    pub reason: String,
    /// Refusals from `from` to `until`: 1, or more where the same answer was repeated out of memory within a minute.
    pub answers: u64,
    pub from: Timestamp,
    pub until: Timestamp,
}

message!(CredentialsDenied { type: "rolebridge.credentials.denied.v1", subject: "rolebridge.events.v1.credentials.denied.*.*", stream: CredentialsEvents,
    producer: "role-chain-broker", keys: [tenant, connection], summary: "Credentials were asked for and not given." });
