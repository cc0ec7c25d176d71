//! A NATS server, a table, customers' buckets, and programs that work on them. A program can be killed: it runs in a runtime of its own, which is thrown
//! away with everything in it.

use super::report::{self, Item};
use async_trait::async_trait;
use contracts::costs::{
    DiscoverExports, ExportLocation, ExportPeriod, ListCostExports, ListCostExportsRequest, QueriedCosts,
    QueryCostsRequest,
};
use contracts::{CloudEvent, ConnectionId, JobId, Message, Region, Stream, TenantId};
use cost_ingestion::credentials::Scope;
use cost_ingestion::export::{ExportError, Limits, OpenExport};
use cost_ingestion::ingest::{Ingestor, Payers};
use cost_ingestion::table::CostTable;
use cost_ingestion::work::discovery::{self, Discovery};
use cost_ingestion::work::exports;
use cost_ingestion::work::find::{FindExports, NamedByStack};
use cost_ingestion::work::gate::Gate;
use cost_ingestion::work::ledger::Ledger;
use cost_ingestion::work::patience::Patience;
use cost_ingestion::work::period::{self, Worker};
use cost_ingestion::work::progress::Progress;
use futures::{StreamExt as _, TryStreamExt as _};
use messaging::async_nats::jetstream::consumer::pull;
use messaging::{Backoff, Bus, ConsumerSpec, EndpointServer, consume, event};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use rust_decimal::Decimal;
use sandbox::{NatsServer, NatsUser, Toolbox};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use url::Url;

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const ACCOUNT: &str = "222222222222";

/// Buckets by name; a connection's is named by its ID. Another one may be put before it.
#[derive(Clone, Default)]
pub struct Buckets(Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>);

impl Buckets {
    pub fn bucket(&self, name: &str) -> Arc<dyn ObjectStore> {
        let mut all = self.0.lock().unwrap();
        Arc::clone(all.entry(name.to_owned()).or_insert_with(|| Arc::new(InMemory::new())))
    }

    pub fn put(&self, name: &str, bucket: Arc<dyn ObjectStore>) {
        self.0.lock().unwrap().insert(name.to_owned(), bucket);
    }
}

#[async_trait]
impl OpenExport for Buckets {
    async fn open(&self, _: Scope, location: &ExportLocation, _: &Region) -> Result<Arc<dyn ObjectStore>, ExportError> {
        Ok(self.bucket(&location.bucket))
    }
}

/// A customer's connection with a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Customer {
    pub tenant: TenantId,
    pub connection: ConnectionId,
}

impl Customer {
    pub fn new() -> Self {
        Self { tenant: TenantId::new(), connection: ConnectionId::new() }
    }

    pub fn bucket(self) -> String {
        format!("b-{}", self.connection)
    }
}

pub struct Yard {
    pub nats: NatsServer,
    pub bus: Bus,
    pub buckets: Buckets,
    pub store: Arc<dyn ObjectStore>,
    pub patience: Patience,
    pub finders: Vec<Arc<dyn FindExports>>,
    pub payers: Payers,
}

/// A program at work. Dropping it kills it.
pub struct Program {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
}

impl Program {
    /// Asks it to end; it is gone when this is dropped.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Yard {
    pub async fn new() -> Self {
        let nats = NatsServer::start(&Toolbox::fetch(|line| println!("{line}")).unwrap()).await.unwrap();
        let bus = nats.bus(NatsUser::CostIngestion).await.unwrap();
        for stream in [Stream::Jobs, Stream::CostsEvents, Stream::DeadLetters] {
            bus.ensure_stream(stream).await.unwrap();
        }
        let quick = Duration::from_millis(20);
        let patience = Patience {
            backoff: Backoff { first: quick, most: quick },
            tries: 3,
            look: Duration::from_millis(300),
            ..Patience::new(Duration::from_secs(3600))
        };
        Self {
            nats,
            bus,
            buckets: Buckets::default(),
            store: Arc::new(InMemory::new()),
            patience,
            finders: vec![Arc::new(NamedByStack)],
            payers: Payers::default(),
        }
    }

    pub fn url() -> Url {
        Url::parse("memory:///costs/").unwrap()
    }

    /// The table as a stranger finds it.
    pub async fn table(&self) -> CostTable {
        CostTable::with_store(Arc::clone(&self.store), &Self::url()).await.unwrap()
    }

    pub async fn ledger(&self) -> Ledger {
        Ledger::new(self.table().await.store())
    }

    /// A program with so many workers, whose table lies in `store`.
    pub fn program(&self, workers: usize, store: Arc<dyn ObjectStore>) -> Program {
        self.program_with(workers, store, Arc::new(self.buckets.clone()))
    }

