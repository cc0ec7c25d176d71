//! Which handler takes which message, and what a handler says of it.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use contracts::{CloudEvent, Envelope, Message};
use futures::future::BoxFuture;

/// What is to become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The effect is safe: acknowledge.
    Done,
    /// Try again, after the consumer's backoff or `after`; to dead letters when the tries are used up.
    Retry { reason: String, after: Option<Duration> },
    /// Not yet: try again after this time, as often as it takes. The handler itself knows the end (a deadline in the message).
    Later { after: Duration },
    /// It can never be handled: to dead letters, with the reason.
    Refuse { reason: String },
}

/// How this message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// 1 for the first time.
    pub attempt: i64,
    /// Whether a `Retry` now would be the end.
    pub last: bool,
    /// The message's number in its stream; 0 when the server did not say.
    pub sequence: u64,
}

type Handler = Arc<dyn Fn(Vec<u8>, Delivery) -> BoxFuture<'static, Disposition> + Send + Sync>;

/// Handlers by message type.
#[derive(Clone, Default)]
pub struct Router {
    handlers: HashMap<&'static str, Handler>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

impl Router {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `handle` take every `T`.
    #[must_use]
    pub fn on<T, F, Fut>(mut self, handle: F) -> Self
    where
        T: Message,
        F: Fn(CloudEvent<T>, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Disposition> + Send + 'static,
    {
        let handle = Arc::new(handle);
        let handler: Handler = Arc::new(move |payload, delivery| {
            let handle = handle.clone();
            Box::pin(async move {
                match CloudEvent::<T>::decode(&payload) {
                    Ok(event) => handle(event, delivery).await,
                    Err(error) => Disposition::Refuse { reason: error.to_string() },
                }
            })
        });
        self.handlers.insert(T::TYPE, handler);
        self
    }

    pub(crate) async fn route(&self, payload: &[u8], delivery: Delivery) -> (String, Disposition) {
        let envelope: Envelope = match serde_json::from_slice(payload) {
            Ok(envelope) => envelope,
            Err(_) => {
                return (
                    "unknown".to_owned(),
                    Disposition::Refuse { reason: "the message is no CloudEvents envelope in JSON".to_owned() },
                );
            }
        };
        match self.handlers.get(envelope.kind.as_str()) {
            Some(handler) => (envelope.kind, handler(payload.to_vec(), delivery).await),
            None => {
                let reason = format!("no handler here for {}: is the sender newer than this program?", envelope.kind);
                ("unknown".to_owned(), Disposition::Refuse { reason })
            }
        }
    }
}
