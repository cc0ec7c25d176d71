//! Where messages go: the bus, seen from the intake.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use contracts::{EventId, Message as _, callback::CallbackReceived};
use messaging::{Bus, DeadLetter};
use serde::Serialize;

use crate::SERVICE;

/// What is kept of a message that could not be used. Not the message: it may hold a token and a `ResponseURL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Why, for a person.
    pub reason: String,
    /// SQS's ID of the message.
    pub message_id: String,
    /// SHA-256 of the body, in hexadecimal: to tell whether two were the same.
    pub sha256: String,
    /// Size of the body.
    pub bytes: usize,
}

/// The stream did not acknowledge.
#[derive(Debug, thiserror::Error)]
#[error("publishing a {what} failed")]
pub struct OutletError {
    pub what: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Takes what the intake decided. Returns only when it is stored.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Whether there is any use in trying.
    fn is_open(&self) -> bool;

    /// # Errors
    /// When it was not acknowledged; the same `id` may be sent again.
    async fn callback(&self, id: EventId, received: CallbackReceived) -> Result<(), OutletError>;

    /// # Errors
    /// When it was not acknowledged.
    async fn dead(&self, note: &Note) -> Result<(), OutletError>;
}

fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> OutletError {
    move |source| OutletError { what, source: Box::new(source) }
}

#[async_trait]
impl Outlet for Bus {
    fn is_open(&self) -> bool {
        self.is_connected()
    }

    async fn callback(&self, id: EventId, received: CallbackReceived) -> Result<(), OutletError> {
        let mut event = messaging::event(received);
        event.id = id;
        self.publish(&event).await.map_err(failed(CallbackReceived::TYPE))
    }

    async fn dead(&self, note: &Note) -> Result<(), OutletError> {
        let payload = serde_json::to_vec(note).map_err(failed("dead letter"))?;
        let letter = DeadLetter {
            consumer: SERVICE.to_owned(),
            reason: note.reason.clone(),
            subject: "sqs".to_owned(),
            traceparent: None,
            payload: Bytes::from(payload),
            id: None,
        };
        self.dead_letter(letter).await.map_err(failed("dead letter"))
    }
}

/// What went out, for tests.
#[derive(Debug, Default)]
pub struct Sent {
    pub callbacks: Vec<(EventId, CallbackReceived)>,
    pub notes: Vec<Note>,
}

/// In memory, for tests; can be closed.
#[derive(Debug, Default)]
pub struct MemoryOutlet {
    sent: Mutex<(Sent, bool)>,
}

#[derive(Debug, thiserror::Error)]
#[error("the outlet is closed on purpose")]
struct Closed;

impl MemoryOutlet {
    /// Lets everything fail, or nothing.
    pub fn close(&self, closed: bool) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).1 = closed;
    }

    /// Looks at what went out.
    pub fn look<T>(&self, see: impl FnOnce(&Sent) -> T) -> T {
        see(&self.sent.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn keep(&self, what: &'static str, put: impl FnOnce(&mut Sent)) -> Result<(), OutletError> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.1 {
            return Err(failed(what)(Closed));
        }
        put(&mut sent.0);
        Ok(())
    }
}

#[async_trait]
impl Outlet for MemoryOutlet {
    fn is_open(&self) -> bool {
        true
    }

    async fn callback(&self, id: EventId, received: CallbackReceived) -> Result<(), OutletError> {
        self.keep("callback", |sent| sent.callbacks.push((id, received)))
    }

    async fn dead(&self, note: &Note) -> Result<(), OutletError> {
        self.keep("dead letter", |sent| sent.notes.push(note.clone()))
    }
}
