//! A look at a principal that an operator asks for, ahead of its turn.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    TenantId, Timestamp,
    message::{endpoint, message},
    tenant::{Drift, Empty},
};

/// What a look at a principal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LookOutcome {
    /// It is as it must be.
    InOrder,
    /// It was not, and is again.
    Mended,
    /// It was not, and not all of it could be set right.
    NotMended,
    /// Nothing was compared: the broker itself changed it a moment ago, and IAM may not show that yet.
    Settling,
    /// Nothing was done: it was looked at a moment ago, perhaps by another instance.
    JustLookedAt,
    /// Nothing was done: another look at it is under way, perhaps by another instance.
    Busy,
    /// It is still being made, for the first time or anew.
    Making,
}

impl LookOutcome {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InOrder => "in-order",
            Self::Mended => "mended",
            Self::NotMended => "not-mended",
            Self::Settling => "settling",
            Self::JustLookedAt => "just-looked-at",
            Self::Busy => "busy",
            Self::Making => "making",
        }
    }
}

/// How far a look found, or brought, the change of the principal's access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyRotation {
    /// It was due, and has begun. It goes on by itself.
    Begun,
    /// It had begun before, and has not ended. It goes on by itself.
    UnderWay,
    /// It has ended: the new key is in use, the old one is deleted.
    Finished,
}

/// What a look at a tenant's principal found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalFindings {
    pub tenant: TenantId,
    pub outcome: LookOutcome,
    /// What was not as it must be; for each there was an event `principal.drift`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Drift>,
    /// Absent when the access key is not being changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_rotation: Option<KeyRotation>,
    /// What that means and what to do, for a person.
    pub reason: String,
    /// When it was last compared with what it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// Milliseconds after which another look may tell more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
}

endpoint!(
    /// Answered within 20 s, whatever happens; wait for 30.
    ReconcilePrincipal { service: "role-chain-broker", name: "principals-reconcile", subject: "rolebridge.rpc.v1.principals.reconcile.*", keys: (tenant: TenantId),
    request: Empty, response: PrincipalFindings, summary: "Compares a tenant's IAM user and role with what they must be, now, and mends them. Repeatable." });

/// An operator had a principal looked at: for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalReconciled {
    pub tenant: TenantId,
    /// The NATS user whose private inbox was answered; absent where the reply went to no user's inbox. Who was answered, and no proof of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub outcome: LookOutcome,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Drift>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_rotation: Option<KeyRotation>,
}

message!(PrincipalReconciled { type: "rolebridge.principal.reconciled.v1", subject: "rolebridge.events.v1.principal.reconciled.*", stream: PrincipalEvents,
    producer: "role-chain-broker", keys: [tenant], summary: "Somebody asked for a look at a tenant's IAM User and Role, and what it came to." });
