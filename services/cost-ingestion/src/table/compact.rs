//! Compaction: a slice's files that are small, or overlap in time, become few sorted ones, in one commit that changes no row.
//!
//! Readers see the same rows before and after. A slice that is replaced meanwhile wins: the commit is made only onto a version in which the slice's files are exactly
//! those that were read, and is given up otherwise. So it may run beside everything else, and in two processes at once.
//! Cancel or crash before the commit: the table is as it was, and what was written is left for vacuum.

use super::replace::{ATTEMPTS, adds, files_of, is_in, lost};
use super::sort::{self, Gathered, Gatherer};
use super::write::discard;
use super::{CostTable, Slice, TableError, Written, delta};
use crate::focus;
use crate::object::ObjectFile;
use crate::source::{Layout, Mapping};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use deltalake_core::kernel::Action;
use deltalake_core::kernel::LogicalFileView;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt as _;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Files of fewer rows and bytes, on the average, are small.
const SMALL_ROWS: u64 = 200_000;
const SMALL_BYTES: u64 = 8 << 20;
/// So many small files are worth it.
const SMALL_FILES: usize = 8;
/// Bytes that are read of one of our files at once.
const MAX_READ: u64 = 1 << 30;
const THREADS: usize = 2;

/// Our own files as a source: every column is what it was.
static TABLE: LazyLock<Option<Mapping>> = LazyLock::new(|| {
    let lines = focus::COLUMNS.iter().map(|column| format!("{0} = {0}\n", column.name));
    Mapping::parse(&format!("source table\n{}", lines.collect::<String>())).ok()
});

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Slices whose files were written anew.
    pub slices: usize,
    /// Files that they had.
    pub before: usize,
    /// Files that they have.
    pub after: usize,
    /// Slices that were replaced meanwhile, and left alone.
    pub overtaken: usize,
}

struct Candidate {
    slice: Slice,
    files: Vec<LogicalFileView>,
}

impl CostTable {
    /// Compacts every slice that needs it.
    ///
    /// # Errors
    /// The first failure; slices that were compacted before stay so.
    pub async fn compact(self: &Arc<Self>, stop: &CancellationToken) -> Result<Compacted, TableError> {
        let mut compacted = Compacted::default();
        for candidate in self.candidates().await? {
            if stop.is_cancelled() {
                break;
            }
            let before = candidate.files.len();
            let written = self.rewrite(&candidate, stop).await?;
            let after = written.files.len();
            if stop.is_cancelled() {
                discard(&self.store(), &written).await;
                break;
            }
            if self.swap(&candidate, written).await? {
                compacted.slices += 1;
                compacted.before += before;
                compacted.after += after;
            } else {
                compacted.overtaken += 1;
            }
        }
        Ok(compacted)
    }

    async fn candidates(&self) -> Result<Vec<Candidate>, TableError> {
        let state = self.latest().await?;
        let mut slices: HashMap<Slice, Vec<LogicalFileView>> = HashMap::new();
        for file in state.log_data().into_iter() {
            if let Some(slice) = Slice::of(&file.partition_values_map()) {
                slices.entry(slice).or_default().push(file);
            }
        }
        let all = slices.into_iter().filter(|(_, files)| is_worth_it(files));
        Ok(all.map(|(slice, files)| Candidate { slice, files }).collect())
    }

    async fn rewrite(self: &Arc<Self>, candidate: &Candidate, stop: &CancellationToken) -> Result<Written, TableError> {
        let files: Vec<_> = candidate
            .files
            .iter()
            .map(|file| {
                let size = u64::try_from(file.size()).unwrap_or_default();
                ObjectFile::new(self.store(), file.object_store_path(), size, MAX_READ)
            })
            .collect();
        let (runtime, of_read) = (Handle::current(), stop.clone());
        let gathered = tokio::task::spawn_blocking(move || gather(files, &runtime, &of_read)).await;
        let gathered = gathered.map_err(|error| reading(ParquetError::External(Box::new(error))))??;
        if stop.is_cancelled() {
            return Ok(Written::default());
        }
        let (found, wanted) = (gathered.rows(), rows(&candidate.files));
        if found != wanted {
            return Err(TableError::Miscounted { period: candidate.slice.period.clone(), found, wanted });
        }
        let sorted = Arc::new(gathered.sorted());
        let (written, result) = sort::write(sorted, self, &candidate.slice, THREADS, stop).await;
        match result {
            Ok(()) => Ok(written),
            Err(error) => {
                discard(&self.store(), &written).await;
                Err(error)
            }
        }
    }

