//! Tenants: made, shown, suspended, resumed; and their principals, when the broker has made them.

use contracts::{
    ErrorCode, Page, PageRequest, TenantId, Timestamp,
    tenant::{CreateTenantRequest, PrincipalReady, Tenant, TenantCreated, TenantResumed, TenantState, TenantSuspended},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};

use super::{
    Registry,
    revocation::{self, Whose},
    step,
};
use crate::{
    entity::{At, Id, Text, connection, tenant},
    state::is_granted,
    store::{Actor, AuditLine, During, StoreError, Tx, pages},
    transaction,
};

fn checked_length(what: &str, text: &str, most: usize) -> Result<(), StoreError> {
    let characters = text.chars().count();
    if (1..=most).contains(&characters) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("{what} is 1 to {most} characters without control characters; this one has {characters}");
    Err(StoreError::refused(ErrorCode::InvalidRequest, message))
}

pub(super) fn checked_reason(reason: &str) -> Result<(), StoreError> {
    checked_length("the reason", reason, 500)
}

/// Whether a tenant may begin something new.
pub(super) fn able(row: &tenant::Model) -> Result<(), StoreError> {
    match row.state.0 {
        TenantState::Active => Ok(()),
        TenantState::Suspended => {
            Err(StoreError::refused(ErrorCode::Denied, "the tenant is suspended: resume it first (tenants.resume)"))
        }
        TenantState::Deleting | TenantState::Deleted => Err(gone()),
    }
}

fn is_gone(row: &tenant::Model) -> bool {
    matches!(row.state.0, TenantState::Deleting | TenantState::Deleted)
}

fn gone() -> StoreError {
    let message = "the tenant was deleted, and nothing brings it back: create another one (tenants.create)";
    StoreError::refused(ErrorCode::Conflict, message)
}

pub(super) fn no_such_tenant(id: TenantId) -> StoreError {
    StoreError::refused(ErrorCode::NotFound, format!("there is no tenant {id}"))
}

impl Registry {
    /// # Errors
    /// `invalid-request`; `conflict` when the idempotency key was used with another name; when the store fails.
    pub async fn create_tenant(&self, request: &CreateTenantRequest) -> Result<Tenant, StoreError> {
        checked_length("the name", &request.name, 100)?;
        if let Some(key) = &request.idempotency_key {
            checked_length("the idempotency key", key, 100)?;
        }
        transaction!(self.store, tx => create_in(&tx, request))
    }

    /// # Errors
    /// `not-found`; when the store fails.
    pub async fn get_tenant(&self, id: TenantId) -> Result<Tenant, StoreError> {
        let row = tenant::Entity::find_by_id(Id(id)).one(self.store.db()).await.during("reading the tenant")?;
        self.shown_tenant(row.ok_or_else(|| no_such_tenant(id))?).await
    }

    /// With the steps of its suspension or deletion.
    async fn shown_tenant(&self, row: tenant::Model) -> Result<Tenant, StoreError> {
        self.shown_tenants(vec![row]).await?.pop().ok_or(StoreError::Inconsistent("a tenant that went away"))
    }

    async fn shown_tenants(&self, rows: Vec<tenant::Model>) -> Result<Vec<Tenant>, StoreError> {
        let ending = rows.iter().filter(|row| row.state.0 != TenantState::Active).map(|row| row.id);
        let mut steps = revocation::of_tenants(self.store.db(), ending.collect()).await?;
        let shown = rows.into_iter().map(|row| {
            let revocation = steps.remove(&row.id.0).unwrap_or_default();
            Tenant { revocation, ..row.into() }
        });
        Ok(shown.collect())
    }

    /// # Errors
    /// `invalid-request`; when the store fails.
    pub async fn list_tenants(&self, request: &PageRequest) -> Result<Page<Tenant>, StoreError> {
        let mut query = tenant::Entity::find().order_by_asc(tenant::Column::Id).limit(pages::rows_wanted(request));
        if let Some(after) = pages::after::<TenantId>(request)? {
            query = query.filter(tenant::Column::Id.gt(Id(after)));
        }
        let rows = query.all(self.store.db()).await.during("listing tenants")?;
        Ok(pages::cut(request, self.shown_tenants(rows).await?, |tenant| tenant.tenant.to_string()))
    }

    /// # Errors
    /// `not-found`, `invalid-request`; when the store fails.
    pub async fn suspend_tenant(&self, id: TenantId, reason: &str) -> Result<Tenant, StoreError> {
        checked_reason(reason)?;
        let row = transaction!(self.store, tx => set_state(&tx, id, TenantState::Suspended, reason))?;
        self.shown_tenant(row).await
    }

    /// # Errors
    /// `not-found`, `invalid-request`; when the store fails.
    pub async fn resume_tenant(&self, id: TenantId, reason: &str) -> Result<Tenant, StoreError> {
        checked_reason(reason)?;
        let row = transaction!(self.store, tx => set_state(&tx, id, TenantState::Active, reason))?;
        self.shown_tenant(row).await
    }

