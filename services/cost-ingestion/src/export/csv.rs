//! CSV as batches of text columns: each column a dictionary of what its rows of the batch hold, so that what follows works on distinct values.
//!
//! Bounded: a line is at most a megabyte and a few thousand fields, a batch at most so many bytes, whatever the file says.

use super::record;
use crate::source::MAX_TEXT;
use ahash::RandomState;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv_core::ReadRecordResult;
use hashbrown::HashTable;
use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

/// Longest line.
const LINE: usize = 1 << 20;
/// Most columns.
const FIELDS: usize = 4096;
/// Rows, and bytes of distinct values, of a batch.
const ROWS: usize = 16 << 10;
const BYTES: usize = 32 << 20;

/// What is wrong with a CSV file.
#[derive(Debug, thiserror::Error)]
pub(super) enum CsvError {
    /// The bytes could not be had.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// It does not end as a file does.
    #[error("line {line} is longer than 1 MiB or has more than 4096 fields")]
    TooLong { line: u64 },
    #[error("line {line} has {found} fields, and the header has {wanted}")]
    Fields { line: u64, found: usize, wanted: usize },
    #[error("it is not UTF-8 text (before line {line}); save it as UTF-8")]
    NotText { line: u64 },
    #[error("a text before line {line} has more than {MAX_TEXT} bytes")]
    LongText { line: u64 },
    #[error("it is empty: not even a header; deliver it again, or take it away")]
    Empty,
}

/// Reads the lines of a CSV file.
pub(super) struct Csv {
    source: BufReader<Box<dyn Read>>,
    parser: csv_core::Reader,
    line: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
    read: u64,
}

impl Csv {
    pub(super) fn new(source: Box<dyn Read>) -> Self {
        let (line, ends) = (vec![0; LINE], vec![0; FIELDS]);
        Self {
            source: super::unpack::buffered(source),
            parser: csv_core::Reader::new(),
            line,
            ends,
            fields: 0,
            read: 0,
        }
    }

