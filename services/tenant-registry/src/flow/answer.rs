//! Answers to stacks: kept with their request, so that a duplicate gets the same one.

use contracts::{
    ConnectionId, EnrollmentId, TenantId,
    callback::{Answer, CallbackKey, CallbackOutcome, CallbackReceived, RequestType},
};
use messaging::RawMessage;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
};
use uuid::Uuid;

use super::{HandleError, Registry};
use crate::{
    decide,
    entity::{At, Id, Json, Text, callback},
    reasons::Refusal,
    store::{During, StoreError, Tx},
};

/// Whose request it is. Known only once the token was right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    pub(super) tenant: TenantId,
    pub(super) enrollment: EnrollmentId,
    pub(super) connection: Option<ConnectionId>,
}

pub(super) fn failed(refusal: &Refusal) -> Answer {
    Answer::Failed { reason: refusal.to_string() }
}

/// The request with this key, if it was kept.
pub(super) async fn find(db: &impl ConnectionTrait, key: &CallbackKey) -> Result<Option<callback::Model>, StoreError> {
    callback::Entity::find()
        .filter(callback::Column::StackId.eq(Text(key.stack_id.clone())))
        .filter(callback::Column::RequestId.eq(key.request_id.as_str()))
        .one(db)
        .await
        .during("looking for the callback")
}

/// Keeps the request, not yet answered.
pub(super) async fn keep(tx: &Tx, callback: &CallbackReceived, whose: Whose) -> Result<callback::Model, StoreError> {
    let physical_id = match whose.connection {
        // CloudFormation wants what it sent, even when it never heard of ours.
        Some(connection) if callback.request_type != RequestType::Delete => decide::physical_id(connection),
        _ => echoed(callback),
    };
    let row = callback::ActiveModel {
        id: Set(Uuid::now_v7()),
        stack_id: Set(Text(callback.key.stack_id.clone())),
        request_id: Set(callback.key.request_id.clone()),
        request_type: Set(Text(callback.request_type)),
        tenant_id: Set(Id(whose.tenant)),
        enrollment_id: Set(Id(whose.enrollment)),
        connection_id: Set(whose.connection.map(Id)),
        return_address: Set(Json(callback.return_address.clone())),
        physical_resource_id: Set(physical_id),
        answer: Set(None),
        received_at: Set(At(callback.received_at)),
        created_at: Set(At::now()),
        answered_at: Set(None),
    };
    row.insert(&**tx).await.during("keeping the callback")
}

/// Answers a kept request, once: what was answered stays answered.
pub(super) async fn give(tx: &Tx, row: callback::Model, answer: Answer) -> Result<(), StoreError> {
    if row.answer.is_some() {
        return Ok(());
    }
    let mut change = row.into_active_model();
    change.answer = Set(Some(Json(answer)));
    change.answered_at = Set(Some(At::now()));
    let row = change.update(&**tx).await.during("keeping the answer")?;
    let key = row.connection_id.map_or_else(|| row.id.to_string(), |connection| connection.0.to_string());
    if let Some(outcome) = outcome_of(row) {
        tx.send(key, outcome).await?;
    }
    Ok(())
}

/// What a kept request was answered; `None` while it waits.
pub(super) fn outcome_of(row: callback::Model) -> Option<CallbackOutcome> {
    Some(CallbackOutcome {
        answer: row.answer?.0,
        key: CallbackKey { stack_id: row.stack_id.0, request_id: row.request_id },
        physical_resource_id: row.physical_resource_id,
        return_address: row.return_address.0,
        received_at: row.received_at.0,
    })
}

/// The physical ID to answer with when there is no connection: the sender's own, or one that says so. Another one than the sender's
/// would make CloudFormation delete the old resource.
pub(super) fn echoed(callback: &CallbackReceived) -> String {
    callback.physical_resource_id.clone().unwrap_or_else(|| decide::NO_CONNECTION.to_owned())
}

impl Registry {
    /// Answers without keeping anything.
    pub(super) async fn answer_unkept(&self, callback: &CallbackReceived, answer: Answer) -> Result<(), HandleError> {
        let outcome = CallbackOutcome {
            key: callback.key.clone(),
            answer,
            physical_resource_id: echoed(callback),
            return_address: callback.return_address.clone(),
            received_at: callback.received_at,
        };
        self.publish(outcome).await
    }

    pub(super) async fn publish(&self, outcome: CallbackOutcome) -> Result<(), HandleError> {
        let message = RawMessage::encode(&messaging::event(outcome))?;
        Ok(self.outlet.publish(&message).await?)
    }
}
