//! Customer accounts of tenants.

use std::collections::BTreeSet;

use contracts::{
    AccountId, ConnectionId, EnrollmentId, ExternalId, Partition, Region, RoleArn, StackId, TenantId,
    connection::{Connection, ConnectionState},
    costs::ExportLocation,
    credentials::Purpose,
    enrollment::RotationState,
    verification::{ProbeEvidence, PurposeEvidence},
};
use sea_orm::entity::prelude::*;

use super::{At, Id, Json, Text, of_tenant};
use crate::damping::Streak;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "connections")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Id<ConnectionId>,
    pub tenant_id: Id<TenantId>,
    pub enrollment_id: Id<EnrollmentId>,
    /// The stack that made it; its Update and Delete must bear the same.
    pub stack_id: Text<StackId>,
    pub account: Text<AccountId>,
    pub partition: Text<Partition>,
    pub region: Text<Region>,
    pub role_arn: Text<RoleArn>,
    pub cost_export: Option<Json<ExportLocation>>,
    pub state: Text<ConnectionState>,
    pub reason: Option<String>,
    pub evidence: Json<Vec<ProbeEvidence>>,
    /// Of the last grant.
    pub revision: i64,
    pub created_at: At,
    pub updated_at: At,
    pub verified_at: Option<At>,
    /// What the last look at the purposes' permissions found.
    pub purposes: Json<Vec<PurposeEvidence>>,
    /// Purposes that nothing is issued for: every grant says so.
    pub missing: Json<BTreeSet<Purpose>>,
    pub max_session_s: Option<i64>,
    /// When probes came to a verdict last.
    pub probed_at: Option<At>,
    /// When it is due; absent for one that is not watched.
    pub next_probe_at: Option<At>,
    pub used_at: Option<At>,
    /// Equal answers in a row that speak against the present state, too few yet to change it.
    pub streak: Option<Json<Streak>>,
    /// The one that it goes by: what the broker uses, and what its role was seen to demand.
    pub external_id: Text<ExternalId>,
    /// The one before it. Between the two updates of a rotation the role may let us in with it; before and after it must not.
    pub previous_external_id: Option<Text<ExternalId>>,
    pub rotation: Option<Text<RotationState>>,
    /// Of the customer's template, by the stack's last request that held.
    pub template_version: Option<i64>,
    /// Whether the role was seen to admit session tags: every grant says so.
    pub session_tags: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

of_tenant!(ConnectionId);

/// States in which a role ARN belongs to the connection's tenant: it was verified once and has not ended.
pub const OWNING: [ConnectionState; 4] =
    [ConnectionState::Verified, ConnectionState::Degraded, ConnectionState::Insecure, ConnectionState::Disconnected];

/// States after which nothing more comes of the connection.
pub const ENDED: [ConnectionState; 2] = [ConnectionState::Rejected, ConnectionState::Revoked];

impl Model {
    /// The external ID that the role must refuse: the one that was replaced, unless the stack's trust policy still names it with our consent.
    #[must_use]
    pub fn retired_external_id(&self) -> Option<ExternalId> {
        let overlapping = matches!(self.rotation, Some(Text(RotationState::Overlapping)));
        self.previous_external_id.clone().filter(|_| !overlapping).map(|id| id.0)
    }
}

impl From<Model> for Connection {
    fn from(row: Model) -> Self {
        Self {
            tenant: row.tenant_id.0,
            connection: row.id.0,
            account: row.account.0,
            partition: row.partition.0,
            region: row.region.0,
            role_arn: row.role_arn.0,
            state: row.state.0,
            reason: row.reason,
            cost_export: row.cost_export.map(|export| export.0),
            evidence: row.evidence.0,
            purposes: row.purposes.0,
            max_session_s: row.max_session_s.and_then(|seconds| u32::try_from(seconds).ok()),
            template_version: row.template_version.and_then(|version| u32::try_from(version).ok()),
            session_tags: row.session_tags,
            rotation: row.rotation.map(|rotation| rotation.0),
            revocation: Vec::new(),
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            verified_at: row.verified_at.map(|at| at.0),
            probed_at: row.probed_at.map(|at| at.0),
            next_probe_at: row.next_probe_at.map(|at| at.0),
            used_at: row.used_at.map(|at| at.0),
        }
    }
}
