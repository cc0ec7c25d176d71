//! Where the windows lie, for all instances: a bucket, written by compare-and-set.

use async_trait::async_trait;
use contracts::AccountId;
use messaging::async_nats::jetstream::kv;

use super::window::Window;

/// Its name. A key is a provider account.
pub const BUDGET_BUCKET: &str = "rolebridge-sts-budget";

#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    #[error("another instance was faster")]
    Conflict,
    #[error("the budget of calls to STS could not be {operation}: {problem}")]
    Unavailable { operation: &'static str, problem: String },
}

/// Compare-and-set over one window for each provider account.
///
/// Cancel: a dropped write may or may not have happened; then some calls are taken by nobody.
#[async_trait]
pub(super) trait Windows: Send + Sync {
    /// The window and the revision that a write replaces. None is there where somebody has deleted it, or one of another version cannot be read: then
    /// it is begun anew.
    async fn get(&self, account: &AccountId) -> Result<(Option<Window>, u64), WindowError>;
    /// Writes if the last revision is `replaces`.
    async fn put(&self, account: &AccountId, window: Window, replaces: u64) -> Result<u64, WindowError>;
}

fn unavailable(operation: &'static str, error: impl std::fmt::Display) -> WindowError {
    WindowError::Unavailable { operation, problem: error.to_string() }
}

#[async_trait]
impl Windows for kv::Store {
    async fn get(&self, account: &AccountId) -> Result<(Option<Window>, u64), WindowError> {
        let entry = self.entry(account.as_str()).await.map_err(|error| unavailable("read", error))?;
        Ok(entry.map_or((None, 0), |entry| (serde_json::from_slice(&entry.value).ok(), entry.revision)))
    }

    async fn put(&self, account: &AccountId, window: Window, replaces: u64) -> Result<u64, WindowError> {
        let value = serde_json::to_vec(&window).map_err(|error| unavailable("written", error))?;
        self.update(account.as_str(), value.into(), replaces).await.map_err(|error| match error.kind() {
            kv::UpdateErrorKind::WrongLastRevision => WindowError::Conflict,
            _ => unavailable("written", error),
        })
    }
}
