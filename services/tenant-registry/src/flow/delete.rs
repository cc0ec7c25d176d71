//! A stack's Delete: answered SUCCESS at once, always. Whether the connection ends is for a probe to say, not for the request.

use std::time::Duration;

use contracts::{
    ConnectionId, JobId, Timestamp,
    callback::{Answer, CallbackReceived, Claims, RequestType},
    verification::ConfirmDeletion,
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ModelTrait, QueryFilter};

use super::{
    HandleError, Registry, answer,
    callbacks::{Handled, Named},
    update::{Known, find_known, lock_known},
};
use crate::{
    decide::{self, DeleteDecision},
    entity::{At, Id, Text, connection, enrollment, external_id, job},
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// How long the broker watches whether the role goes away: the stack removes it after us, and IAM needs its time.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15 * 60);

/// A watch that has less time left does not stand for a new one. So a stack that sends Delete after Delete has one every few minutes, and no more.
const LEFT_AT_LEAST: Duration = Duration::from_secs(10 * 60);

/// How a transaction of ours ended.
enum Ended {
    Handled(Handled),
    Nothing(&'static str),
}

impl Registry {
    pub(super) async fn delete(
        &self,
        callback: &CallbackReceived,
        claims: Option<&Claims>,
    ) -> Result<Handled, HandleError> {
        let known = find_known(self.store.db(), callback, claims).await?;
        let named = known.as_ref().map_or_else(Named::default, Known::named);
        if let DeleteDecision::Nothing(why) = decide::delete(callback, known.as_ref().map(|known| &known.facts)) {
            return self.let_go(callback, why, named).await;
        }
        match transaction!(self.store, tx => delete_in(&tx, callback, claims))? {
            Ended::Handled(handled) => Ok(handled),
            Ended::Nothing(why) => self.let_go(callback, why, named).await,
        }
    }
}

async fn delete_in(tx: &Tx, callback: &CallbackReceived, claims: Option<&Claims>) -> Result<Ended, StoreError> {
    if answer::find(&**tx, &callback.key).await?.is_some() {
        return Ok(Ended::Handled(Handled::Repeated));
    }
    let Some(known) = lock_known(tx, callback, claims).await? else { return Ok(Ended::Nothing("unknown-connection")) };
    if let DeleteDecision::Nothing(why) = decide::delete(callback, Some(&known.facts)) {
        return Ok(Ended::Nothing(why));
    }
    let waiting = answer::keep(tx, callback, known.whose()).await?;
    order_confirmation(tx, &known.row).await?;
    let reason = "The stack is being deleted; the connection ends when its role refuses us.";
    let line = AuditLine::new(Actor::Stack, "connection.delete-requested", known.row.tenant_id.0, reason);
    tx.audit(line.enrollment(known.enrollment.id.0).connection(known.row.id.0)).await?;
    answer::give(tx, waiting, Answer::Success { connection: Some(known.row.id.0) }).await?;
    Ok(Ended::Handled(Handled::Ending))
}

/// One watch at a time, of what serves now and with time enough to see it go. Any other is forgotten for a new one: its report is late.
async fn order_confirmation(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    let watches = job::Entity::find()
        .filter(job::Column::ConnectionId.eq(row.id))
        .filter(job::Column::Kind.eq(Text(job::JobKind::ConfirmDeletion)))
        .all(&**tx)
        .await
        .during("looking for a watch")?;
    let enough = At(Timestamp::now().plus(LEFT_AT_LEAST));
    for watch in watches {
        let of_present = watch.role_arn == row.role_arn && watch.external_id.as_ref() == Some(&row.external_id);
        if of_present && watch.deadline >= enough {
            return Ok(());
        }
        watch.delete(&**tx).await.during("forgetting a watch")?;
    }
    let now = Timestamp::now();
    let job = ConfirmDeletion {
        job: JobId::new(),
        tenant: row.tenant_id.0,
        connection: row.id.0,
        role_arn: row.role_arn.0.clone(),
        external_id: row.external_id.0.clone(),
        region: row.region.0.clone(),
        deadline: now.plus(CONFIRM_WITHIN),
    };
    let open = job::ActiveModel {
        id: Set(Id(job.job)),
        tenant_id: Set(row.tenant_id),
        connection_id: Set(row.id),
        kind: Set(Text(job::JobKind::ConfirmDeletion)),
        role_arn: Set(row.role_arn.clone()),
        cost_export: Set(None),
        callback_id: Set(None),
        deadline: Set(At(job.deadline)),
        created_at: Set(At(now)),
        external_id: Set(Some(row.external_id.clone())),
        retired_external_id: Set(None),
        template_version: Set(None),
    };
    open.insert(&**tx).await.during("noting the watch")?;
    tx.send(row.id.0, job).await
}

/// The living connection of the stack that sends this Delete, by its token: a stack whose Create CloudFormation rolled back before it heard from us knows no
/// physical ID of ours, and its connection could never end.
pub(super) async fn by_token(
    db: &impl ConnectionTrait,
    callback: &CallbackReceived,
    claims: Option<&Claims>,
) -> Result<Option<ConnectionId>, StoreError> {
    let Some(claims) = claims.filter(|_| callback.request_type == RequestType::Delete) else { return Ok(None) };
    let good_for = external_id::Entity::enrollments(&claims.external_id);
    let offer = enrollment::Entity::find().filter(enrollment::Column::Id.in_subquery(good_for));
    let offer = offer.one(db).await.during("looking for the offer")?;
    let Some(offer) = offer.filter(|offer| offer.token_hash.0.matches(&claims.token_hash)) else { return Ok(None) };
    let live = connection::Entity::find()
        .filter(connection::Column::EnrollmentId.eq(offer.id))
        .filter(connection::Column::StackId.eq(Text(callback.key.stack_id.clone())))
        .filter(connection::Column::State.is_not_in(connection::ENDED.map(Text)));
    let row = live.one(db).await.during("looking for the stack's connection")?;
    Ok(row.map(|row| row.id.0))
}
