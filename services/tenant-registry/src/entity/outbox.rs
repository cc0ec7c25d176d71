//! Messages that a committed change has promised and the bus has not acknowledged yet. A row goes when it is acknowledged.

use contracts::EventId;
use sea_orm::entity::prelude::*;

use super::{At, Id};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Rows of one key are published in the order of their IDs; keys do not wait for each other.
    pub ordering_key: String,
    pub subject: String,
    pub event_id: Id<EventId>,
    pub traceparent: Option<String>,
    pub payload: String,
    pub created_at: At,
    /// The relay that has the key in hand, told by the first row of the key.
    pub claimed_by: Option<Uuid>,
    /// When that claim is void.
    pub claimed_until: Option<At>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
