//! Customers of the provider.

use contracts::{
    RoleArn, TenantId,
    tenant::{Tenant, TenantState},
};
use sea_orm::entity::prelude::*;

use super::{At, Id, Text};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Id<TenantId>,
    pub name: String,
    pub idempotency_key: Option<String>,
    pub state: Text<TenantState>,
    pub principal_role: Option<Text<RoleArn>>,
    pub created_at: At,
    pub updated_at: At,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl From<Model> for Tenant {
    fn from(row: Model) -> Self {
        Self {
            tenant: row.id.0,
            name: row.name,
            state: row.state.0,
            principal_role: row.principal_role.map(|role| role.0),
            revocation: Vec::new(),
            created_at: row.created_at.0,
        }
    }
}
