//! One cost file, read in batches: bounded in memory, of a known source, with sizes that are checked before a page is touched.
//!
//! What a file is, is told by its first bytes and its columns, never by its name. A Parquet file can be read in parts (row groups), side by side; a CSV file
//! is one part.

use super::csv::{Batches, Csv, CsvError};
use super::unpack::{self, BadPacking, Packing, TooBig};
use super::{ExportError, Limits};
use crate::object::ObjectFile;
use crate::source::{self, Layout, Many, Mapping, Nullable as _, SourceError};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use contracts::costs::BillingPeriod;
use futures::TryStreamExt as _;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Rows that are held at a time.
const BATCH: usize = 16 << 10;
/// Rows of a part: as many row groups as that takes.
const PART_ROWS: i64 = 250_000;
/// Bytes that are looked at to tell what a file is: enough for the longest header.
const HEAD: u64 = 512 << 10;

/// A file of a known source.
#[derive(Clone)]
pub struct CostFile {
    file: ObjectFile,
    source: &'static Mapping,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Parquet(ArrowReaderMetadata),
    Csv(Packing),
}

/// A part of a file, to be read by one thread.
#[derive(Clone)]
pub struct Part {
    file: CostFile,
    /// Of a Parquet file.
    row_groups: Vec<usize>,
}

impl CostFile {
    /// Looks at the file's beginning (of Parquet: its end).
    ///
    /// # Errors
    /// When it is of no known source, or breaks a limit.
    pub async fn open(file: ObjectFile, limits: &Limits) -> Result<Self, ExportError> {
        let path = file.path().clone();
        let head = match file.size() {
            0 => bytes::Bytes::new(),
            size => file.range(0..size.min(HEAD)).await.map_err(|error| stored(&path, error))?,
        };
        let is_parquet = head.starts_with(b"PAR1") || (head.len() < 4 && path.as_ref().ends_with(".parquet"));
        if is_parquet { Self::parquet(file, limits).await } else { Self::csv(file, &head, limits) }
    }

