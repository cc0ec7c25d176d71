//! Callbacks that proved to come from a stack of ours, and what they were answered. A duplicate finds its answer here.

use contracts::{
    ConnectionId, EnrollmentId, StackId, TenantId,
    callback::{Answer, RequestType, ReturnAddress},
};
use sea_orm::entity::prelude::*;

use super::{At, Id, Json, Text};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "callbacks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub stack_id: Text<StackId>,
    pub request_id: String,
    pub request_type: Text<RequestType>,
    pub tenant_id: Id<TenantId>,
    pub enrollment_id: Id<EnrollmentId>,
    pub connection_id: Option<Id<ConnectionId>>,
    /// Of the first arrival: a later duplicate cannot redirect the answer.
    pub return_address: Json<ReturnAddress>,
    pub physical_resource_id: String,
    /// Absent while the verification is under way.
    pub answer: Option<Json<Answer>>,
    pub received_at: At,
    pub created_at: At,
    pub answered_at: Option<At>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
