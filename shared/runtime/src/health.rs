//! Readiness, as the sum of named parts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Whether the process can do its work. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One thing that must work for the process to be ready: the connection to NATS, the database, a queue.
#[derive(Debug, Clone)]
pub struct Part {
    health: Health,
    name: &'static str,
}

impl Health {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part, not ready until it says so.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { health: self.clone(), name };
        part.not_ready("starting");
        part
    }

    /// What is not ready, and why; empty when all is well.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(name, reason)| Some((*name, reason.clone()?))).collect()
    }

    fn set(&self, name: &'static str, reason: Option<String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name, reason);
    }
}

impl Part {
    pub fn ready(&self) {
        self.health.set(self.name, None);
    }

    /// `reason` is shown to whoever asks `/readyz`: no secrets.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.health.set(self.name, Some(reason.into()));
    }
}
