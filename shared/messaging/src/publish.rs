//! Publishing: returns only when the stream has the message.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{context::PublishErrorKind, message::PublishMessage},
};
use bytes::Bytes;
use contracts::{CloudEvent, EventId, Message, Subject};
use tracing::Instrument as _;

use crate::Bus;

/// How long the server may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const TRACEPARENT: &str = "traceparent";

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("a {kind} could not be written as JSON")]
    Encode {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the server did not acknowledge a message to {subject}; it will be tried again")]
    NotAcknowledged {
        subject: String,
        #[source]
        source: async_nats::jetstream::context::PublishError,
    },
}

/// A message that is encoded already: what an outbox holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    pub subject: String,
    /// Becomes `Nats-Msg-Id`: within the stream's window the server drops a second one.
    pub id: EventId,
    pub traceparent: Option<String>,
    pub payload: Vec<u8>,
}

/// Wraps `data` in an envelope that carries the current trace.
#[must_use]
pub fn event<T: Message>(data: T) -> CloudEvent<T> {
    CloudEvent { traceparent: telemetry::traceparent(), ..CloudEvent::new(data) }
}

impl RawMessage {
    /// # Errors
    /// When the data cannot be written as JSON.
    pub fn encode<T: Message>(event: &CloudEvent<T>) -> Result<Self, PublishError> {
        let payload = event.encode().map_err(|source| PublishError::Encode { kind: T::TYPE, source })?;
        let subject: Subject = event.data.subject();
        Ok(Self { subject: subject.as_str().to_owned(), id: event.id, traceparent: event.traceparent.clone(), payload })
    }
}

impl Bus {
    /// Publishes `event` to its stream and waits for the acknowledgement.
    ///
    /// # Errors
    /// When it was not acknowledged: it may or may not be stored; publishing the same event again is safe.
    pub async fn publish<T: Message>(&self, event: &CloudEvent<T>) -> Result<(), PublishError> {
        self.publish_raw(&RawMessage::encode(event)?).await
    }

    /// Publishes `event` if the last message on its subject that its stream still holds is number `sequence`; 0 if it must hold none. Says whether it did.
    /// Of several that try it at once, one does.
    ///
    /// # Errors
    /// As [`Bus::publish`]. After an error it may be stored: then a second try says that it was not published.
    pub async fn publish_after<T: Message>(&self, event: &CloudEvent<T>, sequence: u64) -> Result<bool, PublishError> {
        let message = RawMessage::encode(event)?;
        let span = tracing::info_span!("publish", subject = message.subject, otel.kind = "producer");
        let store = async {
            let mut headers = headers(&message);
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
            self.store(&message.subject, headers, Bytes::from(message.payload.clone())).await
        };
        match store.instrument(span).await {
            Ok(()) => Ok(true),
            Err(PublishError::NotAcknowledged { source, .. })
                if source.kind() == PublishErrorKind::WrongLastSequence =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_raw(&self, message: &RawMessage) -> Result<(), PublishError> {
        let span = tracing::info_span!("publish", subject = message.subject, otel.kind = "producer");
        // What comes from an outbox belongs to the trace that put it there.
        telemetry::continue_trace(&span, message.traceparent.as_deref());
        let store =
            async { self.store(&message.subject, headers(message), Bytes::from(message.payload.clone())).await };
        store.instrument(span).await
    }

    pub(crate) async fn store(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), PublishError> {
        let failed = |source| PublishError::NotAcknowledged { subject: subject.to_owned(), source };
        let publish = PublishMessage::build().headers(headers).payload(payload);
        let sent = self.jetstream.send_publish(subject.to_owned(), publish).await.map_err(failed)?;
        let timed_out = |_| failed(PublishErrorKind::TimedOut.into());
        tokio::time::timeout(ACK_TIMEOUT, sent).await.map_err(timed_out)?.map_err(failed)?;
        Ok(())
    }
}

fn headers(message: &RawMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message.id.to_string());
    if let Some(traceparent) = telemetry::traceparent().or_else(|| message.traceparent.clone()) {
        headers.insert(TRACEPARENT, traceparent);
    }
    headers
}
