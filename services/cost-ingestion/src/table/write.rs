//! Data files of one slice, written as rows come.

use super::encode::Encoder;
use super::run::Run;
use super::{CostTable, Slice, TableError};
use crate::focus;
use crate::money::Amount;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use uuid::Uuid;

/// Bytes of one data file: it is held in memory until it is whole.
pub(super) const FILE_BYTES: usize = 40 << 20;
/// Rows of one row group: in order, so that a day of a month is a few of them.
const GROUP_ROWS: usize = if cfg!(test) { 150 } else { 64 << 10 };

/// A finished data file.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    pub(super) path: Path,
    pub(super) size: u64,
    pub(super) rows: u64,
    /// First and last start of a charge period, in microseconds.
    pub(super) starts: Option<(i64, i64)>,
}

/// Sums of one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of `BilledCost`.
    pub billed: Amount,
    /// Of `EffectiveCost`.
    pub effective: Amount,
}

impl Sums {
    /// Adds one row.
    ///
    /// # Errors
    /// When the sum has more digits than an amount.
    pub fn add(&mut self, billed: Amount, effective: Amount) -> Result<(), TableError> {
        self.billed = self.billed.checked_add(billed).ok_or(TableError::TooLarge)?;
        self.effective = self.effective.checked_add(effective).ok_or(TableError::TooLarge)?;
        Ok(())
    }
}

/// What was written: files that no reader sees until they are committed.
#[derive(Debug, Default)]
pub struct Written {
    pub(super) files: Vec<DataFile>,
    /// How many rows.
    pub rows: u64,
    /// What they sum to, by currency.
    pub totals: BTreeMap<String, Sums>,
}

impl Written {
    /// Takes back what was written, as far as storage lets it: what stays behind is seen by no reader.
    pub async fn discard(self, table: &CostTable) {
        discard(&table.store(), &self).await;
    }
}

/// Writes rows of one slice, which come in order, into data files of bounded size. It works in the calling thread, which must be one that may block.
pub(super) struct FileWriter {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    folder: Path,
    encoder: Encoder,
    file: Option<Open>,
    /// Those that are whole.
    pub(super) files: Vec<DataFile>,
}

struct Open {
    writer: SerializedFileWriter<Vec<u8>>,
    rows: u64,
    starts: (i64, i64),
}

impl FileWriter {
    /// Writes into the table's storage, which `runtime` reaches.
    ///
    /// # Errors
    /// When there is no memory for packing.
    pub(super) fn new(table: &CostTable, slice: &Slice, runtime: Handle) -> Result<Self, TableError> {
        // Folders are for people's eyes; what a file belongs to stands in the log.
        let folder = format!("x_tenant_id={}/x_billing_period={}", slice.tenant, slice.period);
        let encoder = Encoder::new().map_err(writing)?;
        Ok(Self { store: table.store(), runtime, folder: Path::from(folder), encoder, file: None, files: Vec::new() })
    }

    /// Writes the rows of a run behind those that were written before: none of them starts earlier.
    pub(super) fn write(&mut self, run: &Run) -> Result<(), TableError> {
        for rows in run.order().chunks(GROUP_ROWS) {
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
            let (first, last) = (run.start(*first), run.start(*last));
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(Open { writer: open()?, rows: 0, starts: (first, last) }),
            };
            self.encoder.write(run, rows, &mut file.writer).map_err(writing)?;
            file.rows += rows.len() as u64;
            file.starts.1 = last;
            if file.writer.bytes_written() >= FILE_BYTES {
                self.end()?;
            }
        }
        Ok(())
    }

    /// Makes what was written so far a whole file.
    pub(super) fn end(&mut self) -> Result<(), TableError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let bytes = file.writer.into_inner().map_err(writing)?;
        let path = self.folder.clone().join(format!("part-{}.zstd.parquet", Uuid::now_v7()));
        let size = bytes.len() as u64;
        self.runtime
            .block_on(self.store.put(&path, bytes.into()))
            .map_err(|error| writing(ParquetError::External(Box::new(error))))?;
        self.files.push(DataFile { path, size, rows: file.rows, starts: Some(file.starts) });
        Ok(())
    }
}

fn open() -> Result<SerializedFileWriter<Vec<u8>>, TableError> {
    let start = focus::COLUMNS.iter().position(|column| column.name == "ChargePeriodStart");
    let sorted = start
        .and_then(|at| i32::try_from(at).ok())
        .map(|column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: false }]);
    let properties = WriterProperties::builder()
        .set_created_by(concat!("rolebridge ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_sorting_columns(sorted)
        .build();
    let schema = ArrowSchemaConverter::new().convert(&focus::SCHEMA).map_err(writing)?;
    // Room for the last row group, too: a vector that grows holds itself twice meanwhile.
    let bytes = Vec::with_capacity(FILE_BYTES + FILE_BYTES / 4);
    SerializedFileWriter::new(bytes, schema.root_schema_ptr(), Arc::new(properties)).map_err(writing)
}

/// Deletes files that were never committed.
pub(super) async fn discard(store: &Arc<dyn ObjectStore>, written: &Written) {
    for file in &written.files {
        if let Err(error) = store.delete(&file.path).await {
            tracing::warn!(path = %file.path, %error, "a data file that nothing refers to could not be deleted");
        }
    }
}

fn writing(source: ParquetError) -> TableError {
    TableError::Data { operation: "writing", source }
}
