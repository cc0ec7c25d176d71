//! Taking credentials back, step by step. Each step is a row: shown, tried again until it is done, and gone on with after a crash.
//!
//! | step | done when |
//! |---|---|
//! | grant withdrawn | the stream of grants has it: every broker instance hears of it within milliseconds, and asks the stream when it cannot hear |
//! | sessions denied | the broker reports that the principal's role denies what it began before |
//! | principal removed | the broker reports that user, keys and role are gone |
//!
//! A suspension and the revocation of one connection hand out both of the first two at once. A deletion goes strictly one after the other: what is denied by time must not
//! be begun again by a grant that is still there, and the principal must not go while anybody may be using it.
//!
//! A job that nobody reports on is handed out again (the same job, a new message), after a minute and then after twice as long each time, up to an hour.

use std::{collections::BTreeMap, time::Duration};

use contracts::{
    ConnectionId, JobId, Message as _, TenantId, Timestamp,
    connection::Grant,
    revocation::{DenySessions, RemovePrincipal, RevocationAction, RevocationReported, RevocationStep},
    tenant::TenantState,
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{ExprTrait, SimpleExpr},
};

use super::{HandleError, Registry, deletion, reports::Reported};
use crate::{
    entity::{
        At, Id, Text, connection, outbox,
        revocation::{self, Column, Entity, Model},
        tenant,
    },
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

const FIRST_AGAIN: Duration = Duration::from_secs(60);
const LAST_AGAIN: Duration = Duration::from_secs(3600);
/// Steps that are looked at together.
const PAGE: u64 = 200;

const ALL: [RevocationAction; 3] =
    [RevocationAction::GrantWithdrawn, RevocationAction::SessionsDenied, RevocationAction::PrincipalRemoved];

/// What is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whose {
    pub(super) tenant: TenantId,
    /// Absent when it is all of the tenant's.
    pub(super) connection: Option<ConnectionId>,
}

impl Whose {
    fn steps(self) -> sea_orm::Select<Entity> {
        let of_tenant = Entity::of_tenant(self.tenant);
        match self.connection {
            Some(connection) => of_tenant.filter(Column::ConnectionId.eq(Id(connection))),
            None => of_tenant.filter(Column::ConnectionId.is_null()),
        }
    }

    /// In the order of the grants before it, so that whoever denies has heard that nothing new is to be begun.
    fn key(self) -> String {
        self.connection.map_or_else(|| self.tenant.to_string(), |connection| connection.to_string())
    }
}

impl Registry {
    /// Goes on with every revocation that is not done. Returns how many steps are open.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_revocations(&self, now: Timestamp) -> Result<usize, HandleError> {
        let (mut open, mut after) = (0, None::<Id<JobId>>);
        loop {
            let mut query = Entity::find().filter(Column::DoneAt.is_null()).order_by_asc(Column::Id).limit(PAGE);
            if let Some(after) = after {
                query = query.filter(Column::Id.gt(after));
            }
            let page = query.all(self.store.db()).await.during("looking for open revocations")?;
            let Some(last) = page.last() else { return Ok(open) };
            after = Some(last.id);
            open += page.len();
            let whose = page.iter().map(|step| (Whose::from(step), ()));
            for (whose, ()) in whose.collect::<BTreeMap<_, _>>() {
                // One that fails must not keep the others waiting.
                if let Err(error) = self.go_on(whose, now).await {
                    let tenant = whose.tenant;
                    tracing::warn!(%tenant, error = %crate::chain(&error), "a revocation could not go on, trying again");
                }
            }
        }
    }

    async fn go_on(&self, whose: Whose, now: Timestamp) -> Result<(), HandleError> {
        if whose.connection.is_none() {
            self.end_what_lives(whose.tenant).await?;
        }
        Ok(transaction!(self.store, tx => go_on_in(&tx, whose, now))?)
    }

    /// # Errors
    /// When the store fails; handling it again is safe.
    pub async fn revocation_reported(&self, report: &RevocationReported) -> Result<Reported, HandleError> {
        let result = transaction!(self.store, tx => reported_in(&tx, report))?;
        let (tenant, action, done) = (report.tenant, report.action, report.done);
        tracing::info!(%tenant, ?action, done, late = result == Reported::Late, "report on a revocation handled");
        Ok(result)
    }
}

impl From<&Model> for Whose {
    fn from(step: &Model) -> Self {
        Self { tenant: step.tenant_id.0, connection: step.connection_id.map(|id| id.0) }
    }
}

/// Begins to take back, in the transaction that withdraws the grants. What was begun for the same before makes way.
pub(super) async fn begin(tx: &Tx, whose: Whose) -> Result<(), StoreError> {
    forget(tx, whose).await?;
    let now = Timestamp::now();
    note(tx, whose, RevocationAction::GrantWithdrawn, now, "", true).await?;
    let job = note(tx, whose, RevocationAction::SessionsDenied, now, "", true).await?;
    hand_out(tx, &job).await
}

