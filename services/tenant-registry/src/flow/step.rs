//! A change of a connection's state, with everything that belongs to it: row, grant, event, audit line. In this order, so that whoever hears the
//! event finds the grant in place.

use contracts::{
    connection::{
        ConnectionDegraded, ConnectionDisconnected, ConnectionInsecure, ConnectionRegistered, ConnectionRejected,
        ConnectionRevoked, ConnectionState, ConnectionVerified, Grant,
    },
    tenant::TenantState,
    verification::{Fault, ProbeEvidence, PurposeEvidence},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};

use crate::{
    damping::{Missing, Streak},
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
    pub(super) look: Option<Look>,
}

/// What a report leaves on a connection, whether or not it changes its state.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// Kept when there is any.
    pub(super) evidence: Vec<ProbeEvidence>,
    /// Kept when there are any: they are looked at only where the probes held.
    pub(super) purposes: Vec<PurposeEvidence>,
    /// What every grant from now on leaves out; as before when absent.
    pub(super) missing: Option<Missing>,
    pub(super) max_session_s: Option<u32>,
    /// When the probes came to a verdict, if they did.
    pub(super) probed_at: Option<At>,
    pub(super) next_probe_at: Option<At>,
    pub(super) streak: Option<Streak>,
}

impl Look {
    pub(super) fn note(&self, change: &mut connection::ActiveModel) {
        if !self.evidence.is_empty() {
            change.evidence = Set(Json(self.evidence.clone()));
        }
        if !self.purposes.is_empty() {
            change.purposes = Set(Json(self.purposes.clone()));
        }
        if let Some(missing) = &self.missing {
            change.missing = Set(Json(missing.clone()));
        }
        if let Some(seconds) = self.max_session_s {
            change.max_session_s = Set(Some(i64::from(seconds)));
        }
        if self.probed_at.is_some() {
            change.probed_at = Set(self.probed_at);
        }
        change.next_probe_at = Set(self.next_probe_at);
        change.streak = Set(self.streak.clone().map(Json));
    }
}

impl Happening {
    pub(super) fn new(trigger: Trigger, actor: Actor) -> Self {
        let reason = match trigger {
            Trigger::Faulted(fault) => Some(reasons::fault_text(fault).to_owned()),
            _ => None,
        };
        Self { trigger, actor, reason, look: None }
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn looked(mut self, look: Look) -> Self {
        self.look = Some(look);
        self
    }

    const fn fault(&self) -> Option<Fault> {
        match self.trigger {
            Trigger::Faulted(fault) => Some(fault),
            _ => None,
        }
    }
}

/// Carries out what [`crate::state::step`] says of `happening`. Without a step only what was looked at is kept.
///
/// The caller holds the locks on tenant and connection.
pub(super) async fn apply(
    tx: &Tx,
    tenant: &tenant::Model,
    row: connection::Model,
    happening: &Happening,
) -> Result<connection::Model, StoreError> {
    let Some(step) = step(row.state.0, happening.trigger) else {
        return match &happening.look {
            // Another fault of the same kind: the state stands, the reason is the new one.
            Some(look) if happening.fault().is_some() => keep(tx, row, look, happening.reason.clone()).await,
            Some(look) => keep(tx, row, look, None).await,
            None => Ok(row),
        };
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
    if let Some(look) = &happening.look {
        look.note(&mut change);
    }
    if !connection::OWNING.contains(&step.to) {
        (change.next_probe_at, change.streak) = (Set(None), Set(None));
    }
    let mut row = change.update(&**tx).await.during("changing the connection's state")?;
    if is_granted(step.to) {
        row = grant(tx, tenant, row).await?;
    }
    announce(tx, &row, step.announce, happening).await?;
    tracing::info!(tenant = %tenant.id.0, connection = %row.id.0, from = %from, to = %step.to, "the connection changed its state");
    audit(tx, &row, happening).await?;
    Ok(row)
}

/// Keeps what was looked at, and a better reason for the present state if there is one.
pub(super) async fn keep(
    tx: &Tx,
    row: connection::Model,
    look: &Look,
    reason: Option<String>,
) -> Result<connection::Model, StoreError> {
    let mut change = row.into_active_model();
    look.note(&mut change);
    if reason.is_some() {
        change.reason = Set(reason);
    }
    change.updated_at = Set(At::now());
    change.update(&**tx).await.during("keeping what was looked at")
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
        missing: row.missing.0.iter().copied().collect(),
        session_tags: row.session_tags,
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
        Announcement::Degraded => {
            let missing = row.missing.0.iter().copied().collect();
            tx.send(connection, ConnectionDegraded { tenant, connection, missing, reason }).await
        }
        Announcement::Insecure => {
            let fault = happening.fault().ok_or(StoreError::Inconsistent("insecure without a fault"))?;
            tx.send(connection, ConnectionInsecure { tenant, connection, fault, reason }).await
        }
        Announcement::Disconnected => tx.send(connection, ConnectionDisconnected { tenant, connection, reason }).await,
        Announcement::Revoked => tx.send(connection, ConnectionRevoked { tenant, connection, reason }).await,
    }
}

pub(super) async fn audit(tx: &Tx, row: &connection::Model, happening: &Happening) -> Result<(), StoreError> {
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
