//! Steps of a suspension, a revocation or a deletion. A step that is a job of the broker has the job's ID.

use contracts::{
    ConnectionId, JobId, TenantId,
    revocation::{RevocationAction, RevocationStep},
};
use sea_orm::entity::prelude::*;

use super::{At, Id, Text, of_tenant};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "revocations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Id<JobId>,
    pub tenant_id: Id<TenantId>,
    /// Absent when it is the tenant's.
    pub connection_id: Option<Id<ConnectionId>>,
    pub action: Text<RevocationAction>,
    /// Sessions that began before this instant are denied.
    pub before: At,
    /// Of a deletion: the operator's.
    pub reason: Option<String>,
    /// When the job was handed out last; absent while it waits for the steps before it.
    pub sent_at: Option<At>,
    pub done_at: Option<At>,
    pub waiting_for: Option<String>,
    pub created_at: At,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

of_tenant!(JobId);

impl From<Model> for RevocationStep {
    fn from(row: Model) -> Self {
        let done_at = row.done_at.map(|at| at.0);
        Self { action: row.action.0, done_at, waiting_for: row.waiting_for.filter(|_| done_at.is_none()) }
    }
}
