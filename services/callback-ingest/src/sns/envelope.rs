//! The SNS envelope, and the text that its signature is over.
//!
//! [Verifying the signatures of Amazon SNS messages](https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html).

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::Refusal;
use crate::request;

/// Longest envelope, in bytes: 256 KiB of message, escaped once more, and what is around it. SQS itself takes up to 1 MiB.
const MOST_BYTES: usize = 640 * 1024;

/// What SNS puts into SQS when raw delivery is off. Fields that we have no use for are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Envelope {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) message_id: String,
    pub(super) topic_arn: String,
    #[serde(default)]
    pub(super) subject: Option<String>,
    #[serde(deserialize_with = "wiped")]
    pub(super) message: Zeroizing<String>,
    pub(super) timestamp: String,
    #[serde(default)]
    pub(super) signature_version: String,
    #[serde(default)]
    pub(super) signature: String,
    #[serde(default, rename = "SigningCertURL")]
    pub(super) signing_cert_url: String,
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// What is not covered by the signature.
#[derive(Deserialize)]
struct Attributes {
    #[serde(default, rename = "MessageAttributes")]
    attributes: HashMap<String, Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(default, rename = "Value")]
    value: String,
}

/// The W3C `traceparent` that the publisher set as a message attribute, read before anything else so that all that follows is in its trace.
/// It names a trace and decides nothing, so that it is unsigned does no harm.
#[must_use]
pub fn traceparent(body: &str) -> Option<String> {
    if !is_bounded(body) {
        return None;
    }
    let mut read: Attributes = serde_json::from_str(body).ok()?;
    read.attributes.remove("traceparent").map(|attribute| attribute.value)
}

fn is_bounded(body: &str) -> bool {
    body.len() <= MOST_BYTES && request::depth_is_within(body.as_bytes(), request::MOST_DEPTH)
}

/// Only what decides about the kind, so that a subscription's confirmation is named as such and not as malformed.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "Type")]
    kind: String,
}

impl Envelope {
    pub(super) fn parse(body: &str) -> Result<Self, Refusal> {
        if body.len() > MOST_BYTES {
            return Err(Refusal::TooLong);
        }
        if !is_bounded(body) {
            return Err(Refusal::NotAnEnvelope);
        }
        let Kind { kind } = serde_json::from_str(body).map_err(|_| Refusal::NotAnEnvelope)?;
        if kind != "Notification" {
            return Err(Refusal::NotANotification);
        }
        serde_json::from_str(body).map_err(|_| Refusal::NotAnEnvelope)
    }

    /// The signed text of a notification: names and values of these fields in this order, each on a line; `Subject` only where there is one.
    pub(super) fn canonical(&self) -> Zeroizing<String> {
        let fields = [
            ("Message", Some(self.message.as_str())),
            ("MessageId", Some(&self.message_id)),
            ("Subject", self.subject.as_deref()),
            ("Timestamp", Some(&self.timestamp)),
            ("TopicArn", Some(&self.topic_arn)),
            ("Type", Some(&self.kind)),
        ];
        // Sized before, so that no grown copy is left behind unwiped.
        let size = fields.iter().filter_map(|(name, value)| Some(name.len() + (*value)?.len() + 2)).sum();
        let mut text = Zeroizing::new(String::with_capacity(size));
        for (name, value) in fields {
            if let Some(value) = value {
                for part in [name, "\n", value, "\n"] {
                    text.push_str(part);
                }
            }
        }
        text
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_text_is_as_aws_writes_it() {
        let body = r#"{ "Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:t", "Subject": "s", "Message": "a\nb",
            "Timestamp": "2026-11-01T00:00:00.000Z", "SignatureVersion": "2", "Signature": "", "SigningCertURL": "", "UnsubscribeURL": "u" }"#;
        let mut envelope = Envelope::parse(body).unwrap();
        let rest = "Timestamp\n2026-11-01T00:00:00.000Z\nTopicArn\narn:t\nType\nNotification\n";
        assert_eq!(*envelope.canonical(), format!("Message\na\nb\nMessageId\nm-1\nSubject\ns\n{rest}"));
        envelope.subject = None;
        assert_eq!(*envelope.canonical(), format!("Message\na\nb\nMessageId\nm-1\n{rest}"));
    }
}
