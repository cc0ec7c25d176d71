//! What is to be read: one listing, then manifests if there are any, else plain Parquet files.

use super::manifest::{self, Lies};
use super::{ExportError, Limits};
use contracts::AccountId;
use contracts::costs::{BillingPeriod, ExportLocation};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a manifest's name ends.
const MANIFEST: &str = "-Manifest.json";

/// Stands for the bucket of what Cost Explorer answered. No bucket of S3 can have this name, which begins with a reserved prefix.
pub const COST_EXPLORER_BUCKET: &str = "xn--rolebridge-cost-explorer";
/// The export of that.
const COST_EXPLORER: &str = "cost-explorer";

/// The name of one export in the table: `s3://bucket/path`, of the report's folder or of the prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Export(String);

impl Export {
    /// The export at this path of this bucket.
    #[must_use]
    pub fn new(bucket: &str, path: &str) -> Self {
        if bucket == COST_EXPLORER_BUCKET {
            return Self::named(COST_EXPLORER);
        }
        Self(if path.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{path}") })
    }

    /// An export that lies in no bucket.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Whether it is what Cost Explorer answered, which no other name stands for.
    #[must_use]
    pub fn is_cost_explorer(&self) -> bool {
        self.0 == COST_EXPLORER
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Files that together are one billing period of one export (or, without a manifest, still have to be told apart by period).
#[derive(Debug)]
pub struct Discovered {
    /// The export they belong to.
    pub export: Export,
    /// Their period, if a manifest says so; it is still compared with each row.
    pub period: Option<BillingPeriod>,
    /// The files, with the sizes and ETags of the listing.
    pub files: Vec<ObjectMeta>,
    /// Whether each row of a file is asked for its period, where no manifest tells it: files of unknown making may hold several.
    pub thorough: bool,
}

/// What lies under an export's prefix: one listing.
#[derive(Debug)]
pub struct Listing {
    objects: BTreeMap<Path, ObjectMeta>,
}

/// A manifest that was listed: nothing of it has been read yet.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The export that it belongs to.
    pub export: Export,
    /// The period that its folder names.
    pub period: Option<BillingPeriod>,
    /// The manifest.
    pub manifest: ObjectMeta,
}

/// What a manifest says: a period, and the files that are its current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The period.
    pub period: BillingPeriod,
    /// The files' paths, in the manifest's order.
    pub files: Vec<Path>,
}

impl Listing {
    /// Lists all of it.
    ///
    /// # Errors
    /// When the bucket cannot be listed, or holds too much.
    pub async fn of(
        store: &Arc<dyn ObjectStore>,
        location: &ExportLocation,
        limits: &Limits,
    ) -> Result<Self, ExportError> {
        if !location.is_well_formed() {
            return Err(ExportError::BadLocation);
        }
        Ok(Self { objects: list(store, location, limits).await? })
    }

    /// The newest manifest of each period of each export.
    #[must_use]
    pub fn manifests(&self, location: &ExportLocation) -> Vec<Listed> {
        let listed = |(report, folder, object): (String, String, &ObjectMeta)| Listed {
            export: Export::new(&location.bucket, report.strip_suffix("/metadata").unwrap_or(&report)),
            period: period_of_folder(&folder),
            manifest: object.clone(),
        };
        newest_manifests(&self.objects, |_, _| 0).into_iter().map(listed).collect()
    }

    /// The files that a manifest names, with the sizes and ETags of this listing.
    ///
    /// # Errors
    /// When one is missing, or they are too large.
    pub fn files(&self, manifest: &Path, named: &[Path], limits: &Limits) -> Result<Vec<ObjectMeta>, ExportError> {
        let mut files = Vec::with_capacity(named.len());
        for (index, file) in named.iter().enumerate() {
            let missing = || ExportError::MissingFile { path: manifest.clone(), number: index + 1 };
            files.push(self.objects.get(file).cloned().ok_or_else(missing)?);
        }
        check_sizes(&files, limits)?;
        Ok(files)
    }

