//! The bucket of principals: read, and written only by whoever has read the last value.

use async_trait::async_trait;
use contracts::TenantId;
use futures::{StreamExt as _, TryStreamExt as _};
use messaging::async_nats::jetstream::{kv, stream::LastRawMessageErrorKind};

use super::{
    accounts::Census,
    record::{Record, RecordError, State},
};

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

    /// Every tenant that has a record.
    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError>;

    /// How many principals live in which account, by their records. One that cannot be read is left out, and said.
    async fn census(&self) -> Result<Census, StoreError> {
        let reads = self.tenants().await?.into_iter().map(|tenant| async move { (tenant, self.get(tenant).await) });
        let mut reads = futures::stream::iter(reads).buffer_unordered(READS);
        let mut census = Census::new();
        while let Some((tenant, read)) = reads.next().await {
            match read {
                Ok(Some((record, _))) if record.state != State::Removed => {
                    *census.entry(record.role_arn.account().clone()).or_default() += 1;
                }
                Ok(_) => {}
                Err(error @ StoreError::Malformed(_)) => tracing::error!(%tenant, "{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(census)
    }
}

/// Records that are read at the same time, when all of them are.
const READS: usize = 64;

/// Stands in the headers of what is no value ([ADR-8](https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md)).
const KV_OPERATION: &str = "KV-Operation";
/// Tries of one change against others who write the same record.
const TRIES: usize = 10;

/// Changes the record as it is at the moment; when another was faster, the change is considered anew. `None`: there is no record, or `change`
/// did not want to.
///
/// # Errors
/// As the store's.
pub(super) async fn amend(
    store: &dyn PrincipalStore,
    tenant: TenantId,
    mut change: impl FnMut(&mut Record) -> bool + Send,
) -> Result<Option<Record>, StoreError> {
    for _ in 0..TRIES {
        let Some((mut record, revision)) = store.get(tenant).await? else { return Ok(None) };
        if !change(&mut record) {
            return Ok(None);
        }
        match store.put(&record, Some(revision)).await {
            Ok(_) => return Ok(Some(record)),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Conflict)
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
        // By the stream's leader: the bucket's own reads may be answered by a replica that has not heard of a revocation yet.
        let subject = format!("{}{tenant}", self.0.prefix);
        match self.0.stream.get_last_raw_message_by_subject(&subject).await {
            // A marker: the key was deleted.
            Ok(message) if message.headers.get(KV_OPERATION).is_some() => Ok(None),
            Ok(message) => {
                let record = Record::decode(&message.payload).map_err(StoreError::Malformed)?;
                Ok(Some((record, message.sequence)))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable("read", error)),
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

    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let keys = self.0.keys().await.map_err(|error| unavailable("listed", error))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(|error| unavailable("listed", error))?;
        Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
    }
}
