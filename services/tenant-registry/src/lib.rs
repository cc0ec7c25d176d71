//! tenant-registry: who may connect what, and what is true of it. It decides; others probe, issue and answer.
//!
//! ```text
//! callbacks, reports, principals ─▶ intake ─▶ flow ─▶ decide, state (pure) ─▶ store: rows, audit, outbox in one transaction
//! requests ─▶ endpoints ─▶ flow                                                         │
//! jobs, grants, events, outcomes ◀──────────────── relay ◀─────────────────────────────┘
//! ```
//!
//! What must not live here: AWS (it is asked by others, and their findings are reports), and any secret but the hash of a callback token.

pub mod bucket;
pub mod change;
pub mod config;
pub mod damping;
pub mod decide;
mod endpoints;
pub mod entity;
pub mod fatal;
pub mod flow;
mod intake;
pub mod metrics;
mod migration;
pub mod offer;
pub mod reasons;
pub mod relay;
pub mod rotation;
pub mod schedule;
pub mod state;
pub mod store;
pub mod template;

use std::{
    convert::Infallible,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{Stream, Timestamp};
use messaging::{Bus, BusError, ConnectError, ConsumerSpec, Router};
use runtime::{Health, HttpError, HttpServer, Part, RuntimeError, Supervisor};
use telemetry::Telemetry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use config::Config;
use flow::{Registry, watch::BATCH};
use relay::Relay;
use store::{OpenError, Store};

/// The program, as NATS, traces and dead letters name it.
pub const SERVICE: &str = "tenant-registry";

/// What we write to or read. Whoever starts first makes them.
const STREAMS: [Stream; 10] = [
    Stream::Callbacks,
    Stream::Jobs,
    Stream::Reports,
    Stream::Grants,
    Stream::TenantEvents,
    Stream::PrincipalEvents,
    Stream::EnrollmentEvents,
    Stream::ConnectionEvents,
    Stream::AuditEvents,
    Stream::DeadLetters,
];

/// How often overdue jobs are looked for, how often connections that are due, how often these are counted, and how often the parts are asked whether
/// they are well.
const SWEEP: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_secs(15);
const HEALTH: Duration = Duration::from_secs(2);
/// How often old callbacks are looked for.
const FORGET: Duration = Duration::from_secs(3600);

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Runs the service until `shutdown`; then takes no more, finishes what is in hand, publishes what that left in the outbox, and returns.
///
/// # Errors
/// When it cannot start (a used port, a database that is newer or away, no NATS) or one of its tasks dies.
pub async fn run(config: Config, telemetry: Telemetry, shutdown: CancellationToken) -> Result<(), RunError> {
    let server = HttpServer::bind(&config.http).await?;
    let store = Store::open(&config.database_url).await?;
    let bus = Bus::connect(&config.nats, SERVICE).await?;
    for stream in STREAMS {
        bus.ensure_stream(stream).await?;
    }
    let registry = Registry::new(store.clone(), config.rules(), Arc::new(bus.clone()));
    let endpoints = endpoints::serve(&bus, &registry).await?;

    let (health, supervisor) = (Health::new(), Supervisor::new(shutdown));
    // Held by everything that may write to the outbox; the relay ends after the last of them.
    let (working, mut idle) = mpsc::channel::<Infallible>(1);
    let consume = |name, (spec, router): (ConsumerSpec, Router)| {
        let (bus, token, working) = (bus.clone(), supervisor.token(), working.clone());
        supervisor.spawn(name, async move {
            let _working = working;
            messaging::consume(bus, spec, router, token).await
        });
    };
    consume("callbacks", intake::callbacks(registry.clone()));
    consume("reports", intake::reports(registry.clone()));
    consume("principals", intake::principals(registry.clone()));
    let (token, working_too) = (supervisor.token(), working.clone());
    supervisor.spawn("endpoints", async move {
        let _working = working_too;
        endpoints.run(token).await
    });
    let relay = Relay::new(store.clone(), Arc::new(bus.clone()), registry.metrics.clone());
    supervisor.spawn("outbox relay", relay.run(async move { while idle.recv().await.is_some() {} }));
    supervisor.spawn("watch", watch(registry.clone(), supervisor.token(), working.clone()));
    supervisor
        .spawn("housekeeping", keep_house(registry.clone(), config.retention(), supervisor.token(), working.clone()));
    supervisor.spawn("sweep", sweep(registry, supervisor.token(), working));
    supervisor.spawn(
        "health",
        keep_health(bus.clone(), store, health.part("nats"), health.part("database"), supervisor.token()),
    );
    supervisor.spawn("http", server.serve(health, move || telemetry.prometheus(), supervisor.token()));

    let ended = supervisor.finish(config.http.grace()).await;
    bus.close().await;
    Ok(ended?)
}

/// Ends the wait for reports that never come, and goes on with revocations. Cancel: at once, between two sweeps. Failure: tried again at the next one.
async fn sweep(
    registry: Registry,
    shutdown: CancellationToken,
    _working: mpsc::Sender<Infallible>,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(SWEEP) => {}
        }
        if let Err(error) = registry.sweep_revocations(Timestamp::now()).await {
            tracing::warn!(error = %chain(&error), "open revocations could not be gone on with");
        }
        if let Err(error) = registry.sweep(Timestamp::now()).await {
            tracing::warn!(error = %chain(&error), "overdue jobs could not be swept");
        }
    }
}

/// Writes down what floods left untold, and removes kept callbacks that nobody needs. Cancel: at once, between two looks. Failure: tried again at the next one.
async fn keep_house(
    registry: Registry,
    retention: Duration,
    shutdown: CancellationToken,
    _working: mpsc::Sender<Infallible>,
) -> Result<(), Infallible> {
    let mut forget_at = Instant::now();
    loop {
        if let Err(error) = registry.tell_of_strangers(Instant::now()).await {
            tracing::warn!(error = %chain(&error), "what strangers did could not be written down");
        }
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET;
            match registry.forget_callbacks(Timestamp::from(Timestamp::now().inner() - retention)).await {
                Ok(0) => {}
                Ok(forgotten) => tracing::info!(forgotten, "old callbacks were removed"),
                Err(error) => tracing::warn!(error = %chain(&error), "old callbacks could not be removed"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

/// Has connections probed when their time has come. Cancel: after the order in hand. Failure: tried again a second later; what was due stays due.
async fn watch(
    registry: Registry,
    shutdown: CancellationToken,
    _working: mpsc::Sender<Infallible>,
) -> Result<(), Infallible> {
    let mut counted: Option<Instant> = None;
    loop {
        let full = match registry.watch_round(Timestamp::now()).await {
            Ok(round) => !round.exhausted && round.ordered >= usize::try_from(BATCH).unwrap_or(usize::MAX),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "connections that are due could not be probed");
                false
            }
        };
        if counted.is_none_or(|at| at.elapsed() >= COUNT) {
            registry.measure_watch(Timestamp::now()).await;
            counted = Some(Instant::now());
        }
        let pause = if full { Duration::ZERO } else { WATCH };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Keeps readiness true to the connection and the database.
async fn keep_health(
    bus: Bus,
    store: Store,
    nats: Part,
    database: Part,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        if bus.is_connected() {
            nats.ready()
        } else {
            nats.not_ready("not connected")
        }
        match store.ping().await {
            Ok(()) => database.ready(),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the database does not answer");
                database.not_ready("does not answer");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEALTH) => {}
        }
    }
}

/// An error with its causes, for a log line. Display alone: a driver's Debug shows the values of a row.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
