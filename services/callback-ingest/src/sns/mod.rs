//! The SNS envelope: whether a message from SQS came through one of our topics.
//!
//! A valid envelope proves the topic and nothing more: anybody may publish to it. What is inside is read in [`crate::request`].
//! The text that is signed is built by hand in [`envelope`], the certificate is fetched in [`certificates`] and checked in [`certificate`].

mod certificate;
mod certificates;
mod envelope;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contracts::{EventId, Timestamp, TopicArn};
use rustls_pki_types::UnixTime;
use sha2::{Digest, Sha256};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::dns;
use envelope::Envelope;

pub use certificate::CertificateError;
pub use certificates::{Certificates, Fetch, FetchError, HttpFetch};
pub use envelope::traceparent;

/// Why a message is not from one of our topics. Holds nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the message is longer than any SNS envelope")]
    TooLong,
    #[error("the message is no SNS envelope: was it put into the queue directly, or is raw delivery on?")]
    NotAnEnvelope,
    #[error("the message is no notification: subscriptions are confirmed by the provider's template alone")]
    NotANotification,
    #[error("the envelope names a topic that is not in ROLEBRIDGE_TOPIC_ARNS")]
    ForeignTopic,
    #[error("the envelope has signature version {0}, and 2 (SHA-256) is demanded: set SignatureVersion 2 on the topic")]
    SignatureVersion(String),
    #[error("the envelope's SigningCertURL is not https at SNS in the topic's region")]
    CertificateUrl,
    #[error("the envelope's signature is not base64")]
    Base64,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What is to become of a message whose envelope is not good.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing is known yet: it stays in the queue.
    #[error("the message cannot be judged yet")]
    Later(#[source] Arc<FetchError>),
}

/// A message that came through one of our topics.
pub struct Opened {
    /// What was published: still a stranger's word.
    pub message: Zeroizing<String>,
    pub topic: TopicArn,
    /// The same for every delivery of the same publication.
    pub event_id: EventId,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("topic", &self.topic).field("event_id", &self.event_id).finish_non_exhaustive()
    }
}

/// Whether signatures are looked at.
#[derive(Debug)]
pub enum SignatureCheck {
    Verify(Certificates),
    /// For the emulator alone, which signs with the word FAKE; the configuration allows it only with a loopback AWS endpoint.
    SandboxSkip,
}

/// Decides whose messages come in.
#[derive(Debug)]
pub struct Gate {
    topics: Vec<TopicArn>,
    signatures: SignatureCheck,
}

impl Gate {
    #[must_use]
    pub fn new(topics: Vec<TopicArn>, signatures: SignatureCheck) -> Self {
        Self { topics, signatures }
    }

    /// Checks the envelope `body` and takes the message out.
    ///
    /// # Errors
    /// When it is not from one of our topics, or that cannot be known now.
    pub async fn open(&self, body: &str) -> Result<Opened, OpenError> {
        let envelope = Envelope::parse(body)?;
        // First what costs nothing: a stranger's message must not make us fetch.
        let topic =
            self.topics.iter().find(|topic| topic.as_str() == envelope.topic_arn).ok_or(Refusal::ForeignTopic)?;
        if let SignatureCheck::Verify(certificates) = &self.signatures {
            verify(&envelope, topic, certificates).await?;
        }
        Ok(Opened { topic: topic.clone(), event_id: event_id(&envelope), message: envelope.message })
    }
}

async fn verify(envelope: &Envelope, topic: &TopicArn, certificates: &Certificates) -> Result<(), OpenError> {
    if envelope.signature_version != "2" {
        return Err(Refusal::SignatureVersion(
            envelope.signature_version.chars().filter(char::is_ascii_graphic).take(8).collect(),
        )
        .into());
    }
    let url = certificate_url(&envelope.signing_cert_url, topic)?;
    let signature = STANDARD.decode(&envelope.signature).map_err(|_| Refusal::Base64)?;
    let chain = certificates.chain(&url).await.map_err(OpenError::Later)?;
    let names = certificate_names(topic);
    let checked = chain.verify(certificates.roots(), UnixTime::now(), &names, &envelope.canonical(), &signature);
    Ok(checked.map_err(Refusal::Certificate)?)
}

/// "SigningCertURL" must be a file of SNS itself, in the region of the topic.
fn certificate_url(text: &str, topic: &TopicArn) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|_| Refusal::CertificateUrl)?;
    let partition = topic.region().partition();
    let host = dns::suffix(&partition).map(|suffix| format!("sns.{}.{suffix}", topic.region()));
    let host_is_fine = matches!(url.host(), Some(Host::Domain(found)) if Some(found) == host.as_deref());
    let name = url.path().strip_prefix("/SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem"));
    let path_is_fine = name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()));
    let plain = url.port().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(['@', '\\', '\t', '\n', '\r', ' ']);
    if url.scheme() == "https" && host_is_fine && path_is_fine && plain {
        Ok(url)
    } else {
        Err(Refusal::CertificateUrl)
    }
}

/// The names that SNS's signing certificates bear, by region: as AWS's own message manager for Java resolves them.
fn certificate_names(topic: &TopicArn) -> Vec<String> {
    let partition = topic.region().partition();
    let Some(suffix) = dns::suffix(&partition) else { return Vec::new() };
    let region = topic.region();
    let mut names = vec![
        format!("sns.{region}.{suffix}"),
        format!("sns-signing.{region}.{suffix}"),
        format!("sns-{region}.{suffix}"),
    ];
    match partition.as_str() {
        "aws" => names.push(format!("sns.{suffix}")),
        "aws-us-gov" => names.push(format!("sns-us-gov-west-1.{suffix}")),
        _ => {}
    }
    names
}

/// A UUID version 7 made from what SNS signed: its time, and a hash of its message ID. A stranger cannot choose either, and so cannot have the
/// server drop somebody else's callback as a duplicate.
fn event_id(envelope: &Envelope) -> EventId {
    let time = envelope.timestamp.parse::<Timestamp>().unwrap_or_else(|_| Timestamp::now());
    let milliseconds = u64::try_from(time.inner().unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let hash = Sha256::digest(envelope.message_id.as_bytes());
    let mut random = [0; 10];
    random.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
}

#[cfg(test)]
mod tests;
