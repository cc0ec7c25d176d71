//! One column chunk of a Parquet file, page by page. What stands in the pages says `encode`.

use super::pack::Levels;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use std::io;
use zstd::bulk::Compressor;

/// Packs pages; kept from chunk to chunk, since it is dear to make.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub(super) fn new() -> Result<Self, ParquetError> {
        Compressor::new(ZstdLevel::default().compression_level()).map(Self).map_err(failed)
    }

    fn pack(&mut self, bytes: &[u8]) -> Result<Bytes, ParquetError> {
        self.0.compress(bytes).map(Bytes::from).map_err(failed)
    }
}

fn failed(error: io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// See the module.
pub(super) struct Chunk<'a> {
    column: ColumnDescPtr,
    packer: &'a mut Packer,
    out: TrackedWrite<Vec<u8>>,
    /// Bytes of the page of distinct values, if there is one: it is the first.
    distinct: Option<usize>,
    plain: bool,
    values: usize,
    unpacked: usize,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(column: ColumnDescPtr, packer: &'a mut Packer) -> Self {
        let out = TrackedWrite::new(Vec::new());
        Self { column, packer, out, distinct: None, plain: false, values: 0, unpacked: 0 }
    }

    /// The page of distinct values, before any other.
    pub(super) fn distinct(&mut self, values: &[u8], count: usize) -> Result<(), ParquetError> {
        let buf = self.packer.pack(values)?;
        let page = Page::DictionaryPage { buf, num_values: count as u32, encoding: Encoding::PLAIN, is_sorted: false };
        self.write(page, values.len())?;
        self.distinct = Some(self.out.bytes_written());
        Ok(())
    }

    /// A page of values: `repeated` and `defined` levels, and what `values` writes of the values that are there.
    pub(super) fn page(
        &mut self,
        repeated: Levels<'_>,
        defined: Levels<'_>,
        encoding: Encoding,
        values: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), ParquetError> {
        let mut bytes = Vec::new();
        repeated.write(self.column.max_rep_level(), &mut bytes);
        defined.write(self.column.max_def_level(), &mut bytes);
        values(&mut bytes);
        let page = Page::DataPage {
            buf: self.packer.pack(&bytes)?,
            num_values: defined.count() as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.plain |= encoding == Encoding::PLAIN;
        self.values += defined.count();
        self.write(page, bytes.len())
    }

    fn write(&mut self, page: Page, unpacked: usize) -> Result<(), ParquetError> {
        let spec = SerializedPageWriter::new(&mut self.out).write_page(CompressedPage::new(page, unpacked))?;
        self.unpacked += spec.uncompressed_size;
        Ok(())
    }

    /// Puts the chunk into its row group, which has so many rows.
    pub(super) fn end<W: io::Write + Send>(
        self,
        rows: usize,
        statistics: Option<Statistics>,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let bytes = Bytes::from(self.out.into_inner()?);
        let mut encodings = vec![Encoding::RLE];
        // Distinct values are plain.
        encodings.extend((self.plain || self.distinct.is_some()).then_some(Encoding::PLAIN));
        encodings.extend(self.distinct.map(|_| Encoding::RLE_DICTIONARY));
        let mut metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_encodings(encodings)
            .set_num_values(self.values as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.unpacked as i64)
            .set_dictionary_page_offset(self.distinct.map(|_| 0))
            .set_data_page_offset(self.distinct.unwrap_or(0) as i64);
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&bytes, close)
    }
}
