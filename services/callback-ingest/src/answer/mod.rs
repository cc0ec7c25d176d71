//! Answers to CloudFormation: from an outcome on the bus to a PUT of the `ResponseURL`.
//!
//! Failure: what may pass (no connection, 5xx) is tried again at once a few times and then by redelivery, until the answer's deadline; what will
//! not (a refusal by S3, a box that does not open, an address against the rules) goes to dead letters with the reason. Cancel: the try in hand
//! is finished; the rest comes again from the stream. Idempotent by [`Ledger`].

mod address;
mod body;
mod in_hand;
mod ledger;
mod put;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use contracts::{
    Timestamp,
    callback::{Answer, CallbackKey, CallbackOutcome},
};
use messaging::{Disposition, seal::SealSeed};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field};

use crate::{chain, metrics::Metrics};

pub use address::{AddressError, AddressRules, AnswerAddress, ParseOriginError, SandboxOrigin};
pub use body::{BodyError, MOST_BYTES, write};
pub use in_hand::InHand;
pub use ledger::{BUCKET, Ledger, LedgerError, MemoryLedger};
pub use put::{HttpPut, Put, PutError};

/// Waits between tries in one delivery.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const TRIES: usize = 4;
/// Wait before the outcome is delivered once more.
const NEXT_DELIVERY: Duration = Duration::from_secs(5);

/// Sends outcomes as answers.
pub struct Answerer {
    pub seed: Arc<SealSeed>,
    pub rules: AddressRules,
    pub ledger: Arc<dyn Ledger>,
    pub put: Arc<dyn Put>,
    pub in_hand: InHand,
    /// How long after the callback came an answer is worth trying again. One try is made in any case.
    pub deadline: Duration,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
}

/// Why an outcome cannot be answered, now or ever. Holds no secret.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the sealed ResponseURL does not open with this service's key: was ROLEBRIDGE_INGEST_KEY_FILE replaced?")]
    Sealed,
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Answerer {
    /// Answers one outcome.
    pub async fn handle(&self, outcome: &CallbackOutcome) -> Disposition {
        let Some(_hold) = self.in_hand.take(&outcome.key) else {
            return Disposition::Later { after: NEXT_DELIVERY };
        };
        match self.ledger.is_answered(&outcome.key).await {
            Ok(false) => {}
            Ok(true) => {
                self.metrics.answer("duplicate");
                return Disposition::Done;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "it is not known whether a request is answered");
                return Disposition::Later { after: NEXT_DELIVERY };
            }
        }
        match self.send(outcome).await {
            Ok(()) => self.sent(outcome).await,
            Err(error @ Unanswered::Put(PutError::Transient(_))) if !self.is_over(outcome) => {
                tracing::warn!(stack = %outcome.key.stack_id, %error, "an answer will be tried again");
                self.metrics.answer("retried");
                Disposition::Later { after: NEXT_DELIVERY }
            }
            Err(error) => {
                tracing::error!(stack = %outcome.key.stack_id, %error, "a stack was not answered");
                self.metrics.answer("failed");
                Disposition::Refuse { reason: error.to_string() }
            }
        }
    }

    async fn sent(&self, outcome: &CallbackOutcome) -> Disposition {
        let status = match &outcome.answer {
            Answer::Success { .. } => "success",
            Answer::Failed { .. } => "failure",
        };
        self.metrics.answer(status);
        self.metrics.answered_after(outcome.received_at.until(Timestamp::now()));
        tracing::info!(stack = %outcome.key.stack_id, status, "a stack was answered");
        // Were the outcome delivered again for this, the answer would surely be sent twice; so, only if a duplicate comes.
        if let Err(error) = self.remember(&outcome.key).await {
            tracing::warn!(error = chain(&error), "an answer was sent and could not be remembered");
        }
        Disposition::Done
    }

    /// With patience: while NATS is away, so is the acknowledgement of the outcome, which then surely comes again.
    async fn remember(&self, key: &CallbackKey) -> Result<(), LedgerError> {
        let mut waits = waits();
        loop {
            let result = self.ledger.answered(key).await;
            let Some(wait) = waits.next().filter(|_| result.is_err()) else { return result };
            if self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return result;
            }
        }
    }

    fn is_over(&self, outcome: &CallbackOutcome) -> bool {
        outcome.received_at.plus(self.deadline).has_passed()
    }

    async fn send(&self, outcome: &CallbackOutcome) -> Result<(), Unanswered> {
        let opened =
            self.seed.open(self.seed.public(), &outcome.return_address.sealed_url).map_err(|_| Unanswered::Sealed)?;
        let text = std::str::from_utf8(&opened).map_err(|_| Unanswered::Sealed)?;
        // Checked when it was sealed; and again, since the stack beside it has been elsewhere in the meantime.
        let address = self.rules.check(text, &outcome.key.stack_id)?;
        let body = body::write(outcome)?;
        let mut waits = waits();
        loop {
            let started = std::time::Instant::now();
            let span = tracing::info_span!(
                "answer CloudFormation",
                otel.kind = "client",
                http.request.method = "PUT",
                ok = field::Empty
            );
            let result = self.put.put(&address, body.clone()).instrument(span.clone()).await;
            span.record("ok", result.is_ok());
            self.metrics.put_took(started.elapsed(), result.is_ok());
            match (result, waits.next()) {
                (Err(PutError::Transient(_)), Some(wait)) if !self.is_over(outcome) => {
                    let stopped = self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none();
                    if stopped {
                        return Err(PutError::Transient("the service is shutting down".to_owned()).into());
                    }
                }
                (result, _) => return result.map_err(Unanswered::Put),
            }
        }
    }
}

/// The waits between the [`TRIES`] of one delivery.
fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_times(TRIES - 1).with_jitter().build()
}

#[cfg(test)]
mod tests;
