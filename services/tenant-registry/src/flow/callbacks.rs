//! Callbacks of stacks: duplicates, strangers, and the three kinds of request.

use std::time::Instant;

use contracts::{
    ConnectionId, EnrollmentId, TenantId,
    callback::{Answer, CallbackReceived, RequestType},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tracing::{Instrument as _, field};

use super::{HandleError, Registry, answer, strangers::Admitted};
use crate::{
    entity::{enrollment, external_id},
    reasons::Refusal,
    store::{Actor, AuditLine, During, StoreError, Tx},
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
    /// A stranger beyond the limits: counted and not answered.
    Dropped,
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
    /// As metrics and logs have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Verifying => "verifying",
            Self::Refused => "refused",
            Self::Stranger => "stranger",
            Self::Dropped => "dropped",
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
        // A flood must not flood the log.
        if handled != Handled::Dropped {
            span.in_scope(
                || tracing::info!(request = kind, stack = %callback.key.stack_id, result = handled.word(), "callback handled"),
            );
        }
        Ok(handled)
    }

    async fn decide(&self, callback: &CallbackReceived) -> Result<Handled, HandleError> {
        // What is known to be nobody's costs no look-up, unless it is one of the few that are answered.
        let admitted = match self.names_nobody(callback).await {
            false => None,
            true => match self.admit(callback) {
                Some(admitted) => Some(admitted),
                None => return Ok(Handled::Dropped),
            },
        };
        match (answer::find(self.store.db(), &callback.key).await?, admitted) {
            (Some(row), _) => match answer::outcome_of(row) {
                Some(outcome) => {
                    self.publish(outcome).await?;
                    Ok(Handled::Repeated)
                }
                None => Ok(Handled::StillVerifying),
            },
            (None, Some(admitted)) => {
                self.answer_stranger(callback, &Refusal::NoSuchOffer, Named::default(), admitted).await
            }
            (None, None) => self.first_time(callback).await,
        }
    }

    /// Whether it is a Create with an external ID that was looked for a moment ago and is nobody's.
    async fn names_nobody(&self, callback: &CallbackReceived) -> bool {
        match &callback.claims {
            Some(claims) if callback.request_type == RequestType::Create => {
                self.strangers.is_unknown(&claims.external_id).await
            }
            _ => false,
        }
    }

    fn admit(&self, callback: &CallbackReceived) -> Option<Admitted> {
        self.strangers.admit(callback.key.stack_id.account(), Instant::now())
    }

    /// Whether the sender of an Update or Delete that fits no connection holds the token of the offer it names: a stack whose Create failed is deleted, and
    /// must not wait for its answer because of what others send. (A Create with the right token is never a stranger's, but for an offer's hundredth refusal.)
    async fn holds_a_token(&self, callback: &CallbackReceived) -> Result<bool, StoreError> {
        let Some(claims) = callback.claims.as_ref().filter(|_| callback.request_type != RequestType::Create) else {
            return Ok(false);
        };
        let named = external_id::Entity::enrollments(&claims.external_id);
        let offer = enrollment::Entity::find().filter(enrollment::Column::Id.in_subquery(named)).one(self.store.db());
        let offer = offer.await.during("looking for the offer")?;
        Ok(offer.is_some_and(|offer| offer.token_hash.0.matches(&claims.token_hash)))
    }

    async fn first_time(&self, callback: &CallbackReceived) -> Result<Handled, HandleError> {
        match (callback.request_type, &callback.claims) {
            (RequestType::Create, Some(claims)) => self.create(callback, claims).await,
            (RequestType::Update, Some(claims)) => self.update(callback, claims).await,
            (RequestType::Delete, claims) => self.delete(callback, claims.as_ref()).await,
            (_, None) => self.turn_away(callback, &Refusal::Incomplete, Named::default()).await,
        }
    }

    /// Answers a stranger FAILED, from what he sent alone; or not at all, when there are too many of them.
    pub(super) async fn turn_away(
        &self,
        callback: &CallbackReceived,
        refusal: &Refusal,
        named: Named,
    ) -> Result<Handled, HandleError> {
        let of_nobody = *refusal == Refusal::NoSuchOffer && named.enrollment.is_none();
        if let Some(claims) = callback.claims.as_ref().filter(|_| of_nobody) {
            self.strangers.remember_unknown(&claims.external_id).await;
        }
        match self.admit_unless_known(callback).await? {
            Some(admitted) => self.answer_stranger(callback, refusal, named, admitted).await,
            None => Ok(Handled::Dropped),
        }
    }

    async fn admit_unless_known(&self, callback: &CallbackReceived) -> Result<Option<Admitted>, HandleError> {
        Ok(if self.holds_a_token(callback).await? { Some(Admitted::KNOWN) } else { self.admit(callback) })
    }

    async fn answer_stranger(
        &self,
        callback: &CallbackReceived,
        refusal: &Refusal,
        named: Named,
        _: Admitted,
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
        if self.admit_unless_known(callback).await?.is_none() {
            return Ok(Handled::Dropped);
        }
        // Deletes after a failed Create are everyday; only one that names a living connection is worth a line.
        if named.connection.is_some() {
            self.audit_stranger("callback.delete-ignored", why, callback, named).await?;
        }
        self.answer_unkept(callback, Answer::Success { connection: None }).await?;
        Ok(Handled::Ignored)
    }

    /// Writes down what was left out of the log in a minute that is over, so that the end of a flood is told too.
    ///
    /// # Errors
    /// When the store fails: the numbers are lost.
    pub async fn tell_of_strangers(&self, now: Instant) -> Result<(), HandleError> {
        let Some(untold) = self.strangers.left_untold(now) else { return Ok(()) };
        let line = AuditLine {
            actor: Actor::Registry,
            action: "callback.strangers",
            tenant: None,
            enrollment: None,
            connection: None,
            reason: format!("Requests of strangers that stand in no other line:{untold}"),
        };
        Ok(transaction!(self.store, tx => write_line(&tx, line.clone()))?)
    }

    /// One line while there are any left; the stack's account is a claim of the sender, and said so.
    async fn audit_stranger(
        &self,
        action: &'static str,
        why: &'static str,
        callback: &CallbackReceived,
        named: Named,
    ) -> Result<(), HandleError> {
        let Some(untold) = self.strangers.line(Instant::now()) else { return Ok(()) };
        let account = callback.key.stack_id.account();
        let line = AuditLine {
            actor: Actor::Stack,
            action,
            tenant: named.tenant,
            enrollment: named.enrollment,
            connection: named.connection,
            reason: format!("{why}: a request that says it is of account {account}.{untold}"),
        };
        Ok(transaction!(self.store, tx => write_line(&tx, line.clone()))?)
    }
}

async fn write_line(tx: &Tx, line: AuditLine) -> Result<(), StoreError> {
    tx.audit(line).await
}
