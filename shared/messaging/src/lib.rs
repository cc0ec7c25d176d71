//! The bus: how contracts travel over NATS.
//!
//! - [`Bus`]: a connection with its streams, publishing with acknowledgement, request-reply.
//! - [`consume`] with a [`Router`]: durable pull consumers; acknowledged after the effect, retried with backoff, dead letters after the last try.
//! - [`EndpointServer`]: micro services (ADR-32) that always reply.
//! - [`seal`]: boxes for what must not be readable on the bus.
//!
//! Trace context goes with every message in the `traceparent` header. What a message means is not known here.

mod bus;
mod config;
mod connection;
mod consumer;
mod dead_letter;
mod endpoint;
mod publish;
mod request;
mod router;
pub mod seal;
mod streams;

pub use async_nats;
pub use bus::{Bus, BusError};
pub use config::{ConnectError, NatsConfig};
pub use consumer::{ACK_WAIT, Backoff, ConsumeError, ConsumerSpec, consume};
pub use dead_letter::{DeadLetter, header};
pub use endpoint::{Call, EndpointServer, ServeError};
pub use publish::{PublishError, RawMessage, event};
pub use request::RequestError;
pub use router::{Delivery, Disposition, Router};
