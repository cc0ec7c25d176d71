//! A stack's Update: the connection serves as it is until the role has been verified anew.

use contracts::{
    TokenHash,
    callback::{CallbackReceived, Claims},
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};

use super::{
    HandleError, Registry,
    answer::{self, Whose},
    callbacks::{Handled, Named},
    delete::by_token,
    register::refuse,
};
use crate::{
    decide::{self, ConnectionFacts, Decision},
    entity::{Text, callback, connection, enrollment, job, tenant},
    reasons::Refusal,
    rotation::{self, Ids},
    store::{During, StoreError, Tx},
    transaction,
};

/// A connection with what the rules want to know of it.
pub(super) struct Known {
    pub(super) row: connection::Model,
    pub(super) enrollment: enrollment::Model,
    pub(super) facts: ConnectionFacts,
}

impl Known {
    pub(super) fn named(&self) -> Named {
        Named {
            tenant: Some(self.row.tenant_id.0),
            enrollment: Some(self.enrollment.id.0),
            connection: Some(self.row.id.0),
        }
    }

    pub(super) fn whose(&self) -> Whose {
        Whose { tenant: self.row.tenant_id.0, enrollment: self.enrollment.id.0, connection: Some(self.row.id.0) }
    }
}

/// How a transaction of ours ended.
enum Ended {
    Handled(Handled),
    Stranger(Refusal),
}

impl Registry {
    pub(super) async fn update(&self, callback: &CallbackReceived, claims: &Claims) -> Result<Handled, HandleError> {
        let known = find_known(self.store.db(), callback, Some(claims)).await?;
        let named = known.as_ref().map_or_else(Named::default, Known::named);
        let facts = known.as_ref().map(|known| &known.facts);
        if let Decision::Stranger(refusal) = decide::update(callback, claims, facts, &self.rules.topics.regions()) {
            return self.turn_away(callback, &refusal, named).await;
        }
        match transaction!(self.store, tx => self.update_in(&tx, callback, claims))? {
            Ended::Handled(handled) => Ok(handled),
            Ended::Stranger(refusal) => self.turn_away(callback, &refusal, named).await,
        }
    }

    async fn update_in(&self, tx: &Tx, callback: &CallbackReceived, claims: &Claims) -> Result<Ended, StoreError> {
        if answer::find(&**tx, &callback.key).await?.is_some() {
            return Ok(Ended::Handled(Handled::StillVerifying));
        }
        let Some(known) = lock_known(tx, callback, Some(claims)).await? else {
            return Ok(Ended::Stranger(Refusal::NoSuchConnection));
        };
        match decide::update(callback, claims, Some(&known.facts), &self.rules.topics.regions()) {
            Decision::Stranger(refusal) => Ok(Ended::Stranger(refusal)),
            Decision::Refuse(refusal) => {
                refuse(tx, callback, known.whose(), &refusal).await.map(|()| Ended::Handled(Handled::Refused))
            }
            Decision::Verify => {
                let to_prove = rotation::update(&known.facts.ids, decide::named(claims)).map_err(|_| {
                    StoreError::Inconsistent("a connection with other external IDs than were decided on")
                })?;
                overtake(tx, &known.row).await?;
                let waiting = answer::keep(tx, callback, known.whose()).await?;
                self.order_verification(tx, &known.row, claims, to_prove, &waiting).await?;
                Ok(Ended::Handled(Handled::Verifying))
            }
        }
    }
}

/// A later request of the stack takes the place of those that still wait. Their jobs stay: what they find of the role that serves counts, and what they
/// asked for is not taken over any more.
async fn overtake(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    let waiting = job::Entity::find()
        .filter(job::Column::ConnectionId.eq(row.id))
        .filter(job::Column::Kind.eq(Text(job::JobKind::Verify)))
        .all(&**tx)
        .await
        .during("looking for open jobs")?;
    for id in waiting.into_iter().filter_map(|job| job.callback_id) {
        let earlier = callback::Entity::find_by_id(id).one(&**tx).await.during("reading the waiting callback")?;
        if let Some(earlier) = earlier {
            answer::give(tx, earlier, answer::failed(&Refusal::Overtaken)).await?;
        }
    }
    Ok(())
}

/// The connection that the request's physical ID names; for a Delete with none of ours, the stack's own, by its token.
pub(super) async fn find_known(
    db: &impl ConnectionTrait,
    callback: &CallbackReceived,
    claims: Option<&Claims>,
) -> Result<Option<Known>, StoreError> {
    let id = match decide::named_connection(callback.physical_resource_id.as_deref()) {
        Some(id) => Some(id),
        None => by_token(db, callback, claims).await?,
    };
    let Some(id) = id else { return Ok(None) };
    let row =
        connection::Entity::find_by_id(crate::entity::Id(id)).one(db).await.during("looking for the connection")?;
    match row {
        Some(row) => know(db, row, claims).await.map(Some),
        None => Ok(None),
    }
}

/// As [`find_known`], with the rows held until the end of the transaction: tenant, enrollment, connection. The tenant's too, and first, because what is
/// kept of the request refers to it, and whoever suspends it waits for its connections.
pub(super) async fn lock_known(
    tx: &Tx,
    callback: &CallbackReceived,
    claims: Option<&Claims>,
) -> Result<Option<Known>, StoreError> {
    let Some(found) = find_known(&**tx, callback, claims).await? else { return Ok(None) };
    tenant::Entity::find_by_id(found.row.tenant_id).lock_shared().one(&**tx).await.during("reading the tenant")?;
    enrollment::Entity::find_by_id(found.enrollment.id)
        .lock_exclusive()
        .one(&**tx)
        .await
        .during("locking the enrollment")?;
    let locked = connection::Entity::find_by_id(found.row.id)
        .lock_exclusive()
        .one(&**tx)
        .await
        .during("locking the connection")?;
    match locked {
        Some(row) => know(&**tx, row, claims).await.map(Some),
        None => Ok(None),
    }
}

async fn know(db: &impl ConnectionTrait, row: connection::Model, claims: Option<&Claims>) -> Result<Known, StoreError> {
    let enrollment =
        enrollment::Entity::find_by_id(row.enrollment_id).one(db).await.during("reading the enrollment")?;
    let enrollment = enrollment.ok_or(StoreError::Inconsistent("a connection without its enrollment"))?;
    let tenant = tenant::Entity::find_by_id(row.tenant_id).one(db).await.during("reading the tenant")?;
    let tenant = tenant.ok_or(StoreError::Inconsistent("a connection without its tenant"))?;
    let token_is = |hash: &TokenHash| enrollment.token_hash.0.matches(hash);
    let facts = ConnectionFacts {
        state: row.state.0,
        stack: row.stack_id.0.clone(),
        token_matches: claims.is_some_and(|claims| token_is(&claims.token_hash)),
        ids: Ids::of(&row, &enrollment),
        tenant: tenant.state.0,
        principal: tenant.principal_role.map(|role| role.0),
    };
    Ok(Known { row, enrollment, facts })
}
