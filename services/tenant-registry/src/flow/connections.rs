//! Connections and the audit log, as operators see them.

use contracts::{
    ConnectionId, ErrorCode, Page, PageRequest, TenantId,
    audit::AuditEntry,
    connection::{Connection, ConnectionState, ListConnectionsRequest},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};

use super::{
    Registry,
    reports::abandon_jobs,
    revocation::{self, Whose},
    rotation,
    step::{self, Happening},
    tenants::checked_reason,
};
use crate::{
    entity::{Id, Text, audit, connection, tenant},
    state::{Trigger, is_granted},
    store::{Actor, During, StoreError, Tx, pages},
    transaction,
};

fn no_such_connection(id: ConnectionId) -> StoreError {
    StoreError::refused(ErrorCode::NotFound, format!("this tenant has no connection {id}"))
}

impl Registry {
    /// # Errors
    /// `not-found`; when the store fails.
    pub async fn get_connection(&self, tenant: TenantId, id: ConnectionId) -> Result<Connection, StoreError> {
        let row = connection::Entity::of_tenant_by_id(tenant, id)
            .one(self.store.db())
            .await
            .during("reading the connection")?;
        let row = row.ok_or_else(|| no_such_connection(id))?;
        self.shown(row).await
    }

    /// With the steps of its revocation.
    async fn shown(&self, row: connection::Model) -> Result<Connection, StoreError> {
        self.all_shown(vec![row]).await?.pop().ok_or(StoreError::Inconsistent("a connection that went away"))
    }

    async fn all_shown(&self, rows: Vec<connection::Model>) -> Result<Vec<Connection>, StoreError> {
        let revoked = rows.iter().filter(|row| row.state.0 == ConnectionState::Revoked).map(|row| row.id);
        let mut steps = revocation::of_connections(self.store.db(), revoked.collect()).await?;
        let shown = rows.into_iter().map(|row| {
            let revocation = steps.remove(&row.id.0).unwrap_or_default();
            Connection { revocation, ..row.into() }
        });
        Ok(shown.collect())
    }

    /// # Errors
    /// `invalid-request`; when the store fails.
    pub async fn list_connections(
        &self,
        tenant: TenantId,
        request: &ListConnectionsRequest,
    ) -> Result<Page<Connection>, StoreError> {
        let page = &request.page;
        let mut query =
            connection::Entity::of_tenant(tenant).order_by_asc(connection::Column::Id).limit(pages::rows_wanted(page));
        if let Some(state) = request.state {
            query = query.filter(connection::Column::State.eq(Text(state)));
        }
        if let Some(after) = pages::after::<ConnectionId>(page)? {
            query = query.filter(connection::Column::Id.gt(Id(after)));
        }
        let rows = query.all(self.store.db()).await.during("listing connections")?;
        Ok(pages::cut(page, self.all_shown(rows).await?, |connection| connection.connection.to_string()))
    }

    /// Ends a connection for good.
    ///
    /// # Errors
    /// `not-found`, `invalid-request`; when the store fails.
    pub async fn revoke_connection(
        &self,
        tenant: TenantId,
        id: ConnectionId,
        reason: &str,
    ) -> Result<Connection, StoreError> {
        checked_reason(reason)?;
        let row = transaction!(self.store, tx => revoke_in(&tx, tenant, id, reason))?;
        self.shown(row).await
    }

    /// # Errors
    /// `invalid-request`; when the store fails.
    pub async fn list_audit(&self, tenant: TenantId, request: &PageRequest) -> Result<Page<AuditEntry>, StoreError> {
        self.log_page(audit::Entity::find().filter(audit::Column::TenantId.eq(Id(tenant))), request).await
    }

    /// The whole log, over all tenants.
    ///
    /// # Errors
    /// `invalid-request`; when the store fails.
    pub async fn export_audit(&self, request: &PageRequest) -> Result<Page<AuditEntry>, StoreError> {
        self.log_page(audit::Entity::find(), request).await
    }

    async fn log_page(
        &self,
        entries: Select<audit::Entity>,
        request: &PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let mut query = entries.order_by_asc(audit::Column::Sequence).limit(pages::rows_wanted(request));
        if let Some(after) = pages::after::<i64>(request)? {
            query = query.filter(audit::Column::Sequence.gt(after));
        }
        let rows = query.all(self.store.db()).await.during("listing the audit log")?;
        Ok(pages::cut(request, rows.into_iter().map(AuditEntry::from).collect(), |entry| entry.sequence.to_string()))
    }
}

async fn revoke_in(tx: &Tx, tenant: TenantId, id: ConnectionId, reason: &str) -> Result<connection::Model, StoreError> {
    let Some(tenant) =
        tenant::Entity::find_by_id(Id(tenant)).lock_shared().one(&**tx).await.during("reading the tenant")?
    else {
        return Err(no_such_connection(id));
    };
    let (enrollment, row) = rotation::lock(tx, tenant.id.0, id).await?.ok_or_else(|| no_such_connection(id))?;
    let before = row.state.0;
    let row = step::apply(tx, &tenant, row, &Happening::new(Trigger::Revoked, Actor::Operator).because(reason)).await?;
    // Nothing was ever issued for one that was never verified.
    if is_granted(before) && before != row.state.0 {
        revocation::begin(tx, Whose { tenant: tenant.id.0, connection: Some(id) }).await?;
    }
    abandon_jobs(tx, &row).await?;
    rotation::settle(tx, enrollment.id, Actor::Operator).await?;
    Ok(row)
}
