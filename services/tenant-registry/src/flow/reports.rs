//! What the broker found, and what follows: the state machine's step, and the answer to the stack that waits.
//!
//! A report counts once: its job is removed with the effect, in one transaction, and a report without a job is late, a duplicate, or not ours.

use std::time::Duration;

use contracts::{
    ConnectionId, JobId, TenantId, Timestamp,
    callback::Answer,
    connection::ConnectionState,
    verification::{DeletionReported, ProbeEvidence, Verdict, VerificationReported},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, ModelTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use tracing::Instrument as _;

use super::{
    HandleError, Registry, answer,
    register::unbind,
    rotation,
    step::{self, Happening},
};
use crate::{
    entity::{At, Id, Text, callback, connection, enrollment, job, tenant},
    reasons::{Refusal, STACK_DELETED},
    state::Trigger,
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// Silence after a job's deadline that is taken for "nobody will report".
const SILENCE: Duration = Duration::from_secs(30);
/// Overdue jobs that one sweep takes.
const SWEPT: u64 = 100;

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    Applied,
    /// No such job, or no longer.
    Late,
}

/// A job taken off the list, with the rows it is about, all held.
pub(super) struct Taken {
    pub(super) tenant: tenant::Model,
    pub(super) enrollment: enrollment::Model,
    pub(super) row: connection::Model,
    pub(super) job: job::Model,
}

impl Registry {
    /// # Errors
    /// When the store fails; handling it again is safe.
    pub async fn verification_reported(&self, report: &VerificationReported) -> Result<Reported, HandleError> {
        self.verified_or_not(report, Actor::Broker).await
    }

    async fn verified_or_not(&self, report: &VerificationReported, actor: Actor) -> Result<Reported, HandleError> {
        let verdict = match report.verdict {
            Verdict::Held => "held",
            Verdict::Failed { .. } => "failed",
            Verdict::Indeterminate => "indeterminate",
        };
        let span = tracing::info_span!("decide on a report", job = "verify", verdict);
        let result =
            async { transaction!(self.store, tx => verification_in(&tx, report, actor)) }.instrument(span).await?;
        Ok(self.reported("verify", verdict, report.connection, result))
    }

    /// # Errors
    /// When the store fails; handling it again is safe.
    pub async fn deletion_reported(&self, report: &DeletionReported) -> Result<Reported, HandleError> {
        self.gone_or_not(report, Actor::Broker).await
    }

    async fn gone_or_not(&self, report: &DeletionReported, actor: Actor) -> Result<Reported, HandleError> {
        let verdict = if report.gone { "gone" } else { "there" };
        let span = tracing::info_span!("decide on a report", job = "confirm-deletion", verdict);
        let result = async { transaction!(self.store, tx => deletion_in(&tx, report, actor)) }.instrument(span).await?;
        Ok(self.reported("confirm-deletion", verdict, report.connection, result))
    }

    fn reported(
        &self,
        kind: &'static str,
        verdict: &'static str,
        connection: ConnectionId,
        handed_out: Option<At>,
    ) -> Reported {
        tracing::info!(%connection, job = kind, verdict, late = handed_out.is_none(), "report handled");
        match handed_out {
            Some(at) => {
                self.metrics.report(kind, verdict, at.0.until(Timestamp::now()));
                Reported::Applied
            }
            None => {
                self.metrics.report(kind, "late", Duration::ZERO);
                Reported::Late
            }
        }
    }

    /// Ends the wait for jobs whose deadline passed without a report, so that no stack hangs. Returns how many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, HandleError> {
        let past = Timestamp::from(now.inner() - SILENCE);
        let overdue = job::Entity::find()
            .filter(job::Column::Deadline.lt(At(past)))
            .order_by_asc(job::Column::Deadline)
            .limit(SWEPT)
            .all(self.store.db())
            .await
            .during("looking for overdue jobs")?;
        for job in &overdue {
            let (tenant, connection) = (job.tenant_id.0, job.connection_id.0);
            tracing::warn!(%tenant, %connection, "nobody reported on a job before its deadline");
            // One that fails must not keep the others waiting.
            if let Err(error) = self.give_up(job).await {
                tracing::warn!(%tenant, %connection, error = %crate::chain(&error), "an overdue job could not be ended, trying again");
            }
        }
        Ok(overdue.len())
    }

    /// Treats silence as what it proves: nothing.
    async fn give_up(&self, job: &job::Model) -> Result<Reported, HandleError> {
        let (id, tenant, connection) = (job.id.0, job.tenant_id.0, job.connection_id.0);
        match job.kind.0 {
            job::JobKind::Verify => {
                let (role_arn, verdict) = (job.role_arn.0.clone(), Verdict::Indeterminate);
                let silence = VerificationReported {
                    job: id,
                    tenant,
                    connection,
                    role_arn,
                    verdict,
                    evidence: Vec::new(),
                    purposes: Vec::new(),
                    max_session_s: None,
                    aws_ms: 0,
                };
                self.verified_or_not(&silence, Actor::Registry).await
            }
            job::JobKind::ConfirmDeletion => {
                let silence = DeletionReported { job: id, tenant, connection, gone: false, evidence: Vec::new() };
                self.gone_or_not(&silence, Actor::Registry).await
            }
        }
    }
}