/// Begins to take everything back, one step after the other.
pub(super) async fn begin_deletion(tx: &Tx, tenant: TenantId, reason: &str) -> Result<(), StoreError> {
    let whose = Whose { tenant, connection: None };
    forget(tx, whose).await?;
    for action in ALL {
        note(tx, whose, action, Timestamp::now(), reason, false).await?;
    }
    Ok(())
}

async fn forget(tx: &Tx, whose: Whose) -> Result<(), StoreError> {
    for step in whose.steps().all(&**tx).await.during("looking for earlier steps")? {
        Entity::delete_by_id(step.id).exec(&**tx).await.during("making way for new steps")?;
    }
    Ok(())
}

async fn note(
    tx: &Tx,
    whose: Whose,
    action: RevocationAction,
    now: Timestamp,
    reason: &str,
    sent: bool,
) -> Result<Model, StoreError> {
    let row = revocation::ActiveModel {
        id: Set(Id(JobId::new())),
        tenant_id: Set(Id(whose.tenant)),
        connection_id: Set(whose.connection.map(Id)),
        action: Set(Text(action)),
        before: Set(At(now)),
        reason: Set(Some(reason.to_owned()).filter(|reason| !reason.is_empty())),
        sent_at: Set(sent.then_some(At(now))),
        done_at: Set(None),
        waiting_for: Set(Some(waits_for(action, sent).to_owned())),
        created_at: Set(At(now)),
    };
    row.insert(&**tx).await.during("noting a step of the revocation")
}

/// What a step waits for that nobody has reported on.
const fn waits_for(action: RevocationAction, sent: bool) -> &'static str {
    match action {
        RevocationAction::GrantWithdrawn => "the grants to be published",
        RevocationAction::SessionsDenied | RevocationAction::PrincipalRemoved if sent => "role-chain-broker",
        RevocationAction::SessionsDenied | RevocationAction::PrincipalRemoved => "the step before it",
    }
}

async fn hand_out(tx: &Tx, step: &Model) -> Result<(), StoreError> {
    let (job, tenant, whose) = (step.id.0, step.tenant_id.0, Whose::from(step));
    match step.action.0 {
        RevocationAction::GrantWithdrawn => Ok(()),
        RevocationAction::SessionsDenied => {
            let order = DenySessions { job, tenant, connection: whose.connection, before: step.before.0 };
            tx.send(whose.key(), order).await
        }
        RevocationAction::PrincipalRemoved => tx.send(whose.key(), RemovePrincipal { job, tenant }).await,
    }
}

/// Brings the steps on as far as they go. The tenant's lock keeps two from doing it at once.
async fn go_on_in(tx: &Tx, whose: Whose, now: Timestamp) -> Result<(), StoreError> {
    let by_id = tenant::Entity::find_by_id(Id(whose.tenant));
    by_id.lock_exclusive().one(&**tx).await.during("locking the tenant")?;
    let mut steps = whose.steps().all(&**tx).await.during("reading the revocation's steps")?;
    steps.sort_by_key(|step| step.action.0);
    let mut before_done = true;
    for step in steps {
        let done = step.done_at.is_some();
        let step = match step {
            step if done => step,
            step if step.action.0 == RevocationAction::GrantWithdrawn => note_withdrawn(tx, whose, step, now).await?,
            step if step.sent_at.is_none() && before_done => send(tx, step, now, true).await?,
            step if step.sent_at.is_some_and(|sent| is_due(&step, sent.0, now)) => send(tx, step, now, false).await?,
            step => step,
        };
        before_done = step.done_at.is_some();
    }
    Ok(())
}

/// Twice as long each time.
fn is_due(step: &Model, sent: Timestamp, now: Timestamp) -> bool {
    let waited = step.created_at.0.until(sent).clamp(FIRST_AGAIN, LAST_AGAIN);
    sent.plus(waited) <= now
}

async fn send(tx: &Tx, step: Model, now: Timestamp, first: bool) -> Result<Model, StoreError> {
    let action = step.action.0;
    let mut change = step.into_active_model();
    change.sent_at = Set(Some(At(now)));
    if first {
        // What was begun until this very moment is denied: nothing is begun any more.
        change.before = Set(At(now));
        change.created_at = Set(At(now));
        change.waiting_for = Set(Some(waits_for(action, true).to_owned()));
    }
    let step = change.update(&**tx).await.during("handing out a step")?;
    hand_out(tx, &step).await?;
    Ok(step)
}

async fn note_withdrawn(tx: &Tx, whose: Whose, step: Model, now: Timestamp) -> Result<Model, StoreError> {
    if !is_withdrawn(tx, whose).await? {
        return Ok(step);
    }
    let mut change = step.into_active_model();
    change.done_at = Set(Some(At(now)));
    change.update(&**tx).await.during("noting that the grants are withdrawn")
}

