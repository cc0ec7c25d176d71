//! The bucket in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use contracts::{TenantId, Timestamp};

use super::world::{Knife, lock};
use crate::principal::{
    record::{Record, Rotation, State},
    store::{PrincipalStore, Revision, StoreError},
};

#[derive(Debug, Default)]
pub struct FakeStore {
    pub records: Mutex<HashMap<TenantId, (Record, Revision)>>,
    pub(super) knife: Arc<Knife>,
}

impl FakeStore {
    /// As if everything in the record had happened so much earlier.
    pub fn age(&self, tenant: TenantId, span: Duration) {
        let earlier = |at: &mut Timestamp| *at = Timestamp::from(at.inner() - span);
        let mut records = lock(&self.records);
        let Some((record, _)) = records.get_mut(&tenant) else { return };
        earlier(&mut record.updated_at);
        record.looked_at.as_mut().map(earlier);
        if let Some(lease) = &mut record.lease {
            earlier(&mut lease.until);
        }
        let State::Ready { made_at, rotation, .. } = &mut record.state else { return };
        made_at.as_mut().map(earlier);
        match rotation {
            Some(Rotation::Proving { made_at: at, .. } | Rotation::Retiring { since: at, .. }) => earlier(at),
            Some(Rotation::Making { .. }) | None => {}
        }
    }

    pub fn record(&self, tenant: TenantId) -> Record {
        lock(&self.records)[&tenant].0.clone()
    }
}

#[async_trait]
impl PrincipalStore for FakeStore {
    async fn get(&self, tenant: TenantId) -> Result<Option<(Record, Revision)>, StoreError> {
        tokio::task::yield_now().await;
        let broken = StoreError::Unavailable { operation: "read", problem: "cut".to_owned() };
        self.knife.step(broken, || Ok(lock(&self.records).get(&tenant).cloned()))
    }
    async fn put(&self, record: &Record, replaces: Option<Revision>) -> Result<Revision, StoreError> {
        tokio::task::yield_now().await;
        let broken = StoreError::Unavailable { operation: "written", problem: "cut".to_owned() };
        self.knife.step(broken, || {
            let mut records = lock(&self.records);
            let last = records.get(&record.tenant).map(|(_, revision)| *revision);
            if last != replaces {
                return Err(StoreError::Conflict);
            }
            let next = last.unwrap_or(0) + 1;
            records.insert(record.tenant, (record.clone(), next));
            Ok(next)
        })
    }
    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        Ok(lock(&self.records).keys().copied().collect())
    }
}
