//! Every external ID that was ever made. None is made twice, none is used again.

use contracts::{EnrollmentId, ExternalId};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use super::{At, Id, Text};

/// What an external ID counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The enrollment's: stacks are launched with it.
    Current,
    /// Made to take the current one's place.
    Offered,
    /// Replaced, and seen to be refused.
    Retired,
    /// Taken back before anything used it.
    Withdrawn,
}

/// Those that a new stack may come with.
pub const LIVE: [Standing; 2] = [Standing::Current, Standing::Offered];

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "external_ids")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub external_id: String,
    pub enrollment_id: Id<EnrollmentId>,
    pub standing: Text<Standing>,
    pub created_at: At,
    pub updated_at: At,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Entity {
    /// The enrollments that this ID is good for: one, or none.
    #[must_use]
    pub fn enrollments(external_id: &ExternalId) -> sea_orm::sea_query::SelectStatement {
        sea_orm::sea_query::Query::select()
            .column(Column::EnrollmentId)
            .from(Self)
            .and_where(Column::ExternalId.eq(external_id.as_str()))
            .and_where(Column::Standing.is_in(LIVE.map(Text)))
            .to_owned()
    }
}
