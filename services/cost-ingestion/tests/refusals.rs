//! Exports that are broken or hostile are refused whole, with a reason that a person can act on, and leave no trace in the table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use cost_ingestion::export::{ExportError, Limits};
use cost_ingestion::ingest::{IngestError, Outcome, Payers};
use object_store::memory::InMemory;
use parquet::basic::{Compression, GzipLevel};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::report::{self, DECEMBER_2018, item, with, without};
use support::{Bench, decimal, ingested, refusal};

const ACCOUNT: &str = "222222222222";
const MANIFEST: &str = "cur/daily/20181101-20181201/daily-Manifest.json";

/// The refusal of the only unit, after making sure that nothing was written.
async fn refused(bench: &Bench) -> String {
    let reports = bench.ingest().await.unwrap();
    assert_eq!(reports.len(), 1);
    untouched(bench).await;
    refusal(&reports[0])
}

async fn untouched(bench: &Bench) {
    assert!(bench.data_files().await.is_empty(), "nothing half-written");
    assert_eq!(bench.costs().await.rows, 0);
}

#[tokio::test]
async fn attack_32_truncated_and_forged_files() {
    let whole = report::file(&[item("AmazonEC2", "1")]);
    let mut middle = whole.to_vec();
    for byte in &mut middle[4..200] {
        *byte ^= 0x5a;
    }
    // A footer that claims to be longer than the file.
    let mut footer = whole.to_vec();
    let at = footer.len() - 8;
    footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases = [whole[..whole.len() / 2].to_vec(), whole[..10].to_vec(), b"PAR1".to_vec(), Vec::new(), middle, footer];
    for (number, bytes) in cases.into_iter().enumerate() {
        let bench = Bench::new(ACCOUNT).await;
        bench.put("cur/a.parquet", bytes).await;
        let reason = refused(&bench).await;
        assert!(reason.contains("cur/a.parquet is not a complete Parquet file"), "{number}: {reason}");
    }
}

#[tokio::test]
async fn attack_32_a_bad_file_keeps_its_whole_period_out() {
    let bench = Bench::new(ACCOUNT).await;
    let good = report::file(&[item("AmazonEC2", "1")]);
    bench.put("cur/daily/a.parquet", good.clone()).await;
    bench.put("cur/daily/b.parquet", good.slice(..good.len() / 2)).await;
    bench.put(MANIFEST, report::manifest(ACCOUNT, &["cur/daily/a.parquet", "cur/daily/b.parquet"])).await;
    assert!(refused(&bench).await.contains("cur/daily/b.parquet"));
}

