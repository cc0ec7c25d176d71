//! What is said of a job, and when: after a crash, after the last try, of a connection that has ended; and in whose trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use async_trait::async_trait;
use contracts::costs::{CostsFailed, CostsIngested, ExportLocation, IngestCosts};
use contracts::{CloudEvent, JobId, Message, Region, Stream};
use cost_ingestion::credentials::{CredentialError, Scope};
use cost_ingestion::export::{ExportError, Limits, OpenExport};
use cost_ingestion::ingest::{Ingestor, Order, Payers};
use cost_ingestion::table::CostTable;
use cost_ingestion::work::job::{self, Worker};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull;
use messaging::{Backoff, Bus, ConsumerSpec, Disposition, Router, consume, event};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sandbox::{NatsServer, NatsUser, Toolbox};
use std::sync::Arc;
use std::time::Duration;
use support::report::{self, item};
use support::{OneStore, decimal};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(30);

/// Exports for which there are no credentials.
struct Refusing(CredentialError);

#[async_trait]
impl OpenExport for Refusing {
    async fn open(&self, _: Scope, _: &ExportLocation, _: &Region) -> Result<Arc<dyn ObjectStore>, ExportError> {
        Err(ExportError::Credentials(self.0.clone()))
    }
}

struct Yard {
    nats: NatsServer,
    bus: Bus,
    table: Arc<CostTable>,
    order: Order,
}

impl Yard {
    async fn new() -> Self {
        let nats = NatsServer::start(&Toolbox::fetch(|line| println!("{line}")).unwrap()).await.unwrap();
        let bus = bus(&nats, NatsUser::CostIngestion).await;
        for stream in [Stream::Jobs, Stream::CostsEvents, Stream::DeadLetters] {
            bus.ensure_stream(stream).await.unwrap();
        }
        let url = Url::parse("memory:///costs/").unwrap();
        let table = Arc::new(CostTable::with_store(Arc::new(InMemory::new()), &url).await.unwrap());
        Self { nats, bus, table, order: support::order("222222222222") }
    }

    async fn publish(&self) -> CloudEvent<IngestCosts> {
        let Order { scope, account, region, location } = self.order.clone();
        let Scope { tenant, connection } = scope;
        let job = event(IngestCosts { job: JobId::new(), tenant, connection, account, region, export: location });
        self.bus.publish(&job).await.unwrap();
        job
    }

    fn ingestor(&self, exports: impl OpenExport) -> Ingestor {
        Ingestor::new(Arc::new(exports), Arc::clone(&self.table), Limits::default(), Payers::default())
    }

    /// Works on jobs until dropped.
    fn work(&self, exports: impl OpenExport) -> tokio_util::sync::DropGuard {
        let shutdown = CancellationToken::new();
        let (bus, table) = (self.bus.clone(), Arc::clone(&self.table));
        let worker = Worker { bus: bus.clone(), ingestor: self.ingestor(exports), table, shutdown: shutdown.clone() };
        tokio::spawn(consume(bus, spec(), job::router(Arc::new(worker)), shutdown.clone()));
        shutdown.drop_guard()
    }

    async fn next<T: Message>(&self) -> CloudEvent<T> {
        let events = bus(&self.nats, NatsUser::Events).await;
        let stream = events.jetstream().get_stream(Stream::CostsEvents.name()).await.unwrap();
        let config = pull::Config { filter_subject: T::SUBJECT.to_owned(), ..pull::Config::default() };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect(T::TYPE).unwrap().unwrap();
        CloudEvent::decode(&message.payload).unwrap()
    }

