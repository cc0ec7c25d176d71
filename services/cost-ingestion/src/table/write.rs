//! Data files of one slice, written as rows come.

use super::{CostTable, Slice, TableError};
use crate::focus;
use crate::money::Amount;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of rows that are held before they are written out.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Bytes after which the next file is begun.
const FILE_BYTES: usize = 512 << 20;

/// A finished data file.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    pub(super) path: Path,
    pub(super) size: u64,
    pub(super) rows: u64,
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
    pub(super) fn add(&mut self, billed: Amount, effective: Amount) -> Result<(), TableError> {
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

/// Writes the rows of one slice. Dropped or aborted, it leaves at most files that nothing refers to.
pub struct SliceWriter {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    open: Option<Open>,
    written: Written,
}

struct Open {
    path: Path,
    writer: AsyncArrowWriter<BufWriter>,
    rows: u64,
}

impl SliceWriter {
    /// Writes into the table's storage.
    #[must_use]
    pub fn new(table: &CostTable, slice: &Slice) -> Self {
        // Folders are for people's eyes; what a file belongs to stands in the log.
        let folder = format!("x_tenant_id={}/x_billing_period={}", slice.tenant, slice.period);
        Self { store: table.store(), folder: Path::from(folder), open: None, written: Written::default() }
    }

    /// Writes a batch of [`focus::SCHEMA`].
    ///
    /// # Errors
    /// When storage fails or a sum has too many digits. The writer is then of no more use but to [`Self::abort`].
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let written = open.writer.write(rows).await;
        let flushed = match written {
            Ok(()) if open.writer.in_progress_size() >= ROW_GROUP_BYTES => open.writer.flush().await,
            other => other,
        };
        open.rows += rows.num_rows() as u64;
        let full = open.writer.bytes_written() >= FILE_BYTES;
        self.open = Some(open);
        flushed.map_err(writing)?;
        self.count(rows)?;
        if full { self.end().await } else { Ok(()) }
    }

    /// Ends the last file.
    ///
    /// # Errors
    /// When storage fails; [`Self::abort`] was then done already.
    pub async fn finish(mut self) -> Result<Written, TableError> {
        match self.end().await {
            Ok(()) => Ok(self.written),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Takes back what was written, as far as storage lets it: what stays behind is seen by no reader.
    pub async fn abort(mut self) {
        if let Some(open) = self.open.take() {
            let _ = open.writer.into_inner().abort().await;
        }
        discard(&self.store, &self.written).await;
    }

    fn begin(&self) -> Result<Open, TableError> {
        let path = self.folder.clone().join(format!("part-{}.zstd.parquet", Uuid::now_v7()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("rolebridge ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        // Other engines need no Arrow schema in the file, and ours holds views, which is nobody's business.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let target = BufWriter::new(Arc::clone(&self.store), path.clone());
        let writer =
            AsyncArrowWriter::try_new_with_options(target, Arc::clone(&focus::SCHEMA), options).map_err(writing)?;
        Ok(Open { path, writer, rows: 0 })
    }

    async fn end(&mut self) -> Result<(), TableError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if let Err(error) = open.writer.finish().await {
            self.open = Some(open);
            return Err(writing(error));
        }
        let head =
            self.store.head(&open.path).await.map_err(|error| writing(ParquetError::External(Box::new(error))))?;
        self.written.files.push(DataFile { path: open.path, size: head.size, rows: open.rows });
        Ok(())
    }

    fn count(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        self.written.rows += rows.num_rows() as u64;
        for_each_cost(rows, |row| self.written.sums(row.currency).add(row.billed, row.effective))
    }
}

impl Written {
    fn sums(&mut self, currency: &str) -> &mut Sums {
        if !self.totals.contains_key(currency) {
            self.totals.insert(currency.to_owned(), Sums::default());
        }
        self.totals.entry(currency.to_owned()).or_default()
    }
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

/// What sums are made of, of one row.
pub(super) struct CostRow<'a> {
    pub(super) service: &'a str,
    pub(super) currency: &'a str,
    pub(super) billed: Amount,
    pub(super) effective: Amount,
}

/// Walks the costs of a batch that has the columns `ServiceName`, `BillingCurrency`, `BilledCost` and `EffectiveCost`.
pub(super) fn for_each_cost(
    rows: &RecordBatch,
    mut each: impl FnMut(CostRow<'_>) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let text = |name| rows.column_by_name(name).and_then(|c| c.as_string_view_opt()).ok_or(TableError::BadRow(name));
    let amounts = |name| {
        rows.column_by_name(name).and_then(|c| c.as_primitive_opt::<Decimal128Type>()).ok_or(TableError::BadRow(name))
    };
    let (services, currencies) = (text("ServiceName")?, text("BillingCurrency")?);
    let (billed, effective) = (amounts("BilledCost")?, amounts("EffectiveCost")?);
    let columns = services.iter().zip(currencies).zip(billed.iter().zip(effective));
    for ((service, currency), (billed, effective)) in columns {
        let amount = |value: Option<i128>, name| {
            let units = value.ok_or(TableError::BadRow(name))?;
            Amount::from_units(units).map_err(|_| TableError::TooLarge)
        };
        each(CostRow {
            service: service.ok_or(TableError::BadRow("ServiceName"))?,
            currency: currency.ok_or(TableError::BadRow("BillingCurrency"))?,
            billed: amount(billed, "BilledCost")?,
            effective: amount(effective, "EffectiveCost")?,
        })?;
    }
    Ok(())
}