    /// Whether there was another line. Its fields are then there.
    pub(super) fn next(&mut self) -> Result<bool, CsvError> {
        let input = self.source.fill_buf().map_err(CsvError::Read)?;
        if let Some((taken, found)) = record::split(input, &mut self.line, &mut self.ends) {
            self.source.consume(taken);
            self.fields = found;
            self.read += 1;
            return Ok(true);
        }
        let (mut written, mut ended) = (0, 0);
        loop {
            let input = self.source.fill_buf().map_err(CsvError::Read)?;
            let (Some(line), Some(ends)) = (self.line.get_mut(written..), self.ends.get_mut(ended..)) else {
                return Err(CsvError::TooLong { line: self.read + 1 });
            };
            let (result, taken, made, found) = self.parser.read_record(input, line, ends);
            self.source.consume(taken);
            written += made;
            ended += found;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return Err(CsvError::TooLong { line: self.read + 1 });
                }
                ReadRecordResult::Record => {
                    self.fields = ended;
                    self.read += 1;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    fn field(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(at).copied().unwrap_or(start);
        self.line.get(start..end).unwrap_or_default()
    }

    /// The names of the columns, from the first line.
    pub(super) fn header(&mut self) -> Result<Vec<String>, CsvError> {
        if !self.next()? {
            return Err(CsvError::Empty);
        }
        let name = |at| String::from_utf8(self.field(at).to_vec()).map_err(|_| CsvError::NotText { line: 1 });
        let mut names = (0..self.fields).map(name).collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = names.first_mut() {
            *first = first.trim_start_matches('\u{feff}').to_owned();
        }
        Ok(names)
    }
}

/// Batches of the wanted columns.
pub(super) struct Batches {
    csv: Csv,
    names: Vec<String>,
    schema: SchemaRef,
    columns: Vec<Column>,
}

impl Batches {
    /// Of a file whose header was read: `wanted` are places in it.
    pub(super) fn new(csv: Csv, names: &[String], wanted: &[usize]) -> Self {
        let kind = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let name = |at: &usize| names.get(*at).cloned().unwrap_or_default();
        let schema = Schema::new(wanted.iter().map(|at| Field::new(name(at), kind(), true)).collect::<Vec<_>>());
        let columns = wanted.iter().map(|place| Column { place: *place, ..Column::default() }).collect();
        Self { csv, names: names.to_vec(), schema: Arc::new(schema), columns }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next batch, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, CsvError> {
        let (mut rows, mut bytes) = (0, 0);
        while rows < ROWS && bytes < BYTES && self.csv.next()? {
            if self.csv.fields != self.names.len() {
                let (line, found) = (self.csv.read, self.csv.fields);
                return Err(CsvError::Fields { line, found, wanted: self.names.len() });
            }
            if self.is_header() {
                continue;
            }
            for column in &mut self.columns {
                bytes += column.push(self.csv.field(column.place));
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let line = self.csv.read;
        let arrays = self.columns.iter_mut().map(|column| column.take(line)).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema(), arrays).map(Some).map_err(|_| CsvError::NotText { line })
    }
}

impl Batches {
    /// Whether the line is the header once more: files that were put together begin each with theirs.
    fn is_header(&self) -> bool {
        self.names.iter().enumerate().all(|(at, name)| self.csv.field(at) == name.as_bytes())
    }
}

/// One column of the batch in hand.
#[derive(Default)]
struct Column {
    place: usize,
    known: HashTable<u32>,
    state: RandomState,
    /// [`NONE`] where there is nothing.
    keys: Vec<i32>,
    texts: Vec<u8>,
    ends: Vec<i32>,
    last: Option<u32>,
    /// Most fields of the batch before were different: they are taken as they come, since looking each of them up finds nothing.
    differ: bool,
}

const NONE: i32 = -1;

impl Column {
    /// How many bytes it has grown by.
    fn push(&mut self, field: &[u8]) -> usize {
        // Some exports write NULL for what is not there.
        if field.is_empty() || field == b"NULL" {
            self.keys.push(NONE);
            return 0;
        }
        if self.differ {
            self.keys.push(self.ends.len() as i32);
            self.texts.extend_from_slice(field);
            self.ends.push(self.texts.len() as i32);
            return field.len();
        }
        // Lines that follow each other have most of their fields in common.
        if let Some(last) = self.last
            && text(&self.texts, &self.ends, last) == field
        {
            self.keys.push(last as i32);
            return 0;
        }
        let hash = self.state.hash_one(field);
        let (texts, ends) = (&self.texts, &self.ends);
        if let Some(known) = self.known.find(hash, |known| text(texts, ends, *known) == field) {
            self.last = Some(*known);
            self.keys.push(*known as i32);
            return 0;
        }
        let number = self.ends.len() as u32;
        self.texts.extend_from_slice(field);
        self.ends.push(self.texts.len() as i32);
        let (texts, ends, state) = (&self.texts, &self.ends, &self.state);
        self.known.insert_unique(hash, number, |known| state.hash_one(text(texts, ends, *known)));
        self.last = Some(number);
        self.keys.push(number as i32);
        field.len()
    }

    fn take(&mut self, line: u64) -> Result<ArrayRef, CsvError> {
        self.known.clear();
        self.last = None;
        self.differ = self.ends.len() * 2 > self.keys.len();
        let mut before = 0;
        for end in &self.ends {
            if (*end - before) as usize > MAX_TEXT {
                return Err(CsvError::LongText { line });
            }
            before = *end;
        }
        let offsets: Vec<i32> = std::iter::once(0).chain(self.ends.drain(..)).collect();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let bytes = Buffer::from_vec(std::mem::take(&mut self.texts));
        let values = StringArray::try_new(offsets, bytes, None).map_err(|_| CsvError::NotText { line })?;
        let keys = std::mem::replace(&mut self.keys, Vec::with_capacity(ROWS));
        let gaps = keys.contains(&NONE).then(|| keys.iter().map(|key| *key != NONE).collect::<NullBuffer>());
        let keys = Int32Array::try_new(keys.into(), gaps).map_err(|_| CsvError::NotText { line })?;
        let array = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values));
        Ok(Arc::new(array.map_err(|_| CsvError::NotText { line })?))
    }
}

fn text<'a>(texts: &'a [u8], ends: &[i32], number: u32) -> &'a [u8] {
    let at = number as usize;
    let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(at).copied().unwrap_or(start);
    texts.get(start as usize..end as usize).unwrap_or_default()
}