    /// Notes the role that the tenant's customers must trust. Repeatable.
    ///
    /// # Errors
    /// `denied` when the role is not of an account of principals, `not-found` for an unknown tenant; when the store fails.
    pub async fn principal_ready(&self, ready: &PrincipalReady) -> Result<(), StoreError> {
        let (account, ours) = (ready.role_arn.account(), &self.rules.principal_accounts);
        if !ours.contains(account) {
            let message = format!(
                "the principal of tenant {} is in account {account}, which is none of those of principals ({ours}): give the registry the broker's ROLEBRIDGE_PRINCIPAL_ACCOUNTS",
                ready.tenant
            );
            return Err(StoreError::refused(ErrorCode::Denied, message));
        }
        transaction!(self.store, tx => note_principal(&tx, ready))
    }
}

async fn create_in(tx: &Tx, request: &CreateTenantRequest) -> Result<Tenant, StoreError> {
    if let Some(key) = &request.idempotency_key {
        let made = tenant::Entity::find()
            .filter(tenant::Column::IdempotencyKey.eq(key))
            .one(&**tx)
            .await
            .during("looking for the idempotency key")?;
        match made {
            Some(row) if is_gone(&row) => {
                let message =
                    "this idempotency key made a tenant that was deleted, and nothing brings it back: use a new key";
                return Err(StoreError::refused(ErrorCode::Conflict, message));
            }
            Some(row) if row.name == request.name => return Ok(row.into()),
            Some(_) => {
                let message = "this idempotency key made a tenant of another name: use a new key";
                return Err(StoreError::refused(ErrorCode::Conflict, message));
            }
            None => {}
        }
    }
    let (id, now) = (TenantId::new(), At(Timestamp::now()));
    let row = tenant::ActiveModel {
        id: Set(Id(id)),
        name: Set(request.name.clone()),
        idempotency_key: Set(request.idempotency_key.clone()),
        state: Set(Text(TenantState::Active)),
        principal_role: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
    };
    let row = row.insert(&**tx).await.during("making the tenant")?;
    tx.send(id, TenantCreated { tenant: id, name: row.name.clone() }).await?;
    tx.audit(AuditLine::new(Actor::Operator, "tenant.created", id, "Asked for by a caller of tenants.create.")).await?;
    Ok(row.into())
}

/// Suspends or resumes, and tells the broker so for every connection that it knows.
async fn set_state(tx: &Tx, id: TenantId, state: TenantState, reason: &str) -> Result<tenant::Model, StoreError> {
    let row = tenant::Entity::find_by_id(Id(id)).lock_exclusive().one(&**tx).await.during("locking the tenant")?;
    let row = row.ok_or_else(|| no_such_tenant(id))?;
    if is_gone(&row) {
        return Err(gone());
    }
    if row.state.0 == state {
        return Ok(row);
    }
    let mut change = row.into_active_model();
    change.state = Set(Text(state));
    change.updated_at = Set(At::now());
    let row = change.update(&**tx).await.during("changing the tenant's state")?;
    let connections = connection::Entity::of_tenant(id)
        .order_by_asc(connection::Column::Id)
        .lock_exclusive()
        .all(&**tx)
        .await
        .during("locking the tenant's connections")?;
    for connection in connections.into_iter().filter(|row| is_granted(row.state.0)) {
        step::grant(tx, &row, connection).await?;
    }
    let reason = reason.to_owned();
    let action = match state {
        TenantState::Suspended => {
            tx.send(id, TenantSuspended { tenant: id, reason: reason.clone() }).await?;
            revocation::begin(tx, Whose { tenant: id, connection: None }).await?;
            "tenant.suspended"
        }
        TenantState::Deleting | TenantState::Deleted => {
            return Err(StoreError::Inconsistent("a state that nobody sets"));
        }
        TenantState::Active => {
            tx.send(id, TenantResumed { tenant: id, reason: reason.clone() }).await?;
            "tenant.resumed"
        }
    };
    tx.audit(AuditLine::new(Actor::Operator, action, id, reason)).await?;
    Ok(row)
}

async fn note_principal(tx: &Tx, ready: &PrincipalReady) -> Result<(), StoreError> {
    let row =
        tenant::Entity::find_by_id(Id(ready.tenant)).lock_exclusive().one(&**tx).await.during("locking the tenant")?;
    let row = row.ok_or_else(|| no_such_tenant(ready.tenant))?;
    // Made before the broker heard of the end: it is about to be removed, or has been.
    if is_gone(&row) {
        return Ok(());
    }
    if row.principal_role.as_ref().is_some_and(|role| role.0 == ready.role_arn) {
        return Ok(());
    }
    let reason = if row.principal_role.is_none() {
        "The tenant's principal stands."
    } else {
        "The tenant's principal was replaced."
    };
    let mut change = row.into_active_model();
    change.principal_role = Set(Some(Text(ready.role_arn.clone())));
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("noting the principal")?;
    tx.audit(AuditLine::new(Actor::Broker, "principal.ready", ready.tenant, reason)).await
}
