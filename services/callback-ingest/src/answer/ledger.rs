//! Which requests are answered, so that a duplicate outcome is not sent twice.
//!
//! Written after the effect: a crash between the two sends the same bytes to the same object once more, which CloudFormation does not notice.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use contracts::callback::CallbackKey;
use messaging::async_nats::jetstream::kv;
use sha2::{Digest, Sha256};

/// The bucket that the instances of callback-ingest share.
pub const BUCKET: &str = "rolebridge-answers";

#[derive(Debug, thiserror::Error)]
#[error("{operation} failed on the bucket {BUCKET}")]
pub struct LedgerError {
    pub operation: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Remembers answered requests.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// # Errors
    /// When the store cannot be asked: nothing is known.
    async fn is_answered(&self, key: &CallbackKey) -> Result<bool, LedgerError>;

    /// # Errors
    /// When it was not stored.
    async fn answered(&self, key: &CallbackKey) -> Result<(), LedgerError>;
}

/// Hexadecimal SHA-256 of stack ID and request ID, which a key of the bucket may be.
fn entry(key: &CallbackKey) -> String {
    let hash = Sha256::new().chain_update(key.stack_id.as_str()).chain_update(&key.request_id).finalize();
    hex::encode(hash)
}

#[async_trait]
impl Ledger for kv::Store {
    async fn is_answered(&self, key: &CallbackKey) -> Result<bool, LedgerError> {
        let found = self.get(entry(key)).await;
        found
            .map(|value| value.is_some())
            .map_err(|source| LedgerError { operation: "reading", source: Box::new(source) })
    }

    async fn answered(&self, key: &CallbackKey) -> Result<(), LedgerError> {
        let stored = self.put(entry(key), contracts::Timestamp::now().to_string().into()).await;
        stored.map(|_| ()).map_err(|source| LedgerError { operation: "writing", source: Box::new(source) })
    }
}

/// In memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryLedger(Mutex<HashSet<String>>);

#[async_trait]
impl Ledger for MemoryLedger {
    async fn is_answered(&self, key: &CallbackKey) -> Result<bool, LedgerError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&entry(key)))
    }

    async fn answered(&self, key: &CallbackKey) -> Result<(), LedgerError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(entry(key));
        Ok(())
    }
}
