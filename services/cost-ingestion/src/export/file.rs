//! One cost file, read in batches: bounded in memory, of a known source, with sizes that are checked before a page is touched.

use super::{ExportError, Limits};
use crate::focus::{self, Kind};
use crate::object::ObjectFile;
use crate::source::{self, CostSource};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use contracts::costs::BillingPeriod;
use futures::TryStreamExt as _;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use std::sync::Arc;

/// Rows that are held at a time.
const BATCH: usize = 8192;

/// Opens the file and reads the columns that its source wants.
///
/// # Errors
/// When it is no Parquet file of a known source, or breaks a limit.
pub async fn read_batches(
    file: ObjectFile,
    limits: &Limits,
) -> Result<(&'static dyn CostSource, ParquetRecordBatchStream<ObjectFile>), ExportError> {
    let path = file.path().clone();
    let (source, metadata) = open(&file, limits).await?;
    let stream = stream(file, metadata, |column| source.wants(column)).map_err(|error| failed(&path, error))?;
    Ok((source, stream))
}

/// The billing period of all rows, and how many there are. Reads one small column.
///
/// # Errors
/// When it is no cost file, has no rows, or holds more than one period.
pub async fn read_period(file: ObjectFile, limits: &Limits) -> Result<(BillingPeriod, u64), ExportError> {
    let path = file.path().clone();
    let bad = |why: &str| ExportError::BadRows { path: path.clone(), why: why.to_owned() };
    let (source, metadata) = open(&file, limits).await?;
    let mut rows =
        stream(file, metadata, |column| column == source.period_column()).map_err(|error| failed(&path, error))?;
    let (mut period, mut count) = (None, 0);
    while let Some(batch) = rows.try_next().await.map_err(|error| failed(&path, error))? {
        let starts = source::Batch::new(&batch)
            .instants(source.period_column())
            .map_err(|source| ExportError::Source { path: path.clone(), source })?;
        for start in starts.as_primitive::<TimestampMicrosecondType>() {
            let start = start.ok_or_else(|| bad("a row has no billing period"))?;
            if period.is_some_and(|known| known != start) {
                return Err(bad("its rows belong to more than one billing period"));
            }
            period = Some(start);
            count += 1;
        }
    }
    let start = period.ok_or_else(|| bad("it has no rows"))?;
    Ok((period_of(start).ok_or_else(|| bad("its billing period is no month"))?, count))
}

/// The month whose first instant this is (microseconds since 1970, UTC).
#[must_use]
pub fn period_of(start: i64) -> Option<BillingPeriod> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(start) * 1000).ok()?;
    let first = at.day() == 1 && at.time() == time::Time::MIDNIGHT;
    first.then(|| format!("{:04}-{:02}", at.year(), u8::from(at.month())).parse().ok()).flatten()
}

async fn open(
    file: &ObjectFile,
    limits: &Limits,
) -> Result<(&'static dyn CostSource, ArrowReaderMetadata), ExportError> {
    let path = file.path();
    let metadata =
        ArrowReaderMetadata::load_async(&mut file.clone(), ArrowReaderOptions::new().with_skip_arrow_metadata(true))
            .await
            .map_err(|error| failed(path, error))?;
    let source =
        source::recognise(metadata.schema()).map_err(|source| ExportError::Source { path: path.clone(), source })?;
    check_sizes(path, metadata.metadata(), limits)?;
    // Text as views: a long text that stands in every row is then held once.
    let options = ArrowReaderOptions::new().with_schema(as_views(metadata.schema()));
    let metadata =
        ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(|error| failed(path, error))?;
    Ok((source, metadata))
}

/// A file that unpacks to absurd sizes is refused before a page of it is touched.
fn check_sizes(path: &Path, metadata: &ParquetMetaData, limits: &Limits) -> Result<(), ExportError> {
    let within = |what: &str, found: i64, limit: u64| {
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        let what = format!("{what} in the file {path}");
        if found <= limit { Ok(()) } else { Err(ExportError::TooMuch { what, found, limit }) }
    };
    within("rows", metadata.file_metadata().num_rows(), limits.period_rows)?;
    for group in metadata.row_groups() {
        within("rows", group.num_rows(), limits.period_rows)?;
        for column in group.columns() {
            // AWS writes Snappy. The others unpack a few bytes into gigabytes.
            if !matches!(column.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY) {
                let why = format!("it is compressed with {}, and exports are with Snappy", column.compression());
                return Err(ExportError::BadRows { path: path.clone(), why });
            }
            within("unpacked bytes of one column", column.uncompressed_size(), limits.row_group_bytes)?;
        }
    }
    Ok(())
}

fn stream(
    file: ObjectFile,
    metadata: ArrowReaderMetadata,
    wants: impl Fn(&str) -> bool,
) -> parquet::errors::Result<ParquetRecordBatchStream<ObjectFile>> {
    let roots: Vec<_> = metadata
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| wants(field.name()))
        .map(|(at, _)| at)
        .collect();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(BATCH)
        .build()
}

fn as_views(schema: &SchemaRef) -> SchemaRef {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => {
            Arc::new(field.as_ref().clone().with_data_type(focus::arrow_type(Kind::Text)))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>()))
}

/// A reading error as what it was: storage, a replaced object, or a bad file.
#[must_use]
pub fn failed(path: &Path, error: ParquetError) -> ExportError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(error) => match *error {
                object_store::Error::Precondition { .. } => ExportError::Changed { path: path.clone() },
                source => ExportError::Storage { operation: "reading a cost file", source },
            },
            Err(other) => ExportError::BadFile { path: path.clone(), source: ParquetError::External(other) },
        },
        source => ExportError::BadFile { path: path.clone(), source },
    }
}
