//! External IDs in the store: what a proven request does to a connection's, and when a whole enrollment has changed.
//!
//! The rules are [`crate::rotation`]'s. Whoever calls holds the locks on enrollment and connection.

use contracts::{
    ConnectionId, EnrollmentId, ExternalId, TenantId, connection::ConnectionExternalIdChanged,
    enrollment::RotationState, verification::Fault,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, QuerySelect, sea_query::Expr,
};

use super::{reports::Taken, step};
use crate::{
    entity::{
        At, Id, Text, connection, enrollment,
        external_id::{self, Standing},
    },
    reasons::Refusal,
    rotation::{Ids, OfferedIds, ToProve, Turn, turn},
    state::is_granted,
    store::{Actor, AuditLine, During, StoreError, Tx},
};

impl From<&enrollment::Model> for OfferedIds {
    fn from(row: &enrollment::Model) -> Self {
        Self { current: row.external_id.0.clone(), next: row.next_external_id.clone().map(|id| id.0) }
    }
}

impl Ids {
    pub(super) fn of(row: &connection::Model, enrollment: &enrollment::Model) -> Self {
        Self {
            own: row.external_id.0.clone(),
            previous: row.previous_external_id.clone().map(|id| id.0),
            rotation: row.rotation.map(|rotation| rotation.0),
            offered: OfferedIds::from(enrollment),
        }
    }
}

/// Writes down that this ID was made, and for whom. The database refuses one that was ever made before.
pub(super) async fn note(
    tx: &Tx,
    enrollment: Id<EnrollmentId>,
    external_id: &ExternalId,
    standing: Standing,
) -> Result<(), StoreError> {
    let now = At::now();
    let row = external_id::ActiveModel {
        external_id: Set(external_id.as_str().to_owned()),
        enrollment_id: Set(enrollment),
        standing: Set(Text(standing)),
        created_at: Set(now),
        updated_at: Set(now),
    };
    row.insert(&**tx).await.during("noting the external ID")?;
    Ok(())
}

pub(super) async fn stands_as(tx: &Tx, external_id: &ExternalId, standing: Standing) -> Result<(), StoreError> {
    external_id::Entity::update_many()
        .col_expr(external_id::Column::Standing, Expr::value(Text(standing)))
        .col_expr(external_id::Column::UpdatedAt, Expr::value(At::now()))
        .filter(external_id::Column::ExternalId.eq(external_id.as_str()))
        .exec(&**tx)
        .await
        .during("changing what an external ID counts for")?;
    Ok(())
}

/// Locks a tenant's connection, after its enrollment.
pub(super) async fn lock(
    tx: &Tx,
    tenant: TenantId,
    connection: ConnectionId,
) -> Result<Option<(enrollment::Model, connection::Model)>, StoreError> {
    let by_id = || connection::Entity::of_tenant_by_id(tenant, connection);
    // Which enrollment it is of never changes.
    let Some(row) = by_id().one(&**tx).await.during("looking for the connection")? else { return Ok(None) };
    let enrollment = enrollment::Entity::find_by_id(row.enrollment_id)
        .lock_exclusive()
        .one(&**tx)
        .await
        .during("locking the enrollment")?;
    let enrollment = enrollment.ok_or(StoreError::Inconsistent("a connection without its enrollment"))?;
    let row = by_id().lock_exclusive().one(&**tx).await.during("locking the connection")?;
    Ok(row.map(|row| (enrollment, row)))
}

fn proven(taken: &Taken) -> ToProve {
    let external_id = taken.job.external_id.as_ref().unwrap_or(&taken.row.external_id);
    ToProve {
        external_id: external_id.0.clone(),
        retired: taken.job.retired_external_id.clone().map(|retired| retired.0),
    }
}

/// Whether the connection's present external ID was probed.
pub(super) fn is_of_present_id(taken: &Taken) -> bool {
    proven(taken).external_id == taken.row.external_id.0
}

/// Whether a stack's external ID was taken back while it was probed.
pub(super) fn is_gone(taken: &Taken) -> bool {
    taken.job.callback_id.is_some() && turn(&Ids::of(&taken.row, &taken.enrollment), &proven(taken)) == Turn::Gone
}

/// Whether the fault is but that the old external ID is still there, between the two updates: the connection serves as before.
pub(super) fn is_still_open(taken: &Taken, refusal: &Refusal) -> bool {
    let overlapping = taken.row.rotation == Some(Text(RotationState::Overlapping));
    overlapping && *refusal == Refusal::Faulty(Fault::OpenWithRetiredId)
}

