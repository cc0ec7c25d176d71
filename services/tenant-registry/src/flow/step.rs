//! A change of a connection's state, with everything that belongs to it: row, grant, event, audit line. In this order, so that whoever hears the
//! event finds the grant in place.

use contracts::{
    connection::{
        ConnectionDisconnected, ConnectionInsecure, ConnectionRegistered, ConnectionRejected, ConnectionRevoked,
        ConnectionState, ConnectionVerified, Grant,
    },
    tenant::TenantState,
    verification::{Fault, ProbeEvidence},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};

use crate::{
    entity::{At, Json, Text, connection, tenant},
    reasons,
    state::{Announcement, Trigger, is_granted, step},
    store::{Actor, AuditLine, During, StoreError, Tx},
};

/// What happened, and why, for a person.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub(super) trigger: Trigger,
    pub(super) actor: Actor,
    pub(super) reason: Option<String>,
    pub(super) evidence: Option<Vec<ProbeEvidence>>,
}

impl Happening {
    pub(super) fn new(trigger: Trigger, actor: Actor) -> Self {
        let reason = match trigger {
            Trigger::Faulted(fault) => Some(reasons::fault_text(fault).to_owned()),
            _ => None,
        };
        Self { trigger, actor, reason, evidence: None }
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn seen(mut self, evidence: Vec<ProbeEvidence>) -> Self {
        self.evidence = Some(evidence);
        self
    }

    const fn fault(&self) -> Option<Fault> {
        match self.trigger {
            Trigger::Faulted(fault) => Some(fault),
            _ => None,
        }
    }
}

/// Carries out what [`crate::state::step`] says of `happening`. Without a step only the evidence is kept.
///
/// The caller holds the locks on tenant and connection.
pub(super) async fn apply(
    tx: &Tx,
    tenant: &tenant::Model,
    row: connection::Model,
    happening: &Happening,
) -> Result<connection::Model, StoreError> {
    let Some(step) = step(row.state.0, happening.trigger) else {
        return keep_evidence(tx, row, happening).await;
    };
    let now = At::now();
    let from = row.state.0;
    let mut change = row.into_active_model();
    change.state = Set(Text(step.to));
    change.reason = Set(happening.reason.clone());
    change.updated_at = Set(now);
    if step.to == ConnectionState::Verified {
        change.verified_at = Set(Some(now));
    }
    if let Some(evidence) = &happening.evidence {
        change.evidence = Set(Json(evidence.clone()));
    }
    let mut row = change.update(&**tx).await.during("changing the connection's state")?;
    if is_granted(step.to) {
        row = grant(tx, tenant, row).await?;
    }
    if let Some(announcement) = step.announce {
        announce(tx, &row, announcement, happening).await?;
    }
    tracing::info!(tenant = %tenant.id.0, connection = %row.id.0, from = %from, to = %step.to, "the connection changed its state");
    audit(tx, &row, happening).await?;
    Ok(row)
}

async fn keep_evidence(
    tx: &Tx,
    row: connection::Model,
    happening: &Happening,
) -> Result<connection::Model, StoreError> {
    let Some(evidence) = &happening.evidence else { return Ok(row) };
    let mut change = row.into_active_model();
    change.evidence = Set(Json(evidence.clone()));
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("keeping evidence")
}

/// Tells the broker the registry's word on a connection, with the next revision.
pub(super) async fn grant(
    tx: &Tx,
    tenant: &tenant::Model,
    row: connection::Model,
) -> Result<connection::Model, StoreError> {
    let revision = row.revision + 1;
    let mut change = row.into_active_model();
    change.revision = Set(revision);
    let row = change.update(&**tx).await.during("counting the grant")?;
    let grant = Grant {
        tenant: row.tenant_id.0,
        connection: row.id.0,
        state: row.state.0,
        tenant_active: tenant.state.0 == TenantState::Active,
        account: row.account.0.clone(),
        region: row.region.0.clone(),
        role_arn: row.role_arn.0.clone(),
        external_id: row.external_id.0.clone(),
        missing: Vec::new(),
        revision: u64::try_from(revision).unwrap_or_default(),
    };
    tx.send(row.id.0, grant).await?;
    Ok(row)
}

pub(super) async fn announce_verified(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    let verified = ConnectionVerified {
        tenant: row.tenant_id.0,
        connection: row.id.0,
        account: row.account.0.clone(),
        partition: row.partition.0.clone(),
        region: row.region.0.clone(),
        role_arn: row.role_arn.0.clone(),
        cost_export: row.cost_export.clone().map(|export| export.0),
        verified_at: row.verified_at.unwrap_or(row.updated_at).0,
    };
    tx.send(row.id.0, verified).await
}

async fn announce(
    tx: &Tx,
    row: &connection::Model,
    announcement: Announcement,
    happening: &Happening,
) -> Result<(), StoreError> {
    let (tenant, connection, account) = (row.tenant_id.0, row.id.0, row.account.0.clone());
    let reason = happening.reason.clone().unwrap_or_default();
    match announcement {
        Announcement::Registered => tx.send(connection, ConnectionRegistered { tenant, connection, account }).await,
        Announcement::Verified => announce_verified(tx, row).await,
        Announcement::Rejected => {
            tx.send(connection, ConnectionRejected { tenant, connection, account, fault: happening.fault(), reason })
                .await
        }
        Announcement::Insecure => {
            let fault = happening.fault().ok_or(StoreError::Inconsistent("insecure without a fault"))?;
            tx.send(connection, ConnectionInsecure { tenant, connection, fault, reason }).await
        }
        Announcement::Disconnected => tx.send(connection, ConnectionDisconnected { tenant, connection, reason }).await,
        Announcement::Revoked => tx.send(connection, ConnectionRevoked { tenant, connection, reason }).await,
    }
}

async fn audit(tx: &Tx, row: &connection::Model, happening: &Happening) -> Result<(), StoreError> {
    let action = match row.state.0 {
        ConnectionState::Registered | ConnectionState::Verifying => "connection.registered",
        ConnectionState::Verified => "connection.verified",
        ConnectionState::Rejected => "connection.rejected",
        ConnectionState::Degraded => "connection.degraded",
        ConnectionState::Insecure => "connection.insecure",
        ConnectionState::Disconnected => "connection.disconnected",
        ConnectionState::Revoked => "connection.revoked",
    };
    let reason = happening.reason.clone().unwrap_or_else(|| match row.state.0 {
        ConnectionState::Verified => "All probes were as they must be.".to_owned(),
        _ => format!("A stack in account {} called back with this offer's token.", row.account.0),
    });
    let line = AuditLine::new(happening.actor, action, row.tenant_id.0, reason);
    tx.audit(line.enrollment(row.enrollment_id.0).connection(row.id.0)).await
}
