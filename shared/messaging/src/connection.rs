//! What happens to the connection itself, in logs and metrics: a slow consumer shows nowhere else.

use async_nats::Event;
use opentelemetry::{KeyValue, metrics::Counter};
use tokio::sync::broadcast;

/// Refusals that may wait for whoever asked; a request that misses one only waits for its timeout.
const REMEMBERED: usize = 64;

/// Subjects that the server has just refused to let us publish on. It says so on the connection, and to no request in particular.
#[derive(Debug, Clone)]
pub(crate) struct Denials(broadcast::Sender<String>);

impl Denials {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(REMEMBERED))
    }

    /// What is refused from now on.
    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

pub(crate) struct Listener(broadcast::Receiver<String>);

impl Listener {
    /// Returns when publishing on `subject` is refused.
    pub(crate) async fn denied(&mut self, subject: &str) {
        loop {
            match self.0.recv().await {
                Ok(refused) if refused == subject => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The subject in the server's words `Permissions Violation for Publish to "subject"`.
fn refused_subject(error: &str) -> Option<&str> {
    let rest = error.split_once("Permissions Violation for Publish to \"")?.1;
    Some(rest.split_once('"')?.0)
}

/// Counts and logs connection events, and passes refusals on.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    events: Counter<u64>,
    denials: Denials,
}

impl Watcher {
    pub(crate) fn new(denials: Denials) -> Self {
        let events = telemetry::meter()
            .u64_counter("rolebridge_nats_events")
            .with_description("Events of the NATS connection: disconnected, slow-consumer, lame-duck, ...")
            .build();
        Self { events, denials }
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
            Event::ServerError(error) => {
                tracing::warn!(event = kind, %error, "NATS connection");
                if let Some(subject) = refused_subject(&error.to_string()) {
                    // Nobody may be waiting.
                    let _ = self.denials.0.send(subject.to_owned());
                }
            }
            Event::ClientError(error) => tracing::warn!(event = kind, %error, "NATS connection"),
        }
    }
}
