//! What a report of a role that held says of the stack's template: its version, once a stack's request was proven, and whether the role admits
//! session tags. The rule is [`crate::template`]'s. Whoever calls holds the locks on enrollment and connection.

use contracts::{ConnectionId, verification::VerificationReported};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait, IntoActiveModel};

use super::{reports::Taken, step};
use crate::{
    config::Watching,
    entity::{At, Id, columns::milliseconds, connection},
    state::is_granted,
    store::{Actor, AuditLine, During, StoreError, Tx},
    template,
};

/// As a version is kept, and as it is told.
pub(super) fn kept(version: Option<u32>) -> Option<i64> {
    version.map(i64::from)
}

pub(super) fn told(version: Option<i64>) -> Option<u32> {
    version.and_then(|version| u32::try_from(version).ok())
}

/// Whether the broker is to look for session tags at a role whose stack says this version.
pub(super) fn is_to_be_looked_for(version: Option<u32>) -> bool {
    template::should_admit_session_tags(version)
}

/// Keeps what the report says. Where it changes how sessions begin, the broker is told, if it has been told of the connection before.
pub(super) async fn note(
    tx: &Tx,
    mut taken: Taken,
    report: &VerificationReported,
    actor: Actor,
) -> Result<Taken, StoreError> {
    let (row, job) = (&taken.row, &taken.job);
    let version = told(if job.callback_id.is_some() { job.template_version } else { row.template_version });
    let tags = template::session_tags(version, &report.evidence, row.session_tags);
    let (was, had) = (told(row.template_version), row.session_tags);
    if (version, tags) == (was, had) {
        return Ok(taken);
    }
    let mut change = taken.row.into_active_model();
    change.template_version = Set(kept(version));
    change.session_tags = Set(tags);
    let mut row = change.update(&**tx).await.during("keeping the template's version")?;
    if tags != had && is_granted(row.state.0) {
        row = step::grant(tx, &taken.tenant, row).await?;
    }
    if is_granted(row.state.0) {
        audit(tx, &row, tags, actor).await?;
    }
    taken.row = row;
    Ok(taken)
}

/// A trust that a stack has just changed may admit tags a moment later: IAM shows a change where it likes first. So what was refused to a stack that
/// promises it is looked at once more, and not only after the whole interval.
pub(super) async fn look_again(
    tx: &Tx,
    watching: &Watching,
    connection: ConnectionId,
    report: &VerificationReported,
) -> Result<(), StoreError> {
    if !template::was_refused(&report.evidence) {
        return Ok(());
    }
    let found = connection::Entity::find_by_id(Id(connection)).one(&**tx).await.during("reading the connection")?;
    if let Some(row) = found.filter(|row| row.next_probe_at.is_some()) {
        let next = watching.cadence.next(connection, milliseconds(At::now().0), true);
        let mut change = row.into_active_model();
        change.next_probe_at = Set(Some(At::from_milliseconds(next)));
        change.update(&**tx).await.during("bringing the next probe forward")?;
    }
    Ok(())
}

async fn audit(tx: &Tx, row: &connection::Model, tags: bool, actor: Actor) -> Result<(), StoreError> {
    let version =
        row.template_version.map_or_else(|| "an unknown version".to_owned(), |version| format!("version {version}"));
    let carried = if tags { "sessions carry tags" } else { "sessions carry no tags" };
    let reason = format!("The stack's template is of {version}: {carried}.");
    let line = AuditLine::new(actor, "connection.template", row.tenant_id.0, reason);
    tx.audit(line.enrollment(row.enrollment_id.0).connection(row.id.0)).await
}
