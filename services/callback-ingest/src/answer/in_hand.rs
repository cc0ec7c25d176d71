//! Which requests this process is answering at this moment: a duplicate that comes meanwhile waits until the ledger knows.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use contracts::callback::CallbackKey;

#[derive(Debug, Default)]
pub struct InHand(Mutex<HashSet<CallbackKey>>);

/// Lets the request go when dropped.
pub(super) struct Hold<'a> {
    all: &'a InHand,
    key: CallbackKey,
}

impl InHand {
    /// `None` when it is in hand already.
    pub(super) fn take(&self, key: &CallbackKey) -> Option<Hold<'_>> {
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        fresh.then(|| Hold { all: self, key: key.clone() })
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
