//! What the broker found, and what follows: the state machine's step, and the answer to the stack that waits.
//!
//! A report counts once: its job is removed with the effect, in one transaction, and a report without a job is late, a duplicate, or not ours.

use std::time::Duration;

use contracts::{
    ConnectionId, JobId, TenantId, Timestamp,
    callback::Answer,
    connection::ConnectionState,
    verification::{DeletionReported, Fault, Verdict, VerificationReported},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, ModelTrait, QueryFilter, QuerySelect,
};
use tracing::Instrument as _;

use super::{
    HandleError, Registry, answer, findings,
    register::unbind,
    rotation,
    step::{self, Happening, Look},
    template,
};
use crate::{
    config::Watching,
    entity::{At, Id, Json, Text, callback, connection, enrollment, job, tenant},
    fatal,
    reasons::{Refusal, STACK_DELETED},
    state::Trigger,
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

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

    pub(super) async fn verified_or_not(
        &self,
        report: &VerificationReported,
        actor: Actor,
    ) -> Result<Reported, HandleError> {
        let verdict = match report.verdict {
            Verdict::Held => "held",
            Verdict::Failed { .. } => "failed",
            Verdict::Indeterminate => "indeterminate",
        };
        let span = tracing::info_span!("decide on a report", job = "verify", verdict);
        let result = async { transaction!(self.store, tx => verification_in(&tx, &self.rules.watch, report, actor)) }
            .instrument(span)
            .await?;
        Ok(self.reported("verify", verdict, report.connection, result))
    }

    /// # Errors
    /// When the store fails; handling it again is safe.
    pub async fn deletion_reported(&self, report: &DeletionReported) -> Result<Reported, HandleError> {
        self.gone_or_not(report, Actor::Broker).await
    }

    pub(super) async fn gone_or_not(&self, report: &DeletionReported, actor: Actor) -> Result<Reported, HandleError> {
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
async fn verification_in(
    tx: &Tx,
    watching: &Watching,
    report: &VerificationReported,
    actor: Actor,
) -> Result<Option<At>, StoreError> {
    let Some(mut taken) = take(tx, report.tenant, report.connection, report.job, job::JobKind::Verify).await? else {
        return Ok(None);
    };
    let handed_out = taken.job.created_at;
    let waiting = match taken.job.callback_id {
        Some(id) => callback::Entity::find_by_id(id).one(&**tx).await.during("reading the waiting callback")?,
        None => None,
    };
    // A later request of the stack took this one's place: the report still tells of the role, but nobody asks for it any more.
    if waiting.as_ref().is_some_and(|waiting| waiting.answer.is_some()) {
        taken.job.callback_id = None;
    }
    let (connection, enrollment) = (taken.row.id.0, taken.enrollment.id);
    let by_stack = taken.job.callback_id.is_some();
    let judged = judge(tx, watching, taken, report, actor).await?;
    if by_stack && judged.is_none() {
        template::look_again(tx, watching, connection, report).await?;
    }
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
    watching: &Watching,
    taken: Taken,
    report: &VerificationReported,
    actor: Actor,
) -> Result<Option<Refusal>, StoreError> {
    let first = taken.row.state.0 == ConnectionState::Verifying;
    // Whether it says something about what serves: the connection's present role, with its present external ID.
    let of_present = taken.job.role_arn == taken.row.role_arn && rotation::is_of_present_id(&taken);
    if !first && !of_present && taken.job.callback_id.is_none() {
        tracing::info!(connection = %taken.row.id.0, "a report is of what was replaced meanwhile: nothing follows");
        return Ok(None);
    }
    if !(connection::OWNING.contains(&taken.row.state.0) || first && of_present) {
        tracing::info!(connection = %taken.row.id.0, state = %taken.row.state.0, "a report is of a connection that has ended: nothing follows");
        return Ok(Some(Refusal::NoSuchConnection));
    }
    // What is not seen any more is as it was seen last: else denying the look would be a way out.
    let seen = taken.row.max_session_s.filter(|_| taken.job.role_arn == taken.row.role_arn);
    let longest = report.max_session_s.or_else(|| seen.and_then(|seconds| u32::try_from(seconds).ok()));
    let verdict = fatal::weigh(report, longest, &watching.fatal, first);
    let refusal = match verdict {
        Verdict::Held if rotation::is_gone(&taken) => Some(Refusal::ExternalIdChanged),
        Verdict::Held if role_is_taken(tx, &taken).await? => Some(Refusal::RoleTaken),
        Verdict::Held => None,
        Verdict::Failed { fault } => Some(Refusal::Faulty(fault)),
        Verdict::Indeterminate => Some(Refusal::Undecided),
    };
    let needed = if taken.job.callback_id.is_some() { 1 } else { watching.equal_answers };
    match &refusal {
        None if first => {
            let taken = template::note(tx, taken, report, actor).await?;
            let look = findings::look(watching, &taken.row, report, None);
            let missing = findings::missing(&taken.row, report);
            findings::hold(tx, (&taken.tenant, taken.row), look, missing, actor).await?;
        }
        None => {
            let taken = rotation::carry_out(tx, taken, actor).await?;
            let taken = template::note(tx, taken, report, actor).await?;
            if is_changed_by_stack(&taken) {
                take_over(tx, watching, taken, report, actor).await?;
            } else {
                findings::absorb(tx, watching, (&taken.tenant, taken.row), (report, verdict), needed, actor).await?;
            }
        }
        Some(refusal) if first => reject(tx, watching, taken, report, refusal, actor).await?,
        // The role that serves is open, with whatever external ID that was found.
        Some(Refusal::Faulty(fault)) if taken.job.role_arn == taken.row.role_arn && is_of_role(*fault) => {
            findings::absorb(tx, watching, (&taken.tenant, taken.row), (report, verdict), needed, actor).await?;
        }
        // A new role or external ID that does not hold says nothing about what serves, and an old ID that still lets us in is no harm yet.
        Some(refusal) if !of_present || rotation::is_still_open(&taken, refusal) => {
            audit_failed_update(tx, &taken, refusal, actor).await?;
        }
        Some(refusal) => {
            // The role is as it must be, and the refusal is about something else.
            let verdict = if matches!(refusal, Refusal::Faulty(_)) { verdict } else { Verdict::Indeterminate };
            findings::absorb(tx, watching, (&taken.tenant, taken.row), (report, verdict), needed, actor).await?;
        }
    }
    Ok(refusal)
}

/// Whether the fault is one of the role, whatever external ID it was probed with.
const fn is_of_role(fault: Fault) -> bool {
    match fault {
        Fault::OpenWithoutId
        | Fault::OpenWithRandomId
        | Fault::WrongAccount
        | Fault::OpenToOtherPrincipal
        | Fault::LongSessions => true,
        Fault::Refused | Fault::OpenWithRetiredId | Fault::PermissionsMissing => false,
    }
}

/// The first verification failed: there is no connection, and the offer is good again.
async fn reject(
    tx: &Tx,
    watching: &Watching,
    taken: Taken,
    report: &VerificationReported,
    refusal: &Refusal,
    actor: Actor,
) -> Result<(), StoreError> {
    let trigger = match refusal {
        Refusal::Faulty(fault) => Trigger::Faulted(*fault),
        Refusal::RoleTaken => Trigger::RoleTaken,
        _ => Trigger::Undecided,
    };
    let look = findings::look(watching, &taken.row, report, None);
    let happening = Happening::new(trigger, actor).because(refusal.to_string()).looked(look);
    let row = step::apply(tx, &taken.tenant, taken.row, &happening).await?;
    if row.state.0 == ConnectionState::Rejected {
        unbind(tx, &row).await?;
        abandon_jobs(tx, &row).await?;
    }
    Ok(())
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

/// Whether a stack's Update asks for another role or export than the connection has.
fn is_changed_by_stack(taken: &Taken) -> bool {
    let (row, job) = (&taken.row, &taken.job);
    job.callback_id.is_some() && (job.role_arn != row.role_arn || job.cost_export != row.cost_export)
}

/// A role held that a stack's Update names: the connection takes it over, with the export.
async fn take_over(
    tx: &Tx,
    watching: &Watching,
    taken: Taken,
    report: &VerificationReported,
    actor: Actor,
) -> Result<(), StoreError> {
    let (look, missing) = (findings::look(watching, &taken.row, report, None), findings::missing(&taken.row, report));
    let Taken { tenant, row, job, .. } = taken;
    let reason = if job.role_arn == row.role_arn {
        "The stack names another cost export."
    } else {
        "The stack's new role was verified and took the place of the old one."
    };
    let (back, other_role) = (row.state.0 != ConnectionState::Verified, job.role_arn != row.role_arn);
    let mut change = row.into_active_model();
    if other_role {
        // It was the old role's.
        change.max_session_s = Set(None);
    }
    change.role_arn = Set(job.role_arn);
    change.cost_export = Set(job.cost_export);
    // What it lacks is told below.
    change.missing = Set(Json(missing.clone()));
    look.note(&mut change);
    change.reason = Set(None);
    let now = At::now();
    (change.updated_at, change.verified_at) = (Set(now), Set(Some(now)));
    change.state = Set(Text(ConnectionState::Verified));
    let row = change.update(&**tx).await.during("changing the connection's role")?;
    let row = step::grant(tx, &tenant, row).await?;
    step::announce_verified(tx, &row).await?;
    let line = AuditLine::new(actor, "connection.updated", tenant.id.0, reason);
    tx.audit(line.enrollment(row.enrollment_id.0).connection(row.id.0)).await?;
    if back {
        step::audit(tx, &row, &Happening::new(Trigger::Held, actor)).await?;
    }
    if !missing.is_empty() {
        findings::hold(tx, (&tenant, row), look, missing, actor).await?;
    }
    Ok(())
}

/// What serves was not looked at: its time has come at once.
async fn audit_failed_update(tx: &Tx, taken: &Taken, refusal: &Refusal, actor: Actor) -> Result<(), StoreError> {
    let mut change = taken.row.clone().into_active_model();
    change.next_probe_at = Set(Some(At::now()));
    change.update(&**tx).await.during("bringing the next probe forward")?;
    let reason = format!("What the stack asks for was not taken over, the connection serves on as it was. {refusal}");
    let line = AuditLine::new(actor, "connection.update-failed", taken.tenant.id.0, reason);
    tx.audit(line.enrollment(taken.row.enrollment_id.0).connection(taken.row.id.0)).await
}

/// Applies the end of a watch; returns when it was ordered, or nothing when it is not known.
async fn deletion_in(tx: &Tx, report: &DeletionReported, actor: Actor) -> Result<Option<At>, StoreError> {
    let Some(taken) = take(tx, report.tenant, report.connection, report.job, job::JobKind::ConfirmDeletion).await?
    else {
        return Ok(None);
    };
    // An Update may have replaced either meanwhile: then what refuses is not what serves.
    let of_present = taken.job.role_arn == taken.row.role_arn && rotation::is_of_present_id(&taken);
    let Taken { tenant, enrollment, row, job } = taken;
    if report.gone && of_present {
        let look = Look { evidence: report.evidence.clone(), ..Look::default() };
        let gone = Happening::new(Trigger::StackGone, actor).because(STACK_DELETED).looked(look);
        let row = step::apply(tx, &tenant, row, &gone).await?;
        if row.state.0 == ConnectionState::Revoked {
            abandon_jobs(tx, &row).await?;
            rotation::settle(tx, enrollment.id, actor).await?;
        }
    } else {
        let reason = if report.gone {
            "A deletion was confirmed for a role or an external ID that an update has replaced meanwhile: nothing changes."
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
