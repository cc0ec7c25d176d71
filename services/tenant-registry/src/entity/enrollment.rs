//! Offers to connect. The token itself is nowhere: only its hash.

use contracts::{
    AccountId, EnrollmentId, ExternalId, Region, StackId, TenantId, TokenHash,
    costs::ExportLocation,
    enrollment::{Enrollment, EnrollmentKind, EnrollmentState, RotationState},
};
use sea_orm::entity::prelude::*;

use super::{At, Id, Json, Text, of_tenant};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "enrollments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Id<EnrollmentId>,
    pub tenant_id: Id<TenantId>,
    pub kind: Text<EnrollmentKind>,
    /// `open`, `used` or `cancelled`; whether it has expired is a question of the clock.
    pub state: Text<EnrollmentState>,
    pub region: Text<Region>,
    pub account: Option<Text<AccountId>>,
    /// The one that stacks are launched with. While it is changed, the old one.
    pub external_id: Text<ExternalId>,
    pub token_hash: Text<TokenHash>,
    pub cost_export: Option<Json<ExportLocation>>,
    /// The stack that used an account enrollment's token.
    pub bound_stack: Option<Text<StackId>>,
    pub created_at: At,
    pub expires_at: At,
    pub updated_at: At,
    /// The new one, from its offer until every connection goes by it alone.
    pub next_external_id: Option<Text<ExternalId>>,
    pub rotation: Option<Text<RotationState>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

of_tenant!(EnrollmentId);

impl Model {
    /// The state at this moment.
    #[must_use]
    pub fn state_now(&self) -> EnrollmentState {
        match self.state.0 {
            EnrollmentState::Open if self.expires_at.0.has_passed() => EnrollmentState::Expired,
            other => other,
        }
    }
}

impl From<Model> for Enrollment {
    fn from(row: Model) -> Self {
        Self {
            state: row.state_now(),
            enrollment: row.id.0,
            tenant: row.tenant_id.0,
            kind: row.kind.0,
            region: row.region.0,
            account: row.account.map(|account| account.0),
            rotation: row.rotation.map(|rotation| rotation.0),
            created_at: row.created_at.0,
            expires_at: row.expires_at.0,
        }
    }
}