#[tokio::test]
async fn attack_32_manifests_that_lie() {
    for (account, keys, reason) in [
        ("333333333333", vec!["cur/daily/a.parquet"], "account is not the connection's"),
        (ACCOUNT, vec!["cur/../other/a.parquet"], "leaves the export's prefix"),
        (ACCOUNT, vec!["other/a.parquet"], "leaves the export's prefix"),
        (ACCOUNT, vec!["cur/daily/a.parquet", "cur/daily/missing.parquet"], "not in the bucket (report key number 2)"),
    ] {
        let bench = Bench::new(ACCOUNT).await;
        bench.put("cur/daily/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
        bench.put("other/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
        bench.put(MANIFEST, report::manifest(account, &keys)).await;
        let found = refused(&bench).await;
        assert!(found.contains(reason), "{found}");
    }
    let bench = Bench::new(ACCOUNT).await;
    bench.put(MANIFEST, vec![b'['; 5 << 20]).await;
    assert!(refused(&bench).await.contains("more than the limit"));
    bench.put(MANIFEST, vec![b'['; 1 << 20]).await;
    assert!(refused(&bench).await.contains("not the JSON"));
}

#[tokio::test]
async fn attack_32_rows_of_somebody_else() {
    let foreign = with(item("AmazonEC2", "1"), &[("bill_payer_account_id", "333333333333")]);
    let bench = Bench::new(ACCOUNT).await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1"), foreign.clone()])).await;
    assert!(refused(&bench).await.contains("payer is not the connection's account"));

    for payers in [Payers::Any, Payers::OwnAnd(BTreeSet::from(["333333333333".parse().unwrap()]))] {
        let bench = Bench::with(ACCOUNT, Arc::new(InMemory::new()), Limits::default(), payers).await;
        bench.put("cur/a.parquet", report::file(std::slice::from_ref(&foreign))).await;
        assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (1, decimal("1")));
    }
}

#[tokio::test]
async fn attack_32_absurd_sizes() {
    let file = report::file(&vec![item("AmazonEC2", "1"); 5000]);
    let small = Limits { period_rows: 4000, ..Limits::default() };
    let bench = Bench::with(ACCOUNT, Arc::new(InMemory::new()), small, Payers::default()).await;
    bench.put("cur/a.parquet", file.clone()).await;
    assert!(refused(&bench).await.contains("rows in the file cur/a.parquet: 5000 is more than the limit of 4000"));

    let small = Limits { row_group_bytes: 200_000, ..Limits::default() };
    let bench = Bench::with(ACCOUNT, Arc::new(InMemory::new()), small, Payers::default()).await;
    let long = |number| with(item("AmazonEC2", "1"), &[("line_item_resource_id", &format!("{number:0>100}"))]);
    bench.put("cur/a.parquet", report::file(&(0..5000).map(long).collect::<Vec<_>>())).await;
    assert!(refused(&bench).await.contains("unpacked bytes of one column"));

    for small in [Limits { file_bytes: 100, ..Limits::default() }, Limits { objects: 1, ..Limits::default() }] {
        let bench = Bench::with(ACCOUNT, Arc::new(InMemory::new()), small, Payers::default()).await;
        bench.put("cur/a.parquet", file.clone()).await;
        bench.put("cur/b.parquet", file.clone()).await;
        let error = bench.ingest().await.unwrap_err();
        assert!(matches!(error, IngestError::Export(ExportError::TooMuch { .. })) && !error.is_transient(), "{error}");
        untouched(&bench).await;
    }

    let bench = Bench::new(ACCOUNT).await;
    bench
        .put("cur/a.parquet", report::compressed(&[item("AmazonEC2", "1")], Compression::GZIP(GzipLevel::default())))
        .await;
    assert!(refused(&bench).await.contains("exports are with Snappy"));

    let bench = Bench::new(ACCOUNT).await;
    let long = with(item("AmazonEC2", "1"), &[("line_item_operation", &"x".repeat(100_000))]);
    bench.put("cur/a.parquet", report::file(&[long])).await;
    assert!(refused(&bench).await.contains("a text of more than 65536 bytes"));
}

#[tokio::test]
async fn files_that_are_not_what_they_should_be() {
    let cases = [
        (
            vec![without(item("AmazonEC2", "1"), "line_item_unblended_cost")],
            "fit no known cost export (known: legacy-cur, cur-2.0, focus-1.2, focus-1.0, cost-explorer)",
        ),
        (vec![without(item("AmazonEC2", "1"), "line_item_currency_code")], "column line_item_currency_code is missing"),
        (vec![with(item("AmazonEC2", "1"), &[("line_item_currency_code", "dollars")])], "currency is no currency code"),
        (vec![with(item("AmazonEC2", "1"), &[("line_item_currency_code", "")])], "BillingCurrency is empty"),
        (vec![item("AmazonEC2", "NaN")], "column line_item_unblended_cost holds a value that is no amount"),
        (vec![item("AmazonEC2", "1e30")], "more than 20 digits"),
        (
            vec![with(item("a", "1"), &[("bill_billing_period_start_date", "1541030400001")])],
            "billing period is no month",
        ),
    ];
    for (items, reason) in cases {
        let bench = Bench::new(ACCOUNT).await;
        bench.put("cur/a.parquet", report::file(&items)).await;
        let found = refused(&bench).await;
        assert!(found.contains(reason), "{found}");
    }
}

#[tokio::test]
async fn a_manifest_whose_file_is_of_another_month() {
    let bench = Bench::new(ACCOUNT).await;
    let december = with(item("AmazonS3", "7"), &[("bill_billing_period_start_date", &DECEMBER_2018.to_string())]);
    bench.put("cur/daily/a.parquet", report::file(&[december])).await;
    bench.put(MANIFEST, report::manifest(ACCOUNT, &["cur/daily/a.parquet"])).await;
    assert!(refused(&bench).await.contains("another billing period"));
}

#[tokio::test]
async fn an_empty_export_says_what_to_do() {
    let bench = Bench::new(ACCOUNT).await;
    bench.put("elsewhere/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    let error = bench.ingest().await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("it takes up to 24 hours"), "{error}");
}

#[tokio::test]
async fn of_many_manifests_the_newest_of_each_period_counts() {
    let bench = Bench::new(ACCOUNT).await;
    bench.put("cur/daily/20181101-20181201/a1/daily-1.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    let first = report::manifest(ACCOUNT, &["cur/daily/20181101-20181201/a1/daily-1.parquet"]);
    bench.put("cur/daily/20181101-20181201/a1/daily-Manifest.json", first.clone()).await;
    bench.put(MANIFEST, first).await;
    // A stray file that no manifest names is nobody's cost.
    bench.put("cur/daily/stray.parquet", report::file(&[item("AmazonEC2", "1000")])).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(reports.iter().map(ingested).collect::<Vec<_>>(), [(1, decimal("1"))]);

    bench.put("cur/daily/20181101-20181201/a2/daily-1.parquet", report::file(&[item("AmazonEC2", "2")])).await;
    let second = report::manifest(ACCOUNT, &["cur/daily/20181101-20181201/a2/daily-1.parquet"]);
    bench.put("cur/daily/20181101-20181201/a2/daily-Manifest.json", second.clone()).await;
    bench.put(MANIFEST, second).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(reports.iter().map(ingested).collect::<Vec<_>>(), [(1, decimal("2"))]);
    assert_eq!(support::billed(&bench.costs().await), decimal("2"));
    assert!(matches!(bench.ingest().await.unwrap()[0].outcome, Outcome::Unchanged));
}
