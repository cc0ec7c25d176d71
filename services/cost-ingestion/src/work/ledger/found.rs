//! What the look for exports writes down: exports, their periods and files, and what could not be looked at.

use crate::table::Fingerprint;
use contracts::costs::{BillingPeriod, ExportLocation};
use contracts::{AccountId, JobId, Region, Timestamp};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

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
    /// The reason that was said of this place last: what stays refused is news once.
    #[serde(default)]
    pub said: Option<String>,
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
