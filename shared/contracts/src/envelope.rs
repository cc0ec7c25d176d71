//! The CloudEvents 1.0 envelope (JSON, structured mode) of every published message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{EventId, Message, Timestamp};

/// A message in its [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) envelope.
///
/// Unknown attributes are let through: CloudEvents allows extensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent<T> {
    /// Always `1.0`.
    pub specversion: String,
    /// UUID version 7; unique, also sent as `Nats-Msg-Id`.
    pub id: EventId,
    /// The service that published it: `/rolebridge/tenant-registry`.
    pub source: String,
    /// Name and version of the contract: `rolebridge.connection.verified.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was made.
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// W3C trace context of the work that made it (CloudEvents distributed tracing extension); also sent as a NATS header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    pub data: T,
}

/// An envelope whose data has not been looked at: enough to route it.
pub type Envelope = CloudEvent<Ignored>;

/// Any JSON value, passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Why bytes are not the message they were taken for.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the message is not the JSON of a {expected} in a CloudEvents envelope")]
    Malformed {
        expected: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the message is a {found}, and a {expected} was expected")]
    OtherType { expected: &'static str, found: String },
    #[error("the message has CloudEvents version {found}, and 1.0 was expected")]
    OtherVersion { found: String },
}

impl<T: Message> CloudEvent<T> {
    /// Wraps `data` with a new ID and the current time.
    #[must_use]
    pub fn new(data: T) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: EventId::new(),
            source: format!("/rolebridge/{}", T::PRODUCER),
            kind: T::TYPE.to_owned(),
            time: Timestamp::now(),
            datacontenttype: "application/json".to_owned(),
            traceparent: None,
            data,
        }
    }

    /// # Errors
    /// When the bytes are not JSON, not a CloudEvents 1.0 envelope, or another message than `T`.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let malformed = |source| EnvelopeError::Malformed { expected: T::TYPE, source };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(malformed)?;
        if envelope.specversion != "1.0" {
            return Err(EnvelopeError::OtherVersion { found: envelope.specversion });
        }
        if envelope.kind != T::TYPE {
            return Err(EnvelopeError::OtherType { expected: T::TYPE, found: envelope.kind });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// # Errors
    /// When the data cannot be written as JSON, which none of our messages does.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}
