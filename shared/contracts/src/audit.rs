//! The audit log: who did what, when and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConnectionId, EnrollmentId, Page, PageRequest, TenantId, Timestamp, message::endpoint};

/// One line of the log. It is only ever added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Grows by one or more with each entry.
    pub sequence: i64,
    pub at: Timestamp,
    /// `operator`, `stack`, `broker` or `registry`.
    pub actor: String,
    /// What was done: `connection.verified`, `callback.refused`, ...
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<EnrollmentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Why, for a person.
    pub reason: String,
    /// W3C trace ID of the work, if it was traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

endpoint!(ListAudit { service: "tenant-registry", name: "audit-list", subject: "rolebridge.rpc.v1.audit.list.*", keys: (tenant: TenantId),
    request: PageRequest, response: Page<AuditEntry>, summary: "Lists what was done to a tenant, oldest first." });