    pub fn program_with(&self, workers: usize, store: Arc<dyn ObjectStore>, exports: Arc<dyn OpenExport>) -> Program {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let (patience, finders, payers) = (self.patience, self.finders.clone(), self.payers.clone());
        let config = self.nats.config(NatsUser::CostIngestion).unwrap();
        let token = shutdown.clone();
        runtime.spawn(async move {
            let bus = Bus::connect(&config, "cost-ingestion").await.unwrap();
            let table = Arc::new(CostTable::with_store(store, &Self::url()).await.unwrap());
            let ledger = Ledger::new(table.store());
            let ingestor = Arc::new(Ingestor::new(exports, table, Limits::default(), payers));
            let worker = Worker {
                bus: bus.clone(),
                ingestor: Arc::clone(&ingestor),
                ledger: ledger.clone(),
                patience,
                gate: Gate::new(workers),
                progress: Progress::default(),
                shutdown: token.clone(),
            };
            let gate = discovery::gate();
            let discovery = Discovery { bus: bus.clone(), ingestor, ledger: ledger.clone(), finders, patience, gate };
            let questions = EndpointServer::start(&bus, "cost-ingestion", "a test").await.unwrap();
            let questions = questions
                .serve::<ListCostExports, _, _>(move |call| {
                    let ledger = ledger.clone();
                    async move { exports::answer(&ledger, call).await }
                })
                .await
                .unwrap();
            tokio::spawn(questions.run(token.clone()));
            let (periods, looks) = (period::router(Arc::new(worker)), discovery::router(Arc::new(discovery)));
            tokio::spawn(consume(bus.clone(), quick(period::consumer(workers)), periods, token.clone()));
            consume(bus, quick(discovery::consumer()), looks, token).await.unwrap();
        });
        Program { runtime: Some(runtime), shutdown }
    }

    /// Orders a look at a customer's bucket, as the schedule does.
    pub async fn look(&self, customer: Customer) -> CloudEvent<DiscoverExports> {
        let named = Some(ExportLocation { bucket: customer.bucket(), prefix: String::new() });
        self.look_at(customer, named).await
    }

    /// As [`Self::look`], where the stack named this.
    pub async fn look_at(&self, customer: Customer, named: Option<ExportLocation>) -> CloudEvent<DiscoverExports> {
        let Customer { tenant, connection } = customer;
        let job = event(DiscoverExports {
            job: JobId::new(),
            tenant,
            connection,
            account: ACCOUNT.parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            named,
        });
        self.bus.publish(&job).await.unwrap();
        job
    }

    /// Puts a manifest of legacy CUR with one file: a new version of this month (`2018-11`).
    pub async fn put(&self, customer: Customer, report: &str, month: &str, items: &[Item]) {
        self.put_file(customer, report, month, report::file_of(month, items)).await;
    }

    pub async fn put_file(&self, customer: Customer, report: &str, month: &str, file: bytes::Bytes) {
        let bucket = self.buckets.bucket(&customer.bucket());
        let data = format!("{report}/data/{month}.parquet");
        bucket.put(&Path::from(data.as_str()), file.into()).await.unwrap();
        let start = month.replace('-', "") + "01";
        let manifest = serde_json::json!({
            "assemblyId": uuid(), "account": ACCOUNT, "compression": "Parquet", "reportKeys": [data],
            "billingPeriod": {"start": format!("{start}T000000.000Z")},
        });
        let path = format!("{report}/{start}-{start}/daily-Manifest.json");
        bucket.put(&Path::from(path), manifest.to_string().into_bytes().into()).await.unwrap();
    }

    /// All events of this type, in order.
    pub async fn events<T: Message>(&self) -> Vec<CloudEvent<T>> {
        let events = self.nats.bus(NatsUser::Events).await.unwrap();
        let stream = events.jetstream().get_stream(Stream::CostsEvents.name()).await.unwrap();
        let config = pull::Config { filter_subject: T::SUBJECT.to_owned(), ..pull::Config::default() };
        let mut consumer = stream.create_consumer(config).await.unwrap();
        let count = consumer.info().await.unwrap().num_pending;
        let messages = consumer.messages().await.unwrap().take(usize::try_from(count).unwrap());
        let decode = |message: messaging::async_nats::jetstream::Message| CloudEvent::decode(&message.payload).unwrap();
        messages.map_ok(decode).try_collect().await.unwrap()
    }

    /// Waits until so many events of this type are there, and gives them all.
    pub async fn until<T: Message>(&self, count: usize) -> Vec<CloudEvent<T>> {
        let start = Instant::now();
        loop {
            let events = self.events::<T>().await;
            if events.len() >= count {
                return events;
            }
            assert!(start.elapsed() < PATIENCE, "{count} of {} wanted, {} came", T::TYPE, events.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn held(&self, stream: Stream) -> u64 {
        let mut stream = self.bus.jetstream().get_stream(stream.name()).await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    /// Waits until no job is left.
    pub async fn until_idle(&self) {
        let start = Instant::now();
        while self.held(Stream::Jobs).await > 0 {
            assert!(start.elapsed() < PATIENCE, "a job is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn costs(&self, customer: Customer) -> QueriedCosts {
        self.table().await.query(customer.tenant, &QueryCostsRequest::default()).await.unwrap()
    }

    pub async fn billed(&self, customer: Customer) -> Decimal {
        super::billed(&self.costs(customer).await)
    }

    /// As an operator sees them.
    pub async fn exports(&self, tenant: TenantId) -> Vec<ExportPeriod> {
        let operator = self.nats.bus(NatsUser::Operator).await.unwrap();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = ListCostExportsRequest { connection: None, limit: Some(2), after };
            let page = operator.request::<ListCostExports>(ListCostExports::subject(tenant), &request, PATIENCE);
            let page = page.await.unwrap();
            assert!(page.items.len() <= 2);
            all.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }
}

/// As in the program, but impatient.
fn quick(spec: ConsumerSpec) -> ConsumerSpec {
    let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(50) };
    ConsumerSpec { backoff, ack_wait: Duration::from_millis(1500), ..spec }
}

fn uuid() -> String {
    JobId::new().to_string()
}
