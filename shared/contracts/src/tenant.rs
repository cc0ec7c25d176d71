//! Tenants and their principals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Page, PageRequest, RoleArn, TenantId, Timestamp, UserArn,
    message::{endpoint, message},
    revocation::RevocationStep,
};

/// Whether a tenant may use its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TenantState {
    Active,
    Suspended,
    /// Everything of it is being ended; there is no way back.
    Deleting,
    /// Its connections are revoked, its offers withdrawn, its principal is gone. Only its name and its audit log are left.
    Deleted,
}

/// One customer of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    pub tenant: TenantId,
    /// The provider's own name for it, 1 to 100 characters.
    pub name: String,
    pub state: TenantState,
    /// The role that the tenant's customer roles trust; absent until the broker has made it (about a second).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal_role: Option<RoleArn>,
    /// What a suspension or deletion has done so far, in order; empty for a tenant that is active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation: Vec<RevocationStep>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenantRequest {
    /// The provider's own name for it, 1 to 100 characters.
    pub name: String,
    /// Makes the request repeatable: the same key with the same name gives the same tenant. 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A request whose subject says everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// An operator's word with its reason, which enters the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithReason {
    /// 1 to 500 characters.
    pub reason: String,
}

endpoint!(CreateTenant {
    service: "tenant-registry",
    name: "tenants-create",
    subject: "rolebridge.rpc.v1.tenants.create",
    keys: (),
    request: CreateTenantRequest,
    response: Tenant,
    summary: "Creates a tenant; its principal follows within seconds."
});
endpoint!(GetTenant { service: "tenant-registry", name: "tenants-get", subject: "rolebridge.rpc.v1.tenants.get.*", keys: (tenant: TenantId),
    request: Empty, response: Tenant, summary: "Gives one tenant." });
endpoint!(ListTenants { service: "tenant-registry", name: "tenants-list", subject: "rolebridge.rpc.v1.tenants.list", keys: (),
    request: PageRequest, response: Page<Tenant>, summary: "Lists tenants, oldest first." });
endpoint!(SuspendTenant { service: "tenant-registry", name: "tenants-suspend", subject: "rolebridge.rpc.v1.tenants.suspend.*", keys: (tenant: TenantId),
    request: WithReason, response: Tenant, summary: "Stops a tenant: no new enrollments, no credentials. Repeatable." });
endpoint!(ResumeTenant { service: "tenant-registry", name: "tenants-resume", subject: "rolebridge.rpc.v1.tenants.resume.*", keys: (tenant: TenantId),
    request: WithReason, response: Tenant, summary: "Lets a suspended tenant go on. Repeatable." });
endpoint!(DeleteTenant { service: "tenant-registry", name: "tenants-delete", subject: "rolebridge.rpc.v1.tenants.delete.*", keys: (tenant: TenantId),
    request: WithReason, response: Tenant, summary: "Ends a tenant for good: revokes its connections, withdraws its offers, removes its principal. Repeatable; the reply says which steps are done." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantCreated {
    pub tenant: TenantId,
    pub name: String,
}

message!(TenantCreated { type: "rolebridge.tenant.created.v1", subject: "rolebridge.events.v1.tenant.created.*", stream: TenantEvents,
    producer: "tenant-registry", keys: [tenant], summary: "A tenant is there; the broker makes its principal." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantSuspended {
    pub tenant: TenantId,
    pub reason: String,
}

message!(TenantSuspended { type: "rolebridge.tenant.suspended.v1", subject: "rolebridge.events.v1.tenant.suspended.*", stream: TenantEvents,
    producer: "tenant-registry", keys: [tenant], summary: "A tenant may not use its connections until it is resumed." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantResumed {
    pub tenant: TenantId,
    pub reason: String,
}

message!(TenantResumed { type: "rolebridge.tenant.resumed.v1", subject: "rolebridge.events.v1.tenant.resumed.*", stream: TenantEvents,
    producer: "tenant-registry", keys: [tenant], summary: "A suspended tenant may use its connections again." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalReady {
    pub tenant: TenantId,
    pub user_arn: UserArn,
    pub role_arn: RoleArn,
}

message!(PrincipalReady { type: "rolebridge.principal.ready.v1", subject: "rolebridge.events.v1.principal.ready.*", stream: PrincipalEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "The tenant's IAM User and Role stand; stacks may name the role." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantDeleted {
    pub tenant: TenantId,
    pub reason: String,
}

message!(TenantDeleted { type: "rolebridge.tenant.deleted.v1", subject: "rolebridge.events.v1.tenant.deleted.*", stream: TenantEvents,
    producer: "tenant-registry", keys: [tenant], summary: "A tenant has ended: its connections are revoked and its principal is gone." });

/// A part of a principal that was not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    UserMissing,
    UserPolicy,
    RoleMissing,
    /// The role is there, and is another one than the one that was made (its unique ID differs).
    RoleReplaced,
    RoleTrust,
    RolePolicy,
    /// The user or the role is not bound by the permissions boundary that is configured.
    Boundary,
    /// The access key that is recorded is not among the user's keys, or is not active.
    AccessKeyMissing,
    /// A key of the user that nobody of ours made.
    AccessKeyForeign,
}

/// Somebody changed what is the broker's alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalDrift {
    pub tenant: TenantId,
    pub found: Vec<Drift>,
    /// Whether it is as it must be again.
    pub mended: bool,
    /// What happened and what to do, for a person.
    pub reason: String,
}

message!(PrincipalDrift { type: "rolebridge.principal.drift.v1", subject: "rolebridge.events.v1.principal.drift.*", stream: PrincipalEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "A tenant's IAM User or Role was changed behind our back: an alarm." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalRemoved {
    pub tenant: TenantId,
}

message!(PrincipalRemoved { type: "rolebridge.principal.removed.v1", subject: "rolebridge.events.v1.principal.removed.*", stream: PrincipalEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "The IAM User and Role of a deleted tenant are gone." });
