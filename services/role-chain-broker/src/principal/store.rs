//! The bucket of principals: read, and written only by whoever has read the last value.

use async_trait::async_trait;
use contracts::TenantId;
use messaging::async_nats::jetstream::kv;

use super::record::{Record, RecordError};

/// Its name.
pub const BUCKET: &str = "rolebridge-principals";

/// Which value was read; a write names the one it replaces.
pub type Revision = u64;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("another instance has changed the principal meanwhile")]
    Conflict,
    #[error("the bucket of principals could not be {operation}: {problem}")]
    Unavailable { operation: &'static str, problem: String },
    #[error("the principal in the bucket cannot be read")]
    Malformed(#[source] RecordError),
}

/// Compare-and-set over one record for each tenant.
///
/// Cancel: a dropped write may or may not have happened. Failure: [`StoreError::Conflict`] is certain, `Unavailable` may have been written.
#[async_trait]
pub trait PrincipalStore: Send + Sync {
    async fn get(&self, tenant: TenantId) -> Result<Option<(Record, Revision)>, StoreError>;

    /// Writes only if the last value is `replaces` (`None`: if there is none).
    async fn put(&self, record: &Record, replaces: Option<Revision>) -> Result<Revision, StoreError>;
}

/// The JetStream bucket.
#[derive(Debug, Clone)]
pub struct Bucket(kv::Store);

impl Bucket {
    #[must_use]
    pub fn new(store: kv::Store) -> Self {
        Self(store)
    }
}

fn unavailable(operation: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable { operation, problem: error.to_string() }
}

#[async_trait]
impl PrincipalStore for Bucket {
    async fn get(&self, tenant: TenantId) -> Result<Option<(Record, Revision)>, StoreError> {
        let entry = self.0.entry(tenant.to_string()).await.map_err(|error| unavailable("read", error))?;
        match entry {
            Some(entry) if entry.operation == kv::Operation::Put => {
                let record = Record::decode(&entry.value).map_err(StoreError::Malformed)?;
                Ok(Some((record, entry.revision)))
            }
            _ => Ok(None),
        }
    }

    async fn put(&self, record: &Record, replaces: Option<Revision>) -> Result<Revision, StoreError> {
        let (key, value) = (record.tenant.to_string(), record.encode().map_err(StoreError::Malformed)?.into());
        match replaces {
            None => self.0.create(key, value).await.map_err(|error| match error.kind() {
                kv::CreateErrorKind::AlreadyExists => StoreError::Conflict,
                _ => unavailable("written", error),
            }),
            Some(revision) => self.0.update(key, value, revision).await.map_err(|error| match error.kind() {
                kv::UpdateErrorKind::WrongLastRevision => StoreError::Conflict,
                _ => unavailable("written", error),
            }),
        }
    }
}
