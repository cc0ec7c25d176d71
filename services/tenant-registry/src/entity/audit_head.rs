//! Where the audit log ends: one row, which every writer of the log holds while it writes.

use sea_orm::entity::prelude::*;

/// The ID of the one row.
pub const THE_ONE: i32 = 1;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_head")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Of the last entry; 0 when there is none.
    pub sequence: i64,
    /// Of the last entry; [`contracts::audit::GENESIS`] when there is none.
    pub hash: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
