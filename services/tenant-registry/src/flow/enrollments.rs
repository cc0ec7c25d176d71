//! Offers to connect: made, shown (without their secrets), withdrawn.

use std::time::Duration;

use contracts::{
    CallbackToken, EnrollmentId, ErrorCode, ErrorReply, ExternalId, Page, PageRequest, RoleArn, TenantId, Timestamp,
    TopicArn,
    connection::ConnectionState,
    enrollment::{
        CreateEnrollmentRequest, Enrollment, EnrollmentCancelled, EnrollmentCreated, EnrollmentKind, EnrollmentOffer,
        EnrollmentState,
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};

use super::{
    Registry, rotation,
    tenants::{able, checked_reason},
};
use crate::{
    entity::{At, Id, Json, Text, connection, enrollment, external_id::Standing, tenant},
    offer::Terms,
    store::{Actor, AuditLine, During, StoreError, Tx, pages},
    transaction,
};

/// Seconds that an offer may stand, and does when nothing is said.
const SHORTEST: u32 = 60;
const LONGEST: u32 = 30 * 24 * 3600;
const USUAL: u32 = 24 * 3600;

/// How long a principal takes to be made, as a rule.
const PRINCIPAL_TAKES_MS: u64 = 1_000;

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorCode::InvalidRequest, message)
}

pub(super) fn no_such_enrollment(id: EnrollmentId) -> StoreError {
    StoreError::refused(ErrorCode::NotFound, format!("this tenant has no enrollment {id}"))
}

impl Registry {
    /// Makes an offer. Its token is in this reply and nowhere else.
    ///
    /// # Errors
    /// `not-found`, `denied` (suspended), `unavailable` (the principal is being made), `invalid-request`; when the store fails.
    pub async fn create_enrollment(
        &self,
        tenant: TenantId,
        request: &CreateEnrollmentRequest,
    ) -> Result<EnrollmentOffer, StoreError> {
        let topic = self.rules.topics.of(request.region.as_ref()).ok_or_else(|| {
            let regions = self.rules.topics.regions();
            let regions = regions.iter().map(contracts::Region::as_str).collect::<Vec<_>>().join(", ");
            invalid(format!("the provider takes no callbacks in that region; it does in: {regions}"))
        })?;
        check(request)?;
        let (external_id, token) = (ExternalId::generate(), CallbackToken::generate());
        let new = New { tenant, request, topic, external_id: &external_id, token: &token };
        let (row, principal) = transaction!(self.store, tx => new.create_in(&tx))?;
        let terms = Terms {
            enrollment: row.id.0,
            kind: request.kind,
            external_id: &external_id,
            token: &token,
            topic,
            principal: &principal,
            template: &self.rules.template,
            cost_export: request.cost_export.as_ref(),
        };
        let (quick_create_url, commands, parameters) = (terms.quick_create_url(), terms.commands(), terms.parameters());
        Ok(EnrollmentOffer {
            enrollment: row.into(),
            external_id,
            callback_token: token,
            quick_create_url,
            commands,
            parameters,
        })
    }

    /// # Errors
    /// `not-found`; when the store fails.
    pub async fn get_enrollment(&self, tenant: TenantId, id: EnrollmentId) -> Result<Enrollment, StoreError> {
        let row = enrollment::Entity::of_tenant_by_id(tenant, id)
            .one(self.store.db())
            .await
            .during("reading the enrollment")?;
        row.map(Enrollment::from).ok_or_else(|| no_such_enrollment(id))
    }

    /// # Errors
    /// `invalid-request`; when the store fails.
    pub async fn list_enrollments(
        &self,
        tenant: TenantId,
        request: &PageRequest,
    ) -> Result<Page<Enrollment>, StoreError> {
        let mut query = enrollment::Entity::of_tenant(tenant)
            .order_by_asc(enrollment::Column::Id)
            .limit(pages::rows_wanted(request));
        if let Some(after) = pages::after::<EnrollmentId>(request)? {
            query = query.filter(enrollment::Column::Id.gt(Id(after)));
        }
        let rows = query.all(self.store.db()).await.during("listing enrollments")?;
        Ok(pages::cut(request, rows.into_iter().map(Enrollment::from).collect(), |enrollment| {
            enrollment.enrollment.to_string()
        }))
    }

    /// # Errors
    /// `not-found`, `invalid-request`, `conflict` when a stack has connected with it; when the store fails.
    pub async fn cancel_enrollment(
        &self,
        tenant: TenantId,
        id: EnrollmentId,
        reason: &str,
    ) -> Result<Enrollment, StoreError> {
        checked_reason(reason)?;
        transaction!(self.store, tx => cancel_in(&tx, tenant, id, reason))
    }
}

fn check(request: &CreateEnrollmentRequest) -> Result<(), StoreError> {
    if request.kind == EnrollmentKind::Organization && request.account.is_some() {
        return Err(invalid("an organization's offer cannot be restricted to one account: leave `account` out"));
    }
    if request.expires_in_s.is_some_and(|seconds| !(SHORTEST..=LONGEST).contains(&seconds)) {
        return Err(invalid(format!("`expires_in_s` is {SHORTEST} to {LONGEST}")));
    }
    if request.cost_export.as_ref().is_some_and(|export| !export.is_well_formed()) {
        return Err(invalid("`cost_export` is an S3 bucket name and a prefix without slashes at its ends"));
    }
    Ok(())
}

