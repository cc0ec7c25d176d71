//! A stack's Create: matched to an offer, and a connection made that is still to be proven.

use std::time::Duration;

use contracts::{
    ConnectionId, StackId, Timestamp,
    callback::{CallbackReceived, Claims},
    connection::ConnectionState,
    enrollment::{EnrollmentKind, EnrollmentState},
    verification::VerifyCause,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter,
    QuerySelect, sea_query::Expr,
};

use super::{
    HandleError, Registry,
    answer::{self, Whose},
    callbacks::{Handled, Named},
    order::{self, Order},
    step::{self, Happening},
    template, watch,
};
use crate::{
    decide::{self, Decision, OfferFacts},
    entity::{At, Id, Json, Text, callback, connection, enrollment, external_id, tenant},
    reasons::Refusal,
    rotation::{Beginning, OfferedIds, ToProve, begin},
    state::Trigger,
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// Seconds after a stack's request within which it must have its answer: our template's `ServiceTimeout` of 600 s, less a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(540);
/// What the broker gets at the least, however late the callback came.
const SHORTEST_VERIFICATION: Duration = Duration::from_secs(30);

/// An offer with what the rules want to know of it.
pub(super) struct Offer {
    tenant: tenant::Model,
    enrollment: enrollment::Model,
    facts: OfferFacts,
}

/// How a transaction of ours ended.
enum Ended {
    Handled(Handled),
    Stranger(Refusal),
}

impl Registry {
    pub(super) async fn create(&self, callback: &CallbackReceived, claims: &Claims) -> Result<Handled, HandleError> {
        let offer = find_offer(self.store.db(), callback, claims, Locks::None).await?;
        let facts = offer.as_ref().map(|offer| &offer.facts);
        let named = offer.as_ref().map_or_else(Named::default, |offer| Named {
            tenant: Some(offer.tenant.id.0),
            enrollment: Some(offer.enrollment.id.0),
            connection: None,
        });
        // Strangers never reach a write transaction.
        if let Decision::Stranger(refusal) = decide::create(callback, claims, facts, &self.rules.topics.regions()) {
            return self.turn_away(callback, &refusal, named).await;
        }
        match transaction!(self.store, tx => self.create_in(&tx, callback, claims))? {
            Ended::Handled(handled) => Ok(handled),
            Ended::Stranger(refusal) => self.turn_away(callback, &refusal, named).await,
        }
    }

    async fn create_in(&self, tx: &Tx, callback: &CallbackReceived, claims: &Claims) -> Result<Ended, StoreError> {
        if answer::find(&**tx, &callback.key).await?.is_some() {
            return Ok(Ended::Handled(Handled::StillVerifying));
        }
        let offer = find_offer(&**tx, callback, claims, Locks::Taken).await?;
        match (
            decide::create(callback, claims, offer.as_ref().map(|offer| &offer.facts), &self.rules.topics.regions()),
            offer,
        ) {
            (Decision::Verify, Some(offer)) => {
                self.register(tx, callback, claims, &offer).await.map(|()| Ended::Handled(Handled::Verifying))
            }
            (Decision::Refuse(refusal), Some(offer)) => {
                let whose = Whose { tenant: offer.tenant.id.0, enrollment: offer.enrollment.id.0, connection: None };
                refuse(tx, callback, whose, &refusal).await.map(|()| Ended::Handled(Handled::Refused))
            }
            (Decision::Stranger(refusal), _) => Ok(Ended::Stranger(refusal)),
            (Decision::Verify | Decision::Refuse(_), None) => Ok(Ended::Stranger(Refusal::NoSuchOffer)),
        }
    }

    async fn register(
        &self,
        tx: &Tx,
        callback: &CallbackReceived,
        claims: &Claims,
        offer: &Offer,
    ) -> Result<(), StoreError> {
        if offer.enrollment.kind.0 == EnrollmentKind::Account {
            bind(tx, &offer.enrollment, &callback.key.stack_id).await?;
        }
        let beginning = begin(&offer.facts.ids, decide::named(claims))
            .map_err(|_| StoreError::Inconsistent("an offer with other external IDs than were decided on"))?;
        let row = new_connection(callback, claims, offer, beginning)
            .insert(&**tx)
            .await
            .during("registering the connection")?;
        let whose = Whose { tenant: offer.tenant.id.0, enrollment: offer.enrollment.id.0, connection: Some(row.id.0) };
        let waiting = answer::keep(tx, callback, whose).await?;
        let row =
            step::apply(tx, &offer.tenant, row, &Happening::new(Trigger::VerificationStarted, Actor::Stack)).await?;
        let to_prove = ToProve { external_id: row.external_id.0.clone(), retired: None };
        self.order_verification(tx, &row, claims, to_prove, &waiting).await
    }

    /// Has the broker probe what the stack claims.
    pub(super) async fn order_verification(
        &self,
        tx: &Tx,
        row: &connection::Model,
        claims: &Claims,
        to_prove: ToProve,
        waiting: &callback::Model,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let latest = waiting.received_at.0.plus(ANSWER_WITHIN).max(now.plus(SHORTEST_VERIFICATION));
        let order = Order {
            cause: VerifyCause::Callback,
            role_arn: claims.role_arn.clone(),
            external_id: to_prove.external_id,
            retired_external_id: to_prove.retired,
            cost_export: claims.cost_export.clone(),
            template_version: claims.template_version,
            callback: Some(waiting.id),
            deadline: now.plus(self.rules.verify_within).min(latest),
        };
        watch::make_way(tx, row, &order, self.rules.watch.rate, now).await?;
        order::verification(tx, row, order).await.map(drop)
    }
}

/// Keeps the request with its refusal.
pub(super) async fn refuse(
    tx: &Tx,
    callback: &CallbackReceived,
    whose: Whose,
    refusal: &Refusal,
) -> Result<(), StoreError> {
    let row = answer::keep(tx, callback, whose).await?;
    let mut line =
        AuditLine::new(Actor::Stack, "callback.refused", whose.tenant, format!("{}: {refusal}", refusal.word()));
    line.connection = whose.connection;
    tx.audit(line.enrollment(whose.enrollment)).await?;
    answer::give(tx, row, answer::failed(refusal)).await
}

/// An account offer belongs from now on to this stack alone: of two at the same time, one finds it open.
async fn bind(tx: &Tx, enrollment: &enrollment::Model, stack: &StackId) -> Result<(), StoreError> {
    let bound = enrollment::Entity::update_many()
        .col_expr(enrollment::Column::State, Expr::value(Text(EnrollmentState::Used)))
        .col_expr(enrollment::Column::BoundStack, Expr::value(Text(stack.clone())))
        .col_expr(enrollment::Column::UpdatedAt, Expr::value(At::now()))
        .filter(enrollment::Column::Id.eq(enrollment.id))
        .filter(enrollment::Column::State.eq(Text(EnrollmentState::Open)))
        .exec(&**tx)
        .await
        .during("binding the offer to the stack")?;
    if bound.rows_affected == 1 { Ok(()) } else { Err(StoreError::Raced("using the offer")) }
}

/// Gives an account offer back, after a verification that failed: the customer mends the role and tries again with the same link.
pub(super) async fn unbind(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    enrollment::Entity::update_many()
        .col_expr(enrollment::Column::State, Expr::value(Text(EnrollmentState::Open)))
        .col_expr(enrollment::Column::BoundStack, Expr::value(None::<String>))
        .col_expr(enrollment::Column::UpdatedAt, Expr::value(At::now()))
        .filter(enrollment::Column::Id.eq(row.enrollment_id))
        .filter(enrollment::Column::State.eq(Text(EnrollmentState::Used)))
        .filter(enrollment::Column::BoundStack.eq(row.stack_id.clone()))
        .exec(&**tx)
        .await
        .during("giving the offer back")?;
    Ok(())
}

fn new_connection(
    callback: &CallbackReceived,
    claims: &Claims,
    offer: &Offer,
    beginning: Beginning,
) -> connection::ActiveModel {
    let (stack, now) = (&callback.key.stack_id, At::now());
    connection::ActiveModel {
        id: Set(Id(ConnectionId::new())),
        tenant_id: Set(offer.tenant.id),
        enrollment_id: Set(offer.enrollment.id),
        stack_id: Set(Text(stack.clone())),
        account: Set(Text(stack.account().clone())),
        partition: Set(Text(stack.partition().clone())),
        region: Set(Text(stack.region().clone())),
        role_arn: Set(Text(claims.role_arn.clone())),
        cost_export: Set(claims.cost_export.clone().map(Json)),
        state: Set(Text(ConnectionState::Registered)),
        reason: Set(None),
        evidence: Set(Json(Vec::new())),
        revision: Set(0),
        created_at: Set(now),
        updated_at: Set(now),
        verified_at: Set(None),
        external_id: Set(Text(beginning.own)),
        previous_external_id: Set(beginning.previous.map(Text)),
        rotation: Set(beginning.rotation.map(Text)),
        template_version: Set(template::kept(claims.template_version)),
        session_tags: Set(false),
        ..Default::default()
    }
}

/// Whether the rows are to be held until the end of the transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    None,
    Taken,
}

