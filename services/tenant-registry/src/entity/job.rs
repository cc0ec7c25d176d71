//! Work that the broker has been given and has not reported yet. A report for a job that is not here comes too late or twice.

use contracts::{ConnectionId, ExternalId, JobId, RoleArn, TenantId, costs::ExportLocation};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use super::{At, Id, Json, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    Verify,
    ConfirmDeletion,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "jobs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Id<JobId>,
    pub tenant_id: Id<TenantId>,
    pub connection_id: Id<ConnectionId>,
    pub kind: Text<JobKind>,
    /// The role to be probed: on an Update perhaps not the connection's present one.
    pub role_arn: Text<RoleArn>,
    /// What becomes the connection's when the role holds.
    pub cost_export: Option<Json<ExportLocation>>,
    /// The callback that waits for the answer.
    pub callback_id: Option<Uuid>,
    pub deadline: At,
    pub created_at: At,
    /// The external ID to be probed: on an Update perhaps not the connection's present one. Absent in jobs of a version that knew only one.
    pub external_id: Option<Text<ExternalId>>,
    /// The one that must be refused.
    pub retired_external_id: Option<Text<ExternalId>>,
    /// What becomes the connection's when the role holds.
    pub template_version: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
