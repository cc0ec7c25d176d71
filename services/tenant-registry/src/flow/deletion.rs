//! The end of a tenant: its connections are revoked and its offers withdrawn in small transactions, and then its principal goes, step by step
//! ([`super::revocation`]). Whatever is left by a crash is gone on with by the sweep.

use contracts::{
    TenantId,
    enrollment::{EnrollmentCancelled, EnrollmentState},
    tenant::{Tenant, TenantDeleted, TenantState},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};

use super::{
    Registry,
    reports::abandon_jobs,
    revocation, rotation,
    step::{self, Happening},
    tenants::{checked_reason, no_such_tenant},
};
use crate::{
    entity::{At, Id, Text, connection, enrollment, tenant},
    state::Trigger,
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// Rows that one transaction ends.
const BATCH: u64 = 25;

/// Why connections and offers of a deleted tenant ended.
const TENANT_DELETED: &str = "The provider deleted this customer.";

impl Registry {
    /// Ends a tenant for good. Returns as soon as nothing of it can be used; the steps say what is still to be done.
    ///
    /// # Errors
    /// `not-found`, `invalid-request`; when the store fails, and then what was begun goes on by itself.
    pub async fn delete_tenant(&self, id: TenantId, reason: &str) -> Result<Tenant, StoreError> {
        checked_reason(reason)?;
        transaction!(self.store, tx => delete_in(&tx, id, reason))?;
        self.end_what_lives(id).await?;
        self.get_tenant(id).await
    }

    /// Ends offers and connections of a tenant that is being deleted, until there are none.
    pub(super) async fn end_what_lives(&self, id: TenantId) -> Result<(), StoreError> {
        while transaction!(self.store, tx => end_some(&tx, id))? {}
        Ok(())
    }
}

async fn delete_in(tx: &Tx, id: TenantId, reason: &str) -> Result<(), StoreError> {
    let row = tenant::Entity::find_by_id(Id(id)).lock_exclusive().one(&**tx).await.during("locking the tenant")?;
    let row = row.ok_or_else(|| no_such_tenant(id))?;
    if matches!(row.state.0, TenantState::Deleting | TenantState::Deleted) {
        return Ok(());
    }
    let mut change = row.into_active_model();
    change.state = Set(Text(TenantState::Deleting));
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("changing the tenant's state")?;
    revocation::begin_deletion(tx, id, reason).await?;
    tx.audit(AuditLine::new(Actor::Operator, "tenant.deleting", id, reason)).await
}

/// Ends a few; whether there may be more.
async fn end_some(tx: &Tx, id: TenantId) -> Result<bool, StoreError> {
    let owner = tenant::Entity::find_by_id(Id(id)).lock_shared().one(&**tx).await.during("reading the tenant")?;
    let Some(owner) = owner.filter(|owner| owner.state.0 == TenantState::Deleting) else { return Ok(false) };
    let offers = enrollment::Entity::of_tenant(id)
        .filter(enrollment::Column::State.eq(Text(EnrollmentState::Open)))
        .order_by_asc(enrollment::Column::Id)
        .limit(BATCH)
        .lock_exclusive()
        .all(&**tx)
        .await
        .during("locking the tenant's offers")?;
    let more_offers = !offers.is_empty();
    for offer in offers {
        withdraw(tx, offer).await?;
    }
    let live = connection::Entity::of_tenant(id)
        .filter(connection::Column::State.is_not_in(connection::ENDED.map(Text)))
        .order_by_asc(connection::Column::Id)
        .limit(BATCH)
        .all(&**tx)
        .await
        .during("looking for the tenant's connections")?;
    let more_connections = !live.is_empty();
    for found in live {
        let Some((enrollment, row)) = rotation::lock(tx, id, found.id.0).await? else { continue };
        let ended = Happening::new(Trigger::Revoked, Actor::Registry).because(TENANT_DELETED);
        let row = step::apply(tx, &owner, row, &ended).await?;
        abandon_jobs(tx, &row).await?;
        rotation::settle(tx, enrollment.id, Actor::Registry).await?;
    }
    Ok(more_offers || more_connections)
}

async fn withdraw(tx: &Tx, row: enrollment::Model) -> Result<(), StoreError> {
    let (tenant, enrollment, stood) = (row.tenant_id.0, row.id.0, row.state_now() == EnrollmentState::Open);
    let mut change = row.into_active_model();
    change.state = Set(Text(EnrollmentState::Cancelled));
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("withdrawing the enrollment")?;
    if stood {
        tx.send(enrollment, EnrollmentCancelled { tenant, enrollment, reason: TENANT_DELETED.to_owned() }).await?;
        let line = AuditLine::new(Actor::Registry, "enrollment.cancelled", tenant, TENANT_DELETED);
        tx.audit(line.enrollment(enrollment)).await?;
    }
    Ok(())
}

/// The principal is gone, and with it the last of what could be used.
pub(super) async fn finish(tx: &Tx, row: tenant::Model, reason: String) -> Result<(), StoreError> {
    if row.state.0 != TenantState::Deleting {
        return Ok(());
    }
    let id = row.id.0;
    let mut change = row.into_active_model();
    change.state = Set(Text(TenantState::Deleted));
    change.principal_role = Set(None);
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("changing the tenant's state")?;
    tx.send(id, TenantDeleted { tenant: id, reason: reason.clone() }).await?;
    tx.audit(AuditLine::new(Actor::Registry, "tenant.deleted", id, reason)).await
}
