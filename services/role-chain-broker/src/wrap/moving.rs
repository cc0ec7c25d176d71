//! On the way from a key file to AWS KMS: new access keys are wrapped by KMS, and those of before still open.
//!
//! A box names the key that it needs. There is no way back: a box is never wrapped by the file again.

use async_trait::async_trait;
use contracts::TenantId;
use zeroize::Zeroizing;

use super::{KeyWrapper, LocalKey, WrapError, Wrapped};

/// Both keys, while there are boxes of both.
pub struct Moving<K> {
    /// Wraps, and opens what it has wrapped.
    pub to: K,
    /// Opens what it has wrapped.
    pub from: LocalKey,
}

#[async_trait]
impl<K: KeyWrapper> KeyWrapper for Moving<K> {
    async fn wrap(&self, tenant: TenantId, secret: &[u8]) -> Result<Wrapped, WrapError> {
        self.to.wrap(tenant, secret).await
    }

    async fn unwrap(&self, tenant: TenantId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        if self.from.has_wrapped(wrapped) {
            self.from.unwrap(tenant, wrapped).await
        } else {
            self.to.unwrap(tenant, wrapped).await
        }
    }
}
