//! Dead letters: what could not be handled, kept with the reason.

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use contracts::EventId;

use crate::{Bus, PublishError, publish::TRACEPARENT};

/// Headers that a dead letter bears beside the message's own.
pub mod header {
    /// Why it could not be handled, for a person.
    pub const REASON: &str = "Rolebridge-Reason";
    /// The subject it came on; a replay publishes it there again.
    pub const SUBJECT: &str = "Rolebridge-Subject";
    /// The consumer that gave up.
    pub const CONSUMER: &str = "Rolebridge-Consumer";
}

/// A message that could not be handled. The payload must hold no secret: whoever makes a letter of something raw describes it instead.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub consumer: String,
    pub reason: String,
    pub subject: String,
    pub traceparent: Option<String>,
    pub payload: Bytes,
    /// Makes writing the letter twice harmless.
    pub id: Option<EventId>,
}

impl Bus {
    /// Stores `letter` in the stream of dead letters.
    ///
    /// # Errors
    /// When the stream did not acknowledge it: the original must not be given up then.
    pub async fn dead_letter(&self, letter: DeadLetter) -> Result<(), PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::REASON, one_line(&letter.reason));
        headers.insert(header::SUBJECT, one_line(&letter.subject));
        headers.insert(header::CONSUMER, one_line(&letter.consumer));
        if let Some(id) = letter.id {
            headers.insert(NATS_MESSAGE_ID, format!("{}-{id}", letter.consumer));
        }
        if let Some(traceparent) = letter.traceparent.or_else(telemetry::traceparent) {
            headers.insert(TRACEPARENT, traceparent);
        }
        let subject = format!("rolebridge.internal.v1.dead-letters.{}", self.user);
        tracing::warn!(consumer = letter.consumer, subject = letter.subject, reason = letter.reason, "dead letter");
        self.store(&subject, headers, letter.payload).await
    }
}

/// A header is one line, and bounded.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect()
}
