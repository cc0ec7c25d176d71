//! Daily summaries: beside the table, one small Parquet file for each slice, that says what its rows add up to by day, service, account, region, charge
//! category and currency. Any question without tags is answered from them.
//!
//! A summary is named after the data files that it was made of, and these are never changed. So it is used by whoever sees a version of the table in which
//! the slice has just these files, and can never be out of date: a slice that was replaced has other files, and no summary until one is made. They are a
//! cache: made after commits by a task of the service ([`CostTable::summarise`]), written in one atomic step, and safe to delete at any time.

use super::files::SliceFiles;
use super::group::{Groups, Sum};
use super::plan::{Plan, day_number};
use super::rows::{COSTS, Rows, TEXTS, costs, weights};
use super::scan::{reading, scan};
use super::words::Words;
use super::{QueryError, SUMMARY_CELLS};
use crate::money::{ARROW_SCALE, PRECISION};
use crate::table::{CostTable, TableError};
use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Date32Type, Int32Type};
use arrow_array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch};
use arrow_schema::ArrowError;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeSet;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Where they lie. Nothing below a name that begins with `_` is data to any engine.
const FOLDER: &str = "_rolebridge/summary";
/// Changes with the meaning of a file, so that another version of this program leaves it alone.
const FORMAT: &str = "1";
/// A summary of other data files is kept for this long: another instance may know a later version of the table.
const KEPT: time::Duration = time::Duration::minutes(15);

/// A summary in memory.
#[derive(Debug)]
pub(super) enum Summary {
    /// One row for each cell.
    Cells(Box<Rows>),
    /// The slice has too many cells to be worth it: its rows are read.
    TooFine,
}

impl Summary {
    /// Memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Cells(rows) => rows.bytes(),
            Self::TooFine => 64,
        }
    }
}

fn path(slice: &SliceFiles) -> Path {
    Path::from(format!("{FOLDER}/{}/{}/{}/{}.{FORMAT}.parquet", slice.tenant, slice.period, slice.name, slice.content))
}

impl CostTable {
    /// The summary of a slice, if there is one. One that cannot be read is as good as none.
    pub(super) async fn summary(&self, slice: &SliceFiles) -> Option<Arc<Summary>> {
        let path = path(slice);
        let store = self.store();
        let load = async {
            let bytes = store.get(&path).await.map_err(|error| match error {
                object_store::Error::NotFound { .. } => None,
                other => Some(ParquetError::External(Box::new(other))),
            })?;
            let bytes = bytes.bytes().await.map_err(|error| Some(ParquetError::External(Box::new(error))))?;
            let read = tokio::task::spawn_blocking(move || decode(bytes)).await;
            let read = read.map_err(|error| Some(ParquetError::External(Box::new(error))))?;
            read.map(Arc::new).map_err(|error| Some(ParquetError::External(Box::new(error))))
        };
        let loaded = self.asking.summaries.try_get_with(path.to_string(), load).await;
        loaded.inspect_err(|error| {
            if let Some(error) = error.as_ref() {
                tracing::warn!(%path, error = ?error, "a daily summary could not be read; its rows are read instead");
            }
        }).ok()
    }

    /// Makes the summaries that are missing, and deletes those whose data files are gone. Gives how many were made.
    ///
    /// # Errors
    /// When the table or the storage cannot be read or written; what was made stays.
    pub async fn summarise(&self, shutdown: &CancellationToken) -> Result<usize, QueryError> {
        let index = self.index().await?;
        let store = self.store();
        let listed = store.list(Some(&Path::from(FOLDER)));
        let there: Vec<_> = listed.try_collect().await.map_err(storage)?;
        let wanted: BTreeSet<Path> = index.all().map(AsRef::as_ref).map(path).collect();
        let known: BTreeSet<_> = there.iter().map(|object| object.location.clone()).collect();
        let mut made = 0;
        let missing: Vec<_> = index.all().filter(|slice| !known.contains(&path(slice))).cloned().collect();
        for slice in &missing {
            if shutdown.is_cancelled() {
                return Ok(made);
            }
            self.make(slice).await?;
            made += 1;
        }
        let old = OffsetDateTime::now_utc() - KEPT;
        for object in there {
            if object.last_modified.timestamp() < old.unix_timestamp() && !wanted.contains(&object.location) {
                store.delete(&object.location).await.map_err(storage)?;
            }
        }
        Ok(made)
    }