/// Takes the job off the list; `None` when it is not there (any more). Locks tenant, enrollment, connection, job.
async fn take(
    tx: &Tx,
    tenant: TenantId,
    connection: ConnectionId,
    job: JobId,
    kind: job::JobKind,
) -> Result<Option<Taken>, StoreError> {
    let Some(tenant) =
        tenant::Entity::find_by_id(Id(tenant)).lock_shared().one(&**tx).await.during("reading the tenant")?
    else {
        return Ok(None);
    };
    let Some((enrollment, row)) = rotation::lock(tx, tenant.id.0, connection).await? else { return Ok(None) };
    let open = job::Entity::find_by_id(Id(job))
        .filter(job::Column::ConnectionId.eq(row.id))
        .filter(job::Column::Kind.eq(Text(kind)))
        .lock_exclusive()
        .one(&**tx)
        .await
        .during("looking for the job")?;
    let Some(job) = open else { return Ok(None) };
    job.clone().delete(&**tx).await.during("taking the job off the list")?;
    Ok(Some(Taken { tenant, enrollment, row, job }))
}

/// Applies a verification's verdict; returns when the job was handed out, or nothing when it is not known.
async fn verification_in(tx: &Tx, report: &VerificationReported, actor: Actor) -> Result<Option<At>, StoreError> {
    let Some(taken) = take(tx, report.tenant, report.connection, report.job, job::JobKind::Verify).await? else {
        return Ok(None);
    };
    let handed_out = taken.job.created_at;
    let waiting = match taken.job.callback_id {
        Some(id) => callback::Entity::find_by_id(id).one(&**tx).await.during("reading the waiting callback")?,
        None => None,
    };
    let (connection, enrollment) = (taken.row.id.0, taken.enrollment.id);
    let judged = judge(tx, taken, report, actor).await?;
    rotation::settle(tx, enrollment, actor).await?;
    if let Some(waiting) = waiting {
        let answer = match judged {
            None => Answer::Success { connection: Some(connection) },
            Some(refusal) => answer::failed(&refusal),
        };
        answer::give(tx, waiting, answer).await?;
    }
    Ok(Some(handed_out))
}

/// Carries out the verdict; returns the refusal for the stack that waits, or nothing when all is well.
async fn judge(
    tx: &Tx,
    taken: Taken,
    report: &VerificationReported,
    actor: Actor,
) -> Result<Option<Refusal>, StoreError> {
    // Whether it says something about what serves: the connection's present role, with its present external ID.
    let of_present = taken.job.role_arn == taken.row.role_arn && rotation::is_of_present_id(&taken);
    let refusal = match report.verdict {
        Verdict::Held if rotation::is_gone(&taken) => Some(Refusal::ExternalIdChanged),
        Verdict::Held if role_is_taken(tx, &taken).await? => Some(Refusal::RoleTaken),
        Verdict::Held => None,
        Verdict::Failed { fault } => Some(Refusal::Faulty(fault)),
        Verdict::Indeterminate => Some(Refusal::Undecided),
    };
    let first = taken.row.state.0 == ConnectionState::Verifying;
    match &refusal {
        // The role or the external ID was replaced while a scheduled probe of the old one was under way.
        _ if !first && !of_present && taken.job.callback_id.is_none() => {}
        None if first => {
            let held = Happening::new(Trigger::Held, actor).seen(report.evidence.clone());
            step::apply(tx, &taken.tenant, taken.row, &held).await?;
        }
        None => {
            let taken = rotation::carry_out(tx, taken, actor).await?;
            confirm(tx, taken, report.evidence.clone(), actor).await?;
        }
        // A new role or external ID that does not hold says nothing about what serves, and an old ID that still lets us in is no harm yet.
        Some(refusal) if !first && (!of_present || rotation::is_still_open(&taken, refusal)) => {
            audit_failed_update(tx, &taken, refusal, actor).await?
        }
        Some(refusal) => {
            let trigger = match refusal {
                Refusal::Faulty(fault) => Trigger::Faulted(*fault),
                Refusal::RoleTaken => Trigger::RoleTaken,
                _ => Trigger::Undecided,
            };
            let happening = Happening::new(trigger, actor).because(refusal.to_string()).seen(report.evidence.clone());
            let row = step::apply(tx, &taken.tenant, taken.row, &happening).await?;
            if row.state.0 == ConnectionState::Rejected {
                unbind(tx, &row).await?;
            }
        }
    }
    Ok(refusal)
}

