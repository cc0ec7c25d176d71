//! Durable pull consumers.
//!
//! A message is acknowledged only when its handler says [`Disposition::Done`]. While the handler works, the server is told so (`+WPI`) three times per
//! `ack_wait`. The server never gives up by itself (no `max_deliver` there): a message whose tries are used up is written to dead letters *before* it is
//! terminated, so that a crash between the two loses nothing.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    AckKind,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
};
use bytes::Bytes;
use contracts::{Envelope, Stream};
use futures::StreamExt;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{Bus, DeadLetter, Delivery, Disposition, Router, publish::TRACEPARENT};

/// `ack_wait` of the services' consumers. It bounds how long a message waits whose worker was killed; one that works says so every third of it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);

/// Waiting between tries: doubles from `first` up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    fn after(self, attempt: i64) -> Duration {
        let doublings = u32::try_from(attempt.clamp(1, 32) - 1).unwrap_or(0);
        self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.most)
    }
}

/// A durable consumer, as it should be on the server.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    pub stream: Stream,
    pub durable: &'static str,
    /// Subjects with wildcards; all of the stream when empty.
    pub filters: Vec<String>,
    /// Messages handled at the same time by this process.
    pub in_flight: usize,
    /// After this long without a sign of life the server gives the message to another.
    pub ack_wait: Duration,
    /// Tries before a message goes to dead letters.
    pub max_deliver: i64,
    pub backoff: Backoff,
}

/// Why a consumer cannot start.
#[derive(Debug, thiserror::Error)]
#[error(
    "the consumer {durable} cannot be made on the stream {stream}: check that JetStream is on and that this user may do it (deploy/nats)"
)]
pub struct ConsumeError {
    durable: &'static str,
    stream: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, Clone)]
struct Metrics {
    handled: Counter<u64>,
    seconds: Histogram<f64>,
}

struct Worker {
    bus: Bus,
    spec: ConsumerSpec,
    router: Router,
    slots: Semaphore,
    metrics: Metrics,
}

