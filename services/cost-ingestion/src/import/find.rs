//! What an import was told to read, folder by folder.

use super::{ImportArgs, ImportError};
use crate::export::{self, Discovered, Export, ExportError, Limits};
use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Files of one export.
pub(super) struct Found {
    pub(super) export: Export,
    pub(super) files: Result<Discovered, ExportError>,
    /// Whether a manifest says that they are the whole of their period.
    pub(super) whole: bool,
}

type Store = Arc<dyn ObjectStore>;

pub(super) async fn find(args: &ImportArgs, store: &Store) -> Result<Vec<Found>, ImportError> {
    let mut loose_files: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
    let mut all = Vec::new();
    for given in &args.files {
        let path = |source| ImportError::Path { path: given.clone(), source };
        let whole = std::fs::canonicalize(given).map_err(path)?;
        if whole.is_dir() {
            let found = folder(&whole, store).await?;
            if found.is_empty() {
                return Err(ImportError::Nothing { path: given.clone() });
            }
            all.extend(found);
        } else {
            let path = object_store::path::Path::from_filesystem_path(&whole).map_err(object_store::Error::from)?;
            let file = store.head(&path).await?;
            loose_files.entry(export_folder(&file)).or_default().push(file);
        }
    }
    all.extend(loose_files.into_iter().map(|(folder, files)| loose(&folder, files)));
    Ok(merged(all, args.export.as_deref()))
}

/// What belongs to one export and period, together: by one name if there is one.
fn merged(all: Vec<Found>, name: Option<&str>) -> Vec<Found> {
    let mut merged: Vec<Found> = Vec::new();
    for mut found in all {
        if let Some(name) = name {
            found.export = Export::named(name);
        }
        let Ok(mut files) = found.files else {
            merged.push(found);
            continue;
        };
        files.export = found.export.clone();
        let known = merged.iter_mut().filter(|known| known.export == found.export);
        match known.filter_map(|known| known.files.as_mut().ok()).find(|known| known.period == files.period) {
            Some(known) => {
                known.files.extend(files.files);
                distinct(&mut known.files);
            }
            None => merged.push(Found { files: Ok(files), ..found }),
        }
    }
    merged
}

/// Named twice, costs must not count twice.
fn distinct(files: &mut Vec<ObjectMeta>) {
    files.sort_by(|a, b| a.location.cmp(&b.location));
    files.dedup_by(|a, b| a.location == b.location);
}

fn loose(folder: &str, mut files: Vec<ObjectMeta>) -> Found {
    distinct(&mut files);
    let export = Export::named(&format!("file:///{folder}"));
    let discovered = Discovered { export: export.clone(), period: None, files, thorough: true };
    Found { export, files: Ok(discovered), whole: false }
}

/// The folder that stands for a file's export. Data Exports and Athena keep each period in a folder of its own; the export is what they lie in.
fn export_folder(file: &ObjectMeta) -> String {
    let (folder, _) = file.location.as_ref().rsplit_once('/').unwrap_or_default();
    folder.split('/').take_while(|part| !part.contains('=')).collect::<Vec<_>>().join("/")
}

/// A folder: by its manifests if there are any, else all cost files below it, each folder of them an export.
async fn folder(path: &Path, store: &Store) -> Result<Vec<Found>, ImportError> {
    let prefix = object_store::path::Path::from_filesystem_path(path).map_err(object_store::Error::from)?;
    let found = export::discover_local(store, &prefix, &Limits::default()).await?;
    if !found.is_empty() {
        return Ok(found.into_iter().map(|(export, files)| Found { export, files, whole: true }).collect());
    }
    let objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await?;
    let files: Vec<ObjectMeta> =
        objects.into_iter().filter(|object| export::may_hold_costs(object.location.as_ref())).collect();
    if let Some(folder) = export::versions_side_by_side(&files) {
        let export = Export::named(&format!("file:///{folder}"));
        return Ok(vec![Found { export, files: Err(ExportError::SideBySide { folder }), whole: false }]);
    }
    let mut folders: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
    for file in files {
        folders.entry(export_folder(&file)).or_default().push(file);
    }
    Ok(folders.into_iter().map(|(folder, files)| loose(&folder, files)).collect())
}
