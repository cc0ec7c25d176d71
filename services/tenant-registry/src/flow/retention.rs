//! Kept callbacks that nobody needs any more go away: refusals, and what ended connections were told.
//!
//! A kept callback is there to answer a duplicate as the first one was answered. Of a connection that lives all are kept. The span is longer than any offer stands
//! and any message waits (queue, streams), so a request that comes again after it finds its offer used or expired.

use contracts::Timestamp;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QuerySelect, QueryTrait};
use uuid::Uuid;

use super::Registry;
use crate::{
    entity::{At, Text, callback, connection},
    store::{During, StoreError, Tx},
    transaction,
};

/// Rows that one transaction removes: others wait for it on SQLite.
const BATCH: u64 = 500;

impl Registry {
    /// Removes answered callbacks from before `before`, but for those of connections that have not ended. Returns how many there were.
    ///
    /// # Errors
    /// When the store fails; what is left is found the next time.
    pub async fn forget_callbacks(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let ended = connection::Entity::find()
                .select_only()
                .column(connection::Column::Id)
                .filter(connection::Column::State.is_in(connection::ENDED.map(Text)))
                .into_query();
            let ids: Vec<Uuid> = callback::Entity::find()
                .select_only()
                .column(callback::Column::Id)
                .filter(callback::Column::Answer.is_not_null())
                .filter(callback::Column::CreatedAt.lt(At(before)))
                .filter(callback::Column::ConnectionId.is_null().or(callback::Column::ConnectionId.in_subquery(ended)))
                .limit(BATCH)
                .into_tuple()
                .all(self.store.db())
                .await
                .during("looking for old callbacks")?;
            if ids.is_empty() {
                return Ok(forgotten);
            }
            forgotten += transaction!(self.store, tx => remove(&tx, ids.clone()))?;
        }
    }
}

async fn remove(tx: &Tx, ids: Vec<Uuid>) -> Result<u64, StoreError> {
    let removed = callback::Entity::delete_many().filter(callback::Column::Id.is_in(ids)).exec(&**tx).await;
    Ok(removed.during("removing old callbacks")?.rows_affected)
}