    async fn parquet(file: ObjectFile, limits: &Limits) -> Result<Self, ExportError> {
        let path = file.path().clone();
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load_async(&mut file.clone(), options()).await;
        let metadata = metadata.map_err(|error| failed(&path, error))?;
        let source = known(&path, &Layout::new(metadata.schema()))?;
        check_sizes(&path, file.size(), metadata.metadata(), limits)?;
        // Text as dictionaries, as it stands in the file: what is done to it is then done to distinct values.
        let options = options().with_schema(as_dictionaries(metadata.schema(), metadata.metadata()));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options);
        Ok(Self { file, source, kind: Kind::Parquet(metadata.map_err(|error| failed(&path, error))?) })
    }

    fn csv(file: ObjectFile, head: &bytes::Bytes, limits: &Limits) -> Result<Self, ExportError> {
        let path = file.path().clone();
        let packing = Packing::of(head);
        let limit = unpack::bound(file.size(), limits);
        let mut csv = Csv::new(unpack::unpack(Cursor::new(head.clone()), packing, limit));
        let names = csv.header().map_err(|error| csv_failed(&path, error))?;
        let source = known(&path, &layout(&names))?;
        Ok(Self { file, source, kind: Kind::Csv(packing) })
    }

    /// What it is: the source's name.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.source.name()
    }

    /// Its source.
    #[must_use]
    pub fn source(&self) -> &'static Mapping {
        self.source
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Parts that can be read side by side.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |row_groups| Part { file: self.clone(), row_groups };
        let Kind::Parquet(metadata) = &self.kind else { return vec![part(Vec::new())] };
        let (mut parts, mut groups, mut rows) = (Vec::new(), Vec::new(), 0);
        for (at, group) in metadata.metadata().row_groups().iter().enumerate() {
            groups.push(at);
            rows += group.num_rows();
            if rows >= PART_ROWS {
                parts.push(part(std::mem::take(&mut groups)));
                rows = 0;
            }
        }
        if !groups.is_empty() {
            parts.push(part(groups));
        }
        parts
    }

    /// The billing periods that its rows belong to. Of a Parquet file all rows are asked, which is one small column; of a CSV file the first one, unless
    /// `thorough`, since a report's file holds one period. None, if it has no rows.
    ///
    /// # Errors
    /// When a row's period is none.
    pub fn periods(
        &self,
        limits: &Limits,
        runtime: &Handle,
        thorough: bool,
    ) -> Result<BTreeSet<BillingPeriod>, ExportError> {
        let path = self.path().clone();
        let bad = |why: &str| ExportError::BadRows { path: path.clone(), why: why.to_owned() };
        let mut found = BTreeSet::new();
        for part in self.parts() {
            let mut reader = part.read(limits, runtime, |name| self.source.wants_for_period(name))?;
            let mut last = i64::NONE;
            while let Some(batch) = reader.next()? {
                let periods = self.source.periods(&batch, reader.layout());
                let periods = periods.map_err(|source| ExportError::Source { path: path.clone(), source })?;
                for row in 0..batch.num_rows() {
                    let start = periods.at(row).filter(|at| *at != i64::NONE);
                    let start = start.ok_or_else(|| bad("a row has no billing period"))?;
                    if start != last {
                        found.insert(period_of(start).ok_or_else(|| bad("its billing period is no month"))?);
                        last = start;
                    }
                    if matches!(self.kind, Kind::Csv(_)) && !thorough {
                        return Ok(found);
                    }
                    if matches!(periods, Many::One(_)) {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

fn known(path: &Path, layout: &Layout) -> Result<&'static Mapping, ExportError> {
    let of = |source: SourceError| ExportError::Source { path: path.clone(), source };
    let source = source::recognise(layout).map_err(of)?;
    source.check(layout).map_err(of)?;
    Ok(source)
}

fn layout(names: &[String]) -> Layout {
    Layout::new(&Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

impl Part {
    /// The file that it is of.
    #[must_use]
    pub fn file(&self) -> &CostFile {
        &self.file
    }

    /// Reads the source columns that `wants` names. Blocks, here and in the reader: not for a thread that drives others.
    ///
    /// # Errors
    /// When the file is not what it was.
    pub fn read(&self, limits: &Limits, runtime: &Handle, wants: impl Fn(&str) -> bool) -> Result<Reader, ExportError> {
        let path = self.file.path().clone();
        match &self.file.kind {
            Kind::Parquet(metadata) => {
                let stream = self.stream(metadata.clone(), wants).map_err(|error| failed(&path, error))?;
                let layout = Layout::new(stream.schema());
                Ok(Reader { path, layout, batches: Inner::Parquet(Box::new(stream), runtime.clone()) })
            }
            Kind::Csv(packing) => {
                let mut csv = Csv::new(unpack::unpacked(self.file.file.clone(), *packing, limits, runtime));
                let names = csv.header().map_err(|error| csv_failed(&path, error))?;
                let wanted = |(at, name): (usize, &String)| wants(&source::plain_name(name)).then_some(at);
                let wanted: Vec<usize> = names.iter().enumerate().filter_map(wanted).collect();
                let batches = Batches::new(csv, &names, &wanted);
                let layout = Layout::new(&batches.schema());
                Ok(Reader { path, layout, batches: Inner::Csv(Box::new(batches)) })
            }
        }
    }

    fn stream(
        &self,
        metadata: ArrowReaderMetadata,
        wants: impl Fn(&str) -> bool,
    ) -> parquet::errors::Result<ParquetRecordBatchStream<ObjectFile>> {
        let fields = metadata.schema().fields().iter().enumerate();
        let roots: Vec<_> =
            fields.filter(|(_, field)| wants(&source::plain_name(field.name()))).map(|(at, _)| at).collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        ParquetRecordBatchStreamBuilder::new_with_metadata(self.file.file.clone(), metadata)
            .with_projection(mask)
            .with_row_groups(self.row_groups.clone())
            .with_batch_size(BATCH)
            .build()
    }
}

/// Batches of a part.
pub struct Reader {
    path: Path,
    layout: Layout,
    batches: Inner,
}

enum Inner {
    Parquet(Box<ParquetRecordBatchStream<ObjectFile>>, Handle),
    Csv(Box<Batches>),
}

impl Reader {
    /// The columns of its batches.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The next batch, if there is one.
    ///
    /// # Errors
    /// When the file is damaged, or storage fails.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<RecordBatch>, ExportError> {
        match &mut self.batches {
            Inner::Parquet(stream, runtime) => {
                runtime.block_on(stream.try_next()).map_err(|error| failed(&self.path, error))
            }
            Inner::Csv(batches) => batches.next().map_err(|error| csv_failed(&self.path, error)),
        }
    }
}

/// The month whose first instant this is (microseconds since 1970, UTC).
#[must_use]
pub fn period_of(start: i64) -> Option<BillingPeriod> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(start) * 1000).ok()?;
    let first = at.day() == 1 && at.time() == time::Time::MIDNIGHT;
    first.then(|| format!("{:04}-{:02}", at.year(), u8::from(at.month())).parse().ok()).flatten()
}

fn check_sizes(path: &Path, size: u64, metadata: &ParquetMetaData, limits: &Limits) -> Result<(), ExportError> {
    let within = |what: &str, found: i64, limit: u64| {
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        let what = format!("{what} in the file {path}");
        if found <= limit { Ok(()) } else { Err(ExportError::TooMuch { what, found, limit }) }
    };
    within("rows", metadata.file_metadata().num_rows(), limits.period_rows)?;
    let (mut unpacked, mut zstandard) = (0_i64, false);
    for group in metadata.row_groups() {
        within("rows", group.num_rows(), limits.period_rows)?;
        for column in group.columns() {
            match column.compression() {
                // AWS writes Snappy, which makes a few dozen bytes of one.
                Compression::UNCOMPRESSED | Compression::SNAPPY => {}
                // The reader holds it to the size that a page claims.
                Compression::ZSTD(_) => zstandard = true,
                other => {
                    let why = format!(
                        "it is compressed with {other}, and exports are with Snappy; write it with Snappy or Zstandard"
                    );
                    return Err(ExportError::BadRows { path: path.clone(), why });
                }
            }
            unpacked = unpacked.saturating_add(column.uncompressed_size());
            within("unpacked bytes of one column", column.uncompressed_size(), limits.row_group_bytes)?;
        }
    }
    if zstandard {
        within("unpacked bytes", unpacked, unpack::bound(size, limits))?;
    }
    Ok(())
}

/// Text as dictionaries where it repeats. A column whose values take many bytes each has too many of them for that.
fn as_dictionaries(schema: &SchemaRef, metadata: &ParquetMetaData) -> SchemaRef {
    const LARGE: i64 = 12;
    let repeats = |name: &str| {
        let of = |group: &parquet::file::metadata::RowGroupMetaData| {
            let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
            Some(column.uncompressed_size() <= column.num_values().saturating_mul(LARGE))
        };
        metadata.row_groups().first().and_then(of).unwrap_or(true)
    };
    let dictionary = |field: &Arc<Field>| {
        let wanted = match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 if repeats(field.name()) => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
            // Some writers do not say that their bytes are text. (The reader makes no dictionaries of those.)
            DataType::Binary => DataType::Utf8,
            _ => return Arc::clone(field),
        };
        Arc::new(field.as_ref().clone().with_data_type(wanted))
    };
    Arc::new(Schema::new(schema.fields().iter().map(dictionary).collect::<Fields>()))
}

/// A reading error as what it was: storage, a replaced object, or a bad file.
#[must_use]
pub fn failed(path: &Path, error: ParquetError) -> ExportError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(error) => stored(path, *error),
            Err(other) => ExportError::BadFile { path: path.clone(), source: ParquetError::External(other) },
        },
        source => ExportError::BadFile { path: path.clone(), source },
    }
}

fn stored(path: &Path, error: object_store::Error) -> ExportError {
    match error {
        object_store::Error::Precondition { .. } => ExportError::Changed { path: path.clone() },
        source => ExportError::Storage { operation: "reading a cost file", source },
    }
}

fn csv_failed(path: &Path, error: CsvError) -> ExportError {
    let bad = |why: String| ExportError::BadRows { path: path.clone(), why };
    let CsvError::Read(error) = error else { return bad(error.to_string()) };
    let Some(inner) = error.into_inner() else {
        return bad("it is damaged or cut off, and cannot be unpacked; AWS may still be writing it".to_owned());
    };
    if inner.is::<TooBig>() || inner.is::<BadPacking>() {
        return bad(inner.to_string());
    }
    match inner.downcast::<object_store::Error>() {
        Ok(error) => stored(path, *error),
        Err(_) => bad("it is damaged or cut off, and cannot be unpacked; AWS may still be writing it".to_owned()),
    }
}