async fn find_offer(
    db: &impl ConnectionTrait,
    callback: &CallbackReceived,
    claims: &Claims,
    locks: Locks,
) -> Result<Option<Offer>, StoreError> {
    let good_for = external_id::Entity::enrollments(&claims.external_id);
    let by_external_id = enrollment::Entity::find().filter(enrollment::Column::Id.in_subquery(good_for));
    let Some(mut enrollment) = by_external_id.one(db).await.during("looking for the offer")? else { return Ok(None) };
    let mut tenant = tenant::Entity::find_by_id(enrollment.tenant_id);
    if locks == Locks::Taken {
        tenant = tenant.lock_shared();
    }
    let tenant = tenant
        .one(db)
        .await
        .during("reading the tenant")?
        .ok_or(StoreError::Inconsistent("an enrollment without its tenant"))?;
    if locks == Locks::Taken {
        let locked =
            enrollment::Entity::find_by_id(enrollment.id).lock_exclusive().one(db).await.during("locking the offer")?;
        enrollment = locked.ok_or(StoreError::Inconsistent("an enrollment that went away"))?;
    }
    let facts = offer_facts(db, callback, claims, &tenant, &enrollment).await?;
    Ok(Some(Offer { tenant, enrollment, facts }))
}

async fn offer_facts(
    db: &impl ConnectionTrait,
    callback: &CallbackReceived,
    claims: &Claims,
    tenant: &tenant::Model,
    enrollment: &enrollment::Model,
) -> Result<OfferFacts, StoreError> {
    let token_matches = enrollment.token_hash.0.matches(&claims.token_hash);
    let (mut stack_connected, mut account_connected, mut refusals) = (false, false, 0);
    // What a stranger sends costs one look-up and no more.
    if token_matches {
        let stack = &callback.key.stack_id;
        let live =
            || connection::Entity::find().filter(connection::Column::State.is_not_in(connection::ENDED.map(Text)));
        let of_stack = live().filter(connection::Column::StackId.eq(Text(stack.clone())));
        let of_account = live()
            .filter(connection::Column::EnrollmentId.eq(enrollment.id))
            .filter(connection::Column::Account.eq(Text(stack.account().clone())))
            .filter(connection::Column::StackId.ne(Text(stack.clone())));
        stack_connected = of_stack.one(db).await.during("looking for the stack's connection")?.is_some();
        account_connected = of_account.one(db).await.during("looking for the account's connection")?.is_some();
        refusals = callback::Entity::find()
            .filter(callback::Column::EnrollmentId.eq(enrollment.id))
            .filter(callback::Column::ConnectionId.is_null())
            .count(db)
            .await
            .during("counting refusals")?;
    }
    Ok(OfferFacts {
        kind: enrollment.kind.0,
        state: enrollment.state_now(),
        token_matches,
        bound_stack: enrollment.bound_stack.clone().map(|stack| stack.0),
        account: enrollment.account.clone().map(|account| account.0),
        tenant: tenant.state.0,
        ids: OfferedIds::from(enrollment),
        principal: tenant.principal_role.clone().map(|role| role.0),
        stack_connected,
        account_connected,
        refusals,
    })
}
