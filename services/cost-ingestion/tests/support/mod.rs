//! What the tests share: the samples, made-up reports, stores in memory that can be told to fail, and an independent reading of a report.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod bureau;
pub mod desk;
pub mod report;
pub mod store;
pub mod yard;

use contracts::costs::{BillingPeriod, ExportLocation, QueriedCosts, QueryCostsRequest};
use contracts::{AccountId, ConnectionId, Region, TenantId};
use cost_ingestion::credentials::Scope;
use cost_ingestion::export::{Discovered, ExportError, Limits, Listing, OpenExport, read_manifest};
use cost_ingestion::ingest::{IngestError, Ingestor, Order, Outcome, Payers, PeriodReport};
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use url::Url;

pub const OCTOBER: &str = "Oct2018-WorkshopCUR-00001.snappy.parquet";
pub const NOVEMBER: &str = "Nov2018-WorkshopCUR-00001.snappy.parquet";
/// The payer in the samples.
pub const SAMPLE_PAYER: &str = "836060457634";

pub fn sample(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sandbox/data/cur-2018").join(name)
}

/// (billed by service, billed in all), read with the Parquet crate's row reader and added up in another decimal type.
pub fn independent(name: &str) -> (BTreeMap<String, Decimal>, Decimal) {
    let file = SerializedFileReader::new(std::fs::File::open(sample(name)).unwrap()).unwrap();
    let schema = file.metadata().file_metadata().schema();
    let wanted = ["product_product_name", "line_item_unblended_cost"];
    let fields = schema.get_fields().iter().filter(|f| wanted.contains(&f.name())).cloned().collect();
    let projection =
        parquet::schema::types::Type::group_type_builder(schema.name()).with_fields(fields).build().unwrap();
    let (mut services, mut all) = (BTreeMap::<String, Decimal>::new(), Decimal::ZERO);
    for row in file.get_row_iter(Some(projection)).unwrap() {
        let row = row.unwrap();
        // In the file's order the cost comes before the product.
        let cost = Decimal::from_str(&row.get_double(0).unwrap().to_string()).unwrap();
        *services.entry(row.get_string(1).unwrap().clone()).or_default() += cost;
        all += cost;
    }
    (services, all)
}

/// Reads all of an export at once, without jobs and without a ledger.
#[async_trait::async_trait]
pub trait IngestAll {
    async fn ingest(&self, order: &Order, cancel: &CancellationToken) -> Result<Vec<PeriodReport>, IngestError>;
}

#[async_trait::async_trait]
impl IngestAll for Ingestor {
    async fn ingest(&self, order: &Order, cancel: &CancellationToken) -> Result<Vec<PeriodReport>, IngestError> {
        let store = self.open(order).await?;
        let (location, limits) = (&order.location, self.limits());
        let listing = Listing::of(&store, location, limits).await?;
        let manifests = listing.manifests(location);
        if manifests.is_empty() {
            let found = listing.plain(location, limits)?;
            return self.ingest_found(&store, order, vec![Ok(found)], cancel).await;
        }
        let mut found = Vec::new();
        for listed in manifests {
            let named = read_manifest(&store, location, &order.account, limits, &listed.manifest).await;
            found.push(named.and_then(|named| {
                let files = listing.files(&listed.manifest.location, &named.files, limits)?;
                Ok(Discovered { export: listed.export, period: Some(named.period), files, thorough: false })
            }));
        }
        self.ingest_found(&store, order, found, cancel).await
    }
}

/// Opens the same store for everybody.
pub struct OneStore(pub Arc<dyn ObjectStore>);

#[async_trait::async_trait]
impl OpenExport for OneStore {
    async fn open(&self, _: Scope, _: &ExportLocation, _: &Region) -> Result<Arc<dyn ObjectStore>, ExportError> {
        Ok(Arc::clone(&self.0))
    }
}

/// A customer's bucket, a table, and what reads the one into the other.
pub struct Bench {
    pub bucket: Arc<dyn ObjectStore>,
    pub table: Arc<CostTable>,
    pub table_store: Arc<dyn ObjectStore>,
    pub ingestor: Ingestor,
    pub order: Order,
}

pub fn order(account: &str) -> Order {
    Order {
        scope: Scope { tenant: TenantId::new(), connection: ConnectionId::new() },
        account: AccountId::from_str(account).unwrap(),
        region: Region::from_str("eu-central-1").unwrap(),
        location: ExportLocation { bucket: "costs-of-a-customer".into(), prefix: "cur".into() },
    }
}

impl Bench {
    pub async fn new(account: &str) -> Self {
        Self::with(account, Arc::new(InMemory::new()), Limits::default(), Payers::default()).await
    }

    pub async fn with(account: &str, table_store: Arc<dyn ObjectStore>, limits: Limits, payers: Payers) -> Self {
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let url = Url::parse("memory:///costs/").unwrap();
        let table = Arc::new(CostTable::with_store(Arc::clone(&table_store), &url).await.unwrap());
        let ingestor = Ingestor::new(Arc::new(OneStore(Arc::clone(&bucket))), Arc::clone(&table), limits, payers);
        Self { bucket, table, table_store, ingestor, order: order(account) }
    }

    pub async fn put(&self, path: &str, bytes: impl Into<bytes::Bytes>) {
        self.bucket.put(&Path::from(path), bytes.into().into()).await.unwrap();
    }

    pub async fn put_sample(&self, name: &str) {
        self.put(&format!("cur/{name}"), std::fs::read(sample(name)).unwrap()).await;
    }

    pub async fn ingest(&self) -> Result<Vec<PeriodReport>, IngestError> {
        self.ingestor.ingest(&self.order, &CancellationToken::new()).await
    }

    pub async fn costs(&self) -> QueriedCosts {
        self.asked(&QueryCostsRequest::default()).await
    }

    pub async fn asked(&self, request: &QueryCostsRequest) -> QueriedCosts {
        self.table.query(self.order.scope.tenant, request).await.unwrap()
    }

    /// Paths of the table's data files, committed or not.
    pub async fn data_files(&self) -> Vec<Path> {
        use futures::TryStreamExt as _;
        let all: Vec<_> = self.table_store.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
        all.into_iter().filter(|path| path.as_ref().ends_with(".zstd.parquet")).collect()
    }
}

pub fn billed(costs: &QueriedCosts) -> Decimal {
    assert!(costs.totals.len() <= 1, "one currency: {:?}", costs.totals);
    costs.totals.first().map(|total| total.billed.decimal()).unwrap_or_default()
}

pub fn decimal(text: &str) -> Decimal {
    Decimal::from_str(text).unwrap()
}

/// (rows, billed) of a period that was written.
pub fn ingested(report: &PeriodReport) -> (u64, Decimal) {
    match &report.outcome {
        Outcome::Ingested { rows, totals } => (*rows, totals["USD"].billed.to_decimal().unwrap()),
        other => panic!("{other:?}"),
    }
}

pub fn refusal(report: &PeriodReport) -> String {
    match &report.outcome {
        Outcome::Refused(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

pub fn period(text: &str) -> BillingPeriod {
    text.parse().unwrap()
}
