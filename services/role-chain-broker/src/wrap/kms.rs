//! AWS KMS: the key never leaves KMS, each use is in CloudTrail, and the tenant is in the encryption context.

use std::time::Duration;

use async_trait::async_trait;
use aws::{Patience, SdkConfig, classify, traced};
use aws_sdk_kms::{Client, primitives::Blob};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contracts::TenantId;
use zeroize::Zeroizing;

use super::{KeyWrapper, WrapError, Wrapped};

/// Name of the tenant in the encryption context; key policies can condition on `kms:EncryptionContext:rolebridge:tenant`.
const CONTEXT: &str = "rolebridge:tenant";

/// Somebody may wait for credentials meanwhile, and asks again.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(2),
    attempt: Duration::from_secs(3),
    whole: Duration::from_secs(5),
    attempts: 2,
};

/// The key from `ROLEBRIDGE_KMS_KEY`: ID, ARN or alias of a symmetric key.
///
/// `Encrypt` takes up to 4,096 bytes ([Encrypt](https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html)); an access key is some 100.
#[derive(Debug, Clone)]
pub struct KmsKey {
    client: Client,
    key: String,
}

impl KmsKey {
    #[must_use]
    pub fn new(sdk: &SdkConfig, key: String) -> Self {
        let patient = sdk.to_builder().timeout_config(PATIENCE.timeouts()).retry_config(PATIENCE.retries()).build();
        Self { client: Client::new(&patient), key }
    }
}

#[async_trait]
impl KeyWrapper for KmsKey {
    async fn wrap(&self, tenant: TenantId, secret: &[u8]) -> Result<Wrapped, WrapError> {
        let call = self
            .client
            .encrypt()
            .key_id(&self.key)
            .encryption_context(CONTEXT, tenant.to_string())
            .plaintext(Blob::new(secret))
            .send();
        let sent = traced("KMS", "Encrypt", async { call.await.map_err(|error| classify(&error)) }).await;
        let output = sent.map_err(|failure| WrapError::Kms { operation: "wrap", failure })?;
        let (Some(sealed), Some(key)) = (output.ciphertext_blob, output.key_id) else {
            return Err(WrapError::Wrap);
        };
        Ok(Wrapped { by: format!("kms:{key}"), sealed: STANDARD.encode(sealed) })
    }

    async fn unwrap(&self, tenant: TenantId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        if !wrapped.by.starts_with("kms:") {
            return Err(WrapError::OtherKey { by: wrapped.by.clone() });
        }
        let sealed = STANDARD.decode(&wrapped.sealed).map_err(|_| WrapError::Unwrap)?;
        let call = self
            .client
            .decrypt()
            // The configured key and not the one that the record names: a box under a stranger's key must not open.
            .key_id(&self.key)
            .encryption_context(CONTEXT, tenant.to_string())
            .ciphertext_blob(Blob::new(sealed))
            .send();
        let sent = traced("KMS", "Decrypt", async { call.await.map_err(|error| classify(&error)) }).await;
        let output = sent.map_err(|failure| WrapError::Kms { operation: "unwrap", failure })?;
        output.plaintext.map(|plain| Zeroizing::new(plain.into_inner())).ok_or(WrapError::Unwrap)
    }
}
