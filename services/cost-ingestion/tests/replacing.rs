//! A period is replaced in one commit: never half, never twice, whatever goes wrong around it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::costs::QueryCostsRequest;
use cost_ingestion::export::Limits;
use cost_ingestion::ingest::{IngestError, Ingestor, Outcome, Payers};
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::report::{self, DECEMBER_2018, item, with};
use support::store::{Trouble, Troubled};
use support::{Bench, IngestAll as _, OneStore, billed, decimal, ingested};
use tokio_util::sync::CancellationToken;
use url::Url;

const ACCOUNT: &str = "222222222222";

async fn troubled() -> (Arc<Troubled>, Bench) {
    let store = Arc::new(Troubled::new());
    let bench = Bench::with(ACCOUNT, store.clone(), Limits::default(), Payers::default()).await;
    (store, bench)
}

#[tokio::test]
async fn the_same_files_twice_are_one_commit() {
    let (store, bench) = troubled().await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1.25"), item("AmazonS3", "0.1")])).await;
    assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (2, decimal("1.35")));
    let (commits, files) = (store.commits.load(Ordering::SeqCst), bench.data_files().await);
    for _ in 0..2 {
        assert!(matches!(bench.ingest().await.unwrap()[0].outcome, Outcome::Unchanged));
    }
    assert_eq!(store.commits.load(Ordering::SeqCst), commits);
    assert_eq!(bench.data_files().await, files);
    assert_eq!(billed(&bench.costs().await), decimal("1.35"));
}

#[tokio::test]
async fn a_changed_file_replaces_its_period_and_nothing_else() {
    let bench = Bench::new(ACCOUNT).await;
    let december = with(item("AmazonS3", "7"), &[("bill_billing_period_start_date", &DECEMBER_2018.to_string())]);
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    bench.put("cur/b.parquet", report::file(&[item("AmazonEC2", "2")])).await;
    bench.put("cur/c.parquet", report::file(&[december])).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(reports.iter().map(ingested).collect::<Vec<_>>(), [(2, decimal("3")), (1, decimal("7"))]);

    bench.put("cur/b.parquet", report::file(&[item("AmazonEC2", "2.5"), item("AmazonEC2", "-0.5")])).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(ingested(&reports[0]), (3, decimal("3")));
    assert!(matches!(reports[1].outcome, Outcome::Unchanged));
    let costs = bench.costs().await;
    assert_eq!((costs.rows, billed(&costs)), (4, decimal("10")));
}

#[tokio::test]
async fn other_tenants_and_connections_are_left_alone_and_not_even_opened() {
    let (store, mut bench) = troubled().await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    bench.ingest().await.unwrap();
    let first = bench.order.clone();
    bench.order = support::order(ACCOUNT);
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "10")])).await;
    bench.ingest().await.unwrap();
    // A second connection of the second tenant, which reads the same bucket.
    let mut second = bench.order.clone();
    second.scope.connection = contracts::ConnectionId::new();
    bench.ingestor.ingest(&second, &CancellationToken::new()).await.unwrap();

    store.take_reads();
    assert_eq!(billed(&bench.costs().await), decimal("20"));
    let stranger = first.scope.tenant.to_string();
    assert!(store.take_reads().iter().all(|path| !path.as_ref().contains(&stranger)));
    let query = QueryCostsRequest { connections: vec![second.scope.connection], ..QueryCostsRequest::default() };
    assert_eq!(billed(&bench.asked(&query).await), decimal("10"));
    bench.order = first;
    assert_eq!(bench.asked(&query).await.rows, 0, "another tenant's connection is nobody's");
    assert_eq!(billed(&bench.costs().await), decimal("1"));
}