/// What a stack's proven request does to its connection's external ID: row, grant, event, audit line.
pub(super) async fn carry_out(tx: &Tx, mut taken: Taken, actor: Actor) -> Result<Taken, StoreError> {
    if taken.job.callback_id.is_none() {
        return Ok(taken);
    }
    let proven = proven(&taken);
    let turn = turn(&Ids::of(&taken.row, &taken.enrollment), &proven);
    let (rotation, reason) = match turn {
        Turn::Stay | Turn::Gone => return Ok(taken),
        Turn::Begin => {
            (RotationState::Overlapping, "The new external ID was verified and took the place of the old one.")
        }
        Turn::Replace => (
            RotationState::Finished,
            "The new external ID was verified and took the place of the old one, which is refused.",
        ),
        Turn::Finish => (RotationState::Finished, "The old external ID was seen to be refused."),
        Turn::Reopen => {
            (RotationState::Overlapping, "The stack went back to naming the old external ID beside the new one.")
        }
        Turn::Back => (RotationState::Offered, "The stack went back to the old external ID, which was verified."),
    };
    let changed = !is_of_present_id(&taken);
    let replaced = taken.row.external_id.clone();
    let mut change = taken.row.into_active_model();
    change.rotation = Set(Some(Text(rotation)));
    change.updated_at = Set(At::now());
    if changed {
        change.external_id = Set(Text(proven.external_id));
        change.previous_external_id = Set((turn != Turn::Back).then_some(replaced));
    }
    let mut row = change.update(&**tx).await.during("changing the connection's external ID")?;
    if changed && is_granted(row.state.0) {
        row = step::grant(tx, &taken.tenant, row).await?;
    }
    let (tenant, connection) = (row.tenant_id.0, row.id.0);
    tx.send(connection, ConnectionExternalIdChanged { tenant, connection, rotation }).await?;
    let line = AuditLine::new(actor, "connection.external-id-changed", tenant, reason);
    tx.audit(line.enrollment(row.enrollment_id.0).connection(connection)).await?;
    taken.row = row;
    Ok(taken)
}

/// Connections of an enrollment that have not ended.
pub(super) fn live(enrollment: Id<EnrollmentId>) -> Condition {
    Condition::all()
        .add(connection::Column::EnrollmentId.eq(enrollment))
        .add(connection::Column::State.is_not_in(connection::ENDED.map(Text)))
}

async fn count(tx: &Tx, which: Condition) -> Result<u64, StoreError> {
    connection::Entity::find().filter(which).count(&**tx).await.during("counting connections")
}

/// Brings the enrollment's rotation to where its connections are. The last of them that is through finishes it.
pub(super) async fn settle(tx: &Tx, enrollment: Id<EnrollmentId>, actor: Actor) -> Result<(), StoreError> {
    let by_id = enrollment::Entity::find_by_id(enrollment);
    let Some(row) = by_id.lock_exclusive().one(&**tx).await.during("locking the enrollment")? else { return Ok(()) };
    let Some(Text(before)) = row.rotation else { return Ok(()) };
    let overlapping = Text(RotationState::Overlapping);
    let between = count(tx, live(enrollment).add(connection::Column::Rotation.eq(overlapping))).await?;
    let now = match &row.next_external_id {
        None if between > 0 => RotationState::Overlapping,
        None => RotationState::Finished,
        Some(next) => {
            // A stack that joins with the new one shows that it works once it was verified, not before.
            let (state, owning) = (connection::Column::State, connection::OWNING.map(Text));
            let with_it = || live(enrollment).add(connection::Column::ExternalId.eq(next.clone()));
            let through = count(tx, with_it().add(state.is_in(owning))).await?;
            let unproven = count(tx, with_it().add(state.is_not_in(owning))).await?;
            let waiting = count(tx, live(enrollment).add(connection::Column::ExternalId.ne(next.clone()))).await?;
            match (through, waiting) {
                (0, 0) if before == RotationState::Offered || unproven > 0 => RotationState::Offered,
                (_, 0) if between == 0 => RotationState::Finished,
                (0, _) => RotationState::Offered,
                _ => RotationState::Overlapping,
            }
        }
    };
    if now == before {
        return Ok(());
    }
    let (tenant, old, next) = (row.tenant_id.0, row.external_id.clone(), row.next_external_id.clone());
    let mut change = row.into_active_model();
    change.rotation = Set(Some(Text(now)));
    change.updated_at = Set(At::now());
    if let (RotationState::Finished, Some(next)) = (now, next) {
        stands_as(tx, &old.0, Standing::Retired).await?;
        stands_as(tx, &next.0, Standing::Current).await?;
        change.external_id = Set(next);
        change.next_external_id = Set(None);
    }
    change.update(&**tx).await.during("bringing the rotation on")?;
    if now == RotationState::Finished {
        let reason = "Every connection of the enrollment goes by the new external ID alone.";
        let line = AuditLine::new(actor, "enrollment.rotation-finished", tenant, reason);
        tx.audit(line.enrollment(enrollment.0)).await?;
    }
    Ok(())
}
