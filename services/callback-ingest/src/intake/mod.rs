//! From a message in the queue to a message on the bus.
//!
//! [`Intake::handle`] decides and publishes; [`poll`] takes from the queue and deletes what is settled. Cancel: no more is taken, what is in hand
//! is finished. Failure: whatever could not be stored on the bus stays in the queue and comes again, later each time.

mod outlet;
mod poller;
mod strangers;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{Timestamp, callback::CallbackOutcome};
use messaging::{Disposition, seal::SealSeed};
use sha2::{Digest, Sha256};
use tracing::Span;

use crate::{
    answer::{AddressRules, Answerer},
    chain,
    metrics::Metrics,
    queue::Received,
    request::{self, Context, Parsed},
    sns::{self, Gate, OpenError},
};

pub use outlet::{MemoryOutlet, Note, Outlet, OutletError, Sent};
pub use poller::Poller;
pub use strangers::Strangers;

/// Longest that one message may take; its visibility is extended meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// Waits before a kept message comes again: doubled each time.
const FIRST_AGAIN: Duration = Duration::from_secs(5);
const LAST_AGAIN: Duration = Duration::from_secs(120);

/// What is to become of a message in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is settled: delete it.
    Delete,
    /// It is not: let it come again after this time.
    Keep(Duration),
}

/// Decides about messages.
pub struct Intake {
    pub gate: Gate,
    pub rules: AddressRules,
    /// `ResponseURL`s are sealed by it to itself.
    pub seed: Arc<SealSeed>,
    pub outlet: Arc<dyn Outlet>,
    /// For requests that the registry need not hear of.
    pub answerer: Arc<Answerer>,
    pub strangers: Strangers,
    pub metrics: Metrics,
}

/// What happened to a message, for metrics and the log.
enum Settled {
    Published,
    Answered {
        reason: String,
    },
    /// Of a stranger beyond the limits: no answer, and no trace of it but a number.
    Dropped,
    Dead {
        reason: String,
        label: &'static str,
    },
}

/// Why a message could not be settled.
#[derive(Debug, thiserror::Error)]
enum Unsettled {
    #[error(transparent)]
    Judge(sns::OpenError),
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error("its answer did not get through")]
    Unanswered,
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    Patience,
}

impl Intake {
    /// The span of one delivery: the root of its trace, or a continuation of the publisher's.
    pub fn span(received: &Received) -> Span {
        let span = tracing::info_span!("callback from the queue", otel.kind = "consumer", message = %received.id, deliveries = received.deliveries);
        telemetry::continue_trace(&span, sns::traceparent(&received.body).as_deref());
        span
    }

    /// Handles one delivery.
    pub async fn handle(&self, received: &Received) -> End {
        self.metrics.received();
        let started = Instant::now();
        let result = tokio::time::timeout(PATIENCE, self.settle(received)).await.unwrap_or(Err(Unsettled::Patience));
        let (end, label, reason) = match result {
            Ok(Settled::Published) => {
                tracing::info!("a callback was published");
                (End::Delete, "published", "")
            }
            Ok(Settled::Answered { reason }) => {
                tracing::warn!(reason, "a request of a wrong form is answered with FAILED");
                (End::Delete, "answered", "form")
            }
            Ok(Settled::Dropped) => {
                tracing::debug!("a request of a wrong form is beyond the limits for strangers");
                (End::Delete, "dropped", "form")
            }
            Ok(Settled::Dead { reason, label }) => {
                tracing::warn!(reason, "a message was refused");
                (End::Delete, "refused", label)
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "a message stays in the queue");
                (End::Keep(again_after(received.deliveries)), "kept", "")
            }
        };
        self.metrics.settled(label, reason, started.elapsed());
        end
    }

    async fn settle(&self, received: &Received) -> Result<Settled, Unsettled> {
        let received_at = Timestamp::now();
        let opened = match self.gate.open(&received.body).await {
            Ok(opened) => opened,
            Err(OpenError::Refused(refusal)) => return self.bury(received, refusal.to_string(), "envelope").await,
            Err(later) => return Err(Unsettled::Judge(later)),
        };
        let seal = |bytes: &[u8]| self.seed.seal(self.seed.public(), bytes).ok();
        let context = Context { rules: &self.rules, seal: &seal, topic: &opened.topic, received_at };
        match request::parse(opened.message.as_bytes(), &context) {
            Ok(Parsed::Callback(callback)) => {
                self.outlet.callback(opened.event_id, *callback).await?;
                Ok(Settled::Published)
            }
            // Not by way of the bus: outcomes there are the registry's word alone, and nobody else may publish them.
            Ok(Parsed::Refused { outcome, reason }) => self.refuse(received, &outcome, reason).await,
            Err(unreadable) => self.bury(received, unreadable.to_string(), "request").await,
        }
    }

    async fn refuse(
        &self,
        received: &Received,
        outcome: &CallbackOutcome,
        reason: String,
    ) -> Result<Settled, Unsettled> {
        if !self.strangers.admit(&outcome.key).await {
            return Ok(Settled::Dropped);
        }
        match self.answerer.handle(outcome).await {
            Disposition::Done => Ok(Settled::Answered { reason }),
            Disposition::Refuse { reason: unanswered } => {
                self.bury(received, format!("{reason}; and {unanswered}"), "answer").await
            }
            Disposition::Later { .. } | Disposition::Retry { .. } => Err(Unsettled::Unanswered),
        }
    }

    async fn bury(&self, received: &Received, reason: String, label: &'static str) -> Result<Settled, Unsettled> {
        let note = Note {
            reason,
            message_id: received.id.clone(),
            sha256: hex::encode(Sha256::digest(received.body.as_bytes())),
            bytes: received.body.len(),
        };
        self.outlet.dead(&note).await?;
        Ok(Settled::Dead { reason: note.reason, label })
    }
}

fn again_after(deliveries: u32) -> Duration {
    FIRST_AGAIN.saturating_mul(2_u32.saturating_pow(deliveries.saturating_sub(1).min(16))).min(LAST_AGAIN)
}

#[cfg(test)]
mod tests;
