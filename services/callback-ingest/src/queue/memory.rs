//! A queue in memory, which behaves as SQS does where it matters: what is not deleted comes again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};
use zeroize::Zeroizing;

use super::{BATCH, Queue, QueueError, Receipt, Received};

struct Held {
    id: usize,
    body: String,
    visible_at: Instant,
    deliveries: u32,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    next: usize,
    extended: usize,
    broken: bool,
}

/// For tests: set it up, put messages in, look at what is left.
#[derive(Default)]
pub struct MemoryQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, thiserror::Error)]
#[error("the queue is broken on purpose")]
struct Broken;

impl MemoryQueue {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, body: impl Into<String>) {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.held.push(Held { id, body: body.into(), visible_at: Instant::now(), deliveries: 0 });
        drop(state);
        self.changed.notify_waiters();
    }

    /// Messages not deleted.
    #[must_use]
    pub fn left(&self) -> usize {
        self.state().held.len()
    }

    /// How often a message was delivered that is still there.
    #[must_use]
    pub fn most_deliveries(&self) -> u32 {
        self.state().held.iter().map(|held| held.deliveries).max().unwrap_or_default()
    }

    /// How many extensions there were.
    #[must_use]
    pub fn extended(&self) -> usize {
        self.state().extended
    }

    /// Lets every call fail, or none.
    pub fn break_down(&self, broken: bool) {
        self.state().broken = broken;
        self.changed.notify_waiters();
    }

    fn take(&self, visibility: Duration) -> Result<Vec<Received>, QueueError> {
        let (mut state, now) = (self.state(), Instant::now());
        check(&state, "receive")?;
        let visible = state.held.iter_mut().filter(|held| held.visible_at <= now).take(BATCH);
        Ok(visible
            .map(|held| {
                held.deliveries += 1;
                held.visible_at = now + visibility;
                Received {
                    id: held.id.to_string(),
                    receipt: Receipt::new(held.id.to_string()),
                    body: Zeroizing::new(held.body.clone()),
                    deliveries: held.deliveries,
                }
            })
            .collect())
    }
}

fn check(state: &State, operation: &'static str) -> Result<(), QueueError> {
    if state.broken { Err(QueueError { operation, source: Box::new(Broken) }) } else { Ok(()) }
}

fn is_among(held: &Held, receipts: &[Receipt]) -> bool {
    receipts.iter().any(|receipt| receipt.as_str() == held.id.to_string())
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Vec<Received>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let taken = self.take(visibility)?;
            if !taken.is_empty() || Instant::now() >= until {
                return Ok(taken);
            }
            let next = self.state().held.iter().map(|held| held.visible_at).min().map_or(until, |at| at.min(until));
            tokio::select! { () = changed => {}, () = tokio::time::sleep_until(next) => {} }
        }
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<(), QueueError> {
        let mut state = self.state();
        check(&state, "delete")?;
        state.held.retain(|held| !is_among(held, receipts));
        Ok(())
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<(), QueueError> {
        let mut state = self.state();
        check(&state, "extend")?;
        state.extended += 1;
        let until = Instant::now() + visibility;
        state.held.iter_mut().filter(|held| is_among(held, receipts)).for_each(|held| held.visible_at = until);
        Ok(())
    }
}
