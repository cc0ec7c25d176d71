//! Wrapping of access keys before they are stored: what lies in the bucket is of no use to who has the bucket alone.
//!
//! The tenant is bound into each box, so that one tenant's key cannot be put in another's place. What must not live here: what is wrapped,
//! where it is stored.

mod kms;
mod local;
mod moving;

use async_trait::async_trait;
use aws::FailureKind;
use contracts::TenantId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use kms::KmsKey;
pub use local::LocalKey;
pub use moving::Moving;

/// A box, and which key it needs. As stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    /// `local:<fingerprint>` or `kms:<key ARN>`.
    pub by: String,
    /// Base64.
    sealed: String,
}

impl std::fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wrapped(by {}, {} characters)", self.by, self.sealed.len())
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum WrapError {
    #[error("there is none: set ROLEBRIDGE_KEY_FILE or ROLEBRIDGE_KMS_KEY")]
    NoKey,
    #[error(
        "the key file {path} cannot be read: make one with `role-chain-broker keygen`, or name another with ROLEBRIDGE_KEY_FILE"
    )]
    KeyFile {
        path: String,
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
    #[error("the key file {path} can be read by others: take their rights away (chmod 600)")]
    KeyFileOpen { path: String },
    #[error("the key file {path} does not hold 32 bytes in base64: make one with `role-chain-broker keygen`")]
    KeyFileForm { path: String },
    #[error("the access key could not be wrapped")]
    Wrap,
    #[error("the stored access key was wrapped by {by}, which is not the key in use")]
    OtherKey { by: String },
    #[error("the stored access key does not open: it was changed, or belongs to another tenant")]
    Unwrap,
    #[error("AWS KMS did not {operation} the access key")]
    Kms {
        operation: &'static str,
        #[source]
        failure: aws::Failure,
    },
}

impl WrapError {
    /// Whether nothing is known, and the same call may succeed a moment later.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Kms { failure: aws::Failure { kind: FailureKind::Indeterminate(_), .. }, .. })
    }
}

/// Wraps and unwraps, with the tenant as additional authenticated data.
///
/// Cancel: dropping the future leaves nothing behind. Failure: nothing was wrapped or unwrapped.
#[async_trait]
pub trait KeyWrapper: Send + Sync {
    async fn wrap(&self, tenant: TenantId, secret: &[u8]) -> Result<Wrapped, WrapError>;
    async fn unwrap(&self, tenant: TenantId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, WrapError>;
}
