//! Deleting data files that no version within the retention names.
//!
//! A file goes when it is older than the retention, is not in the table now, and was not removed from it within the retention. So versions of that time stay
//! readable, what a crashed writer has left goes too, and a write in hand is safe: its files are new. Folders that begin with `_` are not looked into. Doing it twice, or in two
//! processes at the same time, is harmless. Cancel: what was deleted is deleted, the rest goes next time.

use super::{CostTable, TableError, delta};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use time::{Duration, OffsetDateTime};

/// Days that old versions may be kept. The log remembers removed files no longer than that; less than a day would be too little for a long write.
pub const KEEP_DAYS: RangeInclusive<i64> = 1..=30;

/// What was deleted, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// The files.
    pub files: Vec<Path>,
    /// Their sizes together.
    pub bytes: u64,
}

impl CostTable {
    /// Deletes what no version of the last `keep` needs, as seen at `now`; with `dry_run` it only says what that would be.
    ///
    /// # Errors
    /// When storage fails. What was deleted before stays deleted.
    pub async fn vacuum(&self, keep: Duration, now: OffsetDateTime, dry_run: bool) -> Result<Vacuumed, TableError> {
        let keep = keep.clamp(Duration::days(*KEEP_DAYS.start()), Duration::days(*KEEP_DAYS.end()));
        let before = (now - keep).unix_timestamp() * 1000;
        let needed = self.needed_since(before).await?;
        let store = self.store();
        let all: Vec<_> = store.list(None).try_collect().await.map_err(TableError::Upkeep)?;
        let mut vacuumed = Vacuumed::default();
        for object in all {
            let path = object.location;
            let is_data =
                path.as_ref().ends_with(".parquet") && !path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
            if !is_data || object.last_modified.timestamp_millis() >= before || needed.contains(&path) {
                continue;
            }
            if !dry_run {
                match store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(TableError::Upkeep(error)),
                }
            }
            vacuumed.bytes += object.size;
            vacuumed.files.push(path);
        }
        Ok(vacuumed)
    }

    /// Files that are in the table, or were at any time since `before` (milliseconds since 1970).
    async fn needed_since(&self, before: i64) -> Result<BTreeSet<Path>, TableError> {
        let state = self.latest().await?;
        let mut needed: BTreeSet<Path> = state.log_data().into_iter().map(|file| file.object_store_path()).collect();
        let mut removed = state.all_tombstones(self.log.as_ref());
        while let Some(file) = removed.try_next().await.map_err(delta("reading"))? {
            if file.deletion_timestamp().is_none_or(|at| at >= before) {
                let path = file.path();
                needed.insert(Path::parse(path.as_ref()).unwrap_or_else(|_| Path::from(path.as_ref())));
            }
        }
        Ok(needed)
    }
}
