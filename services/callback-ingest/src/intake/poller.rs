//! One loop that takes from the queue. Several run side by side.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::{End, Intake};
use crate::{
    chain,
    metrics::Metrics,
    queue::{Queue, QueueError, Receipt, Received},
};

/// SQS's longest.
const LONG_POLL: Duration = Duration::from_secs(20);
/// How often a closed bus is looked at again. Nothing is taken meanwhile: each taking counts towards the queue's own dead letters.
const CLOSED_POLL: Duration = Duration::from_millis(250);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(30);

/// A message that was handled, and what is now to be said to the queue.
struct Settled {
    receipt: Receipt,
    end: End,
    span: Span,
}

/// Takes messages, has them handled, deletes what is settled.
pub struct Poller {
    pub queue: Arc<dyn Queue>,
    pub intake: Arc<Intake>,
    pub health: runtime::Part,
    /// How long a taken message is hidden from others; renewed at half of it while work is under way.
    pub visibility: Duration,
}

impl Poller {
    fn metrics(&self) -> &Metrics {
        &self.intake.metrics
    }

    /// Runs until `shutdown`; what is in hand then is finished. Failures of the queue are waited out, not ready in the meantime.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        // The first look does not wait, so that readiness is known at once.
        let mut wait = Duration::ZERO;
        let mut pauses = pauses();
        while !shutdown.is_cancelled() {
            if !self.intake.outlet.is_open() {
                shutdown.run_until_cancelled(time::sleep(CLOSED_POLL)).await;
                continue;
            }
            match shutdown.run_until_cancelled(self.queue.receive(wait, self.visibility)).await {
                None => break,
                Some(Ok(batch)) => {
                    (wait, pauses) = (LONG_POLL, self::pauses());
                    self.health.ready();
                    self.work(batch).await;
                }
                Some(Err(error)) => {
                    self.health.not_ready("the callback queue cannot be read");
                    self.report(&error);
                    wait = Duration::ZERO;
                    shutdown.run_until_cancelled(time::sleep(pauses.next().unwrap_or(LAST_WAIT))).await;
                }
            }
        }
        Ok(())
    }

    async fn work(&self, batch: Vec<Received>) {
        let receipts: Vec<Receipt> = batch.iter().map(|received| received.receipt.clone()).collect();
        let mut work: FuturesUnordered<_> = batch
            .iter()
            .map(|received| async move {
                let span = Intake::span(received);
                let end = self.intake.handle(received).instrument(span.clone()).await;
                Settled { receipt: received.receipt.clone(), end, span }
            })
            .collect();
        let mut ends = Vec::with_capacity(receipts.len());
        let half = self.visibility / 2;
        let mut renewal = time::interval_at(Instant::now() + half, half);
        loop {
            tokio::select! {
                end = work.next() => match end {
                    Some(end) => ends.push(end),
                    None => break,
                },
                _ = renewal.tick() => self.checked(self.queue.extend(&receipts, self.visibility).await),
            }
        }
        self.settle(ends).await;
    }

    async fn settle(&self, ends: Vec<Settled>) {
        let (done, kept): (Vec<_>, Vec<_>) = ends.into_iter().partition(|settled| settled.end == End::Delete);
        if let Some((first, others)) = done.split_first() {
            // One call for all: it stands in the first one's trace, with links to the others.
            for other in others {
                first.span.follows_from(&other.span);
            }
            let receipts: Vec<Receipt> = done.iter().map(|settled| settled.receipt.clone()).collect();
            self.checked(self.queue.delete(&receipts).instrument(first.span.clone()).await);
        }
        for Settled { receipt, end, span } in kept {
            if let End::Keep(after) = end {
                self.checked(self.queue.extend(&[receipt], after).instrument(span).await);
            }
        }
    }

    /// Nothing is lost by a failure here: the message comes again, and its duplicate is known as such.
    fn checked(&self, result: Result<(), QueueError>) {
        if let Err(error) = result {
            self.report(&error);
        }
    }

    fn report(&self, error: &QueueError) {
        self.metrics().queue_error(error.operation);
        tracing::warn!(error = chain(error), "the callback queue failed");
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LAST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}
