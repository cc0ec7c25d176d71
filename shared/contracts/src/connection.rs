//! Connections: one customer AWS account of one tenant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, ConnectionId, ExternalId, Page, PageRequest, Partition, Region, RoleArn, TenantId, Timestamp,
    costs::ExportLocation,
    credentials::Purpose,
    enrollment::RotationState,
    message::{endpoint, message},
    revocation::RevocationStep,
    tenant::{Empty, WithReason},
    verification::{Fault, ProbeEvidence, PurposeEvidence},
};

/// Where a connection stands. `revoked` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionState {
    /// Called back and matched to an enrollment; nothing is proven.
    Registered,
    /// The broker is probing.
    Verifying,
    /// The role demands our external ID from exactly this tenant's principal.
    Verified,
    /// The first verification failed.
    Rejected,
    /// Verified, but a purpose's permissions are missing.
    Degraded,
    /// The trust policy no longer demands the external ID.
    Insecure,
    /// The role refuses us.
    Disconnected,
    /// Ended: by the customer's stack, by the tenant, or by an operator.
    Revoked,
}

impl ConnectionState {
    /// Whether credentials may be issued (for purposes that still hold).
    #[must_use]
    pub const fn may_be_issued_for(self) -> bool {
        matches!(self, Self::Verified | Self::Degraded)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Verifying => "verifying",
            Self::Verified => "verified",
            Self::Rejected => "rejected",
            Self::Degraded => "degraded",
            Self::Insecure => "insecure",
            Self::Disconnected => "disconnected",
            Self::Revoked => "revoked",
        }
    }
}

impl std::fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One customer AWS account of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    pub partition: Partition,
    /// The region of the customer's stack.
    pub region: Region,
    pub role_arn: RoleArn,
    pub state: ConnectionState,
    /// Why it is in this state, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_export: Option<ExportLocation>,
    /// What the last probes saw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<ProbeEvidence>,
    /// Which purposes' permissions are there, by the last look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<PurposeEvidence>,
    /// The longest session that the role gives, in seconds, if it lets itself be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_s: Option<u32>,
    /// Of the customer's template, as the stack said with the last request that held; absent when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_version: Option<u32>,
    /// Whether the role was seen to admit session tags: new sessions of it then carry them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session_tags: bool,
    /// How far the change of its external ID is; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationState>,
    /// What a revocation has done so far, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation: Vec<RevocationStep>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
    /// When the last probes came to a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_at: Option<Timestamp>,
    /// When it is probed next, as things stand; absent for one that is not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Timestamp>,
    /// When credentials were given out last, to the minute or so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListConnectionsRequest {
    /// Only those in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ConnectionState>,
    #[serde(default)]
    pub page: PageRequest,
}

endpoint!(GetConnection { service: "tenant-registry", name: "connections-get", subject: "rolebridge.rpc.v1.connections.get.*.*", keys: (tenant: TenantId, connection: ConnectionId),
    request: Empty, response: Connection, summary: "Gives one connection with the evidence of its last probes." });
endpoint!(ListConnections { service: "tenant-registry", name: "connections-list", subject: "rolebridge.rpc.v1.connections.list.*", keys: (tenant: TenantId),
    request: ListConnectionsRequest, response: Page<Connection>, summary: "Lists a tenant's connections, oldest first." });
endpoint!(RevokeConnection { service: "tenant-registry", name: "connections-revoke", subject: "rolebridge.rpc.v1.connections.revoke.*.*", keys: (tenant: TenantId, connection: ConnectionId),
    request: WithReason, response: Connection, summary: "Ends a connection on the provider's side, for good. Repeatable." });
endpoint!(VerifyConnectionNow { service: "tenant-registry", name: "connections-verify", subject: "rolebridge.rpc.v1.connections.verify.*.*", keys: (tenant: TenantId, connection: ConnectionId),
    request: Empty, response: Connection, summary: "Has a watched connection probed now, ahead of its time. The verdict follows: probed_at of the connection changes." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRegistered {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
}

message!(ConnectionRegistered { type: "rolebridge.connection.registered.v1", subject: "rolebridge.events.v1.connection.registered.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "A callback was matched to an enrollment; nothing is proven yet." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionVerified {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    pub partition: Partition,
    pub region: Region,
    pub role_arn: RoleArn,
    /// The cost export that the stack named, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_export: Option<ExportLocation>,
    pub verified_at: Timestamp,
}

message!(ConnectionVerified { type: "rolebridge.connection.verified.v1", subject: "rolebridge.events.v1.connection.verified.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "The customer's role demands our external ID from exactly this tenant's principal; credentials may be asked for." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRejected {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    pub reason: String,
}

message!(ConnectionRejected { type: "rolebridge.connection.rejected.v1", subject: "rolebridge.events.v1.connection.rejected.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "The first verification failed; the stack was answered FAILED." });

/// A verified connection changed for the worse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionInsecure {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub fault: Fault,
    pub reason: String,
}

message!(ConnectionInsecure { type: "rolebridge.connection.insecure.v1", subject: "rolebridge.events.v1.connection.insecure.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "The trust policy no longer demands the external ID; no credentials until it does." });

/// The role is as it must be, and lacks permissions that a purpose needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionDegraded {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// Purposes that no credentials are issued for until their permissions are back.
    pub missing: Vec<Purpose>,
    pub reason: String,
}

message!(ConnectionDegraded { type: "rolebridge.connection.degraded.v1", subject: "rolebridge.events.v1.connection.degraded.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "A purpose's permissions are missing; the other purposes go on." });

/// The connection goes by another external ID from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionExternalIdChanged {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub rotation: RotationState,
}

message!(ConnectionExternalIdChanged { type: "rolebridge.connection.external-id-changed.v1", subject: "rolebridge.events.v1.connection.external-id-changed.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "A connection took its new external ID, or its old one was seen to be refused." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionDisconnected {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub reason: String,
}

message!(ConnectionDisconnected { type: "rolebridge.connection.disconnected.v1", subject: "rolebridge.events.v1.connection.disconnected.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "The customer's role refuses us." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRevoked {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub reason: String,
}

message!(ConnectionRevoked { type: "rolebridge.connection.revoked.v1", subject: "rolebridge.events.v1.connection.revoked.*.*", stream: ConnectionEvents,
    producer: "tenant-registry", keys: [tenant, connection], summary: "The connection has ended for good." });

/// The registry's last word on what the broker may issue for. One message per connection is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub state: ConnectionState,
    /// False while the tenant is suspended.
    pub tenant_active: bool,
    pub account: AccountId,
    pub region: Region,
    pub role_arn: RoleArn,
    pub external_id: ExternalId,
    /// Purposes whose permissions are missing: nothing is issued for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Purpose>,
    /// Whether the role was seen to admit session tags. Says how a session is begun, and never whether.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session_tags: bool,
    /// Grows with every grant of the connection; a lower one is never believed after a higher one.
    pub revision: u64,
}

message!(Grant { type: "rolebridge.internal.grant.v1", subject: "rolebridge.internal.v1.grants.*.*", stream: Grants,
    producer: "tenant-registry", keys: [tenant, connection], summary: "What the broker may issue for: the registry's last word on one connection." });
