//! The audit log. Triggers of the database refuse any change or removal; the chain of hashes shows one that was made all the same.

use contracts::{ConnectionId, EnrollmentId, TenantId, audit::AuditEntry};
use sea_orm::entity::prelude::*;

use super::{At, Id};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub sequence: i64,
    pub at: At,
    pub actor: String,
    pub user: Option<String>,
    pub action: String,
    pub tenant_id: Option<Id<TenantId>>,
    pub enrollment_id: Option<Id<EnrollmentId>>,
    pub connection_id: Option<Id<ConnectionId>>,
    pub reason: String,
    pub trace_id: Option<String>,
    pub hash: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl From<Model> for AuditEntry {
    fn from(row: Model) -> Self {
        Self {
            sequence: row.sequence,
            at: row.at.0,
            actor: row.actor,
            user: row.user,
            action: row.action,
            tenant: row.tenant_id.map(|id| id.0),
            enrollment: row.enrollment_id.map(|id| id.0),
            connection: row.connection_id.map(|id| id.0),
            reason: row.reason,
            trace_id: row.trace_id,
            hash: row.hash,
        }
    }
}

impl From<AuditEntry> for Model {
    fn from(entry: AuditEntry) -> Self {
        Self {
            sequence: entry.sequence,
            at: At(entry.at),
            actor: entry.actor,
            user: entry.user,
            action: entry.action,
            tenant_id: entry.tenant.map(Id),
            enrollment_id: entry.enrollment.map(Id),
            connection_id: entry.connection.map(Id),
            reason: entry.reason,
            trace_id: entry.trace_id,
            hash: entry.hash,
        }
    }
}
