//! Lines into files.

use super::lines::{Line, Lines};
use super::tables::{Column, From, time_text};
use super::{Totals, decimal};
use arrow_array::builder::{MapBuilder, StringBuilder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, Float64Array, RecordBatch, TimestampMillisecondArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

const BATCH: u64 = 16 << 10;

/// As AWS writes Parquet: Snappy, doubles, milliseconds.
pub(super) fn parquet(
    path: &Path,
    columns: &[&Column],
    rows: u64,
    lines: &mut Lines,
    totals: &mut Totals,
) -> Result<(), Box<dyn Error>> {
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_max_row_group_row_count(Some(128 << 10))
        .build();
    let options = || ArrowWriterOptions::new().with_properties(properties.clone()).with_skip_arrow_metadata(true);
    let mut writer: Option<ArrowWriter<File>> = None;
    let mut left = rows;
    while left > 0 || writer.is_none() {
        let count = left.min(BATCH);
        let batch: Vec<Line> = (0..count).map(|_| lines.next(totals)).collect();
        let arrays: Vec<_> = columns
            .iter()
            .map(|column| array(column.from, &batch).map(|array| (column.name, array, true)))
            .collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_from_iter_with_nullable(arrays)?;
        let open = match writer.take() {
            Some(open) => open,
            None => ArrowWriter::try_new_with_options(File::create(path)?, batch.schema(), options())?,
        };
        writer.insert(open).write(&batch)?;
        left -= count;
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}

fn array(from: From, lines: &[Line]) -> Result<ArrayRef, Box<dyn Error>> {
    Ok(match from {
        From::Text(of) => {
            let mut texts = StringDictionaryBuilder::<Int32Type>::new();
            lines.iter().for_each(|line| texts.append_option(of(line)));
            Arc::new(texts.finish())
        }
        From::Amount(of) => {
            // Of at most 15 digits: the double's shortest text is this decimal.
            Arc::new(lines.iter().map(|line| of(line).map(|units| units as f64 / 1e10)).collect::<Float64Array>())
        }
        From::Time(of) => {
            let times: TimestampMillisecondArray = lines.iter().map(|line| Some(of(line) * 1000)).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        From::Map(of) => {
            let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
            for line in lines {
                for (key, value) in of(line) {
                    maps.keys().append_value(key);
                    maps.values().append_value(value);
                }
                maps.append(true)?;
            }
            let maps = maps.finish();
            debug_assert_eq!(maps.len(), lines.len());
            Arc::new(maps)
        }
    })
}

/// As AWS writes CSV: gzipped, maps as JSON objects, quotes where they are needed.
pub(super) fn csv(
    path: &Path,
    columns: &[&Column],
    rows: u64,
    lines: &mut Lines,
    totals: &mut Totals,
) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::with_capacity(1 << 20, GzEncoder::new(File::create(path)?, Compression::fast()));
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    writeln!(out, "{}", names.join(","))?;
    for _ in 0..rows {
        let line = lines.next(totals);
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.write_all(b",")?;
            }
            match column.from {
                From::Text(of) => field(&mut out, &of(&line).unwrap_or_default())?,
                From::Amount(of) => {
                    field(&mut out, &of(&line).map(|units| decimal(i128::from(units))).unwrap_or_default())?
                }
                From::Time(of) => field(&mut out, &time_text(of(&line)))?,
                From::Map(of) => {
                    let pairs = of(&line).into_iter().map(|(key, value)| (key.to_owned(), value.into()));
                    field(&mut out, &serde_json::Value::Object(pairs.collect()).to_string())?;
                }
            }
        }
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(|error| error.into_error())?.finish()?;
    Ok(())
}

fn field(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    if text.contains([',', '"', '\n']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}