/// Handles messages until `shutdown`; then takes no more, finishes what is in hand and returns.
///
/// # Errors
/// When the consumer cannot be made at the start. Later losses of the connection are waited out.
pub async fn consume(
    bus: Bus,
    spec: ConsumerSpec,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ConsumeError> {
    let meter = telemetry::meter();
    let metrics = Metrics {
        handled: meter
            .u64_counter("rolebridge_messages_handled")
            .with_description("Messages by consumer, type and result")
            .build(),
        seconds: meter
            .f64_histogram("rolebridge_message_seconds")
            .with_description("Seconds from delivery to the result")
            .build(),
    };
    let intake = Arc::new(Semaphore::new(spec.in_flight * 2));
    let worker = Arc::new(Worker { slots: Semaphore::new(spec.in_flight), bus, spec, router, metrics });
    let mut consumer = worker.consumer().await?;
    let tasks = TaskTracker::new();
    while !shutdown.is_cancelled() {
        if let Err(error) = pump(&worker, &consumer, &intake, &tasks, &shutdown).await {
            tracing::warn!(consumer = worker.spec.durable, error = %error, "messages cannot be fetched, trying again");
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            match worker.consumer().await {
                Ok(renewed) => consumer = renewed,
                Err(error) => {
                    tracing::debug!(consumer = worker.spec.durable, error = ?error, "the consumer is not back yet")
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

type PumpError = Box<dyn std::error::Error + Send + Sync>;

/// Fetches and hands over until shutdown (`Ok`) or until the stream of messages breaks.
async fn pump(
    worker: &Arc<Worker>,
    consumer: &PullConsumer,
    intake: &Arc<Semaphore>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), PumpError> {
    let batch = worker.spec.in_flight.max(1);
    let heartbeat = Duration::from_secs(5);
    let mut messages = consumer.stream().max_messages_per_batch(batch).heartbeat(heartbeat).messages().await?;
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            permit = intake.clone().acquire_owned() => permit?,
        };
        let message = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            message = messages.next() => message,
        };
        let message = message.ok_or("the server closed the consumer")??;
        let worker = worker.clone();
        tasks.spawn(async move {
            worker.handle(message).await;
            drop(permit);
        });
    }
}

impl Worker {
    async fn consumer(&self) -> Result<PullConsumer, ConsumeError> {
        let spec = &self.spec;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ConsumeError {
            durable: spec.durable,
            stream: spec.stream.name(),
            source,
        };
        let stream =
            self.bus.jetstream.get_stream(spec.stream.name()).await.map_err(|error| failed(Box::new(error)))?;
        let config = pull::Config {
            durable_name: Some(spec.durable.to_owned()),
            filter_subjects: spec.filters.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: spec.ack_wait,
            deliver_policy: DeliverPolicy::All,
            max_ack_pending: 1024,
            ..pull::Config::default()
        };
        // Creates it, or brings an older one to this configuration.
        stream.create_consumer(config).await.map_err(|error| failed(Box::new(error)))
    }

    async fn handle(&self, message: async_nats::jetstream::Message) {
        let started = std::time::Instant::now();
        let (attempt, sequence) = message.info().map_or((1, 0), |info| (info.delivered, info.stream_sequence));
        let delivery = Delivery { attempt, last: attempt >= self.spec.max_deliver, sequence };
        let header = |name: &str| message.headers.as_ref()?.get(name).map(ToString::to_string);
        let traceparent = header(TRACEPARENT);
        let span = tracing::info_span!("consume", consumer = self.spec.durable, subject = %message.subject, attempt, otel.kind = "consumer");
        telemetry::continue_trace(&span, traceparent.as_deref());

        let worked = async {
            if attempt > self.spec.max_deliver && self.spec.max_deliver > 0 {
                // Only a process that died in the middle leaves such a one.
                let reason = format!("the program died or was lost {} times while it handled this", attempt - 1);
                return ("unknown".to_owned(), Disposition::Refuse { reason });
            }
            // A closed semaphore would mean that the worker is gone; there is then no harm in going on.
            let _slot = self.slots.acquire().await.ok();
            self.router.route(&message.payload, delivery).await
        };
        let (kind, disposition) = self.while_telling(&message, worked).instrument(span.clone()).await;
        let result = self.settle(&message, traceparent, delivery, disposition).instrument(span).await;
        let labels = [
            KeyValue::new("consumer", self.spec.durable),
            KeyValue::new("type", kind),
            KeyValue::new("result", result),
        ];
        self.metrics.handled.add(1, &labels);
        self.metrics.seconds.record(started.elapsed().as_secs_f64(), &labels);
    }

    /// Runs `work`, and tells the server all the while that it is being worked on.
    async fn while_telling<T>(&self, message: &async_nats::jetstream::Message, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(self.spec.ack_wait / 3) => {
                    if let Err(error) = message.ack_with(AckKind::Progress).await {
                        tracing::debug!(%error, "the server could not be told that work goes on");
                    }
                }
            }
        }
    }

    async fn settle(
        &self,
        message: &async_nats::jetstream::Message,
        traceparent: Option<String>,
        delivery: Delivery,
        disposition: Disposition,
    ) -> &'static str {
        let (kind, result) = match disposition {
            Disposition::Done => (AckKind::Ack, "done"),
            Disposition::Later { after } => (AckKind::Nak(Some(after)), "later"),
            Disposition::Retry { reason, after } if !delivery.last => {
                let after = after.unwrap_or_else(|| self.spec.backoff.after(delivery.attempt));
                tracing::warn!(reason, after_ms = after.as_millis(), "to be tried again");
                (AckKind::Nak(Some(after)), "retry")
            }
            Disposition::Retry { reason, .. } | Disposition::Refuse { reason } => {
                match self.bury(message, traceparent, reason).await {
                    Ok(()) => (AckKind::Term, "dead-letter"),
                    // Kept where it is: it comes again, and the letter with it.
                    Err(error) => {
                        tracing::error!(error = ?error, "a dead letter could not be written, the message stays");
                        (AckKind::Nak(Some(self.spec.backoff.most)), "retry")
                    }
                }
            }
        };
        if let Err(error) = message.ack_with(kind).await {
            // It comes again; handlers are idempotent.
            tracing::warn!(%error, "the server could not be told the result");
        }
        result
    }

    async fn bury(
        &self,
        message: &async_nats::jetstream::Message,
        traceparent: Option<String>,
        reason: String,
    ) -> Result<(), crate::PublishError> {
        let id = serde_json::from_slice::<Envelope>(&message.payload).ok().map(|envelope| envelope.id);
        let letter = DeadLetter {
            consumer: self.spec.durable.to_owned(),
            reason,
            subject: message.subject.to_string(),
            traceparent,
            payload: Bytes::clone(&message.payload),
            id,
        };
        self.bus.dead_letter(letter).await
    }
}
