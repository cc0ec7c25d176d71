//! Watching: connections are probed again when their time has come, or when somebody asks.
//!
//! When and in which order is [`crate::schedule`]'s, how many is [`crate::bucket`]'s: one budget for all instances, one row in the database. An order, its
//! job and its token are one transaction, in which everything is looked at again: of two instances that find the same connection due, one orders.

use std::time::Duration;

use contracts::{
    ConnectionId, ErrorCode, ErrorReply, TenantId, Timestamp,
    connection::{Connection, ConnectionState},
    tenant::TenantState,
    verification::{ConnectionsUsed, Used, VerifyCause},
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, Condition, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{Expr, ExprTrait as _, Query},
};

use super::{
    HandleError, Registry,
    order::{self, Order},
};
use crate::{
    bucket::{Bucket, Rate, Spender},
    config::Rules,
    entity::{At, Id, Text, budget, columns::milliseconds, connection, job, tenant},
    schedule::{self, Due},
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// Connections that one round takes.
pub const BATCH: u64 = 100;
/// The budget's row.
const PROBES: &str = "probes";
/// The most that one report of uses may name.
const MOST_USED: usize = 1_000;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    pub ordered: usize,
    /// Nothing was left in the budget: the rest waits.
    pub exhausted: bool,
}

/// How watching stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchState {
    pub by_state: Vec<(ConnectionState, u64)>,
    /// Connections whose time has come and for which no job is open.
    pub due: u64,
    /// How long the first of them has been due.
    pub overdue: Duration,
}

/// Whether an order was made.
enum Made {
    Ordered(connection::Model),
    /// Another instance was faster, or the connection changed: nothing to do.
    NotNeeded(connection::Model),
}

impl Registry {
    /// Orders probes for connections that are due, as many as the budget gives.
    ///
    /// # Errors
    /// When the store cannot say who is due. A connection that fails is left for the next round.
    pub async fn watch_round(&self, now: Timestamp) -> Result<Round, HandleError> {
        let mut round = Round::default();
        for (tenant, due) in self.due(now).await? {
            let (id, rules) = (due.connection, self.rules.as_ref());
            let made = transaction!(self.store, tx => order_in(&tx, rules, (tenant, id), VerifyCause::Schedule, now));
            match made {
                Ok(Made::Ordered(_)) => round.ordered += 1,
                Ok(Made::NotNeeded(_)) => {}
                Err(StoreError::Refused(reply)) if reply.code == ErrorCode::Throttled => {
                    round.exhausted = true;
                    break;
                }
                // It was revoked, or its tenant suspended, since it was found.
                Err(StoreError::Refused(_)) => {}
                Err(error) => {
                    tracing::warn!(connection = %id, error = %crate::chain(&error), "a probe could not be ordered, trying again");
                }
            }
        }
        self.metrics.probes_ordered("schedule", round.ordered);
        if round.exhausted {
            self.metrics.budget_refused("schedule");
        }
        Ok(round)
    }

    /// Those whose time has come, in the order in which they are probed.
    async fn due(&self, now: Timestamp) -> Result<Vec<(TenantId, Due)>, StoreError> {
        let now_ms = milliseconds(now);
        let since = At::from_milliseconds(schedule::in_use_since(now_ms));
        let used_lately = connection::Column::UsedAt.gte(since);
        let longest_due = |query: Select<connection::Entity>, most| {
            query.order_by_asc(connection::Column::NextProbeAt).order_by_asc(connection::Column::Id).limit(most)
        };
        let mut rows = longest_due(due_at(now).filter(used_lately), BATCH)
            .all(self.store.db())
            .await
            .during("looking for connections that are due")?;
        let room = BATCH.saturating_sub(rows.len() as u64);
        if room > 0 {
            let others =
                Condition::any().add(connection::Column::UsedAt.is_null()).add(connection::Column::UsedAt.lt(since));
            let others = longest_due(due_at(now).filter(others), room).all(self.store.db()).await;
            rows.extend(others.during("looking for connections that are due")?);
        }
        let whose: std::collections::HashMap<_, _> = rows.iter().map(|row| (row.id.0, row.tenant_id.0)).collect();
        let mut due: Vec<_> = rows
            .iter()
            .map(|row| Due {
                connection: row.id.0,
                due_ms: row.next_probe_at.map_or(now_ms, |at| milliseconds(at.0)),
                used_ms: row.used_at.map(|at| milliseconds(at.0)),
            })
            .collect();
        schedule::order(&mut due, now_ms);
        Ok(due.into_iter().filter_map(|due| Some((*whose.get(&due.connection)?, due))).collect())
    }