/// Whether the last word on every connection is published. Of a tenant that is being deleted none may be left to speak of.
async fn is_withdrawn(tx: &Tx, whose: Whose) -> Result<bool, StoreError> {
    let of_connection = whose.connection.map_or_else(|| "%".to_owned(), |connection| connection.to_string());
    let subject = Grant::SUBJECT.replacen('*', &whose.tenant.to_string(), 1).replacen('*', &of_connection, 1);
    let waiting = outbox::Entity::find().filter(outbox::Column::Subject.like(subject));
    if waiting.count(&**tx).await.during("looking for grants in the outbox")? > 0 {
        return Ok(false);
    }
    let owner = tenant::Entity::find_by_id(Id(whose.tenant)).one(&**tx).await.during("reading the tenant")?;
    let ends = owner.is_some_and(|owner| matches!(owner.state.0, TenantState::Deleting));
    if whose.connection.is_some() || !ends {
        return Ok(true);
    }
    let live = connection::Entity::of_tenant(whose.tenant)
        .filter(connection::Column::State.is_not_in(connection::ENDED.map(Text)));
    Ok(live.count(&**tx).await.during("counting connections")? == 0)
}

async fn reported_in(tx: &Tx, report: &RevocationReported) -> Result<Reported, StoreError> {
    let by_id = tenant::Entity::find_by_id(Id(report.tenant));
    let Some(owner) = by_id.lock_exclusive().one(&**tx).await.during("locking the tenant")? else {
        return Ok(Reported::Late);
    };
    let step = Entity::of_tenant_by_id(report.tenant, report.job)
        .filter(Column::Action.eq(Text(report.action)))
        .filter(Column::DoneAt.is_null())
        .one(&**tx)
        .await
        .during("looking for the step")?;
    let Some(step) = step else { return Ok(Reported::Late) };
    let (whose, reason, now) = (Whose::from(&step), step.reason.clone(), Timestamp::now());
    let mut change = step.into_active_model();
    if report.done {
        change.done_at = Set(Some(At(now)));
    } else {
        let waiting: Option<String> = report.waiting_for.as_ref().map(|text| text.chars().take(500).collect());
        change.waiting_for = Set(waiting);
    }
    change.update(&**tx).await.during("noting the report")?;
    if !report.done {
        return Ok(Reported::Applied);
    }
    let action = match report.action {
        RevocationAction::GrantWithdrawn => return Ok(Reported::Applied),
        RevocationAction::SessionsDenied => "revocation.sessions-denied",
        RevocationAction::PrincipalRemoved => "principal.removed",
    };
    let mut line = AuditLine::new(Actor::Broker, action, report.tenant, said(report.action));
    line.connection = whose.connection;
    tx.audit(line).await?;
    if report.action == RevocationAction::PrincipalRemoved {
        deletion::finish(tx, owner, reason.unwrap_or_default()).await?;
    } else {
        go_on_in(tx, whose, now).await?;
    }
    Ok(Reported::Applied)
}

const fn said(action: RevocationAction) -> &'static str {
    match action {
        RevocationAction::PrincipalRemoved => "The tenant's IAM user, its access keys and its role are gone.",
        _ => "What the tenant's principal began before is denied.",
    }
}

/// The steps of these tenants' suspensions and deletions.
pub(super) async fn of_tenants(
    db: &impl ConnectionTrait,
    tenants: Vec<Id<TenantId>>,
) -> Result<BTreeMap<TenantId, Vec<RevocationStep>>, StoreError> {
    let which = Column::TenantId.is_in(tenants.clone()).and(Column::ConnectionId.is_null());
    steps_where(db, which, tenants.is_empty(), |step| Some(step.tenant_id.0)).await
}

/// The steps of these connections' revocations.
pub(super) async fn of_connections(
    db: &impl ConnectionTrait,
    connections: Vec<Id<ConnectionId>>,
) -> Result<BTreeMap<ConnectionId, Vec<RevocationStep>>, StoreError> {
    let nobody = connections.is_empty();
    steps_where(db, Column::ConnectionId.is_in(connections), nobody, |step| step.connection_id.map(|id| id.0)).await
}

async fn steps_where<T: Ord>(
    db: &impl ConnectionTrait,
    which: SimpleExpr,
    nobody: bool,
    whose: impl Fn(&Model) -> Option<T>,
) -> Result<BTreeMap<T, Vec<RevocationStep>>, StoreError> {
    let mut by_whose = BTreeMap::<T, Vec<RevocationStep>>::new();
    if nobody {
        return Ok(by_whose);
    }
    for row in Entity::find().filter(which).all(db).await.during("reading revocations")? {
        if let Some(whose) = whose(&row) {
            by_whose.entry(whose).or_default().push(row.into());
        }
    }
    for steps in by_whose.values_mut() {
        steps.sort_by_key(|step| step.action);
    }
    Ok(by_whose)
}
