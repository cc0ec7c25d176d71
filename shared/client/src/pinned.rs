//! Which broker is believed.

use std::fmt;

use contracts::SealingKey;

/// The public keys of the broker that a requester believes: one, or two while the broker's key is being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    first: SealingKey,
    others: Vec<SealingKey>,
}

impl Pinned {
    /// Believes `key` too.
    #[must_use]
    pub fn and(mut self, key: SealingKey) -> Self {
        if !self.holds(&key) {
            self.others.push(key);
        }
        self
    }

    /// All of `keys`; `None` when there are none, because then nobody could be believed.
    #[must_use]
    pub fn all(keys: impl IntoIterator<Item = SealingKey>) -> Option<Self> {
        let mut keys = keys.into_iter();
        let first = Self::from(keys.next()?);
        Some(keys.fold(first, Self::and))
    }

    /// Whether `key` is believed.
    #[must_use]
    pub fn holds(&self, key: &SealingKey) -> bool {
        self.keys().any(|pinned| pinned == key)
    }

    fn keys(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl From<SealingKey> for Pinned {
    fn from(first: SealingKey) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.keys().enumerate() {
            write!(f, "{}{key}", if index == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}
