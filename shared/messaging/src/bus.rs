//! A connection to NATS with what every service does over it.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client,
    connection::State,
    jetstream::{self, context::CreateKeyValueErrorKind, kv},
};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    ConnectError, NatsConfig,
    connection::{Denials, Watcher},
};

/// How long the server may take to hand this connection its own message.
const ROUND_TRIP: Duration = Duration::from_secs(10);

/// A connection. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) replicas: usize,
    pub(crate) user: Arc<str>,
    pub(crate) denials: Denials,
}

/// An operation on streams or buckets that the server refused or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {name} on NATS: {hint}")]
pub struct BusError {
    operation: &'static str,
    name: String,
    hint: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl BusError {
    pub(crate) fn new<E: std::error::Error + Send + Sync + 'static>(
        operation: &'static str,
        name: impl Into<String>,
        source: E,
    ) -> Self {
        let hint = "check that JetStream is on and that this user may do it (deploy/nats)";
        Self { operation, name: name.into(), hint, source: Box::new(source) }
    }
}

impl Bus {
    /// Connects as `user`, which also names the private inbox: `_INBOX_<user>.>`.
    ///
    /// # Errors
    /// When the seed file is no good, or the server is not there or refuses us. Later losses are reconnected without end.
    pub async fn connect(config: &NatsConfig, user: &str) -> Result<Self, ConnectError> {
        let denials = Denials::new();
        let watcher = Watcher::new(denials.clone());
        let options = config.options(user)?.event_callback(move |event| {
            watcher.saw(&event);
            std::future::ready(())
        });
        let connect_error = |source| ConnectError::Connect { url: config.display_url(), source };
        let client = options.connect(config.nats_url.as_str()).await.map_err(connect_error)?;
        let jetstream = jetstream::new(client.clone());
        Ok(Self { client, jetstream, replicas: usize::from(config.nats_replicas), user: user.into(), denials })
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The bucket `name`, made if need be with `history` values per key (1 to 64).
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn key_value(&self, name: &'static str, history: u8) -> Result<kv::Store, BusError> {
        if let Ok(store) = self.jetstream.get_key_value(name).await {
            return Ok(store);
        }
        let config = kv::Config {
            bucket: name.to_owned(),
            history: i64::from(history),
            num_replicas: self.replicas,
            ..kv::Config::default()
        };
        match self.jetstream.create_key_value(config).await {
            Ok(store) => Ok(store),
            // Another instance was faster.
            Err(error) if error.kind() == CreateKeyValueErrorKind::BucketCreate => self
                .jetstream
                .get_key_value(name)
                .await
                .map_err(|source| BusError::new("opening the bucket", name, source)),
            Err(error) => Err(BusError::new("making the bucket", name, error)),
        }
    }

    /// Returns when the server has handled everything that this connection sent before. `flush` of the client only writes it to the socket.
    ///
    /// # Errors
    /// When no answer comes within ten seconds: the connection is gone, or this user may not write to its own inbox.
    pub async fn round_trip(&self) -> Result<(), BusError> {
        let inbox = self.client.new_inbox();
        let failed =
            |source: std::io::Error| BusError::new("writing to this connection's own inbox", inbox.clone(), source);
        let other = |source| failed(std::io::Error::other(source));
        let mut back = self.client.subscribe(inbox.clone()).await.map_err(|source| other(source.to_string()))?;
        self.client.publish(inbox.clone(), Bytes::new()).await.map_err(|source| other(source.to_string()))?;
        match tokio::time::timeout(ROUND_TRIP, back.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(failed(std::io::ErrorKind::ConnectionAborted.into())),
            Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends what is buffered and closes the connection.
    pub async fn close(&self) {
        if let Err(error) = self.client.drain().await {
            tracing::warn!(%error, "the NATS connection could not be drained");
        }
    }
}
