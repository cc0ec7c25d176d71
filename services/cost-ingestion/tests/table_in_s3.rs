//! The table in S3: commits by `If-None-Match`, so that two writers never both believe that a version is theirs.
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
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sandbox::{AwsEmulator, Toolbox};
use std::sync::Arc;
use support::report::{self, item};
use support::{IngestAll as _, OneStore, billed, decimal};
use tokio_util::sync::CancellationToken;
use url::Url;

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_to_one_bucket_lose_nothing() {
    let emulator = AwsEmulator::start(&Toolbox::fetch(|line| println!("{line}")).unwrap()).await.unwrap();
    let account = emulator.account("111111111111", "eu-central-1");
    account.create_bucket("the-cost-table").await.unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(account.bucket("the-cost-table").unwrap());
    let url = Url::parse("s3://the-cost-table/costs").unwrap();
    let export: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    export.put(&Path::from("cur/a.parquet"), report::file(&[item("AmazonEC2", "1")]).into()).await.unwrap();
    let tenant = contracts::TenantId::new();
    let writers = (0..4).map(|_| {
        let (store, url, export) = (Arc::clone(&store), url.clone(), Arc::clone(&export));
        tokio::spawn(async move {
            let table = Arc::new(CostTable::with_store(store, &url).await.unwrap());
            let ingestor = Ingestor::new(Arc::new(OneStore(export)), table, Limits::default(), Payers::default());
            let mut order = support::order("222222222222");
            order.scope.tenant = tenant;
            ingestor.ingest(&order, &CancellationToken::new()).await.unwrap();
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let table = CostTable::with_store(store, &url).await.unwrap();
    assert_eq!(
        billed(&table.query(tenant, &contracts::costs::QueryCostsRequest::default()).await.unwrap()),
        decimal("4")
    );
}
