//! The tables as types. A row's identities are typed; nothing here decides anything.
//!
//! Rows of a tenant are found through its [`Entity::of_tenant`](connection::Entity::of_tenant) functions, so that no query can forget whose they are.

pub mod audit;
pub mod audit_head;
pub mod budget;
pub mod callback;
pub mod columns;
pub mod connection;
pub mod enrollment;
pub mod external_id;
pub mod job;
pub mod outbox;
pub mod revocation;
pub mod tenant;

pub use columns::{At, Id, Json, Text};

/// Rows that belong to one tenant.
macro_rules! of_tenant {
    ($id:ty) => {
        impl Entity {
            /// The rows of this tenant alone.
            pub fn of_tenant(tenant: contracts::TenantId) -> sea_orm::Select<Self> {
                use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
                Self::find().filter(Column::TenantId.eq($crate::entity::Id(tenant)))
            }

            /// This row, if it is this tenant's.
            pub fn of_tenant_by_id(tenant: contracts::TenantId, id: $id) -> sea_orm::Select<Self> {
                use sea_orm::{ColumnTrait, QueryFilter};
                Self::of_tenant(tenant).filter(Column::Id.eq($crate::entity::Id(id)))
            }
        }
    };
}

pub(crate) use of_tenant;