    /// Has a connection probed now, ahead of its time. While a probe is under way that one is enough.
    ///
    /// # Errors
    /// `not-found`; `conflict` when it is not watched; `throttled` when the budget is exhausted; when the store fails.
    pub async fn verify_connection(&self, tenant: TenantId, id: ConnectionId) -> Result<Connection, StoreError> {
        let (now, rules) = (Timestamp::now(), self.rules.as_ref());
        let made = transaction!(self.store, tx => order_in(&tx, rules, (tenant, id), VerifyCause::Request, now));
        match made {
            Ok(Made::Ordered(row)) => {
                self.metrics.probes_ordered("request", 1);
                Ok(row.into())
            }
            Ok(Made::NotNeeded(row)) => Ok(row.into()),
            Err(error) => {
                if matches!(&error, StoreError::Refused(reply) if reply.code == ErrorCode::Throttled) {
                    self.metrics.budget_refused("request");
                }
                Err(error)
            }
        }
    }

    /// Notes which connections are in use. Repeatable: an instant never goes back.
    ///
    /// # Errors
    /// `invalid-request` for a report that is too long; when the store fails.
    pub async fn connections_used(&self, report: &ConnectionsUsed) -> Result<(), HandleError> {
        if report.used.len() > MOST_USED {
            let message = format!("a report of uses names at most {MOST_USED} connections");
            return Err(StoreError::refused(ErrorCode::InvalidRequest, message).into());
        }
        // In one order, so that two instances do not wait for each other in a circle.
        let mut used = report.used.clone();
        used.sort_unstable_by_key(|used| used.connection);
        transaction!(self.store, tx => note_used(&tx, &used))?;
        Ok(())
    }

    /// Counts, for those who want to know whether watching keeps up.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn watch_state(&self, now: Timestamp) -> Result<WatchState, StoreError> {
        let by_state: Vec<(Text<ConnectionState>, i64)> = connection::Entity::find()
            .select_only()
            .column(connection::Column::State)
            .column_as(connection::Column::Id.count(), "number")
            .group_by(connection::Column::State)
            .into_tuple()
            .all(self.store.db())
            .await
            .during("counting connections")?;
        let (due, first): (i64, Option<i64>) = due_at(now)
            .select_only()
            .column_as(connection::Column::Id.count(), "number")
            .column_as(connection::Column::NextProbeAt.min(), "first")
            .into_tuple()
            .one(self.store.db())
            .await
            .during("counting connections that are due")?
            .unwrap_or_default();
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        let overdue = first.map_or(0, |first| count(milliseconds(now) - first));
        Ok(WatchState {
            by_state: by_state.into_iter().map(|(state, number)| (state.0, count(number))).collect(),
            due: count(due),
            overdue: Duration::from_millis(overdue),
        })
    }

    /// Writes [`Registry::watch_state`] to the gauges.
    pub(crate) async fn measure_watch(&self, now: Timestamp) {
        match self.watch_state(now).await {
            Ok(state) => self.metrics.watch(&state),
            Err(error) => tracing::debug!(error = %crate::chain(&error), "watching could not be measured"),
        }
    }
}

