//! Principals: for each tenant one IAM user and one IAM role in the provider's account, and the user's access key, wrapped, in a bucket.
//!
//! - `maker` makes one, step by step, each step reading first: it may be stopped anywhere and begun again.
//! - `policy` says what user and role may do; `record` is what is stored; `iam` and `store` are the doors to AWS and NATS.
//! - `stranger` is one principal of our own that no tenant has, for a probe.
//! - `consumer` listens for new tenants and tells when their principal stands.
//!
//! What must not live here: customers' roles, STS.

mod consumer;
#[cfg(test)]
pub mod fake;
mod iam;
mod maker;
mod policy;
mod record;
mod store;
mod stranger;

use std::sync::Arc;

use contracts::{RoleArn, TenantId};

use crate::{
    sts::Keys,
    wrap::{KeyWrapper, WrapError},
};

pub use consumer::{consumer, router};
pub use iam::RealIam;
pub use maker::Maker;
pub use policy::Layout;
pub use record::RecordError;
pub use store::{BUCKET, Bucket, PrincipalStore, Revision, StoreError};
pub use stranger::{STRANGER, keep as keep_stranger};

use record::State;

/// Why a tenant's principal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrincipalError {
    /// It is being made; about a second.
    #[error("the tenant has no principal yet")]
    NotReady,
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
        let State::Ready { key } = record.state else {
            return Err(PrincipalError::NotReady);
        };
        let bytes = self.wrapper.unwrap(tenant, &key).await.map_err(PrincipalError::Unwrap)?;
        Ok(Principal { role_arn: record.role_arn, keys: record::decode_key(&bytes).map_err(PrincipalError::Record)? })
    }
}
