use super::*;
use crate::export::Export;
use crate::table::{Fingerprint, Replaced};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Decimal128Type;
use contracts::costs::QueryCostsRequest;
use contracts::{ConnectionId, TenantId};
use deltalake_core::DeltaTable;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sandbox::{AwsEmulator, Toolbox};
use url::Url;

async fn table() -> (Arc<CostTable>, Slice) {
    table_at(Arc::new(InMemory::new()), "memory:///costs/").await
}

async fn table_at(store: Arc<dyn ObjectStore>, url: &str) -> (Arc<CostTable>, Slice) {
    let url = Url::parse(url).unwrap();
    let table = Arc::new(CostTable::with_store(store, &url).await.unwrap());
    let period = "2025-01".parse().unwrap();
    (
        table,
        Slice { tenant: TenantId::new(), connection: ConnectionId::new(), export: Export::named("s3://b/e"), period },
    )
}

/// Files that overlap, as an earlier version of the writer left them: each thread's run is a file.
async fn overlapping(table: &Arc<CostTable>, slice: &Slice, parts: u64) -> Written {
    let mut all = Written::default();
    for part in 0..parts {
        let mut gatherer = Gatherer::default();
        gatherer.take(&sort::tests::rows(part, 200)).unwrap();
        let sorted = Arc::new(gatherer.finish().unwrap().sorted());
        let (written, result) = sort::write(sorted, table, slice, 1, &CancellationToken::new()).await;
        result.unwrap();
        all.files.extend(written.files);
        all.rows += written.rows;
    }
    all
}

