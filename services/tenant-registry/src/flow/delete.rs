//! A stack's Delete: answered SUCCESS at once, always. Whether the connection ends is for a probe to say, not for the request.

use std::time::Duration;

use contracts::{
    JobId, Timestamp,
    callback::{Answer, CallbackReceived, Claims},
    verification::ConfirmDeletion,
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};

use super::{
    HandleError, Registry, answer,
    callbacks::{Handled, Named},
    update::{Known, find_known, lock_known},
};
use crate::{
    decide::{self, DeleteDecision},
    entity::{At, Id, Text, connection, job},
    store::{Actor, AuditLine, During, StoreError, Tx},
    transaction,
};

/// How long the broker watches whether the role goes away: the stack removes it after us, and IAM needs its time.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15 * 60);

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

/// One watch at a time is enough.
async fn order_confirmation(tx: &Tx, row: &connection::Model) -> Result<(), StoreError> {
    let watching = job::Entity::find()
        .filter(job::Column::ConnectionId.eq(row.id))
        .filter(job::Column::Kind.eq(Text(job::JobKind::ConfirmDeletion)))
        .one(&**tx)
        .await
        .during("looking for a watch")?;
    if watching.is_some() {
        return Ok(());
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
    };
    open.insert(&**tx).await.during("noting the watch")?;
    tx.send(row.id.0, job).await
}