    /// Waits until this process has committed to the table.
    pub async fn changed(&self) {
        self.asking.changed.notified().await;
    }

    async fn make(&self, slice: &Arc<SliceFiles>) -> Result<(), QueryError> {
        let plan = Arc::new(Plan::summary());
        // One worker: questions go first.
        let groups = scan(&self.asking, self.store(), plan, vec![Arc::clone(slice)], 1, SUMMARY_CELLS).await;
        let bytes = match groups {
            Ok(groups) => encode(groups)?,
            Err(QueryError::TooManyGroups(_)) => encode(Groups::new(0))?,
            Err(other) => return Err(other),
        };
        self.store().put(&path(slice), bytes.into()).await.map_err(storage)?;
        Ok(())
    }
}

fn storage(source: object_store::Error) -> TableError {
    reading(ParquetError::External(Box::new(source)))
}

fn encode(groups: Groups) -> Result<Vec<u8>, TableError> {
    let mut cells: Vec<(Vec<Option<Arc<str>>>, Sum)> = groups.into_sums().collect();
    cells.sort_by(|(a, _), (b, _)| a.cmp(b));
    let wrong = |error: ArrowError| TableError::Data {
        operation: "summing up",
        source: ParquetError::ArrowError(error.to_string()),
    };
    let at = |place: usize| cells.iter().map(move |(key, _)| key.get(place).and_then(Option::as_deref));
    let days: Date32Array = at(0).map(|text| text.and_then(day_number)).collect();
    let mut columns: Vec<(&str, ArrayRef)> = vec![("Day", Arc::new(days))];
    for (place, name) in TEXTS.iter().enumerate() {
        let mut texts = StringDictionaryBuilder::<Int32Type>::new();
        for text in at(place + 1) {
            match text {
                Some(text) => {
                    texts.append(text).map_err(wrong)?;
                }
                None => texts.append_null(),
            }
        }
        columns.push((name, Arc::new(texts.finish())));
    }
    for (place, name) in COSTS.iter().enumerate() {
        let sums: Decimal128Array = cells.iter().map(|(_, sum)| sum.costs.get(place).copied()).collect();
        columns.push((name, Arc::new(sums.with_precision_and_scale(PRECISION, ARROW_SCALE).map_err(wrong)?)));
    }
    let rows: Int64Array = cells.iter().map(|(_, sum)| i64::try_from(sum.rows).ok()).collect();
    columns.push(("Rows", Arc::new(rows)));
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.map_err(wrong)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let options = ArrowWriterOptions::new().with_properties(properties);
    let failed = |source| TableError::Data { operation: "summing up", source };
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

fn decode(bytes: Bytes) -> Result<Summary, TableError> {
    // Our own file: its Arrow schema says that texts are dictionaries.
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, ArrowReaderOptions::new());
    let mut reader = reader.map_err(reading)?.with_batch_size(SUMMARY_CELLS).build().map_err(reading)?;
    let Some(batch) = reader.next() else { return Ok(Summary::TooFine) };
    let batch = batch.map_err(|error| reading(ParquetError::ArrowError(error.to_string())))?;
    if reader.next().is_some() {
        return Err(TableError::BadRow("an end to its summary"));
    }
    let bad = || TableError::BadRow("Day");
    let days =
        batch.column_by_name("Day").and_then(|column| column.as_primitive_opt::<Date32Type>()).ok_or_else(bad)?;
    let mut texts = [const { None }; 5];
    for (place, name) in texts.iter_mut().zip(TEXTS) {
        *place = Some(Words::of(batch.column_by_name(name).ok_or(TableError::BadRow(name))?, name)?);
    }
    Ok(Summary::Cells(Box::new(Rows {
        count: batch.num_rows(),
        days: Some(days.values().to_vec()),
        texts,
        tags: Vec::new(),
        costs: costs(&batch, COSTS.len())?,
        weights: Some(weights(&batch)?),
    })))
}
