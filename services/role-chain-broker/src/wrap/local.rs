//! AES-256-GCM under a key in a file: for one machine, and for trying things out.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contracts::TenantId;
use zeroize::Zeroizing;

use super::{KeyWrapper, WrapError, Wrapped};

/// The key from `ROLEBRIDGE_KEY_FILE`.
pub struct LocalKey {
    key: RandomizedNonceKey,
    name: String,
}

impl LocalKey {
    /// # Errors
    /// When the file is missing, can be read by others, or does not hold 32 bytes in base64.
    pub fn load(path: &Path) -> Result<Self, WrapError> {
        let shown = || path.display().to_string();
        let unreadable = |source| WrapError::KeyFile { path: shown(), source: Arc::new(source) };
        let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            return Err(WrapError::KeyFileOpen { path: shown() });
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
        let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).ok().filter(|bytes| bytes.len() == 32);
        Self::from_bytes(&bytes.ok_or_else(|| WrapError::KeyFileForm { path: shown() })?)
    }

    /// Makes a new key file, readable by its owner alone. An existing one is never overwritten: what it has wrapped would be lost.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn create(path: &Path) -> io::Result<()> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        rand::fill(bytes.as_mut()).map_err(|_| io::Error::other("the operating system gave no randomness"))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(Zeroizing::new(STANDARD.encode(bytes.as_ref()) + "\n").as_bytes())?;
        file.sync_all()
    }

    /// Whether the box says that it needs this very key.
    #[must_use]
    pub fn has_wrapped(&self, wrapped: &Wrapped) -> bool {
        wrapped.by == self.name
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, WrapError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| WrapError::Wrap)?;
        // Tells keys apart without telling anything of them.
        let mut labelled = Zeroizing::new(b"rolebridge key fingerprint v1:".to_vec());
        labelled.extend_from_slice(bytes);
        let fingerprint = digest::digest(&digest::SHA256, &labelled);
        let short: String = fingerprint.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { key, name: format!("local:{short}") })
    }
}

fn bound_to(tenant: TenantId) -> Aad<String> {
    Aad::from(format!("rolebridge/principal-key/v1/{tenant}"))
}

#[async_trait]
impl KeyWrapper for LocalKey {
    async fn wrap(&self, tenant: TenantId, secret: &[u8]) -> Result<Wrapped, WrapError> {
        let mut sealed = Zeroizing::new(secret.to_vec());
        let nonce = self.key.seal_in_place_append_tag(bound_to(tenant), &mut *sealed).map_err(|_| WrapError::Wrap)?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(Wrapped { by: self.name.clone(), sealed: STANDARD.encode(bytes) })
    }

    async fn unwrap(&self, tenant: TenantId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        if !self.has_wrapped(wrapped) {
            return Err(WrapError::OtherKey { by: wrapped.by.clone() });
        }
        let bytes = STANDARD.decode(&wrapped.sealed).map_err(|_| WrapError::Unwrap)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(WrapError::Unwrap)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrapError::Unwrap)?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        let length = self.key.open_in_place(nonce, bound_to(tenant), &mut secret).map_err(|_| WrapError::Unwrap)?.len();
        secret.truncate(length);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key() -> (tempfile::TempDir, LocalKey) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        LocalKey::create(&path).unwrap();
        let key = LocalKey::load(&path).unwrap();
        (folder, key)
    }

    #[tokio::test]
    async fn what_is_wrapped_opens_for_its_tenant_alone() {
        let (_folder, key) = key();
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let wrapped = key.wrap(tenant, b"canary").await.unwrap();
        assert_eq!(&**key.unwrap(tenant, &wrapped).await.unwrap(), b"canary");
        assert!(matches!(key.unwrap(other, &wrapped).await, Err(WrapError::Unwrap)));
        assert!(!serde_json::to_string(&wrapped).unwrap().contains("canary"));
        assert_ne!(wrapped, key.wrap(tenant, b"canary").await.unwrap(), "the nonce is fresh each time");
    }

    #[tokio::test]
    async fn a_changed_box_or_another_key_does_not_open() {
        let (_folder, key) = key();
        let (_other_folder, other) = self::key();
        let tenant = TenantId::new();
        let wrapped = key.wrap(tenant, b"canary").await.unwrap();
        assert!(matches!(other.unwrap(tenant, &wrapped).await, Err(WrapError::OtherKey { .. })));
        let mut bytes = STANDARD.decode(&wrapped.sealed).unwrap();
        for position in 0..bytes.len() {
            bytes[position] ^= 1;
            let changed = Wrapped { sealed: STANDARD.encode(&bytes), ..wrapped.clone() };
            assert!(matches!(key.unwrap(tenant, &changed).await, Err(WrapError::Unwrap)), "byte {position}");
            bytes[position] ^= 1;
        }
        for sealed in ["", "!", "AAAA"] {
            let changed = Wrapped { sealed: sealed.to_owned(), ..wrapped.clone() };
            assert!(matches!(key.unwrap(tenant, &changed).await, Err(WrapError::Unwrap)));
        }
    }

    #[test]
    fn key_files_are_made_once_kept_private_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(LocalKey::load(&path), Err(WrapError::KeyFile { .. })));
        LocalKey::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(LocalKey::create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(LocalKey::load(&path), Err(WrapError::KeyFileOpen { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "c2hvcnQ=", "no base64 at all"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(LocalKey::load(&path), Err(WrapError::KeyFileForm { .. })), "{text:?}");
        }
    }
}
