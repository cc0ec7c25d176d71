//! Reading data files: only the columns and row groups that are needed, on all cores.
//!
//! A row group is fetched, then decoded and added up on a thread that may block. Two sets of permits, for all questions together: one for row groups that are in
//! memory, and a smaller one for those that are worked on, so that the next is fetched while the cores are busy.

use super::files::SliceFiles;
use super::group::Groups;
use super::plan::Plan;
use super::rows::{Rows, START, TEXTS, Wanted};
use super::{Asking, QueryError};
use crate::object::ObjectFile;
use crate::table::TableError;
use arrow_schema::{DataType, Field, Schema};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are decoded at once: a row group of ours.
const BATCH: usize = 64 << 10;
/// Row groups that one worker takes together.
const TOGETHER: usize = 2;

pub(super) fn reading(source: ParquetError) -> TableError {
    TableError::Data { operation: "reading", source }
}

/// Some row groups of one file.
struct Part {
    slice: Arc<SliceFiles>,
    file: ObjectFile,
    metadata: ArrowReaderMetadata,
    groups: Vec<usize>,
}

/// Adds up the rows of these slices.
///
/// # Errors
/// When a file cannot be read, or as [`Groups::add`].
pub(super) async fn scan(
    asking: &Asking,
    store: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
    slices: Vec<Arc<SliceFiles>>,
    workers: usize,
    largest: usize,
) -> Result<Groups, QueryError> {
    // Each worker that is at it has one of these.
    let pool: Arc<Mutex<Vec<Groups>>> = Arc::default();
    let mut files = Vec::new();
    for slice in &slices {
        files.extend(slice.files.iter().map(|(path, size)| (Arc::clone(slice), path.clone(), *size)));
    }
    let parts = stream::iter(files)
        .map(|(slice, path, size)| parts(Arc::clone(&store), slice, path, size, Arc::clone(&plan)))
        .buffered(workers)
        .map_ok(|parts| stream::iter(parts.into_iter().map(Ok)))
        .try_flatten();
    parts
        .map_ok(|part| add(asking, part, Arc::clone(&plan), Arc::clone(&pool), largest))
        .try_buffer_unordered(workers * 2)
        .try_collect::<()>()
        .await?;
    let pool = std::mem::take(&mut *pool.lock().unwrap_or_else(PoisonError::into_inner));
    let mut pool = pool.into_iter();
    let mut all = pool.next().unwrap_or_else(|| Groups::new(largest));
    pool.try_for_each(|more| all.merge(more))?;
    Ok(all)
}

async fn parts(
    store: Arc<dyn ObjectStore>,
    slice: Arc<SliceFiles>,
    path: Path,
    size: u64,
    plan: Arc<Plan>,
) -> Result<Vec<Part>, QueryError> {
    let mut file = ObjectFile::new(store, path, size, u64::MAX);
    let metadata = open(&mut file, &plan.wanted).await?;
    let groups = metadata.metadata().row_groups().iter().enumerate();
    let groups: Vec<usize> = groups.filter(|(_, group)| may_hold(group, &plan)).map(|(at, _)| at).collect();
    let part = |groups: &[usize]| Part {
        slice: Arc::clone(&slice),
        file: file.clone(),
        metadata: metadata.clone(),
        groups: groups.to_vec(),
    };
    Ok(groups.chunks(TOGETHER).map(part).collect())
}

/// Reads a file's footer. Its texts will come as dictionaries, as they mostly lie there.
async fn open(file: &mut ObjectFile, wanted: &Wanted) -> Result<ArrowReaderMetadata, TableError> {
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::load_async(file, options()).await.map_err(reading)?;
    let columns = wanted.columns();
    let dictionary = |field: &Arc<Field>| {
        let is_text = TEXTS.contains(&field.name().as_str()) && columns.contains(&field.name().as_str());
        if is_text && *field.data_type() == DataType::Utf8 {
            let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(field.as_ref().clone().with_data_type(kind))
        } else {
            Arc::clone(field)
        }
    };
    let schema = Schema::new(plain.schema().fields().iter().map(dictionary).collect::<Vec<_>>());
    ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options().with_schema(Arc::new(schema))).map_err(reading)
}

async fn add(
    asking: &Asking,
    part: Part,
    plan: Arc<Plan>,
    pool: Arc<Mutex<Vec<Groups>>>,
    largest: usize,
) -> Result<(), QueryError> {
    let columns = plan.wanted.columns();
    let fields = part.metadata.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| columns.contains(&field.name().as_str())).map(|(at, _)| at);
    let mask = ProjectionMask::roots(part.metadata.parquet_schema(), roots);
    let mut groups = ParquetRecordBatchStreamBuilder::new_with_metadata(part.file, part.metadata)
        .with_projection(mask)
        .with_row_groups(part.groups)
        .with_batch_size(BATCH)
        .build()
        .map_err(reading)?;
    loop {
        // Closed never: the table lives as long as the question.
        let place = Arc::clone(&asking.places).acquire_owned().await.map_err(|_| QueryError::Stopped)?;
        let Some(reader) = groups.next_row_group().await.map_err(reading)? else { return Ok(()) };
        let core = Arc::clone(&asking.cores).acquire_owned().await.map_err(|_| QueryError::Stopped)?;
        let (plan, slice, pool) = (Arc::clone(&plan), Arc::clone(&part.slice), Arc::clone(&pool));
        let work = move || {
            let held = || pool.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = held().pop();
            let mut sums = taken.unwrap_or_else(|| Groups::new(largest));
            let result = decode(reader, &plan, &slice, &mut sums);
            held().push(sums);
            drop((core, place));
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| QueryError::Stopped)??;
    }
}

fn decode(
    reader: ParquetRecordBatchReader,
    plan: &Plan,
    slice: &SliceFiles,
    sums: &mut Groups,
) -> Result<(), QueryError> {
    for batch in reader {
        let batch = batch.map_err(|error| reading(ParquetError::ArrowError(error.to_string())))?;
        plan.add(&Rows::of(&batch, &plan.wanted)?, slice, sums)?;
    }
    Ok(())
}

/// Whether the statistics of a row group leave room for rows that are wanted.
fn may_hold(group: &RowGroupMetaData, plan: &Plan) -> bool {
    let column = |name: &str| {
        group
            .columns()
            .iter()
            .find(|column| column.column_path().parts() == [name])
            .and_then(|column| column.statistics())
    };
    if let (Some((first, last)), Some(Statistics::Int64(starts))) = (plan.days, column(START))
        && let (Some(min), Some(max)) = (starts.min_opt(), starts.max_opt())
    {
        // Ours are in microseconds; of other units nothing is concluded, since theirs are smaller or larger by a thousand.
        let day = |at: &i64| at.div_euclid(86_400_000_000);
        let is_micros = (1_000_000_000_000_000..10_000_000_000_000_000).contains(min);
        if is_micros && (day(max) < i64::from(first) || day(min) > i64::from(last)) {
            return false;
        }
    }
    plan.texts.iter().all(|(place, values)| {
        let Some(Statistics::ByteArray(texts)) = TEXTS.get(*place).and_then(|name| column(name)) else { return true };
        let (Some(min), Some(max)) = (texts.min_bytes_opt(), texts.max_bytes_opt()) else { return true };
        values.iter().any(|value| value.as_ref().is_none_or(|value| min <= value.as_bytes() && value.as_bytes() <= max))
    })
}