/// What an offer is made from.
struct New<'a> {
    tenant: TenantId,
    request: &'a CreateEnrollmentRequest,
    topic: &'a TopicArn,
    external_id: &'a ExternalId,
    token: &'a CallbackToken,
}

impl New<'_> {
    async fn create_in(&self, tx: &Tx) -> Result<(enrollment::Model, RoleArn), StoreError> {
        let tenant =
            tenant::Entity::find_by_id(Id(self.tenant)).lock_shared().one(&**tx).await.during("reading the tenant")?;
        let tenant = tenant
            .ok_or_else(|| StoreError::refused(ErrorCode::NotFound, format!("there is no tenant {}", self.tenant)))?;
        able(&tenant)?;
        let Some(principal) = tenant.principal_role else {
            let message =
                "the tenant's principal is still being made, and the customer's role must name it: try again shortly";
            return Err(StoreError::Refused(
                ErrorReply::new(ErrorCode::Unavailable, message).retry_after(PRINCIPAL_TAKES_MS),
            ));
        };
        if principal.0.partition() != &self.topic.region().partition() {
            return Err(invalid("that region is in another AWS partition than the tenant's principal"));
        }
        let row = self.row().insert(&**tx).await.during("making the enrollment")?;
        rotation::note(tx, row.id, self.external_id, Standing::Current).await?;
        let (kind, expires_at) = (row.kind.0, row.expires_at.0);
        tx.send(row.id.0, EnrollmentCreated { tenant: self.tenant, enrollment: row.id.0, kind, expires_at }).await?;
        let line = AuditLine::new(
            Actor::Operator,
            "enrollment.created",
            self.tenant,
            "Asked for by a caller of enrollments.create.",
        );
        tx.audit(line.enrollment(row.id.0)).await?;
        Ok((row, principal.0))
    }

    fn row(&self) -> enrollment::ActiveModel {
        let now = Timestamp::now();
        let stands = Duration::from_secs(u64::from(self.request.expires_in_s.unwrap_or(USUAL)));
        enrollment::ActiveModel {
            id: Set(Id(EnrollmentId::new())),
            tenant_id: Set(Id(self.tenant)),
            kind: Set(Text(self.request.kind)),
            state: Set(Text(EnrollmentState::Open)),
            region: Set(Text(self.topic.region().clone())),
            account: Set(self.request.account.clone().map(Text)),
            external_id: Set(Text(self.external_id.clone())),
            token_hash: Set(Text(self.token.hash())),
            cost_export: Set(self.request.cost_export.clone().map(Json)),
            bound_stack: Set(None),
            created_at: Set(At(now)),
            expires_at: Set(At(now.plus(stands))),
            updated_at: Set(At(now)),
            next_external_id: Set(None),
            rotation: Set(None),
        }
    }
}

const USED: &str = "a stack has connected with this offer, so there is none to withdraw: revoke its connection, if it is to end (connections.revoke)";

/// Withdraws an offer. A stack that is being verified with it is verified to the end; nothing gives the offer back any more.
async fn cancel_in(tx: &Tx, tenant: TenantId, id: EnrollmentId, reason: &str) -> Result<Enrollment, StoreError> {
    let row = enrollment::Entity::of_tenant_by_id(tenant, id)
        .lock_exclusive()
        .one(&**tx)
        .await
        .during("locking the enrollment")?;
    let row = row.ok_or_else(|| no_such_enrollment(id))?;
    match row.state.0 {
        EnrollmentState::Open | EnrollmentState::Expired => {}
        EnrollmentState::Cancelled => return Ok(row.into()),
        // Still an offer: were the verification to fail, another stack could use it.
        EnrollmentState::Used if is_being_verified(tx, &row).await? => {}
        EnrollmentState::Used => return Err(StoreError::refused(ErrorCode::Conflict, USED)),
    }
    let mut change = row.into_active_model();
    change.state = Set(Text(EnrollmentState::Cancelled));
    change.updated_at = Set(At::now());
    let row = change.update(&**tx).await.during("withdrawing the enrollment")?;
    tx.send(id, EnrollmentCancelled { tenant, enrollment: id, reason: reason.to_owned() }).await?;
    tx.audit(AuditLine::new(Actor::Operator, "enrollment.cancelled", tenant, reason).enrollment(id)).await?;
    Ok(row.into())
}

/// Whether the verdict on the stack that uses the offer is still to come.
async fn is_being_verified(tx: &Tx, row: &enrollment::Model) -> Result<bool, StoreError> {
    let unproven = [ConnectionState::Registered, ConnectionState::Verifying].map(Text);
    let found = connection::Entity::find()
        .filter(connection::Column::EnrollmentId.eq(row.id))
        .filter(connection::Column::State.is_in(unproven))
        .one(&**tx)
        .await
        .during("looking for a stack that is being verified")?;
    Ok(found.is_some())
}
