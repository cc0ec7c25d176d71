//! A new external ID for the stacks of an enrollment: offered by an operator, and taken back while nothing uses it.

use contracts::{
    EnrollmentId, ErrorCode, ExternalId, StackId, TenantId,
    enrollment::{Enrollment, EnrollmentState, RotationOffer, RotationState},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{
    Registry,
    enrollments::no_such_enrollment,
    rotation,
    tenants::{able, checked_reason},
};
use crate::{
    change::Change,
    entity::{
        At, Id, Text, connection, enrollment,
        external_id::{self, Standing},
        job, tenant,
    },
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// An offer to change, and the stacks that it is for.
struct Offered {
    enrollment: enrollment::Model,
    next: ExternalId,
    stacks: Vec<StackId>,
}

fn conflict(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorCode::Conflict, message)
}

impl Registry {
    /// Makes a new external ID for the stacks of an enrollment, or shows the one that is on its way.
    ///
    /// # Errors
    /// `not-found`, `invalid-request`, `denied` (suspended), `conflict` (nothing to change, or the change before is not through); when the store fails.
    pub async fn rotate_external_id(
        &self,
        tenant: TenantId,
        id: EnrollmentId,
        reason: &str,
    ) -> Result<RotationOffer, StoreError> {
        checked_reason(reason)?;
        let Offered { enrollment, next, stacks } = transaction!(self.store, tx => rotate_in(&tx, tenant, id, reason))?;
        let change = Change {
            enrollment: enrollment.id.0,
            kind: enrollment.kind.0,
            region: &enrollment.region.0,
            stacks: &stacks,
            template: &self.rules.template,
            old: &enrollment.external_id.0,
            new: &next,
        };
        let (begin, finish) = (change.begin(), change.finish());
        Ok(RotationOffer { enrollment: enrollment.into(), external_id: next, begin, finish })
    }

    /// Takes a new external ID back that nothing uses yet.
    ///
    /// # Errors
    /// `not-found`, `invalid-request`, `conflict` when it is in use; when the store fails.
    pub async fn cancel_rotation(
        &self,
        tenant: TenantId,
        id: EnrollmentId,
        reason: &str,
    ) -> Result<Enrollment, StoreError> {
        checked_reason(reason)?;
        transaction!(self.store, tx => cancel_in(&tx, tenant, id, reason))
    }
}

async fn lock(tx: &Tx, tenant: TenantId, id: EnrollmentId) -> Result<enrollment::Model, StoreError> {
    let by_id = enrollment::Entity::of_tenant_by_id(tenant, id);
    let row = by_id.lock_exclusive().one(&**tx).await.during("locking the enrollment")?;
    row.ok_or_else(|| no_such_enrollment(id))
}

async fn rotate_in(tx: &Tx, tenant: TenantId, id: EnrollmentId, reason: &str) -> Result<Offered, StoreError> {
    let owner = tenant::Entity::find_by_id(Id(tenant)).lock_shared().one(&**tx).await.during("reading the tenant")?;
    able(owner.as_ref().ok_or_else(|| no_such_enrollment(id))?)?;
    let row = lock(tx, tenant, id).await?;
    let stacks = stacks(tx, &row).await?;
    match (&row.rotation, &row.next_external_id) {
        (_, Some(next)) => Ok(Offered { next: next.0.clone(), stacks, enrollment: row }),
        (Some(Text(RotationState::Overlapping)), None) => Err(conflict(
            "a stack has gone back to naming the last external ID that was replaced: update it with PreviousExternalId empty first",
        )),
        _ if stacks.is_empty() => Err(nothing_to_change(&row)),
        _ => {
            let next = ExternalId::generate();
            let enrollment = offer(tx, row, &next, reason).await?;
            Ok(Offered { enrollment, next, stacks })
        }
    }
}

fn nothing_to_change(row: &enrollment::Model) -> StoreError {
    conflict(match row.state_now() {
        EnrollmentState::Open => {
            "no stack has been verified with this offer yet, so there is nothing to change: cancel it and make another, if its external ID is not to be used"
        }
        EnrollmentState::Cancelled => "this offer was withdrawn and has no connection: make a new one",
        EnrollmentState::Expired => "this offer expired and has no connection: make a new one",
        EnrollmentState::Used => "the connection of this offer has ended: make a new offer",
    })
}

/// The stacks of the enrollment's connections that were verified and have not ended.
async fn stacks(tx: &Tx, row: &enrollment::Model) -> Result<Vec<StackId>, StoreError> {
    let stacks: Vec<Text<StackId>> = connection::Entity::find()
        .select_only()
        .column(connection::Column::StackId)
        .filter(connection::Column::EnrollmentId.eq(row.id))
        .filter(connection::Column::State.is_in(connection::OWNING.map(Text)))
        .order_by_asc(connection::Column::Id)
        .into_tuple()
        .all(&**tx)
        .await
        .during("looking for the enrollment's stacks")?;
    Ok(stacks.into_iter().map(|stack| stack.0).collect())
}

async fn offer(
    tx: &Tx,
    row: enrollment::Model,
    next: &ExternalId,
    reason: &str,
) -> Result<enrollment::Model, StoreError> {
    rotation::note(tx, row.id, next, Standing::Offered).await?;
    let mut change = row.into_active_model();
    change.next_external_id = Set(Some(Text(next.clone())));
    change.rotation = Set(Some(Text(RotationState::Offered)));
    change.updated_at = Set(At::now());
    let row = change.update(&**tx).await.during("offering the external ID")?;
    connection::Entity::update_many()
        .col_expr(connection::Column::Rotation, Expr::value(Text(RotationState::Offered)))
        .filter(rotation::live(row.id))
        .exec(&**tx)
        .await
        .during("telling the connections")?;
    let line = AuditLine::new(Actor::Operator, "enrollment.rotation-offered", row.tenant_id.0, reason);
    tx.audit(line.enrollment(row.id.0)).await?;
    Ok(row)
}

async fn cancel_in(tx: &Tx, tenant: TenantId, id: EnrollmentId, reason: &str) -> Result<Enrollment, StoreError> {
    let row = lock(tx, tenant, id).await?;
    let next = match (&row.rotation, &row.next_external_id) {
        (None, _) => return Ok(row.into()),
        (Some(Text(RotationState::Finished)), _) if was_withdrawn(tx, &row).await? => return Ok(row.into()),
        (Some(Text(RotationState::Offered)), Some(next)) => next.clone(),
        (Some(Text(RotationState::Finished)), _) => {
            return Err(conflict("the external ID has been changed: there is nothing left to take back"));
        }
        (Some(_), _) => return Err(conflict(IN_USE)),
    };
    if is_in_use(tx, &row, &next).await? {
        return Err(conflict(IN_USE));
    }
    rotation::stands_as(tx, &next.0, Standing::Withdrawn).await?;
    let before = restore(tx, row.id).await?;
    let mut change = row.into_active_model();
    change.next_external_id = Set(None);
    change.rotation = Set(before.map(Text));
    change.updated_at = Set(At::now());
    let row = change.update(&**tx).await.during("taking the external ID back")?;
    tx.audit(AuditLine::new(Actor::Operator, "enrollment.rotation-cancelled", tenant, reason).enrollment(id)).await?;
    Ok(row.into())
}

/// Puts the connections back to where the offer found them, and says where that was for the enrollment: a connection that has changed its ID before is
/// through with that change.
async fn restore(tx: &Tx, enrollment: Id<EnrollmentId>) -> Result<Option<RotationState>, StoreError> {
    let changed = connection::Column::PreviousExternalId;
    let finished = Expr::value(Text(RotationState::Finished));
    let put = |which, to| connection::Entity::update_many().col_expr(connection::Column::Rotation, to).filter(which);
    put(rotation::live(enrollment).add(changed.is_null()), Expr::value(None::<String>))
        .exec(&**tx)
        .await
        .during("telling the connections")?;
    let through = put(rotation::live(enrollment).add(changed.is_not_null()), finished)
        .exec(&**tx)
        .await
        .during("telling the connections")?;
    Ok((through.rows_affected > 0).then_some(RotationState::Finished))
}

/// Whether the last external ID that was made was taken back already.
async fn was_withdrawn(tx: &Tx, row: &enrollment::Model) -> Result<bool, StoreError> {
    let last = external_id::Entity::find()
        .filter(external_id::Column::EnrollmentId.eq(row.id))
        .order_by_desc(external_id::Column::CreatedAt)
        .one(&**tx)
        .await
        .during("looking for the last external ID")?;
    Ok(last.is_some_and(|last| last.standing == Text(Standing::Withdrawn)))
}

const IN_USE: &str = "a stack goes by the new external ID already, or is just being verified with it: finish the change, or update the stack back to the old one first";

/// Whether a connection goes by the new ID, or a probe for one is under way.
async fn is_in_use(tx: &Tx, row: &enrollment::Model, next: &Text<ExternalId>) -> Result<bool, StoreError> {
    let with_it = connection::Entity::find()
        .filter(rotation::live(row.id).add(connection::Column::ExternalId.eq(next.clone())))
        .count(&**tx)
        .await
        .during("looking for connections with the external ID")?;
    let probed = job::Entity::find()
        .filter(job::Column::TenantId.eq(row.tenant_id))
        .filter(job::Column::ExternalId.eq(next.clone()))
        .count(&**tx)
        .await
        .during("looking for probes of the external ID")?;
    Ok(with_it + probed > 0)
}