    /// Whether the new files are now in the place of the old ones.
    async fn swap(&self, candidate: &Candidate, written: Written) -> Result<bool, TableError> {
        let old: BTreeSet<Path> = candidate.files.iter().map(LogicalFileView::object_store_path).collect();
        for _ in 0..ATTEMPTS {
            let state = self.latest().await?;
            if is_in(&state, &written) {
                return Ok(true);
            }
            let there: Vec<LogicalFileView> = files_of(&state, &candidate.slice).collect();
            if there.iter().map(LogicalFileView::object_store_path).collect::<BTreeSet<_>>() != old {
                discard(&self.store(), &written).await;
                return Ok(false);
            }
            let now = OffsetDateTime::now_utc().unix_timestamp() * 1000;
            let mut actions: Vec<Action> = there.iter().map(|file| Action::Remove(file.remove_action(false))).collect();
            actions.extend(adds(&candidate.slice, &written, now, false));
            let operation = DeltaOperation::Optimize { predicate: None, target_size: super::write::FILE_BYTES as i64 };
            let commit = CommitBuilder::from(CommitProperties::default().with_max_retries(0)).with_actions(actions);
            match commit.build(Some(&state), Arc::clone(&self.log), operation).await {
                Ok(_) => return Ok(true),
                Err(error) if lost(&error) => {}
                Err(error) => return Err(delta("committing to")(error)),
            }
        }
        discard(&self.store(), &written).await;
        Err(TableError::Busy(ATTEMPTS))
    }
}

fn gather(files: Vec<ObjectFile>, runtime: &Handle, stop: &CancellationToken) -> Result<Gathered, TableError> {
    let mut gatherer = Gatherer::default();
    for mut file in files {
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = runtime.block_on(ArrowReaderMetadata::load_async(&mut file, options())).map_err(reading)?;
        let options = options().with_schema(with_dictionaries(metadata.schema()));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(reading)?;
        let layout = Layout::new(metadata.schema());
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata);
        let mut stream = stream.with_batch_size(16 << 10).build().map_err(reading)?;
        while let Some(batch) = runtime.block_on(stream.try_next()).map_err(reading)? {
            if stop.is_cancelled() {
                return Ok(Gathered::default());
            }
            let mapping = TABLE.as_ref().ok_or(TableError::BadRow("its columns"))?;
            let mapped =
                mapping.map(&batch, &layout).map_err(|error| reading(ParquetError::External(Box::new(error))))?;
            gatherer.take(&mapped)?;
        }
    }
    gatherer.finish()
}

/// Text as it stands in the files: as dictionaries.
fn with_dictionaries(schema: &SchemaRef) -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 if field.name() != super::run::UNIQUE => {
            Arc::new(field.as_ref().clone().with_data_type(dictionary.clone()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn rows(files: &[LogicalFileView]) -> u64 {
    files.iter().map(|file| file.num_records().unwrap_or_default() as u64).sum()
}

fn is_worth_it(files: &[LogicalFileView]) -> bool {
    let count = files.len().max(1) as u64;
    let bytes: u64 = files.iter().map(|file| u64::try_from(file.size()).unwrap_or_default()).sum();
    let small = files.len() >= SMALL_FILES && rows(files) / count < SMALL_ROWS && bytes / count < SMALL_BYTES;
    small || overlap(files)
}

/// Whether files overlap in time by more than an equal start. Instants in the log are rounded to milliseconds.
fn overlap(files: &[LogicalFileView]) -> bool {
    let mut spans: Vec<_> = files.iter().filter_map(|file| span(&file.stats()?)).collect();
    spans.sort_unstable();
    let pairs = spans.iter().zip(spans.iter().skip(1));
    pairs.into_iter().any(|((_, last), (first, _))| *first + Duration::milliseconds(2) < *last)
}

fn span(stats: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let stats: serde_json::Value = serde_json::from_str(stats).ok()?;
    let at = |which: &str| {
        let text = stats.get(which)?.get("ChargePeriodStart")?.as_str()?;
        OffsetDateTime::parse(text, &Rfc3339).ok()
    };
    Some((at("minValues")?, at("maxValues")?))
}

fn reading(source: ParquetError) -> TableError {
    TableError::Data { operation: "reading", source }
}

#[cfg(test)]
mod tests;