    /// All cost files, where there is no manifest that tells their periods.
    ///
    /// # Errors
    /// When there are none, they are too large, or they are several versions of a period.
    pub fn plain(&self, location: &ExportLocation, limits: &Limits) -> Result<Discovered, ExportError> {
        let files: Vec<_> =
            self.objects.values().filter(|object| may_hold_costs(object.location.as_ref())).cloned().collect();
        if files.is_empty() {
            return Err(ExportError::Nothing);
        }
        if let Some(folder) = versions_side_by_side(&files) {
            return Err(ExportError::SideBySide { folder });
        }
        check_sizes(&files, limits)?;
        Ok(Discovered { export: Export::new(&location.bucket, &location.prefix), period: None, files, thorough: false })
    }
}

/// Reads a manifest.
///
/// # Errors
/// When it cannot be read, or cannot be used.
pub async fn read_manifest(
    store: &Arc<dyn ObjectStore>,
    location: &ExportLocation,
    account: &AccountId,
    limits: &Limits,
    object: &ObjectMeta,
) -> Result<Named, ExportError> {
    let path = &object.location;
    within(&format!("bytes of the manifest {path}"), object.size, limits.manifest_bytes)?;
    let failed = |source| ExportError::Storage { operation: "reading a manifest", source };
    // The listed size is what is asked for: an object that grew meanwhile does not grow here.
    let bytes = store.get_range(path, 0..object.size).await.map_err(failed)?;
    let manifest = manifest::parse(path, &bytes, &Lies::InBucket { location, account })?;
    Ok(Named { period: manifest.period, files: manifest.files })
}

/// By the manifests below a folder here, if there are any. A manifest names files by their places in the bucket that it was copied from: a file here is the
/// one whose path ends like that, as far as it goes. A manifest that cannot be used, or whose files are not there, stands for its period alone.
///
/// # Errors
/// When the folder cannot be listed.
pub async fn discover_local(
    store: &Arc<dyn ObjectStore>,
    folder: &Path,
    limits: &Limits,
) -> Result<Vec<(Export, Result<Discovered, ExportError>)>, ExportError> {
    let failed = |source| ExportError::Storage { operation: "listing the folder", source };
    let objects: Vec<ObjectMeta> = store.list(Some(folder)).try_collect().await.map_err(failed)?;
    let objects: BTreeMap<_, _> = objects.into_iter().map(|object| (object.location.clone(), object)).collect();
    let mut found = Vec::new();
    // Whoever copied them has given them new times.
    for (report, _, object) in newest_manifests(&objects, said_by_place) {
        let report = report.strip_suffix("/metadata").unwrap_or(&report);
        let export = Export::named(&format!("file:///{report}"));
        let discovered = by_manifest_here(store, &objects, object, &export, limits).await;
        found.push((export, discovered));
    }
    Ok(found)
}

async fn by_manifest_here(
    store: &Arc<dyn ObjectStore>,
    objects: &BTreeMap<Path, ObjectMeta>,
    object: &ObjectMeta,
    export: &Export,
    limits: &Limits,
) -> Result<Discovered, ExportError> {
    let path = &object.location;
    within(&format!("bytes of the manifest {path}"), object.size, limits.manifest_bytes)?;
    let failed = |source| ExportError::Storage { operation: "reading a manifest", source };
    let bytes = store.get_range(path, 0..object.size).await.map_err(failed)?;
    let manifest = manifest::parse(path, &bytes, &Lies::Here)?;
    let mut files = Vec::with_capacity(manifest.files.len());
    for (index, key) in manifest.files.iter().enumerate() {
        let missing = || ExportError::MissingFile { path: path.clone(), number: index + 1 };
        files.push(ending_like(objects, key).cloned().ok_or_else(missing)?);
    }
    check_sizes(&files, limits)?;
    Ok(Discovered { export: export.clone(), period: Some(manifest.period), files, thorough: false })
}

/// The object whose path has most of the key's last parts; at least its name.
fn ending_like<'o>(objects: &'o BTreeMap<Path, ObjectMeta>, key: &Path) -> Option<&'o ObjectMeta> {
    let common = |path: &Path| {
        let (path, key): (Vec<_>, Vec<_>) = (path.parts().collect(), key.parts().collect());
        path.iter().rev().zip(key.iter().rev()).take_while(|(a, b)| a.as_ref() == b.as_ref()).count()
    };
    let best = objects.values().max_by_key(|object| common(&object.location))?;
    (common(&best.location) > 0).then_some(best)
}

async fn list(
    store: &Arc<dyn ObjectStore>,
    location: &ExportLocation,
    limits: &Limits,
) -> Result<BTreeMap<Path, ObjectMeta>, ExportError> {
    let failed = |source| ExportError::Storage { operation: "listing the export", source };
    let prefix = Path::parse(&location.prefix).map_err(|_| ExportError::BadLocation)?;
    let mut listing = store.list((!location.prefix.is_empty()).then_some(&prefix));
    let mut objects = BTreeMap::new();
    while let Some(object) = listing.try_next().await.map_err(failed)? {
        objects.insert(object.location.clone(), object);
        if objects.len() > limits.objects {
            let (found, limit) = (objects.len() as u64, limits.objects as u64);
            return Err(ExportError::TooMuch { what: "objects under the export's prefix".into(), found, limit });
        }
    }
    Ok(objects)
}