#[tokio::test]
async fn a_crash_between_data_and_commit_leaves_the_old_totals() {
    let (store, bench) = troubled().await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    bench.ingest().await.unwrap();

    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "2")])).await;
    store.set(Trouble::CommitFails);
    let error = bench.ingest().await.unwrap_err();
    assert!(matches!(error, IngestError::Table(_)) && error.is_transient(), "{error}");
    assert_eq!(bench.data_files().await.len(), 2, "the new data was written, and nothing refers to it");
    assert_eq!(billed(&bench.costs().await), decimal("1"));
    // So does a process that starts now.
    let table = CostTable::with_store(store.clone(), &Url::parse("memory:///costs/").unwrap()).await.unwrap();
    assert_eq!(
        billed(&table.query(bench.order.scope.tenant, &QueryCostsRequest::default()).await.unwrap()),
        decimal("1")
    );

    store.set(Trouble::None);
    assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (1, decimal("2")));
    assert_eq!(billed(&bench.costs().await), decimal("2"));
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_is_not_taken_back() {
    let (store, bench) = troubled().await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    store.set(Trouble::ReplyLost);
    assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (1, decimal("1")));
    assert_eq!(bench.data_files().await.len(), 1);
    assert_eq!(billed(&bench.costs().await), decimal("1"));
}

#[tokio::test]
async fn cancelling_changes_nothing() {
    let bench = Bench::new(ACCOUNT).await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = bench.ingestor.ingest(&bench.order, &cancel).await.unwrap_err();
    assert!(matches!(error, IngestError::Cancelled) && error.is_transient());
    assert!(bench.data_files().await.is_empty());
    assert_eq!(bench.costs().await.rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_old_or_the_new_and_never_half() {
    let bench = Arc::new(Bench::new(ACCOUNT).await);
    let version =
        |number: i64| report::file(&[item("AmazonEC2", &number.to_string()), item("AmazonS3", &number.to_string())]);
    bench.put("cur/a.parquet", version(1)).await;
    bench.ingest().await.unwrap();
    let done = CancellationToken::new();
    let reader = tokio::spawn({
        let (bench, done) = (Arc::clone(&bench), done.clone());
        async move {
            let mut seen = Vec::new();
            while !done.is_cancelled() {
                let costs = bench.costs().await;
                assert_eq!(costs.rows, 2);
                assert_eq!(costs.lines[0].sum.billed, costs.lines[1].sum.billed, "both of one version");
                seen.push(billed(&costs));
            }
            seen
        }
    });
    for number in 2..=15 {
        bench.put("cur/a.parquet", version(number)).await;
        bench.ingest().await.unwrap();
    }
    done.cancel();
    let seen = reader.await.unwrap();
    assert!(seen.is_sorted() && !seen.is_empty(), "time does not run backwards: {seen:?}");
    assert_eq!(billed(&bench.costs().await), decimal("30"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_lose_nothing() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let url = Url::parse("memory:///costs/").unwrap();
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    bucket.put(&Path::from("cur/a.parquet"), report::file(&[item("AmazonEC2", "1")]).into()).await.unwrap();
    let tenant = contracts::TenantId::new();
    // Each with a table of its own over one store, as processes are: they race to make it, too.
    let writers = (0..6).map(|_| {
        let (store, url, bucket) = (Arc::clone(&store), url.clone(), Arc::clone(&bucket));
        tokio::spawn(async move {
            let table = Arc::new(CostTable::with_store(store, &url).await.unwrap());
            let ingestor = Ingestor::new(Arc::new(OneStore(bucket)), table, Limits::default(), Payers::default());
            let mut order = support::order(ACCOUNT);
            order.scope.tenant = tenant;
            let reports = ingestor.ingest(&order, &CancellationToken::new()).await.unwrap();
            assert_eq!(ingested(&reports[0]), (1, decimal("1")));
            order
        })
    });
    let orders = futures::future::join_all(writers).await;
    assert_eq!(orders.len(), 6);
    let table = CostTable::with_store(store, &url).await.unwrap();
    assert_eq!(billed(&table.query(tenant, &QueryCostsRequest::default()).await.unwrap()), decimal("6"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_export_read_by_many_at_once_counts_once() {
    let bench = Arc::new(Bench::new(ACCOUNT).await);
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1")])).await;
    let all = (0..5).map(|_| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.ingest().await.unwrap() })
    });
    futures::future::join_all(all).await.into_iter().for_each(|report| assert_eq!(report.unwrap().len(), 1));
    assert_eq!(billed(&bench.costs().await), decimal("1"));
    assert_eq!(bench.data_files().await.len(), 1, "the others took theirs back");
}
