//! Taking credentials back: the registry's orders to the broker, and the steps that everybody can see.
//!
//! What AWS lets a provider do: withdraw the grant (nothing new is issued), empty the caches, and deny by time what the tenant's principal
//! role has begun (`aws:TokenIssueTime`). A session that is already in the customer's role is the customer's to end; it lasts an hour at most
//! ([revoking sessions](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html)).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConnectionId, JobId, TenantId, Timestamp, message::message};

/// One thing that a revocation does. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationAction {
    /// The broker is told to issue nothing more, and every instance empties its caches.
    GrantWithdrawn,
    /// Sessions of the principal's role that began before are denied.
    SessionsDenied,
    /// IAM User, access keys and Role are gone.
    PrincipalRemoved,
}

/// How far one of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationStep {
    pub action: RevocationAction,
    /// Absent while it is under way: it is tried again until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
    /// What keeps it from being done, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}

/// Deny what the tenant's principal role began before an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DenySessions {
    pub job: JobId,
    pub tenant: TenantId,
    /// The connection whose revocation it is; absent when it is the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Sessions issued before this instant are denied. A later one replaces an earlier one.
    pub before: Timestamp,
}

message!(DenySessions { type: "rolebridge.internal.deny-sessions.v1", subject: "rolebridge.internal.v1.jobs.deny-sessions.*", stream: Jobs,
    producer: "tenant-registry", keys: [tenant], summary: "Job: deny the sessions that the tenant's principal role began before an instant." });

/// Remove the principal of a tenant that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovePrincipal {
    pub job: JobId,
    pub tenant: TenantId,
}

message!(RemovePrincipal { type: "rolebridge.internal.remove-principal.v1", subject: "rolebridge.internal.v1.jobs.remove-principal.*", stream: Jobs,
    producer: "tenant-registry", keys: [tenant], summary: "Job: remove the IAM User, access keys and Role of a tenant that has ended." });

/// The broker's answer to [`DenySessions`] and [`RemovePrincipal`]. Sent when it is done, and when a try failed and another follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationReported {
    pub job: JobId,
    pub tenant: TenantId,
    pub action: RevocationAction,
    pub done: bool,
    /// When it is not done: what keeps it from being done, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}

message!(RevocationReported { type: "rolebridge.internal.revocation-reported.v1", subject: "rolebridge.internal.v1.reports.revocation.*", stream: Reports,
    producer: "role-chain-broker", keys: [tenant], summary: "How far a step of a revocation is." });
