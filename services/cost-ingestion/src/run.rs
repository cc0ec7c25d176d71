//! The program: everything made once, then its tasks until shutdown.

use crate::Config;
use crate::api::{Apis, Retries};
use crate::credentials::CredentialSource;
use crate::export::{ExportError, Limits, OpenExport, S3Exports};
use crate::ingest::Ingestor;
use crate::table::{CostTable, TableError};
use crate::upkeep;
use crate::work::broker::Broker;
use crate::work::connections::Book;
use crate::work::discovery::{self, Discovery};
use crate::work::explorer::{CostExplorer, Kept, OrKept};
use crate::work::find::{FindExports, NamedByStack};
use crate::work::gate::Gate;
use crate::work::ledger::Ledger;
use crate::work::listed::{DataExports, ReportDefinitions};
use crate::work::patience::Patience;
use crate::work::period::{self, Worker};
use crate::work::progress::Progress;
use crate::work::{exports, query, schedule};
use client::{Client, Pinned};
use contracts::Stream;
use contracts::costs::{ListCostExports, QueryCosts};
use messaging::{Bus, BusError, ConnectError, EndpointServer, consume};
use runtime::{Health, HttpError, HttpServer, Part, RuntimeError, Supervisor};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use telemetry::TelemetryError;
use tokio_util::sync::CancellationToken;

/// Our name on the bus.
const NAME: &str = "cost-ingestion";

