//! The outbox: what a committed change has promised to the bus.
//!
//! Order: rows of one key are published by ID. Transactions that write the same key hold the same row lock, so that IDs follow commits. Several relays share
//! the work by claiming keys: the claim stands on the key's first row, and while it stands (and the row is there) nobody else takes the key.

use std::{collections::BTreeMap, time::Duration};

use contracts::{CloudEvent, Message, Timestamp};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::NotSet,
    ActiveValue::Set,
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait, Query},
};
use uuid::Uuid;

use super::{During, Store, StoreError};
use crate::{
    entity::{
        At, Id,
        outbox::{ActiveModel, Column, Entity, Model},
    },
    transaction,
};

/// Keys that a relay takes at once, and rows of them.
const KEYS: u64 = 64;
const ROWS: u64 = 512;

/// Rows in a relay's hands: by key, each key's in order.
#[derive(Debug, Default)]
pub struct Claim {
    pub keys: Vec<Vec<Model>>,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub rows: u64,
    /// Age of the oldest row; zero when there is none.
    pub oldest: Duration,
}

pub(super) async fn append<T: Message>(
    tx: &DatabaseTransaction,
    key: String,
    event: &CloudEvent<T>,
) -> Result<(), StoreError> {
    let payload = serde_json::to_string(event).map_err(|source| StoreError::Encode { kind: T::TYPE, source })?;
    let row = ActiveModel {
        id: NotSet,
        ordering_key: Set(key),
        subject: Set(event.data.subject().as_str().to_owned()),
        event_id: Set(Id(event.id)),
        traceparent: Set(event.traceparent.clone()),
        payload: Set(payload),
        created_at: Set(At::now()),
        claimed_by: Set(None),
        claimed_until: Set(None),
    };
    row.insert(tx).await.during("writing the outbox")?;
    Ok(())
}

impl Store {
    /// Takes keys that nobody has in hand, for `span`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_outbox(&self, relay: Uuid, span: Duration) -> Result<Claim, StoreError> {
        // An empty outbox, the usual case, costs a read and no write.
        if Entity::find()
            .select_only()
            .column(Column::Id)
            .into_tuple::<i64>()
            .one(self.db())
            .await
            .during("looking into the outbox")?
            .is_none()
        {
            return Ok(Claim::default());
        }
        let now = Timestamp::now();
        let (until, now) = (At(now.plus(span)), At(now));
        let keys = transaction!(self, tx => claim_keys(&tx, relay, now, until))?;
        let rows = Entity::find()
            .filter(Column::OrderingKey.is_in(keys))
            .order_by_asc(Column::Id)
            .limit(ROWS)
            .all(self.db())
            .await
            .during("reading the outbox")?;
        let mut by_key = BTreeMap::<String, Vec<Model>>::new();
        for row in rows {
            by_key.entry(row.ordering_key.clone()).or_default().push(row);
        }
        Ok(Claim { keys: by_key.into_values().collect() })
    }

    /// Removes what the bus has acknowledged, and lets go of the keys of `relay`.
    ///
    /// # Errors
    /// When the database fails: the rows are then published once more, and dropped by the stream or by their readers.
    pub async fn settle_outbox(&self, relay: Uuid, published: &[i64]) -> Result<(), StoreError> {
        let work = async |tx: &DatabaseTransaction| {
            Entity::delete_many()
                .filter(Column::Id.is_in(published.to_vec()))
                .exec(tx)
                .await
                .during("clearing the outbox")?;
            Entity::update_many()
                .col_expr(Column::ClaimedBy, Expr::value(None::<Uuid>))
                .col_expr(Column::ClaimedUntil, Expr::value(None::<i64>))
                .filter(Column::ClaimedBy.eq(relay))
                .exec(tx)
                .await
                .during("letting go of the outbox")?;
            Ok(())
        };
        transaction!(self, tx => work(&tx))
    }

    /// # Errors
    /// When the database fails.
    pub async fn outbox_backlog(&self) -> Result<Backlog, StoreError> {
        let (rows, oldest): (i64, Option<i64>) = Entity::find()
            .select_only()
            .column_as(Column::Id.count(), "rows")
            .column_as(Column::CreatedAt.min(), "oldest")
            .into_tuple()
            .one(self.db())
            .await
            .during("measuring the outbox")?
            .unwrap_or_default();
        let now = crate::entity::columns::milliseconds(Timestamp::now());
        let age = oldest.map_or(0, |oldest| u64::try_from(now - oldest).unwrap_or(0));
        Ok(Backlog { rows: u64::try_from(rows).unwrap_or(0), oldest: Duration::from_millis(age) })
    }
}

/// Claims the first rows of free keys and returns the keys.
async fn claim_keys(tx: &DatabaseTransaction, relay: Uuid, now: At, until: At) -> Result<Vec<String>, StoreError> {
    let heads = Query::select()
        .expr(Expr::col(Column::Id).min())
        .from(Entity)
        .group_by_col(Column::OrderingKey)
        .order_by_expr(Expr::col(Column::Id).min(), sea_orm::Order::Asc)
        .limit(KEYS)
        .to_owned();
    let free = Column::ClaimedUntil.is_null().or(Column::ClaimedUntil.lt(now));
    let claimed = Entity::update_many()
        .col_expr(Column::ClaimedBy, Expr::value(relay))
        .col_expr(Column::ClaimedUntil, Expr::value(until))
        .filter(Column::Id.in_subquery(heads))
        .filter(free)
        .exec_with_returning(tx)
        .await
        .during("claiming the outbox")?;
    Ok(claimed.into_iter().map(|row| row.ordering_key).collect())
}