    /// Messages in a stream, once the work queue is empty.
    async fn left(&self, stream: Stream) -> u64 {
        let count = async |stream: Stream| {
            let mut stream = self.bus.jetstream().get_stream(stream.name()).await.unwrap();
            stream.info().await.unwrap().state.messages
        };
        let start = std::time::Instant::now();
        while count(Stream::Jobs).await > 0 {
            assert!(start.elapsed() < PATIENCE, "the job is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        count(stream).await
    }
}

async fn bus(nats: &NatsServer, user: NatsUser) -> Bus {
    nats.bus(user).await.unwrap()
}

/// As in the program, but impatient.
fn spec() -> ConsumerSpec {
    let backoff = Backoff { first: Duration::from_millis(1), most: Duration::from_millis(1) };
    ConsumerSpec { backoff, max_deliver: 3, ..job::consumer(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_worker_died_after_the_commit_is_still_said_and_in_its_trace() {
    let log = telemetry::LogConfig { log_format: telemetry::LogFormat::Human };
    let _telemetry = telemetry::init("cost-ingestion-test", &log).unwrap();
    let yard = Yard::new().await;
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    bucket.put(&Path::from("cur/a.parquet"), report::file(&[item("AmazonEC2", "1.25")]).into()).await.unwrap();
    let job = yard.publish().instrument(tracing::info_span!("ordered")).await;

    // A worker that commits and dies: the message is given back without a word.
    let (shutdown, dead) = (CancellationToken::new(), CancellationToken::new());
    let (ingestor, order) = (Arc::new(yard.ingestor(OneStore(Arc::clone(&bucket)))), yard.order.clone());
    let died = dead.clone();
    let dying = Router::new().on(move |_: CloudEvent<IngestCosts>, _| {
        let (ingestor, order, died) = (Arc::clone(&ingestor), order.clone(), died.clone());
        async move {
            ingestor.ingest(&order, &CancellationToken::new()).await.unwrap();
            died.cancel();
            Disposition::Retry { reason: "dead".into(), after: Some(Duration::ZERO) }
        }
    });
    let first = tokio::spawn(consume(yard.bus.clone(), spec(), dying, shutdown.clone()));
    dead.cancelled().await;
    shutdown.cancel();
    first.await.unwrap().unwrap();

    let _work = yard.work(OneStore(bucket));
    let said = yard.next::<CostsIngested>().await;
    assert_eq!((said.data.rows, said.data.totals[0].billed.decimal()), (1, decimal("1.25")));
    let trace = |traceparent: &Option<String>| traceparent.as_deref().unwrap().split('-').nth(1).unwrap().to_owned();
    assert_eq!(trace(&said.traceparent), trace(&job.traceparent), "one trace from the order to the news");
    assert_eq!(yard.left(Stream::DeadLetters).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_said_and_kept_as_a_dead_letter() {
    let yard = Yard::new().await;
    yard.publish().await;
    let _work = yard.work(Refusing(CredentialError::Unavailable { reason: "the broker is away".into() }));
    let said = yard.next::<CostsFailed>().await.data;
    assert!(said.reason.contains("the broker is away"), "{}", said.reason);
    assert_eq!(yard.left(Stream::DeadLetters).await, 1);
    assert_eq!(yard.left(Stream::CostsEvents).await, 1, "said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_ended_is_no_dead_letter() {
    let yard = Yard::new().await;
    yard.publish().await;
    let _work = yard.work(Refusing(CredentialError::NotNow { reason: "not-verified: it is revoked".into() }));
    assert!(yard.next::<CostsFailed>().await.data.reason.contains("it is revoked"));
    assert_eq!(yard.left(Stream::DeadLetters).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_a_broken_export_is_an_event_with_the_reason_and_no_error_of_ours() {
    let yard = Yard::new().await;
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let whole = report::file(&[item("AmazonEC2", "1.25")]);
    bucket.put(&Path::from("cur/a.parquet"), whole.slice(..whole.len() / 2).into()).await.unwrap();
    let job = yard.publish().await;
    let _work = yard.work(OneStore(bucket));
    let said = yard.next::<CostsFailed>().await.data;
    assert_eq!((said.tenant, said.connection), (job.data.tenant, job.data.connection));
    assert!(said.reason.contains("cur/a.parquet is not a complete Parquet file"), "{}", said.reason);
    assert_eq!(yard.left(Stream::DeadLetters).await, 0);
}