/// Why the program did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("no broker key is pinned: give ROLEBRIDGE_SEALING_KEY, as role-chain-broker keygen printed it")]
    NothingPinned,
    #[error("no key to receive credentials with could be made")]
    Key(#[source] messaging::seal::SealError),
    #[error("the client for the accounts' APIs of costs could not be made")]
    Apis(#[source] ExportError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Runs until `shutdown`, or until a part dies.
///
/// Shutdown: no more jobs, events and questions are taken; answers in hand are given; exports in hand are left off before their commit, and come again.
///
/// # Errors
/// When something needed at the start is missing, or a task died.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let telemetry = telemetry::init(NAME, &config.log)?;
    let result = serve(&config, telemetry.clone(), shutdown).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: &Config, telemetry: telemetry::Telemetry, shutdown: CancellationToken) -> Result<(), RunError> {
    let http = HttpServer::bind(&config.http).await?;
    let table = Arc::new(CostTable::open(&config.cost_table).await?);
    let bus = Bus::connect(&config.nats, NAME).await?;
    for stream in [Stream::ConnectionEvents, Stream::Jobs, Stream::CostsEvents, Stream::DeadLetters] {
        bus.ensure_stream(stream).await?;
    }
    let pinned = Pinned::all(config.sealing_key.iter().cloned()).ok_or(RunError::NothingPinned)?;
    let broker = Broker(Client::new(bus.clone(), pinned, NAME).map_err(RunError::Key)?);
    let broker: Arc<dyn CredentialSource> = Arc::new(broker);
    let (kept, ledger) = (Kept::new(table.store()), Ledger::new(table.store()));
    let finders = finders(config, &broker, &kept, &ledger)?;
    let buckets: Arc<dyn OpenExport> = Arc::new(S3Exports::new(broker, config.s3_endpoint.clone()));
    let exports = Arc::new(OrKept { buckets, kept });

    let supervisor = Supervisor::new(shutdown);
    let token = supervisor.token();
    let ingestor = Ingestor::new(exports, Arc::clone(&table), Limits::default(), config.cost_payers.clone());
    let parts = Parts {
        bus: bus.clone(),
        ingestor: Arc::new(ingestor),
        ledger,
        finders,
        patience: Patience::new(config.interval()),
    };
    let questions = questions(&parts, &table).await?;

    let (summed, summing) = (Arc::clone(&table), token.clone());
    supervisor.spawn("summaries", async move {
        query::summaries(summed, summing).await;
        Ok::<_, Infallible>(())
    });
    let book = Book::of(&table);
    let (health, metrics) = (Health::new(), move || telemetry.prometheus());
    supervisor.spawn("nats", watch(bus.clone(), health.part("nats"), token.clone()));
    supervisor.spawn("http", http.serve(health, metrics, token.clone()));
    supervisor.spawn("questions", questions.run(token.clone()));
    let workers = usize::from(config.cost_workers);
    let periods = period::router(Arc::new(parts.worker(workers, token.clone())));
    supervisor.spawn("jobs", consume(bus.clone(), period::consumer(workers), periods, token.clone()));
    let looks = discovery::router(Arc::new(parts.discovery()));
    supervisor.spawn("discoveries", consume(bus.clone(), discovery::consumer(), looks, token.clone()));
    let events = schedule::router(bus.clone(), book.clone());
    supervisor.spawn("connections", consume(bus.clone(), schedule::consumer(), events, token.clone()));
    let (repeating_bus, interval) = (bus.clone(), config.interval());
    supervisor.spawn("schedule", async move {
        schedule::repeat(repeating_bus, book, interval, token).await;
        Ok::<_, Infallible>(())
    });
    if config.cost_upkeep > 0 {
        let (every, keep, stop) =
            (Duration::from_secs(u64::from(config.cost_upkeep)), config.cost_keep, supervisor.token());
        supervisor.spawn("upkeep", async move {
            upkeep::repeat(table, every, keep, stop).await;
            Ok::<_, Infallible>(())
        });
    }
    let result = supervisor.finish(config.http.grace()).await;
    bus.close().await;
    Ok(result?)
}

/// Who knows of exports. What Cost Explorer answered before is read even when it is asked no more.
fn finders(
    config: &Config,
    source: &Arc<dyn CredentialSource>,
    kept: &Kept,
    ledger: &Ledger,
) -> Result<Vec<Arc<dyn FindExports>>, RunError> {
    let mut finders: Vec<Arc<dyn FindExports>> = vec![Arc::new(NamedByStack)];
    if config.asks_apis() {
        let apis = Apis::new(Arc::clone(source), config.cost_api_endpoint.clone(), Retries::default());
        let apis = Arc::new(apis.map_err(RunError::Apis)?);
        finders.push(Arc::new(ReportDefinitions(Arc::clone(&apis))));
        finders.push(Arc::new(DataExports(Arc::clone(&apis))));
        if config.asks_cost_explorer() {
            finders.push(Arc::new(CostExplorer { apis, kept: kept.clone(), ledger: ledger.clone() }));
        }
    }
    finders.push(Arc::new(Kept::clone(kept)));
    Ok(finders)
}

/// What the tasks share.
struct Parts {
    bus: Bus,
    ingestor: Arc<Ingestor>,
    ledger: Ledger,
    finders: Vec<Arc<dyn FindExports>>,
    patience: Patience,
}

impl Parts {
    fn worker(&self, workers: usize, shutdown: CancellationToken) -> Worker {
        Worker {
            bus: self.bus.clone(),
            ingestor: Arc::clone(&self.ingestor),
            ledger: self.ledger.clone(),
            patience: self.patience,
            gate: Gate::new(workers),
            progress: Progress::default(),
            shutdown,
        }
    }

    fn discovery(&self) -> Discovery {
        Discovery {
            bus: self.bus.clone(),
            ingestor: Arc::clone(&self.ingestor),
            ledger: self.ledger.clone(),
            finders: self.finders.clone(),
            patience: self.patience,
            gate: discovery::gate(),
        }
    }
}

async fn questions(parts: &Parts, table: &Arc<CostTable>) -> Result<EndpointServer, RunError> {
    let questions = EndpointServer::start(&parts.bus, NAME, "Costs of all connections in FOCUS columns").await?;
    let (asked, ledger) = (Arc::clone(table), parts.ledger.clone());
    let questions = questions
        .serve::<QueryCosts, _, _>(move |call| {
            let table = Arc::clone(&asked);
            async move { query::answer(&table, call).await }
        })
        .await?;
    let questions = questions
        .serve::<ListCostExports, _, _>(move |call| {
            let ledger = ledger.clone();
            async move { exports::answer(&ledger, call).await }
        })
        .await?;
    Ok(questions)
}

/// Keeps readiness with the connection's state.
async fn watch(bus: Bus, part: Part, shutdown: CancellationToken) -> Result<(), Infallible> {
    loop {
        if bus.is_connected() {
            part.ready();
        } else {
            part.not_ready("not connected");
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
