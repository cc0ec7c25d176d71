//! Old versions stay readable for their time, and what nobody needs any more goes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use cost_ingestion::export::Limits;
use cost_ingestion::ingest::{Ingestor, Payers};
use cost_ingestion::table::{CostTable, Vacuumed};
use deltalake_core::DeltaTableBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use std::sync::Arc;
use support::report::{self, item};
use support::{Bench, OneStore, billed, decimal, order};
use time::{Duration, OffsetDateTime};
use url::Url;

/// A bench whose table lies in a folder, so that others can open it too.
fn local(folder: &std::path::Path, table: Arc<CostTable>) -> Bench {
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let exports = Arc::new(OneStore(Arc::clone(&bucket)));
    let ingestor = Ingestor::new(exports, Arc::clone(&table), Limits::default(), Payers::default());
    let table_store = Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap());
    Bench { bucket, table, table_store, ingestor, order: order("222222222222") }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_readable_until_vacuum_may_take_them_and_orphans_go_too() {
    let folder = tempfile::tempdir().unwrap();
    let table = Arc::new(CostTable::open(folder.path().to_str().unwrap()).await.unwrap());
    let bench = local(folder.path(), Arc::clone(&table));
    for amount in ["1", "2", "4"] {
        bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", amount)])).await;
        bench.ingest().await.unwrap();
    }
    let orphan = Path::from("x_tenant_id=t/x_billing_period=2018-11/part-orphan.zstd.parquet");
    bench.table_store.put(&orphan, "of a writer that is gone".into()).await.unwrap();
    let other = Path::from("_summary/kept.parquet");
    bench.table_store.put(&other, "not data".into()).await.unwrap();
    assert_eq!(bench.data_files().await.len(), 4);

    let (now, week) = (OffsetDateTime::now_utc(), Duration::days(7));
    assert_eq!(table.vacuum(week, now, false).await.unwrap(), Vacuumed::default(), "all of it is young");
    let url = Url::from_directory_path(folder.path().canonicalize().unwrap()).unwrap();
    let then = DeltaTableBuilder::from_url(url).unwrap().with_version(1).load().await.unwrap();
    let files: Vec<_> = then.get_file_uris().unwrap().collect();
    assert!(
        files.len() == 1 && files.iter().all(|file| std::path::Path::new(file.trim_start_matches("file://")).exists()),
        "{files:?}"
    );

    let later = now + Duration::days(8);
    let would = table.vacuum(week, later, true).await.unwrap();
    assert_eq!((would.files.len(), bench.data_files().await.len()), (3, 4), "it only says so");
    assert_eq!(table.vacuum(week, later, false).await.unwrap().files.len(), 3);
    assert_eq!(bench.data_files().await.len(), 1);
    assert!(bench.table_store.head(&other).await.is_ok() && bench.table_store.head(&orphan).await.is_err());
    assert_eq!(billed(&bench.costs().await), decimal("4"));
    assert_eq!(table.vacuum(week, later, false).await.unwrap(), Vacuumed::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_within_the_retention_survive_a_vacuum_of_older_ones() {
    let bench = Bench::new("222222222222").await;
    for amount in ["1", "2"] {
        bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", amount)])).await;
        bench.ingest().await.unwrap();
    }
    // The first file was removed just now: however old it is, the version before must stay readable.
    let soon = OffsetDateTime::now_utc() + Duration::hours(23);
    assert_eq!(
        bench.table.vacuum(Duration::ZERO, soon, false).await.unwrap(),
        Vacuumed::default(),
        "a day is the least"
    );
    assert_eq!(bench.data_files().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_checkpoint_every_few_commits_and_reads_right_from_it() {
    let bench = Bench::new("222222222222").await;
    for amount in 1..=45 {
        bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", &amount.to_string())])).await;
        bench.ingest().await.unwrap();
    }
    use futures::TryStreamExt as _;
    let all: Vec<_> = bench.table_store.list(None).try_collect().await.unwrap();
    let checkpoints = all.iter().filter(|object| object.location.as_ref().contains(".checkpoint.parquet")).count();
    assert_eq!(checkpoints, 2);
    let url = Url::parse("memory:///costs/").unwrap();
    let afresh = CostTable::with_store(Arc::clone(&bench.table_store), &url).await.unwrap();
    assert_eq!(
        billed(&afresh.query(bench.order.scope.tenant, &contracts::costs::QueryCostsRequest::default()).await.unwrap()),
        decimal("45")
    );
    let later = OffsetDateTime::now_utc() + Duration::days(31);
    assert_eq!(afresh.vacuum(Duration::days(30), later, false).await.unwrap().files.len(), 44);
    assert_eq!(
        billed(&afresh.query(bench.order.scope.tenant, &contracts::costs::QueryCostsRequest::default()).await.unwrap()),
        decimal("45")
    );
}