/// Per report and period folder (`<report>/<20181101-20181201>/[<assembly>/]<report>-Manifest.json`, or of Data Exports
/// `<export>/metadata/BILLING_PERIOD=2018-11/[<execution>/]<export>-Manifest.json`) the newest manifest: when a report keeps its versions, each assembly
/// has one, and the period's own is a copy of the newest. `said` goes before the times, by the parts of the path and the place of the period's folder in them.
fn newest_manifests(
    objects: &BTreeMap<Path, ObjectMeta>,
    said: fn(&[&str], usize) -> u64,
) -> Vec<(String, String, &ObjectMeta)> {
    let mut newest: BTreeMap<(String, String), (u64, &ObjectMeta)> = BTreeMap::new();
    for object in objects.values() {
        let path = object.location.as_ref();
        let parts: Vec<_> = path.split('/').collect();
        let Some(at) = parts.iter().rposition(|part| is_period_folder(part)).filter(|_| is_manifest(path)) else {
            continue;
        };
        let (report, period) = (parts.iter().take(at).copied().collect::<Vec<_>>().join("/"), parts.get(at).copied());
        let key = (report, period.unwrap_or_default().to_owned());
        let said = said(&parts, at);
        let rank =
            |(said, o): (u64, &ObjectMeta)| (said, o.last_modified, std::cmp::Reverse(o.location.as_ref().len()));
        if newest.get(&key).is_none_or(|known| rank(*known) < rank((said, object))) {
            newest.insert(key, (said, object));
        }
    }
    newest.into_iter().map(|((report, folder), (_, object))| (report, folder, object)).collect()
}

fn is_manifest(path: &str) -> bool {
    let start = path.len().saturating_sub(MANIFEST.len());
    path.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(MANIFEST))
}

/// What the place of a manifest says of its age: the period's own is the current one, and executions of Data Exports are named by their time
/// (`20240901T120000.123Z-...`, `2024-09-01T12:00:00.123Z-...`).
fn said_by_place(parts: &[&str], at: usize) -> u64 {
    let Some(execution) = parts.get(at + 1).filter(|_| parts.len() > at + 2) else { return u64::MAX };
    let (time, _) = execution.split_once('Z').unwrap_or_default();
    let digits = time.bytes().filter(u8::is_ascii_digit).take(17);
    let is_time = time.contains('T') && time.bytes().all(|byte| byte.is_ascii_digit() || b"-:.T".contains(&byte));
    if is_time { digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')) } else { 0 }
}

/// A period's folder in which files lie in more than one place: those of several assemblies (of Data Exports: executions), each of which tells the whole period.
#[must_use]
pub fn versions_side_by_side(files: &[ObjectMeta]) -> Option<String> {
    let mut places: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        let parts: Vec<_> = file.location.as_ref().split('/').collect();
        let Some(at) = parts.iter().rposition(|part| is_period_folder(part)) else { continue };
        // Another partition is no version.
        let place = parts.get(at + 1).filter(|next| parts.len() > at + 2 && !next.contains('=')).copied();
        let folder = parts.iter().take(at + 1).copied().collect::<Vec<_>>().join("/");
        let place = place.unwrap_or_default();
        if *places.entry(folder.clone()).or_insert(place) != place {
            return Some(folder);
        }
    }
    None
}

/// Where the name of a file that may hold costs ends; what it is, its contents say.
#[must_use]
pub(super) fn is_cost_file(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    [".parquet", ".csv", ".csv.gz", ".gz", ".zip"].iter().any(|ending| path.ends_with(ending))
}

/// Whether a file may hold costs by its path alone, where no manifest names it. What engines hide (names that start with `.` or `_`) does not, nor does the
/// table beside a legacy report by which Athena is told of deliveries.
#[must_use]
pub fn may_hold_costs(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    is_cost_file(name)
        && !name.starts_with(['.', '_'])
        && !path.split('/').any(|part| part == "cost_and_usage_data_status")
}

/// The month that such a folder names.
fn period_of_folder(folder: &str) -> Option<BillingPeriod> {
    if let Some(period) = folder.strip_prefix("BILLING_PERIOD=") {
        return period.parse().ok();
    }
    format!("{}-{}", folder.get(..4)?, folder.get(4..6)?).parse().ok()
}

/// The legacy report's `20181101-20181201`, or Data Exports' `BILLING_PERIOD=2018-11`.
fn is_period_folder(part: &str) -> bool {
    if part.strip_prefix("BILLING_PERIOD=").is_some_and(|period| period.parse::<BillingPeriod>().is_ok()) {
        return true;
    }
    let date = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    part.split_once('-').is_some_and(|(from, to)| date(from) && date(to))
}

fn check_sizes(files: &[ObjectMeta], limits: &Limits) -> Result<(), ExportError> {
    for file in files {
        within(&format!("bytes of the file {}", file.location), file.size, limits.file_bytes)?;
    }
    within("bytes of the period's files", files.iter().map(|file| file.size).sum(), limits.period_bytes)
}

fn within(what: &str, found: u64, limit: u64) -> Result<(), ExportError> {
    if found <= limit { Ok(()) } else { Err(ExportError::TooMuch { what: what.to_owned(), found, limit }) }
}
