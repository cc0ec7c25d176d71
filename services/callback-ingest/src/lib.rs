//! callback-ingest: the only door to AWS messaging, both ways.
//!
//! ```text
//! SQS ─▶ queue ─▶ intake ─▶ sns (envelope, signature) ─▶ request (bounds, form, sealing) ─▶ ROLEBRIDGE_CALLBACKS ─▶ delete from SQS
//! CloudFormation ◀─ PUT ◀─ answer (rules, body, ledger) ◀─ outcome ◀─ ROLEBRIDGE_CALLBACKS
//! ```
//!
//! Everything that comes in is a stranger's: it is bounded and parsed here, and believed nowhere. Nothing secret leaves but sealed. What must
//! not live here: any decision about tenants, enrollments and connections, which is the registry's.

pub mod answer;
mod config;
mod dns;
pub mod intake;
pub mod metrics;
pub mod queue;
pub mod request;
pub mod sns;
#[cfg(test)]
mod testing;

use std::{convert::Infallible, sync::Arc, time::Duration};

use contracts::{CloudEvent, Message as _, Stream, callback::CallbackOutcome};
use messaging::{
    ACK_WAIT, Backoff, Bus, BusError, ConnectError, ConsumerSpec, Router,
    seal::{SealError, SealSeed},
};
use runtime::{Health, HttpError, HttpServer, Part, RuntimeError, Supervisor};
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

use answer::{AddressRules, Answerer, HttpPut, InHand};
use intake::{Intake, Poller, Strangers};
use metrics::Metrics;
use queue::{Queue, SqsQueue};
use sns::{Certificates, Gate, SignatureCheck};

pub use config::{Command, Config, ConfigError, Invocation, SnsSignature, command};

/// The program, as NATS, traces and dead letters name it.
pub const SERVICE: &str = "callback-ingest";

/// Answers under way at the same time.
const ANSWERS_IN_FLIGHT: usize = 64;

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Key(#[from] SealError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("the HTTPS client cannot be set up")]
    Tls(#[source] reqwest::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Runs the service until `shutdown`, then stops receiving, finishes what is in hand within the grace, and returns.
///
/// # Errors
/// When it cannot start (a used port, no key, no NATS) or one of its tasks dies.
pub async fn run(config: Config, telemetry: Telemetry, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    let server = HttpServer::bind(&config.http).await?;
    let seed = Arc::new(SealSeed::from_file(&config.ingest_key_file)?);
    let bus = Bus::connect(&config.nats, SERVICE).await?;
    bus.ensure_stream(Stream::Callbacks).await?;
    bus.ensure_stream(Stream::DeadLetters).await?;
    let ledger = bus.key_value(answer::BUCKET, 1).await?;

    let (health, metrics) = (Health::new(), Metrics::default());
    let supervisor = Supervisor::new(shutdown);
    let rules = AddressRules { sandbox: config.response_sandbox_origin.clone() };
    warn_of_sandbox(&config);

    supervisor.spawn("connection watch", watch(bus.clone(), health.part("nats"), supervisor.token()));
    let answerer = Answerer {
        seed: seed.clone(),
        rules: rules.clone(),
        ledger: Arc::new(ledger),
        put: Arc::new(HttpPut::new(rules.sandbox.is_some()).map_err(RunError::Tls)?),
        in_hand: InHand::default(),
        deadline: config.deadline(),
        metrics: metrics.clone(),
        shutdown: supervisor.token(),
    };
    let answerer = Arc::new(answerer);
    supervisor
        .spawn("outcomes", messaging::consume(bus.clone(), outcomes(), router(answerer.clone()), supervisor.token()));

    let queue: Arc<dyn Queue> = Arc::new(sqs(&config).await);
    let gate = Gate::new(config.topic_arns.clone(), signatures(config.sns_signature)?);
    let strangers = Strangers::new(config.strangers.limits());
    let intake = Arc::new(Intake { gate, rules, seed, outlet: Arc::new(bus.clone()), answerer, strangers, metrics });
    let queue_health = health.part("sqs");
    for _ in 0..config.sqs_pollers {
        let poller = Poller {
            queue: queue.clone(),
            intake: intake.clone(),
            health: queue_health.clone(),
            visibility: config.visibility(),
        };
        supervisor.spawn("poller", poller.run(supervisor.token()));
    }
    supervisor.spawn("http", server.serve(health, move || telemetry.prometheus(), supervisor.token()));

    let ended = supervisor.finish(config.http.grace()).await;
    bus.close().await;
    Ok(ended?)
}

fn warn_of_sandbox(config: &Config) {
    if config.sns_signature == SnsSignature::SandboxSkip {
        tracing::warn!("SNS signatures are not checked: this is for the sandbox alone");
    }
    if config.response_sandbox_origin.is_some() {
        tracing::warn!("an origin outside AWS may be answered: this is for the sandbox alone");
    }
}

fn signatures(wanted: SnsSignature) -> Result<SignatureCheck, RunError> {
    match wanted {
        SnsSignature::Verify => Ok(SignatureCheck::Verify(Certificates::of_the_web().map_err(RunError::Tls)?)),
        SnsSignature::SandboxSkip => Ok(SignatureCheck::SandboxSkip),
    }
}

async fn sqs(config: &Config) -> SqsQueue {
    // One try: the poller has its own patience, and says in the meantime that it is not ready.
    let patience = aws::Patience { attempts: 1, ..aws::Patience::DEFAULT };
    let sdk = aws::sdk_config_with(None, patience).await;
    SqsQueue::new(aws_sdk_sqs::Client::new(&sdk), config.callback_queue_url.to_string())
}

/// The durable consumer of outcomes.
fn outcomes() -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::Callbacks,
        durable: "callback-ingest-outcomes",
        filters: vec![CallbackOutcome::SUBJECT.to_owned()],
        in_flight: ANSWERS_IN_FLIGHT,
        ack_wait: ACK_WAIT,
        // [`Answerer`] keeps the deadline: it is that which ends the tries, and not a count.
        max_deliver: 100_000,
        backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) },
    }
}

fn router(answerer: Arc<Answerer>) -> Router {
    Router::new().on::<CallbackOutcome, _, _>(move |event: CloudEvent<CallbackOutcome>, _| {
        let answerer = answerer.clone();
        async move { answerer.handle(&event.data).await }
    })
}

/// Keeps readiness true to the connection.
async fn watch(bus: Bus, part: Part, shutdown: CancellationToken) -> Result<(), Infallible> {
    let mut looks = tokio::time::interval(Duration::from_millis(250));
    while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
        if bus.is_connected() { part.ready() } else { part.not_ready("no connection to NATS") }
    }
    Ok(())
}

/// An error with its causes, for the one place that logs it.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
