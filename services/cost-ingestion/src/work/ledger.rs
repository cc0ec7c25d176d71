//! The ledger: what was found of each connection's exports, and what was read of it.
//!
//! Small files beside the table (`_rolebridge/ledger/<tenant>/<connection>/...`; engines pass over names that start with `_`), in three kinds, each with
//! one kind of writer, so that nobody overwrites another's word:
//!
//! | file | says | written by |
//! |---|---|---|
//! | `found.json` | which exports and periods there are, and in which version | the look for exports |
//! | `<export>/<period>.files.json` | the files of that version | the look for exports |
//! | `<export>/<period>.json` | the versions that were read, and the try under way | whoever reads the period |
//!
//! Which version the table holds is said by the table's own log alone. An entry is written before the commit with what is about to be committed
//! (`pending`), and after it once more: a crash between the two is seen by asking the log. Losing a file costs a second look, and never a cost.

mod entry;
mod found;

pub use entry::{Attempt, Entry, Pending, ServiceSum, Version};
pub use found::{Failure, FileVersion, Files, Found, FoundExport, FoundUnit, Looked, ManifestVersion, Superseded};

use crate::credentials::Scope;
use contracts::costs::BillingPeriod;
use contracts::{ConnectionId, TenantId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const FOLDER: &str = "_rolebridge/ledger";

/// Why the ledger could not be kept. Trying again is right.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{operation} the ledger beside the cost table failed")]
    Storage {
        operation: &'static str,
        #[source]
        source: object_store::Error,
    },
    #[error("a file of the ledger beside the cost table could not be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// The ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn ObjectStore>,
}

impl Ledger {
    /// In this store, which is the table's.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// What was found of a connection.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn found(&self, scope: Scope) -> Result<Option<Found>, LedgerError> {
        self.read(&folder(scope).join("found.json")).await
    }

    /// # Errors
    /// When storage fails.
    pub async fn keep_found(&self, scope: Scope, found: &Found) -> Result<(), LedgerError> {
        self.write(&folder(scope).join("found.json"), found).await
    }

    /// The files of a unit, in the version that was found last.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn files(
        &self,
        scope: Scope,
        export: &str,
        period: &BillingPeriod,
    ) -> Result<Option<Files>, LedgerError> {
        self.read(&slice(scope, export).join(format!("{period}.files.json"))).await
    }

    /// # Errors
    /// When storage fails.
    pub async fn keep_files(
        &self,
        scope: Scope,
        export: &str,
        period: &BillingPeriod,
        files: &Files,
    ) -> Result<(), LedgerError> {
        self.write(&slice(scope, export).join(format!("{period}.files.json")), files).await
    }

    /// What was read of a period; nothing yet when there is no such entry.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn entry(&self, scope: Scope, export: &str, period: &BillingPeriod) -> Result<Entry, LedgerError> {
        Ok(self.read(&slice(scope, export).join(format!("{period}.json"))).await?.unwrap_or_default())
    }

    /// # Errors
    /// When storage fails.
    pub async fn keep_entry(
        &self,
        scope: Scope,
        export: &str,
        period: &BillingPeriod,
        entry: &Entry,
    ) -> Result<(), LedgerError> {
        self.write(&slice(scope, export).join(format!("{period}.json")), entry).await
    }

    /// A tenant's connections of which anything was found, in order.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn connections(&self, tenant: TenantId) -> Result<Vec<ConnectionId>, LedgerError> {
        let folder = Path::from(FOLDER).join(tenant.to_string());
        let listed = self.store.list_with_delimiter(Some(&folder)).await.map_err(storage("listing"))?;
        let name = |path: &Path| path.filename().and_then(|name| name.parse().ok());
        let mut connections: Vec<ConnectionId> = listed.common_prefixes.iter().filter_map(name).collect();
        connections.sort_unstable();
        Ok(connections)
    }

    async fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, LedgerError> {
        match self.store.get(path).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(storage("reading"))?;
                // As if it were not there: what it said is found out anew.
                Ok(serde_json::from_slice(&bytes)
                    .inspect_err(
                        |error| tracing::error!(%path, %error, "a file of the ledger is damaged, and passed over"),
                    )
                    .ok())
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage("reading")(error)),
        }
    }

    async fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), LedgerError> {
        let json = serde_json::to_vec(value).map_err(LedgerError::Json)?;
        self.store.put(path, json.into()).await.map_err(storage("writing"))?;
        Ok(())
    }
}

fn folder(scope: Scope) -> Path {
    Path::from(FOLDER).join(scope.tenant.to_string()).join(scope.connection.to_string())
}

/// Names of exports are paths of others' making: the folder's name is a digest.
fn slice(scope: Scope, export: &str) -> Path {
    let digest = Sha256::digest(export.as_bytes());
    let name: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    folder(scope).join(name)
}

fn storage(operation: &'static str) -> impl Fn(object_store::Error) -> LedgerError {
    move |source| LedgerError::Storage { operation, source }
}

/// A reason as it is kept and said: bounded, since names in it come from customers' buckets.
#[must_use]
pub fn reason(error: &impl ToString) -> String {
    const MAX_REASON: usize = 2000;
    error.to_string().chars().take(MAX_REASON).collect()
}
