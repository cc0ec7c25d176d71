//! What happens to the connection itself, in logs and metrics: a slow consumer shows nowhere else.

use async_nats::Event;
use opentelemetry::{KeyValue, metrics::Counter};

/// Counts and logs connection events.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    events: Counter<u64>,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let events = telemetry::meter()
            .u64_counter("rolebridge_nats_events")
            .with_description("Events of the NATS connection: disconnected, slow-consumer, lame-duck, ...")
            .build();
        Self { events }
    }

    pub(crate) fn saw(&self, event: &Event) {
        let kind = match event {
            Event::Connected => "connected",
            Event::Disconnected => "disconnected",
            Event::LameDuckMode => "lame-duck",
            Event::Draining => "draining",
            Event::Closed => "closed",
            Event::SlowConsumer(_) => "slow-consumer",
            Event::ServerError(_) => "server-error",
            Event::ClientError(_) => "client-error",
        };
        self.events.add(1, &[KeyValue::new("event", kind)]);
        match event {
            Event::Connected | Event::Draining | Event::Closed => tracing::info!(event = kind, "NATS connection"),
            Event::Disconnected | Event::LameDuckMode => tracing::warn!(event = kind, "NATS connection"),
            Event::SlowConsumer(subscription) => {
                tracing::warn!(
                    event = kind,
                    subscription,
                    "NATS connection: messages were dropped because we read too slowly"
                );
            }
            Event::ServerError(error) => tracing::warn!(event = kind, %error, "NATS connection"),
            Event::ClientError(error) => tracing::warn!(event = kind, %error, "NATS connection"),
        }
    }
}