/// Whether another connection has this role for its own.
async fn role_is_taken(tx: &Tx, taken: &Taken) -> Result<bool, StoreError> {
    let owner = connection::Entity::find()
        .filter(connection::Column::RoleArn.eq(taken.job.role_arn.clone()))
        .filter(connection::Column::State.is_in(connection::OWNING.map(Text)))
        .filter(connection::Column::Id.ne(taken.row.id))
        .one(&**tx)
        .await
        .during("looking for the role's owner")?;
    if owner.is_some() {
        let reason = "The probes held, but the role is in use by another connection, which stays as it is.";
        let line = AuditLine::new(Actor::Registry, "connection.role-claimed-twice", taken.row.tenant_id.0, reason);
        tx.audit(line.enrollment(taken.row.enrollment_id.0).connection(taken.row.id.0)).await?;
    }
    Ok(owner.is_some())
}

/// A role held for a connection that was verified before: takes over the role and the export that were probed for, or restores it.
async fn confirm(tx: &Tx, taken: Taken, evidence: Vec<ProbeEvidence>, actor: Actor) -> Result<(), StoreError> {
    let Taken { tenant, row, job, .. } = taken;
    let by_callback = job.callback_id.is_some();
    let export_changed = by_callback && job.cost_export != row.cost_export;
    let role_changed = job.role_arn != row.role_arn;
    let held = Happening::new(Trigger::Held, actor).seen(evidence);
    if !role_changed && !export_changed {
        step::apply(tx, &tenant, row, &held).await?;
        return Ok(());
    }
    let stays_degraded = row.state.0 == ConnectionState::Degraded && !role_changed;
    let now = At::now();
    let mut change = row.into_active_model();
    change.role_arn = Set(job.role_arn);
    change.cost_export = Set(job.cost_export);
    change.evidence = Set(crate::entity::Json(held.evidence.unwrap_or_default()));
    change.reason = Set(None);
    change.updated_at = Set(now);
    change.verified_at = Set(Some(now));
    if !stays_degraded {
        change.state = Set(Text(ConnectionState::Verified));
    }
    let row = change.update(&**tx).await.during("changing the connection's role")?;
    let row = step::grant(tx, &tenant, row).await?;
    step::announce_verified(tx, &row).await?;
    let reason = if role_changed {
        "The stack's new role was verified and took the place of the old one."
    } else {
        "The stack names another cost export."
    };
    tx.audit(
        AuditLine::new(actor, "connection.updated", tenant.id.0, reason)
            .enrollment(row.enrollment_id.0)
            .connection(row.id.0),
    )
    .await
}

async fn audit_failed_update(tx: &Tx, taken: &Taken, refusal: &Refusal, actor: Actor) -> Result<(), StoreError> {
    let reason = format!("What the stack asks for was not taken over, the connection serves on as it was. {refusal}");
    let line = AuditLine::new(actor, "connection.update-failed", taken.tenant.id.0, reason);
    tx.audit(line.enrollment(taken.row.enrollment_id.0).connection(taken.row.id.0)).await
}

/// Applies the end of a watch; returns when it was ordered, or nothing when it is not known.
async fn deletion_in(tx: &Tx, report: &DeletionReported, actor: Actor) -> Result<Option<At>, StoreError> {
    let Some(Taken { tenant, enrollment, row, job }) =
        take(tx, report.tenant, report.connection, report.job, job::JobKind::ConfirmDeletion).await?
    else {
        return Ok(None);
    };
    // The role may have been replaced by an Update meanwhile: then the one that refuses is not the one that serves.
    if report.gone && job.role_arn == row.role_arn {
        let gone = Happening::new(Trigger::StackGone, actor).because(STACK_DELETED).seen(report.evidence.clone());
        let row = step::apply(tx, &tenant, row, &gone).await?;
        if row.state.0 == ConnectionState::Revoked {
            abandon_jobs(tx, &row).await?;
            rotation::settle(tx, enrollment.id, actor).await?;
        }
    } else {
        let reason = if report.gone {
            "A deletion was confirmed for a role that an update has replaced meanwhile: nothing changes."
        } else {
            "A deletion was announced, but the role was not seen to refuse us: nothing changes."
        };
        let line = AuditLine::new(actor, "connection.delete-unconfirmed", tenant.id.0, reason);
        tx.audit(line.enrollment(row.enrollment_id.0).connection(row.id.0)).await?;
    }
    Ok(Some(job.created_at))
}

/// Takes the open jobs of an ended connection off the list, and answers whoever waits for them.
pub(super) async fn abandon_jobs(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    let open = job::Entity::find()
        .filter(job::Column::ConnectionId.eq(row.id))
        .all(&**tx)
        .await
        .during("looking for open jobs")?;
    for job in open {
        if let Some(id) = job.callback_id
            && let Some(waiting) =
                callback::Entity::find_by_id(id).one(&**tx).await.during("reading the waiting callback")?
        {
            answer::give(tx, waiting, answer::failed(&Refusal::RevokedMeanwhile)).await?;
        }
        job.delete(&**tx).await.during("taking a job off the list")?;
    }
    Ok(())
}
