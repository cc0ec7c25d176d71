//! The relay: from the outbox to the bus.
//!
//! Woken at once by this process's commits, and every second for what others left. A row is removed only after the stream has acknowledged it, so
//! a crash in between publishes it once more under the same event ID: the stream drops it within its window, readers after that.
//!
//! Cancel: when everything that writes has stopped, what is left is published once more, within [`LAST_ROUND`]. Failure: nothing here ends the process;
//! while NATS or the database is away, rows wait and the backlog is seen in the metrics.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use messaging::RawMessage;
use uuid::Uuid;

use crate::{
    entity::outbox::Model,
    flow::{HandleError, Outlet},
    metrics::Metrics,
    store::{Claim, Store},
};

/// How long a relay may hold keys. Another instance takes them afterwards.
const CLAIM: Duration = Duration::from_secs(12);
/// When a relay stops publishing from a claim: well before it ends, one acknowledgement (5 s) included.
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(1);
const LAST_ROUND: Duration = Duration::from_secs(5);
const SLOWEST_RETRY: Duration = Duration::from_secs(5);
/// Keys that are published side by side.
const SIDE_BY_SIDE: usize = 16;

/// Publishes what the outbox holds.
pub struct Relay {
    id: Uuid,
    store: Store,
    outlet: Arc<dyn Outlet>,
    metrics: Metrics,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({})", self.id)
    }
}

impl Relay {
    #[must_use]
    pub fn new(store: Store, outlet: Arc<dyn Outlet>, metrics: Metrics) -> Self {
        Self { id: Uuid::new_v4(), store, outlet, metrics }
    }

    /// Runs until `stop` resolves, which it must only when nothing writes to the outbox any more.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Infallible> {
        let mut stop = std::pin::pin!(stop);
        let mut retry_after = Duration::from_millis(100);
        let mut measured = Instant::now();
        loop {
            let pause = match self.round().await {
                Ok(0) => {
                    retry_after = Duration::from_millis(100);
                    IDLE
                }
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(error = %crate::chain(&error), "the outbox could not be published, trying again");
                    retry_after = (retry_after * 2).min(SLOWEST_RETRY);
                    retry_after
                }
            };
            let failing = pause != IDLE;
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(pause) => {}
                () = self.store.committed().notified(), if !failing => {}
            }
            if measured.elapsed() >= IDLE {
                self.measure().await;
                measured = Instant::now();
            }
        }
        let left = async { while self.round().await.is_ok_and(|published| published > 0) {} };
        if tokio::time::timeout(LAST_ROUND, left).await.is_err() {
            tracing::warn!("the outbox was not empty at the end; the next start publishes the rest");
        }
        Ok(())
    }

    /// Publishes what is free to be published now, and returns how much it was.
    ///
    /// # Errors
    /// When the store fails, or the bus does not acknowledge: the rest waits.
    pub async fn round(&self) -> Result<usize, HandleError> {
        let claim: Claim = self.store.claim_outbox(self.id, CLAIM).await?;
        if claim.keys.is_empty() {
            return Ok(0);
        }
        let until = Instant::now() + PUBLISH_WITHIN;
        let results: Vec<_> = futures::stream::iter(claim.keys)
            .map(|rows| self.publish_key(rows, until))
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let (published, failures): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let published = published.concat();
        self.store.settle_outbox(self.id, &published).await?;
        self.metrics.published(published.len());
        match failures.into_iter().flatten().next() {
            Some(failure) => Err(failure),
            None => Ok(published.len()),
        }
    }

    /// Publishes the rows of one key in order, up to the first that fails; returns those that were acknowledged.
    async fn publish_key(&self, rows: Vec<Model>, until: Instant) -> (Vec<i64>, Option<HandleError>) {
        let mut published = Vec::with_capacity(rows.len());
        for row in rows {
            if Instant::now() >= until {
                break;
            }
            let id = row.id;
            let message = RawMessage {
                subject: row.subject,
                id: row.event_id.0,
                traceparent: row.traceparent,
                payload: row.payload.into_bytes(),
            };
            match self.outlet.publish(&message).await {
                Ok(()) => published.push(id),
                Err(error) => return (published, Some(error.into())),
            }
        }
        (published, None)
    }

    async fn measure(&self) {
        match self.store.outbox_backlog().await {
            Ok(backlog) => self.metrics.backlog(backlog),
            Err(error) => tracing::debug!(error = %crate::chain(&error), "the outbox could not be measured"),
        }
    }
}