/// Watched connections of active tenants whose time has come and that are not being probed.
fn due_at(now: Timestamp) -> Select<connection::Entity> {
    let active = Query::select()
        .column(tenant::Column::Id)
        .from(tenant::Entity)
        .and_where(tenant::Column::State.eq(Text(TenantState::Active)))
        .to_owned();
    let probed = Query::select()
        .column(job::Column::ConnectionId)
        .from(job::Entity)
        .and_where(job::Column::Kind.eq(Text(job::JobKind::Verify)))
        // A probe of another role or external ID says nothing about what serves, and puts nothing off.
        .and_where(
            Expr::col((job::Entity, job::Column::RoleArn)).equals((connection::Entity, connection::Column::RoleArn)),
        )
        .and_where(
            Expr::col((job::Entity, job::Column::ExternalId))
                .equals((connection::Entity, connection::Column::ExternalId)),
        )
        .to_owned();
    connection::Entity::find()
        .filter(connection::Column::NextProbeAt.lte(At(now)))
        .filter(connection::Column::State.is_in(connection::OWNING.map(Text)))
        .filter(connection::Column::TenantId.in_subquery(active))
        .filter(connection::Column::Id.not_in_subquery(probed))
}

/// Orders the probe of one connection, if it is still to be probed.
async fn order_in(
    tx: &Tx,
    rules: &Rules,
    (tenant, id): (TenantId, ConnectionId),
    cause: VerifyCause,
    now: Timestamp,
) -> Result<Made, StoreError> {
    let row = lock_watched(tx, tenant, id).await?;
    let too_early = cause == VerifyCause::Schedule && row.next_probe_at.is_none_or(|at| at.0 > now);
    let open = job::Entity::find()
        .filter(job::Column::ConnectionId.eq(row.id))
        .filter(job::Column::Kind.eq(Text(job::JobKind::Verify)))
        .filter(job::Column::RoleArn.eq(row.role_arn.clone()))
        .filter(job::Column::ExternalId.eq(row.external_id.clone()))
        .one(&**tx)
        .await
        .during("looking for an open job")?;
    if too_early || open.is_some() {
        return Ok(Made::NotNeeded(row));
    }
    let order = Order::of(&row, cause, now.plus(rules.verify_within));
    order::verification(tx, &row, order).await?;
    // Whatever becomes of the job, its time comes again.
    let next = rules.watch.cadence.next(row.id.0, milliseconds(now), row.streak.is_some());
    let mut change = row.into_active_model();
    change.next_probe_at = Set(Some(At::from_milliseconds(next)));
    let row = change.update(&**tx).await.during("noting the next probe")?;
    let spender = if cause == VerifyCause::Schedule { Spender::Schedule } else { Spender::Request };
    if spender == Spender::Request {
        let line =
            AuditLine::new(Actor::Operator, "connection.verify-requested", tenant, "Asked for ahead of its time.");
        tx.audit(line.enrollment(row.enrollment_id.0).connection(id)).await?;
    }
    spend(tx, rules.watch.rate, spender, now).await?;
    Ok(Made::Ordered(row))
}

/// The connection, held until the end of the transaction, if it is one that is watched.
async fn lock_watched(tx: &Tx, tenant: TenantId, id: ConnectionId) -> Result<connection::Model, StoreError> {
    let unknown = || StoreError::refused(ErrorCode::NotFound, format!("this tenant has no connection {id}"));
    let tenant = tenant::Entity::find_by_id(Id(tenant)).lock_shared().one(&**tx).await.during("reading the tenant")?;
    let tenant = tenant.ok_or_else(unknown)?;
    let row = connection::Entity::of_tenant_by_id(tenant.id.0, id).lock_exclusive().one(&**tx).await;
    let row = row.during("locking the connection")?.ok_or_else(unknown)?;
    let conflict = |message: String| Err(StoreError::refused(ErrorCode::Conflict, message));
    match row.state.0 {
        ConnectionState::Registered | ConnectionState::Verifying => {
            conflict(format!("connection {id} is being verified for the first time; its stack waits for the answer"))
        }
        ConnectionState::Rejected | ConnectionState::Revoked => conflict(format!(
            "connection {id} is {}, which is final: for a new connection, launch a stack from a new offer",
            row.state.0
        )),
        _ if tenant.state.0 != TenantState::Active => {
            conflict(format!("the tenant of connection {id} is not active, and nothing of it is probed meanwhile"))
        }
        _ => Ok(row),
    }
}

