//! Files as other writers make them: the same rows in other forms sum to the same, to the last digit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    TimestampNanosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::sync::Arc;
use support::{Bench, decimal, ingested};

async fn sums_to(name: &str, file: Vec<u8>, rows: u64, billed: &str) {
    let bench = Bench::new("222222222222").await;
    let ending = if file.starts_with(b"PAR1") { "parquet" } else { "csv" };
    bench.put(&format!("cur/a.{ending}"), file).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(ingested(&reports[0]), (rows, decimal(billed)), "{name}");
}

const LINES: &str = "bill_payer_account_id,line_item_product_code,line_item_unblended_cost,line_item_usage_start_date,line_item_usage_end_date,line_item_line_item_description,resource_tags\n\
222222222222,AmazonEC2,0.1000000001,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z,plain,\"{\"\"user_team\"\":\"\"red\"\"}\"\n\
222222222222,AmazonS3,-1.25e-3,2025-01-02T00:00:00Z,2025-01-02T01:00:00Z,\"a, b\",\n";

#[tokio::test]
async fn csv_of_every_habit() {
    let sum = "0.0987500001";
    let cases = [
        ("as it is", LINES.to_owned()),
        ("byte order mark", format!("\u{feff}{LINES}")),
        ("carriage returns", LINES.replace('\n', "\r\n")),
        ("no last newline", LINES.trim_end().to_owned()),
        ("all quoted header", LINES.replacen("line_item_product_code", "\"line_item_product_code\"", 1)),
        ("newline in quotes", LINES.replace("\"a, b\"", "\"a,\nb\"")),
        ("fractions of seconds", LINES.replace(":00Z", ":00.000Z")),
        ("an offset", LINES.replace(":00Z", ":00+00:00")),
        ("no zone", LINES.replace("T00:00:00Z", " 00:00:00").replace("T01:00:00Z", " 01:00:00")),
        (
            "a column of no use",
            LINES
                .replace(",resource_tags", ",resource_tags,x")
                .replace("\"\"}\"\n", "\"\"}\",1\n")
                .replace("a, b\",\n", "a, b\",,\n"),
        ),
    ];
    for (name, text) in cases {
        sums_to(name, text.into_bytes(), 2, sum).await;
    }
}

#[tokio::test]
async fn parquet_of_every_type() {
    let text = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let costs: [(&str, ArrayRef); 4] = [
        ("double", Arc::new(Float64Array::from(vec![0.1, -0.025]))),
        (
            "decimal(20, 10)",
            Arc::new(
                Decimal128Array::from(vec![1_000_000_000, -250_000_000]).with_precision_and_scale(20, 10).unwrap(),
            ),
        ),
        ("decimal(38, 3)", Arc::new(Decimal128Array::from(vec![100, -25]).with_precision_and_scale(38, 3).unwrap())),
        ("text", text(["0.1", "-0.025"])),
    ];
    let (first, later) = (1_735_689_600_000_i64, 1_735_693_200_000_i64);
    let times: [(&str, ArrayRef, ArrayRef); 4] = [
        (
            "milliseconds",
            Arc::new(TimestampMillisecondArray::from(vec![first; 2])),
            Arc::new(TimestampMillisecondArray::from(vec![later; 2])),
        ),
        (
            "nanoseconds",
            Arc::new(TimestampNanosecondArray::from(vec![first * 1_000_000; 2])),
            Arc::new(TimestampNanosecondArray::from(vec![later * 1_000_000; 2])),
        ),
        ("text", text(["2025-01-01T00:00:00Z"; 2]), text(["2025-01-01T01:00:00.000Z"; 2])),
        (
            "zoned",
            Arc::new(TimestampMillisecondArray::from(vec![first; 2]).with_timezone("UTC")),
            Arc::new(TimestampMillisecondArray::from(vec![later; 2]).with_timezone("UTC")),
        ),
    ];
    for (cost, costs) in &costs {
        for (time, starts, ends) in &times {
            for dictionary in [true, false] {
                let columns = vec![
                    ("bill_payer_account_id", text(["222222222222"; 2])),
                    ("line_item_product_code", text(["AmazonEC2", "AmazonS3"])),
                    ("line_item_unblended_cost", Arc::clone(costs)),
                    ("line_item_usage_start_date", Arc::clone(starts)),
                    ("line_item_usage_end_date", Arc::clone(ends)),
                ];
                let batch = RecordBatch::try_from_iter(columns).unwrap();
                let properties =
                    WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(dictionary);
                let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
                writer.write(&batch).unwrap();
                sums_to(&format!("{cost}, {time}, {dictionary}"), writer.into_inner().unwrap(), 2, "0.075").await;
            }
        }
    }
}