async fn costs(table: &CostTable, slice: &Slice) -> (u64, String) {
    let costs = table.query(slice.tenant, &QueryCostsRequest::default()).await.unwrap();
    (costs.rows, format!("{:?}", costs.totals))
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_files_become_sorted_ones_and_no_row_changes() {
    let (table, slice) = table().await;
    let written = overlapping(&table, &slice, 5).await;
    let read = Fingerprint::of(["a"]);
    table.replace(&slice, read, written, HashMap::new()).await.unwrap();
    let before = costs(&table, &slice).await;
    assert_eq!(before.0, 1000);
    let done = table.compact(&CancellationToken::new()).await.unwrap();
    assert_eq!((done.slices, done.before, done.overtaken), (1, 5, 0));
    assert_eq!(costs(&table, &slice).await, before);
    let state = table.latest().await.unwrap();
    let files: Vec<_> = files_of(&state, &slice).collect();
    assert!(files.len() == done.after && !overlap(&files));
    assert!(table.holds(&slice, read).await.unwrap(), "the same source files are still known");
    assert_eq!(table.compact(&CancellationToken::new()).await.unwrap(), Compacted::default(), "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_is_replaced_meanwhile_wins() {
    let (table, slice) = table().await;
    let written = overlapping(&table, &slice, 3).await;
    table.replace(&slice, Fingerprint::of(["a"]), written, HashMap::new()).await.unwrap();
    let candidate = table.candidates().await.unwrap().remove(0);
    let compacted = table.rewrite(&candidate, &CancellationToken::new()).await.unwrap();
    let restated = overlapping(&table, &slice, 1).await;
    let replaced = table.replace(&slice, Fingerprint::of(["b"]), restated, HashMap::new()).await.unwrap();
    assert!(matches!(replaced, Replaced::Committed { .. }));
    assert!(!table.swap(&candidate, compacted).await.unwrap());
    assert_eq!(costs(&table, &slice).await.0, 200);
}

/// Rows, and units of what they bill, in this version of the table: read file by file, as a stranger would.
async fn held_at(table: &CostTable, version: u64) -> (usize, i128) {
    let mut then = DeltaTable::new(Arc::clone(&table.log));
    then.load_version(version).await.unwrap();
    let paths: Vec<Path> =
        then.snapshot().unwrap().log_data().into_iter().map(|file| file.object_store_path()).collect();
    let (mut rows, mut billed) = (0, 0);
    for path in paths {
        let bytes = table.store().get(&path).await.unwrap().bytes().await.unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let costs = batch.column_by_name("BilledCost").unwrap();
            billed += costs.as_primitive::<Decimal128Type>().iter().flatten().sum::<i128>();
            rows += batch.num_rows();
        }
    }
    (rows, billed)
}

async fn data_files(table: &CostTable) -> usize {
    let all: Vec<_> = table.store().list(None).try_collect().await.unwrap();
    all.iter().filter(|object| object.location.as_ref().ends_with(".zstd.parquet")).count()
}

/// Sums of every version before and after a compaction, and what a vacuum leaves of them.
async fn every_version_keeps_its_sums_until_vacuum_takes_it(table: &Arc<CostTable>, slice: &Slice) {
    let mut known = Vec::new();
    for (read, parts) in [("a", 3), ("b", 5)] {
        let written = overlapping(table, slice, parts).await;
        table.replace(slice, Fingerprint::of([read]), written, HashMap::new()).await.unwrap();
        let version = table.version().await.unwrap();
        known.push((version, held_at(table, version).await));
    }
    assert_eq!(known.iter().map(|(_, (rows, _))| *rows).collect::<Vec<_>>(), [600, 1000]);
    assert_ne!(known[0].1.1, known[1].1.1);
    let asked = costs(table, slice).await;
    let done = table.compact(&CancellationToken::new()).await.unwrap();
    assert_eq!((done.slices, done.before), (1, 5));
    known.push((table.version().await.unwrap(), known[1].1));
    for (version, held) in &known {
        assert_eq!(held_at(table, *version).await, *held, "version {version}");
    }
    assert_eq!(costs(table, slice).await, asked);

    let (now, week) = (OffsetDateTime::now_utc(), Duration::days(7));
    assert_eq!(table.vacuum(week, now, false).await.unwrap().files.len(), 0, "all of it is young");
    assert_eq!(data_files(table).await, 3 + 5 + done.after);
    let vacuumed = table.vacuum(week, now + Duration::days(8), false).await.unwrap();
    assert_eq!((vacuumed.files.len(), data_files(table).await), (8, done.after));
    assert!(vacuumed.bytes > 0);
    let (last, held) = known[2];
    assert_eq!((held_at(table, last).await, costs(table, slice).await), (held, asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_vacuum_in_s3() {
    let emulator = AwsEmulator::start(&Toolbox::fetch(|_| {}).unwrap()).await.unwrap();
    let account = emulator.account("111111111111", "eu-central-1");
    account.create_bucket("the-cost-table").await.unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(account.bucket("the-cost-table").unwrap());
    let (table, slice) = table_at(store, "s3://the-cost-table/costs").await;
    every_version_keeps_its_sums_until_vacuum_takes_it(&table, &slice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_vacuum_in_memory() {
    let (table, slice) = table().await;
    every_version_keeps_its_sums_until_vacuum_takes_it(&table, &slice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_compacts_and_vacuums_again_and_again_and_ends_with_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let table = Arc::new(CostTable::open(folder.path().to_str().unwrap()).await.unwrap());
    let (_, slice) = self::table().await;
    let stop = CancellationToken::new();
    let every = std::time::Duration::from_secs(1);
    let upkeep = tokio::spawn(crate::upkeep::repeat(Arc::clone(&table), every, 7, stop.clone()));
    for read in ["a", "b"] {
        let written = overlapping(&table, &slice, 4).await;
        table.replace(&slice, Fingerprint::of([read]), written, HashMap::new()).await.unwrap();
        let before = costs(&table, &slice).await;
        // What a writer has left that died eight days ago.
        let orphan = folder.path().join("part-orphan.zstd.parquet");
        std::fs::write(&orphan, "of a writer that is gone").unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 86_400);
        std::fs::File::options().write(true).open(&orphan).unwrap().set_modified(then).unwrap();
        let start = std::time::Instant::now();
        while orphan.exists() || !table.candidates().await.unwrap().is_empty() {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "round {read}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(costs(&table, &slice).await, before);
    }
    stop.cancel();
    upkeep.await.unwrap();
}
