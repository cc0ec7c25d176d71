//! Sealed boxes between two X25519 keys (nkeys `xkv1`, Curve25519 with XSalsa20-Poly1305).
//!
//! A box is authentic: it opens only with the public key of whoever sealed it, which is why a requester pins the broker's.
//!
//! The key that two parties share follows from their keys alone, and making it (Diffie-Hellman) is nearly all of the work. So it is kept for whoever was
//! sealed to lately; each box has a nonce of its own all the same.

use std::{fmt, io, path::Path, sync::Arc};

use contracts::{ParseSecretError, SealedBox, SealingKey};
use crypto_box::{Nonce, PublicKey, SalsaBox, SecretKey, aead::Aead as _};
use moka::sync::Cache;
use nkeys::XKey;
use zeroize::Zeroizing;

/// What a box of nkeys begins with; nonce and box follow.
const VERSION: &[u8] = b"xkv1";
/// Shared keys kept; the least used give way, and are wiped.
const MOST_SHARED: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot read the X25519 seed file {path}: make one with the program's keygen command")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the X25519 seed file {path}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no X25519 seed (SX...): make one with the program's keygen command")]
    NoSeed { path: String },
    #[error("the public X25519 key is malformed")]
    Key,
    #[error("the box could not be sealed")]
    Seal,
    #[error("the box does not open with these keys: it was sealed by or for another, or changed on the way")]
    Open,
}

impl From<ParseSecretError> for SealError {
    fn from(_: ParseSecretError) -> Self {
        Self::Key
    }
}

/// A private X25519 key.
pub struct SealSeed {
    key: XKey,
    /// The same key, for the library underneath.
    secret: SecretKey,
    public: SealingKey,
    shared: Cache<SealingKey, Arc<SalsaBox>>,
}

impl fmt::Debug for SealSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealSeed(of {})", self.public)
    }
}

impl SealSeed {
    /// A new one.
    ///
    /// # Errors
    /// Never, in practice: when the library's own key has not the library's form.
    pub fn generate() -> Result<Self, SealError> {
        Self::from_key(XKey::new())
    }

    /// # Errors
    /// When the file cannot be read or holds no seed.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| SealError::Read { path: shown(), source })?;
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("SX"))
            .ok_or_else(|| SealError::NoSeed { path: shown() })?;
        Self::from_key(XKey::from_seed(line).map_err(|_| SealError::NoSeed { path: shown() })?)
    }

    fn from_key(key: XKey) -> Result<Self, SealError> {
        let public = SealingKey::parse(&key.public_key())?;
        let seed = Zeroizing::new(key.seed().map_err(|_| SealError::Key)?);
        let (_, bytes) = nkeys::decode_seed(&seed).map_err(|_| SealError::Key)?;
        let secret = SecretKey::from_bytes(*Zeroizing::new(bytes));
        Ok(Self { key, secret, public, shared: Cache::new(MOST_SHARED) })
    }

    /// Writes the seed to a new file that only its owner may read.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SealError> {
        let failed = |source| SealError::Write { path: path.display().to_string(), source };
        let seed = Zeroizing::new(self.key.seed().map_err(|_| SealError::Key)?);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        io::Write::write_all(&mut file, seed.as_bytes()).map_err(failed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &SealingKey {
        &self.public
    }

    /// Seals `plain` so that only the owner of `to` can open it, and knows that we sealed it.
    ///
    /// # Errors
    /// When `to` is malformed.
    pub fn seal(&self, to: &SealingKey, plain: &[u8]) -> Result<SealedBox, SealError> {
        let shared = self.shared_with(to)?;
        let mut nonce = Nonce::default();
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError::Seal)?;
        let sealed = shared.encrypt(&nonce, plain).map_err(|_| SealError::Seal)?;
        Ok(SealedBox::from_bytes(&[VERSION, nonce.as_slice(), &sealed].concat()))
    }

    /// Whether one can seal to `to`. Cheap: no key is made.
    ///
    /// # Errors
    /// When its prefix or checksum is wrong.
    pub fn check(&self, to: &SealingKey) -> Result<(), SealError> {
        if self.shared.contains_key(to) {
            return Ok(());
        }
        XKey::from_public_key(to.as_str()).map(drop).map_err(|_| SealError::Key)
    }

    /// The key that we share with the owner of `to`: made once for each that is sealed to often.
    fn shared_with(&self, to: &SealingKey) -> Result<Arc<SalsaBox>, SealError> {
        if let Some(shared) = self.shared.get(to) {
            return Ok(shared);
        }
        // Checks prefix and checksum.
        XKey::from_public_key(to.as_str()).map_err(|_| SealError::Key)?;
        let (_, bytes) = nkeys::from_public_key(to.as_str()).map_err(|_| SealError::Key)?;
        let shared = Arc::new(SalsaBox::new(&PublicKey::from(bytes), &self.secret));
        self.shared.insert(to.clone(), shared.clone());
        Ok(shared)
    }

    /// Opens a box that the owner of `from` sealed for us.
    ///
    /// # Errors
    /// When it was sealed by or for another key, or changed.
    pub fn open(&self, from: &SealingKey, sealed: &SealedBox) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sender = XKey::from_public_key(from.as_str()).map_err(|_| SealError::Key)?;
        let bytes = sealed.to_bytes().ok_or(SealError::Open)?;
        self.key.open(&bytes, &sender).map(Zeroizing::new).map_err(|_| SealError::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_its_recipient_and_from_its_sender_alone() {
        let (broker, job, other) =
            (SealSeed::generate().unwrap(), SealSeed::generate().unwrap(), SealSeed::generate().unwrap());
        let sealed = broker.seal(job.public(), b"canary").unwrap();
        assert_eq!(job.open(broker.public(), &sealed).unwrap().as_slice(), b"canary");
        assert!(matches!(other.open(broker.public(), &sealed), Err(SealError::Open)));
        assert!(matches!(job.open(other.public(), &sealed), Err(SealError::Open)));
        let seed = broker.key.seed().unwrap();
        assert!(seed.starts_with("SX") && !format!("{broker:?}").contains(&seed));
    }

    #[test]
    fn boxes_are_those_of_nkeys_also_out_of_the_cache_and_no_two_are_alike() {
        let (broker, job) = (SealSeed::generate().unwrap(), SealSeed::generate().unwrap());
        let boxes: Vec<_> = (0..3).map(|_| broker.seal(job.public(), b"canary").unwrap().to_bytes().unwrap()).collect();
        for sealed in &boxes {
            assert_eq!(job.key.open(sealed, &broker.key).unwrap(), b"canary");
        }
        assert!(boxes[0] != boxes[1] && boxes[1] != boxes[2]);
        // With the same nonce they are the same, byte for byte.
        let nonce = crypto_box::Nonce::from_slice(&boxes[0][4..28]);
        assert_eq!(broker.key.seal_with_nonce(b"canary", &job.key, *nonce).unwrap(), boxes[0]);
    }

    #[test]
    fn a_key_whose_checksum_is_wrong_is_refused() {
        let (broker, job) = (SealSeed::generate().unwrap(), SealSeed::generate().unwrap());
        let mut text = job.public().as_str().to_owned();
        let last = if text.ends_with('A') { "B" } else { "A" };
        text.replace_range(55.., last);
        let wrong = SealingKey::parse(&text).unwrap();
        assert!(matches!(broker.check(&wrong), Err(SealError::Key)));
        assert!(matches!(broker.seal(&wrong, b"canary"), Err(SealError::Key)));
        assert!(broker.check(job.public()).is_ok());
    }
}
