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

use crate::credentials::Scope;
use crate::table::Fingerprint;
use contracts::costs::{Amount, BillingPeriod, Currency, ExportLocation, PeriodVersion};
use contracts::{AccountId, ConnectionId, JobId, Region, TenantId, Timestamp};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const FOLDER: &str = "_rolebridge/ledger";
/// Versions of a period that are listed; the count goes on.
const LISTED: usize = 50;

/// What was found of a connection's exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The job that looked.
    pub job: JobId,
    /// When.
    pub at: Timestamp,
    /// The connection's account.
    pub account: AccountId,
    /// The exports.
    pub exports: Vec<FoundExport>,
    /// Places that could not be looked at.
    pub failures: Vec<Failure>,
    /// Whether the job is through with looking; otherwise it tries the places that failed again.
    pub complete: bool,
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundExport {
    /// Its name in the table.
    pub export: String,
    /// Where it was looked for.
    pub place: ExportLocation,
    /// The region that was tried first.
    pub region: Region,
    /// Its periods, the newest first.
    pub units: Vec<FoundUnit>,
}

/// One billing period of an export, in the version that was found last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundUnit {
    /// The period.
    pub period: BillingPeriod,
    /// Of its files; none when they could not be told.
    pub fingerprint: Option<Fingerprint>,
    /// How many files.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the files have rows of other periods, too.
    pub mixed: bool,
    /// The manifest, where one told them.
    pub manifest: Option<ManifestVersion>,
    /// What it is, if somebody had to look.
    pub look: Option<Looked>,
    /// Why its files could not be told.
    pub failure: Option<String>,
    /// The export that serves instead, and why.
    pub superseded: Option<Superseded>,
}

/// A version of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestVersion {
    /// Its path in the bucket.
    pub path: String,
    /// Its ETag.
    pub e_tag: Option<String>,
}

/// See [`crate::ingest::Look`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The source format.
    pub format: String,
    /// The billing account of its first row.
    pub payer: Option<String>,
}

/// Another export serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// Which.
    pub by: String,
    /// Why, for a person.
    pub reason: String,
}

/// Something that did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The place.
    pub place: String,
    /// For a person.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// Whether it is given up until somebody orders it anew.
    pub given_up: bool,
    /// When it is tried again.
    pub next: Timestamp,
}

/// A file of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    path: String,
    size: u64,
    e_tag: Option<String>,
    last_modified: String,
}

/// The files of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Of these files.
    pub fingerprint: Fingerprint,
    /// The files.
    pub files: Vec<FileVersion>,
}

/// What was read of one period of one export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The versions, the latest last; the oldest are left out.
    pub versions: Vec<Version>,
    /// How many there were.
    pub count: u32,
    /// Of the latest version, by service.
    pub services: Vec<ServiceSum>,
    /// The billing accounts of the latest version.
    pub payers: Vec<String>,
    /// The export that took the rows away, if one did.
    pub taken_by: Option<String>,
    /// What was about to be committed.
    pub pending: Option<Pending>,
    /// The try under way, or the last one that failed.
    pub attempt: Option<Attempt>,
}

/// A version that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of its files.
    pub fingerprint: Fingerprint,
    /// What people see of it.
    #[serde(flatten)]
    pub seen: PeriodVersion,
    /// The source formats.
    pub formats: String,
}

/// What is about to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The version; its table version is not known yet.
    pub version: Version,
    /// Its sums.
    pub services: Vec<ServiceSum>,
    /// Its payers.
    pub payers: Vec<String>,
}

/// What a service costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSum {
    /// FOCUS `ServiceName`.
    pub service: String,
    /// Its currency.
    pub currency: Currency,
    /// FOCUS `BilledCost`.
    pub billed: Amount,
    /// FOCUS `EffectiveCost`.
    pub effective: Amount,
}

/// Tries at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The version that is tried.
    pub fingerprint: Fingerprint,
    /// When the first of them began.
    pub since: Timestamp,
    /// How many began.
    pub tries: u32,
    /// Whether one is under way: it is written down before anything is read.
    pub running: bool,
    /// Whether it is given up until `next`, and said.
    pub given_up: bool,
    /// Why the last one failed.
    pub reason: Option<String>,
    /// Not before then.
    pub next: Timestamp,
}

impl Entry {
    /// The version whose rows the table holds, as far as the ledger knows.
    #[must_use]
    pub fn held(&self) -> Option<&Version> {
        if self.taken_by.is_some() { None } else { self.versions.last() }
    }

    /// Whether the table holds this version, as far as the ledger knows.
    #[must_use]
    pub fn holds(&self, fingerprint: Fingerprint) -> bool {
        self.held().is_some_and(|version| version.fingerprint == fingerprint)
    }

    /// The tries at this version.
    #[must_use]
    pub fn attempt_at(&self, fingerprint: Fingerprint) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.fingerprint == fingerprint)
    }

    /// Makes what was pending the latest version.
    pub fn promote(&mut self, pending: Pending, table_version: u64) {
        let Pending { mut version, services, payers } = pending;
        version.seen.table_version = table_version;
        self.versions.push(version);
        let spare = self.versions.len().saturating_sub(LISTED);
        self.versions.drain(..spare);
        self.count += 1;
        (self.services, self.payers) = (services, payers);
        (self.taken_by, self.pending, self.attempt) = (None, None, None);
    }
}

impl From<&ObjectMeta> for FileVersion {
    fn from(object: &ObjectMeta) -> Self {
        Self {
            path: object.location.to_string(),
            size: object.size,
            e_tag: object.e_tag.clone(),
            last_modified: object.last_modified.to_rfc3339(),
        }
    }
}

impl FileVersion {
    /// As it was listed; none if this is not what we wrote.
    #[must_use]
    pub fn object(&self) -> Option<ObjectMeta> {
        let location = Path::parse(&self.path).ok()?;
        let last_modified = self.last_modified.parse().ok()?;
        Some(ObjectMeta { location, last_modified, size: self.size, e_tag: self.e_tag.clone(), version: None })
    }

    /// Its path in the bucket.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is this very version of it.
    #[must_use]
    pub fn is(&self, object: &ObjectMeta) -> bool {
        *self == Self::from(object)
    }
}

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
