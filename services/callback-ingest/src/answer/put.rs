//! One PUT to a `ResponseURL`, and what its result means.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{StatusCode, header, redirect};

use super::AnswerAddress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why an answer did not arrive. Never holds any of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// May go well the next time: no connection, a timeout, 5xx, or S3 asking to slow down.
    #[error("the answer did not get through: {0}")]
    Transient(String),
    /// S3 does not want it: the URL has expired, or was never signed.
    #[error(
        "the answer was refused with HTTP status {0}: the ResponseURL has expired or is not one that CloudFormation signed"
    )]
    Refused(u16),
    #[error("the answer was redirected (HTTP status {0}), which is not followed")]
    Redirected(u16),
    #[error("the ResponseURL cannot be requested")]
    Unusable,
}

/// Sends answers.
#[async_trait]
pub trait Put: Send + Sync + 'static {
    /// # Errors
    /// When the answer was not taken.
    async fn put(&self, address: &AnswerAddress, body: Vec<u8>) -> Result<(), PutError>;
}

/// Over HTTPS. Redirects are not followed.
#[derive(Debug, Clone)]
pub struct HttpPut {
    client: reqwest::Client,
}

impl HttpPut {
    /// `plain_too` also allows http, for a sandbox's origin.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(plain_too: bool) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .https_only(!plain_too)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client })
    }
}

#[async_trait]
impl Put for HttpPut {
    async fn put(&self, address: &AnswerAddress, body: Vec<u8>) -> Result<(), PutError> {
        let url = reqwest::Url::parse(address.expose()).map_err(|_| PutError::Unusable)?;
        // Empty, as in AWS's own cfn-response: the URL is signed without a content type.
        let request =
            self.client.put(url).header(header::CONTENT_TYPE, header::HeaderValue::from_static("")).body(body);
        // The error's text would have the URL in it.
        let reply = request.send().await.map_err(|error| PutError::Transient(kind_of(&error).to_owned()))?;
        judge(reply.status())
    }
}

fn judge(status: StatusCode) -> Result<(), PutError> {
    let code = status.as_u16();
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(PutError::Transient(format!("HTTP status {code}")))
        }
        _ if status.is_server_error() => Err(PutError::Transient(format!("HTTP status {code}"))),
        _ if status.is_redirection() => Err(PutError::Redirected(code)),
        _ => Err(PutError::Refused(code)),
    }
}

fn kind_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_statuses_mean() {
        for status in [200, 204] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap()), Ok(()));
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(judge(StatusCode::from_u16(status).unwrap()), Err(PutError::Transient(_))), "{status}");
        }
        for status in [400, 403, 404] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap()), Err(PutError::Refused(status)));
        }
        assert_eq!(judge(StatusCode::TEMPORARY_REDIRECT), Err(PutError::Redirected(307)));
    }
}
