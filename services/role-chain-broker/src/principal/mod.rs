//! Principals: for each tenant one IAM user and one IAM role in an account of the provider's, and the user's access key, wrapped, in a bucket.
//!
//! - `maker` makes one, step by step, each step reading first: it may be stopped anywhere and begun again. `placing` says in which of the `accounts`,
//!   `keys` makes its access key.
//! - `stranger` is one principal of our own that no tenant has, for a probe.
//! - `canary` is one role of our own in each account that lets its principals in, for the probes.
//! - `rotation` changes its access key; `drift` compares it with what it must be; `keeper` does both for every principal, when `rounds` says,
//!   or when an operator asks (`ask`).
//! - `revoke` denies what it has begun, and removes it.
//! - `policy` says what user and role may do; `record` is what is stored; `iam`, `store` and `herald` are the doors to AWS and NATS.
//! - `consumer` listens for new tenants and tells when their principal stands.
//!
//! What must not live here: customers' roles, STS.

mod accounts;
mod ask;
mod boundary;
mod canary;
mod consumer;
mod drift;
mod error;
#[cfg(test)]
pub mod fake;
mod herald;
mod iam;
mod keeper;
mod keys;
mod maker;
mod placing;
mod policy;
mod real_iam;
mod record;
mod revoke;
mod rotation;
mod rounds;
mod store;
mod stranger;

use std::sync::Arc;

use contracts::{AccountId, RoleArn, TenantId, Timestamp};

use crate::{
    sts::Keys,
    wrap::{KeyWrapper, WrapError},
};

pub use accounts::{Accounts, Census, Fullness, Home};
pub use ask::{Asked, answer};
pub use boundary::Boundary;
pub use canary::{arn as canary, keep as keep_canary};
pub use consumer::{consumer, router};
pub use error::MakeError;
pub use keeper::{Keeper, whole};
pub use maker::Maker;
pub use policy::Layout;
pub use real_iam::RealIam;
pub use record::RecordError;
pub use revoke::Revoker;
pub use rotation::{Pace, Rotator};
pub use rounds::{Orders, keep, orders};
pub use store::{BUCKET, Bucket, PrincipalStore, Revision, StoreError};
pub use stranger::{STRANGER, is_one as is_stranger, keep as keep_stranger};

use record::State;

/// Why a tenant's principal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrincipalError {
    /// It is being made; about a second.
    #[error("the tenant has no principal yet")]
    NotReady,
    /// Its tenant has ended.
    #[error("the tenant's principal was removed")]
    Removed,
    #[error("the principals' bucket could not be read")]
    Store(#[source] StoreError),
    #[error("the principal's access key could not be unwrapped")]
    Unwrap(#[source] WrapError),
    #[error("the stored principal is malformed")]
    Record(#[source] RecordError),
}

/// A principal that can be used.
#[derive(Debug)]
pub struct Principal {
    pub role_arn: RoleArn,
    pub keys: Keys,
}

/// What a record as it is stored says of the tenant's sessions: the instant before which they are denied.
///
/// # Errors
/// When it cannot be read, or the principal was removed.
pub fn denied_in(stored: &[u8]) -> Result<Option<Timestamp>, PrincipalError> {
    denied_of(&record::Record::decode(stored).map_err(PrincipalError::Record)?)
}

fn denied_of(record: &record::Record) -> Result<Option<Timestamp>, PrincipalError> {
    if record.is_closed() { Err(PrincipalError::Removed) } else { Ok(record.denied_before) }
}

/// Reads principals. Cheap to clone.
#[derive(Clone)]
pub struct Principals {
    store: Arc<dyn PrincipalStore>,
    wrapper: Arc<dyn KeyWrapper>,
}

impl Principals {
    #[must_use]
    pub fn new(store: Arc<dyn PrincipalStore>, wrapper: Arc<dyn KeyWrapper>) -> Self {
        Self { store, wrapper }
    }

    /// The tenant's principal with its key in clear, for one use.
    ///
    /// # Errors
    /// When it is not made yet, or cannot be read.
    pub async fn of(&self, tenant: TenantId) -> Result<Principal, PrincipalError> {
        let (record, _) =
            self.store.get(tenant).await.map_err(PrincipalError::Store)?.ok_or(PrincipalError::NotReady)?;
        let key = match record.state {
            State::Ready { key, .. } => key,
            State::Making { .. } => return Err(PrincipalError::NotReady),
            State::Removing | State::Removed => return Err(PrincipalError::Removed),
        };
        let bytes = self.wrapper.unwrap(tenant, &key).await.map_err(PrincipalError::Unwrap)?;
        Ok(Principal { role_arn: record.role_arn, keys: record::decode_key(&bytes).map_err(PrincipalError::Record)? })
    }

    /// The account that the tenant's principal lives in.
    ///
    /// # Errors
    /// When the bucket cannot be read, or there is no principal.
    pub async fn account(&self, tenant: TenantId) -> Result<AccountId, PrincipalError> {
        let stored = self.store.get(tenant).await.map_err(PrincipalError::Store)?;
        stored.map(|(record, _)| record.role_arn.account().clone()).ok_or(PrincipalError::NotReady)
    }

    /// The principal of our own in the account that the tenant's lives in.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the tenant has no principal.
    pub async fn stranger_beside(&self, tenant: TenantId) -> Result<TenantId, PrincipalError> {
        let account = self.account(tenant).await?;
        // The first one's ID does not name its account.
        match self.account(STRANGER).await {
            Ok(first) if first == account => Ok(STRANGER),
            Ok(_) | Err(PrincipalError::NotReady) => Ok(stranger::numbered(&account)),
            Err(error) => Err(error),
        }
    }

    /// The instant before which whatever the tenant's role began is denied.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the principal was removed.
    pub async fn denied_before(&self, tenant: TenantId) -> Result<Option<Timestamp>, PrincipalError> {
        let stored = self.store.get(tenant).await.map_err(PrincipalError::Store)?;
        stored.map_or(Ok(None), |(record, _)| denied_of(&record))
    }
}