/// A stack calls back with something to probe, and the budget bears the new probe without a word.
///
/// What was under way by schedule or request is overtaken (its report comes too late) only by a probe of the same role and external ID. Else whoever holds
/// the token could keep the role that serves from being probed, by naming another one each time.
pub(super) async fn make_way(
    tx: &Tx,
    row: &connection::Model,
    order: &Order,
    rate: Rate,
    now: Timestamp,
) -> Result<(), StoreError> {
    if order.role_arn == row.role_arn.0 && order.external_id == row.external_id.0 {
        job::Entity::delete_many()
            .filter(job::Column::ConnectionId.eq(row.id))
            .filter(job::Column::Kind.eq(Text(job::JobKind::Verify)))
            .filter(job::Column::CallbackId.is_null())
            .exec(&**tx)
            .await
            .during("taking an overtaken job off the list")?;
    }
    spend(tx, rate, Spender::Callback, now).await
}

/// Takes a token. The row is held until the end of the transaction: after it only the end of the audit log is locked.
async fn spend(tx: &Tx, rate: Rate, spender: Spender, now: Timestamp) -> Result<(), StoreError> {
    let row = budget::Entity::find_by_id(PROBES.to_owned()).lock_exclusive().one(&**tx).await;
    let row = row.during("locking the budget")?;
    let bucket = row.as_ref().map_or(Bucket { reserved: 0, shared: 0, at_ms: 0 }, |row| Bucket {
        reserved: row.reserved,
        shared: row.shared,
        at_ms: milliseconds(row.refilled_at.0),
    });
    let left = bucket.spend(milliseconds(now), rate, spender).map_err(|exhausted| {
        let message = "so many probes are under way that there is none left for now: try again";
        let ms = u64::try_from(exhausted.retry_after.as_millis()).unwrap_or(u64::MAX);
        StoreError::Refused(ErrorReply::new(ErrorCode::Throttled, message).retry_after(ms))
    })?;
    keep_budget(tx, row.map(|row| row.version), left).await
}

/// Writes the budget, if it is still the one that was read.
async fn keep_budget(tx: &Tx, read: Option<i64>, left: Bucket) -> Result<(), StoreError> {
    let refilled_at = At::from_milliseconds(left.at_ms);
    let Some(version) = read else {
        let row = budget::ActiveModel {
            name: Set(PROBES.to_owned()),
            reserved: Set(left.reserved),
            shared: Set(left.shared),
            refilled_at: Set(refilled_at),
            version: Set(1),
        };
        return row.insert(&**tx).await.during("making the budget").map(drop);
    };
    let changed = budget::Entity::update_many()
        .col_expr(budget::Column::Reserved, Expr::value(left.reserved))
        .col_expr(budget::Column::Shared, Expr::value(left.shared))
        .col_expr(budget::Column::RefilledAt, Expr::value(refilled_at))
        .col_expr(budget::Column::Version, Expr::value(version.saturating_add(1)))
        .filter(budget::Column::Name.eq(PROBES))
        .filter(budget::Column::Version.eq(version))
        .exec(&**tx)
        .await
        .during("spending from the budget")?;
    if changed.rows_affected == 1 { Ok(()) } else { Err(StoreError::Raced("spending from the budget")) }
}

async fn note_used(tx: &Tx, used: &[Used]) -> Result<(), StoreError> {
    let now = Timestamp::now();
    for one in used {
        // A clock that is ahead must not keep a connection in front for ever.
        let at = At(one.at.min(now));
        connection::Entity::update_many()
            .col_expr(connection::Column::UsedAt, Expr::value(at))
            .filter(connection::Column::Id.eq(Id(one.connection)))
            .filter(connection::Column::TenantId.eq(Id(one.tenant)))
            .filter(Condition::any().add(connection::Column::UsedAt.is_null()).add(connection::Column::UsedAt.lt(at)))
            .exec(&**tx)
            .await
            .during("noting that a connection is used")?;
    }
    Ok(())
}
