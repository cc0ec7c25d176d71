//! Which connections this instance has answered for lately, told to the registry now and then: it probes those first.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use contracts::{
    ConnectionId, TenantId, Timestamp,
    verification::{ConnectionsUsed, Used},
};
use messaging::Bus;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between two reports; what is new meanwhile goes into the next.
const EVERY: Duration = Duration::from_secs(30);
/// Connections in one message.
const MOST: usize = 1000;
/// Whoever issues locks one part of the map for one insertion, and hardly ever meets another there.
const PARTS: usize = 16;
/// After the word to end, for requests that are still in hand.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// How long the last word of an instance may take.
const LAST_WORD: Duration = Duration::from_secs(3);

type Key = (TenantId, ConnectionId);

/// The connections since the last report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct UsedConnections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    parts: [Mutex<HashMap<Key, Timestamp>>; PARTS],
    hasher: RandomState,
    new: Notify,
}

impl UsedConnections {
    /// Credentials of this connection were given out now. Waits for nobody.
    pub fn note(&self, tenant: TenantId, connection: ConnectionId) {
        self.put(Used { tenant, connection, at: Timestamp::now() });
        self.0.new.notify_one();
    }

    fn put(&self, used: Used) {
        let key = (used.tenant, used.connection);
        let Some(mut part) = self.part(&key) else { return };
        let last = part.entry(key).or_insert(used.at);
        *last = used.at.max(*last);
    }

    fn part(&self, key: &Key) -> Option<MutexGuard<'_, HashMap<Key, Timestamp>>> {
        let number = usize::try_from(self.0.hasher.hash_one(key) % PARTS as u64).unwrap_or(0);
        self.0.parts.get(number).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything since the last time, each connection once.
    fn take(&self) -> Vec<Used> {
        let parts = self.0.parts.iter();
        let taken = parts.flat_map(|part| std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner)));
        taken.map(|((tenant, connection), at)| Used { tenant, connection, at }).collect()
    }
}

/// Where reports go.
#[async_trait]
pub trait Reports: Send + Sync {
    /// Whether it arrived.
    async fn report(&self, used: ConnectionsUsed) -> bool;
}

#[async_trait]
impl Reports for Bus {
    async fn report(&self, used: ConnectionsUsed) -> bool {
        let told = self.publish(&messaging::event(used)).await;
        told.inspect_err(
            |error| tracing::warn!(%error, "which connections are in use could not be told, it is tried again"),
        )
        .is_ok()
    }
}

/// Reports at once when there is something new, and then not for [`EVERY`].
///
/// Cancel: one last report, of what the last requests left, for at most [`LAST_WORD`]. Failure: what could not be told is kept and told with the
/// next; what a killed instance had not told is lost, and the registry probes those connections when their time comes.
///
/// # Errors
/// Never.
pub async fn tell(used: UsedConnections, reports: impl Reports, shutdown: CancellationToken) -> Result<(), Infallible> {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = used.0.new.notified() => report(&used, &reports).await,
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    tokio::time::sleep(LAST_REQUESTS).await;
    if tokio::time::timeout(LAST_WORD, report(&used, &reports)).await.is_err() {
        tracing::warn!("which connections were used last could not be told in time");
    }
    Ok(())
}

async fn report(used: &UsedConnections, reports: &impl Reports) {
    let taken = used.take();
    for some in taken.chunks(MOST) {
        if !reports.report(ConnectionsUsed { used: some.to_vec() }).await {
            some.iter().for_each(|used_then| used.put(*used_then));
            // Else the next look would be when something is used again.
            used.0.new.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "used_tests.rs"]
mod tests;
