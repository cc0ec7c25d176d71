//! The queue that SNS fills: what is asked of it, and nothing of how it does it.

mod memory;
mod sqs;

use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

pub use memory::MemoryQueue;
pub use sqs::SqsQueue;

/// Most messages taken, deleted or extended at once: SQS's own bound.
pub const BATCH: usize = 10;

/// Names one delivery of one message; good until its visibility ends.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Receipt(String);

impl Receipt {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt(..)")
    }
}

/// One delivery. The body holds secrets (token, `ResponseURL`): it is wiped and does not print.
pub struct Received {
    pub id: String,
    pub receipt: Receipt,
    pub body: Zeroizing<String>,
    /// 1 for the first time.
    pub deliveries: u32,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").field("id", &self.id).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// A call to the queue that failed. What it failed with is a source, safe to log.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed on the callback queue")]
pub struct QueueError {
    pub operation: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// At-least-once delivery: what is received is hidden from others for a while, and comes again unless it is deleted.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Up to [`BATCH`] messages, hidden for `visibility`; waits up to `wait` (0 to 20 s) for the first. Cancelling it is safe: what was on
    /// its way comes again.
    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Vec<Received>, QueueError>;

    /// Deletes up to [`BATCH`] messages. What is left on failure comes again.
    async fn delete(&self, receipts: &[Receipt]) -> Result<(), QueueError>;

    /// Hides up to [`BATCH`] messages for `visibility` from now.
    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<(), QueueError>;
}
