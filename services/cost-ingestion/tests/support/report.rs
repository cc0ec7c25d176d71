//! Made-up legacy reports.

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One line item: column -> value. Columns that end in `_date` are milliseconds, those that end in `_cost` are doubles, the rest is text.
pub type Item = BTreeMap<&'static str, String>;

pub const NOVEMBER_2018: i64 = 1_541_030_400_000;
pub const DECEMBER_2018: i64 = 1_543_622_400_000;

/// A line of this service and cost in November 2018.
pub fn item(service: &str, cost: &str) -> Item {
    BTreeMap::from([
        ("identity_line_item_id", "a".to_owned()),
        ("bill_payer_account_id", "222222222222".to_owned()),
        ("bill_billing_period_start_date", NOVEMBER_2018.to_string()),
        ("bill_billing_period_end_date", DECEMBER_2018.to_string()),
        ("line_item_usage_start_date", NOVEMBER_2018.to_string()),
        ("line_item_usage_end_date", (NOVEMBER_2018 + 3_600_000).to_string()),
        ("line_item_line_item_type", "Usage".to_owned()),
        ("line_item_product_code", service.to_owned()),
        ("line_item_currency_code", "USD".to_owned()),
        ("line_item_usage_account_id", "222222222222".to_owned()),
        ("line_item_unblended_cost", cost.to_owned()),
    ])
}

pub fn with(mut item: Item, changes: &[(&'static str, &str)]) -> Item {
    for (column, value) in changes {
        item.insert(column, (*value).to_owned());
    }
    item
}

pub fn without(mut item: Item, column: &str) -> Item {
    item.remove(column);
    item
}

/// As [`file`], with all lines in this month.
pub fn file_of(month: &str, items: &[Item]) -> Bytes {
    let (year, number) = month.split_once('-').unwrap();
    let (year, number): (i32, u8) = (year.parse().unwrap(), number.parse().unwrap());
    let date = time::Date::from_calendar_date(year, number.try_into().unwrap(), 1).unwrap();
    let start = date.midnight().assume_utc().unix_timestamp() * 1000;
    let moved = items.iter().map(|item| {
        let mut item = item.clone();
        item.insert("bill_billing_period_start_date", start.to_string());
        item.insert("line_item_usage_start_date", start.to_string());
        item.insert("line_item_usage_end_date", (start + 3_600_000).to_string());
        item
    });
    file(&moved.collect::<Vec<_>>())
}

pub fn file(items: &[Item]) -> Bytes {
    compressed(items, Compression::SNAPPY)
}

pub fn compressed(items: &[Item], compression: Compression) -> Bytes {
    let rows = batch(items);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap().into()
}

pub fn batch(items: &[Item]) -> RecordBatch {
    let names: Vec<_> = items[0].keys().copied().collect();
    RecordBatch::try_from_iter(names.into_iter().map(|name| (name, column(items, name)))).unwrap()
}

fn column(items: &[Item], name: &str) -> ArrayRef {
    let texts = items.iter().map(|item| item.get(name).cloned());
    if name.ends_with("_date") {
        let values: TimestampMillisecondArray =
            texts.map(|text| text.map(|text| text.parse::<i64>().unwrap())).collect();
        Arc::new(values.with_timezone("UTC"))
    } else if name.ends_with("_cost") {
        Arc::new(texts.map(|text| text.map(|text| text.parse::<f64>().unwrap())).collect::<Float64Array>())
    } else {
        Arc::new(texts.collect::<StringArray>())
    }
}

/// A manifest as AWS writes it.
pub fn manifest(account: &str, keys: &[&str]) -> Bytes {
    serde_json::json!({
        "assemblyId": "a1", "account": account, "bucket": "costs-of-a-customer", "compression": "Parquet", "contentType": "Parquet",
        "billingPeriod": {"start": "20181101T000000.000Z", "end": "20181201T000000.000Z"}, "reportName": "daily", "reportKeys": keys,
    })
    .to_string()
    .into_bytes()
    .into()
}
