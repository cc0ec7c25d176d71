//! Callbacks of stacks: duplicates, strangers, and the three kinds of request.

use std::time::Instant;

use contracts::{
    ConnectionId, EnrollmentId, TenantId,
    callback::{Answer, CallbackReceived, RequestType},
};
use tracing::{Instrument as _, field};

use super::{HandleError, Registry, answer};
use crate::{
    reasons::Refusal,
    store::{Actor, AuditLine, StoreError, Tx},
    transaction,
};

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Its role is being verified; the answer follows.
    Verifying,
    /// Answered FAILED, and the answer kept.
    Refused,
    /// Answered without a trace but a bounded audit.
    Stranger,
    /// A Delete whose role is being watched.
    Ending,
    /// A Delete that changes nothing.
    Ignored,
    /// Seen before: answered as then.
    Repeated,
    /// Seen before, and its answer still to come.
    StillVerifying,
}

impl Handled {
    const fn word(self) -> &'static str {
        match self {
            Self::Verifying => "verifying",
            Self::Refused => "refused",
            Self::Stranger => "stranger",
            Self::Ending => "ending",
            Self::Ignored => "ignored",
            Self::Repeated => "repeated",
            Self::StillVerifying => "still-verifying",
        }
    }
}

/// Whom a stranger's request named, as far as it named anybody.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named {
    pub(super) tenant: Option<TenantId>,
    pub(super) enrollment: Option<EnrollmentId>,
    pub(super) connection: Option<ConnectionId>,
}

impl Registry {
    /// Handles a callback. Idempotent by stack and request.
    ///
    /// # Errors
    /// When the store or the bus failed: nothing is lost by handling it again.
    pub async fn callback(&self, callback: &CallbackReceived) -> Result<Handled, HandleError> {
        let kind = match callback.request_type {
            RequestType::Create => "create",
            RequestType::Update => "update",
            RequestType::Delete => "delete",
        };
        let span = tracing::info_span!("decide on a callback", request = kind, result = field::Empty);
        let handled = self.decide(callback).instrument(span.clone()).await?;
        span.record("result", handled.word());
        self.metrics.callback(kind, handled.word());
        span.in_scope(
            || tracing::info!(request = kind, stack = %callback.key.stack_id, result = handled.word(), "callback handled"),
        );
        Ok(handled)
    }

    async fn decide(&self, callback: &CallbackReceived) -> Result<Handled, HandleError> {
        Ok(match answer::find(self.store.db(), &callback.key).await? {
            Some(row) => match answer::outcome_of(row) {
                Some(outcome) => {
                    self.publish(outcome).await?;
                    Handled::Repeated
                }
                None => Handled::StillVerifying,
            },
            None => self.first_time(callback).await?,
        })
    }

    async fn first_time(&self, callback: &CallbackReceived) -> Result<Handled, HandleError> {
        match (callback.request_type, &callback.claims) {
            (RequestType::Create, Some(claims)) => self.create(callback, claims).await,
            (RequestType::Update, Some(claims)) => self.update(callback, claims).await,
            (RequestType::Delete, claims) => self.delete(callback, claims.as_ref()).await,
            (_, None) => self.turn_away(callback, &Refusal::Incomplete, Named::default()).await,
        }
    }

    /// Answers a stranger FAILED, from what he sent alone.
    pub(super) async fn turn_away(
        &self,
        callback: &CallbackReceived,
        refusal: &Refusal,
        named: Named,
    ) -> Result<Handled, HandleError> {
        self.audit_stranger("callback.refused", refusal.word(), callback, named).await?;
        self.answer_unkept(callback, answer::failed(refusal)).await?;
        Ok(Handled::Stranger)
    }

    /// Answers a Delete that concerns nothing of ours.
    pub(super) async fn let_go(
        &self,
        callback: &CallbackReceived,
        why: &'static str,
        named: Named,
    ) -> Result<Handled, HandleError> {
        // Deletes after a failed Create are everyday; only one that names a living connection is worth a line.
        if named.connection.is_some() {
            self.audit_stranger("callback.delete-ignored", why, callback, named).await?;
        }
        self.answer_unkept(callback, Answer::Success { connection: None }).await?;
        Ok(Handled::Ignored)
    }

    /// One line while the budget lasts; the stack's account is a claim of the sender, and said so.
    async fn audit_stranger(
        &self,
        action: &'static str,
        why: &'static str,
        callback: &CallbackReceived,
        named: Named,
    ) -> Result<(), HandleError> {
        let Some(left_out) = self.budget.take(Instant::now()) else { return Ok(()) };
        let account = callback.key.stack_id.account();
        let more =
            if left_out > 0 { format!(" {left_out} earlier ones were not written down.") } else { String::new() };
        let line = AuditLine {
            actor: Actor::Stack,
            action,
            tenant: named.tenant,
            enrollment: named.enrollment,
            connection: named.connection,
            reason: format!("{why}: a request that says it is of account {account}.{more}"),
        };
        Ok(transaction!(self.store, tx => write_line(&tx, line.clone()))?)
    }
}

async fn write_line(tx: &Tx, line: AuditLine) -> Result<(), StoreError> {
    tx.audit(line).await
}
