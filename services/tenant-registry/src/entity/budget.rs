//! Budgets that all instances spend from, one row each. What the numbers mean is [`crate::bucket`]'s.

use sea_orm::entity::prelude::*;

use super::At;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "budgets")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub reserved: i64,
    pub shared: i64,
    pub refilled_at: At,
    /// Grows with every change: whoever changes the row says which version it has read.
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
