//! The audit log. Triggers of the database refuse any change or removal.

use contracts::{ConnectionId, EnrollmentId, TenantId, audit::AuditEntry};
use sea_orm::entity::prelude::*;

use super::{At, Id};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub sequence: i64,
    pub at: At,
    pub actor: String,
    pub action: String,
    pub tenant_id: Option<Id<TenantId>>,
    pub enrollment_id: Option<Id<EnrollmentId>>,
    pub connection_id: Option<Id<ConnectionId>>,
    pub reason: String,
    pub trace_id: Option<String>,
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
            user: None,
            action: row.action,
            tenant: row.tenant_id.map(|id| id.0),
            enrollment: row.enrollment_id.map(|id| id.0),
            connection: row.connection_id.map(|id| id.0),
            reason: row.reason,
            trace_id: row.trace_id,
            hash: String::new(),
        }
    }
}
