//! The account's own APIs of costs, all of one form: signed JSON over HTTPS, answered in pages.
//!
//! Lives here: requests, retries, and what stands in answers ([`cost_explorer`], [`reports`]). Must not live here: when something is asked, what is kept,
//! NATS. The signer and the HTTP client are those that the storage client has: three SDK crates would be built for four operations.

pub mod cost_explorer;
pub mod reports;

use crate::credentials::{CredentialSource, Renewing, Scope};
use crate::export::{ExportError, Lasts};
use contracts::Region;
use futures::TryStreamExt as _;
use object_store::ClientOptions;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpClient, HttpConnector as _, HttpError, HttpRequest, HttpResponse, ReqwestConnector};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use url::Url;

/// Bytes of one answer. A page of Cost Explorer has about one megabyte.
const MAX_ANSWER: usize = 32 << 20;
/// Pages of lists that cost nothing.
const MAX_PAGES: usize = 100;

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// As the policy calls it: `ce:GetCostAndUsage`.
    pub permission: &'static str,
    /// The name that signatures are made for.
    service: &'static str,
    /// The host's name in a region, without the partition's ending.
    host: &'static str,
    /// `X-Amz-Target`.
    target: &'static str,
}

/// Why an API did not answer as hoped. What AWS wrote is not quoted, but for its error code.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Access was refused.
    #[error(
        "{permission} was refused; the role's policy must allow it, and so must the organization's policies and the payer's settings for Cost Explorer"
    )]
    Denied {
        /// What is missing.
        permission: &'static str,
    },
    /// Nobody there, or not now.
    #[error("{permission} was not answered; it is asked again later")]
    Away {
        /// What was asked.
        permission: &'static str,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// Too much at a time, or a fault of AWS's.
    #[error("{permission} was answered with {code}; it is asked again later")]
    Busy {
        /// What was asked.
        permission: &'static str,
        /// AWS's error code.
        code: String,
    },
    /// Cost Explorer is off, or has just been turned on.
    #[error(
        "Cost Explorer has no data of this account; it is turned on in the Billing console by the account (in an organization, by its payer), and takes 24 hours"
    )]
    NoData,
    /// Something else.
    #[error("{permission} was answered with {code}")]
    Refused {
        /// What was asked.
        permission: &'static str,
        /// AWS's error code.
        code: String,
    },
    /// Not what the API is described to answer.
    #[error("{permission} gave an answer that cannot be used: {why}")]
    BadAnswer {
        /// What was asked.
        permission: &'static str,
        /// Why.
        why: String,
    },
    /// More than we ask.
    #[error("{permission} would take more than {limit} requests on one day, and is left alone until the next")]
    TooMany {
        /// What was asked.
        permission: &'static str,
        /// The limit.
        limit: u32,
    },
}

impl ApiError {
    /// Whether asking again helps.
    #[must_use]
    pub const fn lasts(&self) -> Lasts {
        match self {
            Self::Denied { .. } => Lasts::Settles,
            Self::Away { .. } | Self::Busy { .. } => Lasts::Passes,
            Self::NoData | Self::Refused { .. } | Self::BadAnswer { .. } | Self::TooMany { .. } => Lasts::Stays,
        }
    }
}

/// How often and after what time a request is sent again that was throttled, or not answered. The time doubles.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Requests in all.
    pub tries: u32,
    /// Before the second.
    pub first: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { tries: 5, first: Duration::from_millis(500) }
    }
}

/// The APIs of all accounts.
pub struct Apis {
    source: Arc<dyn CredentialSource>,
    endpoint: Option<Url>,
    client: HttpClient,
    retries: Retries,
}

impl Apis {
    /// `endpoint` stands for all three, for the sandbox; without it they are AWS's own.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        source: Arc<dyn CredentialSource>,
        endpoint: Option<Url>,
        retries: Retries,
    ) -> Result<Self, ExportError> {
        let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        let options = ClientOptions::new()
            .with_timeout(Duration::from_secs(60))
            .with_connect_timeout(Duration::from_secs(5))
            .with_allow_http(plain);
        let client = ReqwestConnector::default().connect(&options).map_err(ExportError::Client)?;
        Ok(Self { source, endpoint, client, retries })
    }

    /// Those of the account of a connection. None in partitions that have no such APIs.
    #[must_use]
    pub fn of(&self, scope: Scope, region: &Region) -> Option<Caller<'_>> {
        let (region, ending) = match region.partition().as_str() {
            "aws" => ("us-east-1", "amazonaws.com"),
            "aws-cn" => ("cn-northwest-1", "amazonaws.com.cn"),
            _ => return None,
        };
        let credentials = Renewing::new(Arc::clone(&self.source), scope);
        Some(Caller { apis: self, credentials, region, ending, sent: AtomicU32::new(0) })
    }
}

/// Asks for one connection.
pub struct Caller<'a> {
    apis: &'a Apis,
    credentials: Renewing,
    region: &'static str,
    ending: &'static str,
    sent: AtomicU32,
}

impl Caller<'_> {
    /// Requests that were sent, those that were sent again among them.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Asks until there is an answer, a refusal, or no try left.
    ///
    /// # Errors
    /// [`ApiError`], or that there are no credentials.
    pub async fn call<T: DeserializeOwned>(
        &self,
        operation: &'static Operation,
        body: &serde_json::Value,
    ) -> Result<T, ExportError> {
        let Operation { permission, .. } = operation;
        let mut wait = self.apis.retries.first;
        for _ in 1..self.apis.retries.tries {
            match self.once(operation, body).await {
                Err(ExportError::Api(error)) if error.lasts() == Lasts::Passes => {
                    tracing::debug!(error = ?error, "asked again");
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                other => return other.and_then(|bytes| decode(permission, &bytes)),
            }
        }
        self.once(operation, body).await.and_then(|bytes| decode(permission, &bytes))
    }

    async fn once(&self, operation: &'static Operation, body: &serde_json::Value) -> Result<Vec<u8>, ExportError> {
        let permission = operation.permission;
        let request = self.request(operation, body).await?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let away = |source| ApiError::Away { permission, source };
        let response = self.apis.client.execute(request).await.map_err(away)?;
        let (status, kind) = (response.status().as_u16(), error_header(&response));
        let mut bytes = Vec::new();
        let mut stream = response.into_body().bytes_stream();
        while let Some(chunk) = stream.try_next().await.map_err(away)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                let why = format!("it has more than {MAX_ANSWER} bytes");
                return Err(ApiError::BadAnswer { permission, why }.into());
            }
        }
        if (200..300).contains(&status) { Ok(bytes) } else { Err(refusal(permission, status, kind, &bytes).into()) }
    }

    /// A signed request. Credentials are asked for each, and renewed as needed.
    async fn request(&self, operation: &Operation, body: &serde_json::Value) -> Result<HttpRequest, ExportError> {
        let credentials = self.credentials.get().await.map_err(ExportError::Credentials)?;
        let url = match &self.apis.endpoint {
            Some(endpoint) => endpoint.to_string(),
            None => format!("https://{}.{}.{}/", operation.host, self.region, self.ending_of(operation)),
        };
        let bad = |why: String| ApiError::BadAnswer { permission: operation.permission, why };
        let no_url = |_| bad("its address is none; check ROLEBRIDGE_COST_API_ENDPOINT".to_owned());
        let mut request = HttpRequest::new(body.to_string().into());
        *request.uri_mut() = url.parse().map_err(|_| no_url(()))?;
        *request.method_mut() = "POST".parse().map_err(|_| no_url(()))?;
        for (name, value) in [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", operation.target)] {
            request.headers_mut().insert(name, value.parse().map_err(|_| no_url(()))?);
        }
        AwsAuthorizer::new(&credentials, operation.service, self.region).authorize(&mut request, None);
        Ok(request)
    }

    /// Data Exports came late, and lives under AWS's newer ending.
    fn ending_of(&self, operation: &Operation) -> &'static str {
        if operation.host == reports::DATA_EXPORTS && self.ending == "amazonaws.com" { "api.aws" } else { self.ending }
    }
}

fn decode<T: DeserializeOwned>(permission: &'static str, bytes: &[u8]) -> Result<T, ExportError> {
    // What serde says names fields and positions, and may quote a value: it stays out.
    serde_json::from_slice(bytes).map_err(|error| {
        let why = format!("it is not of the form that the API has (line {}, column {})", error.line(), error.column());
        ApiError::BadAnswer { permission, why }.into()
    })
}

fn error_header(response: &HttpResponse) -> Option<String> {
    response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "__type")]
    kind: String,
}

/// What a refusal means. The code is `namespace#Name`, in the body or in a header, where it may have a `:` behind it.
fn refusal(permission: &'static str, status: u16, header: Option<String>, body: &[u8]) -> ApiError {
    let code = serde_json::from_slice::<Fault>(body).ok().map(|fault| fault.kind).or(header);
    let code = code.unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let code = if code.is_empty() { format!("status {status}") } else { code };
    match code.as_str() {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized" => {
            ApiError::Denied { permission }
        }
        "DataUnavailableException" => ApiError::NoData,
        "ThrottlingException"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "Throttling"
        | "RequestTimeout"
        | "ExpiredTokenException" => ApiError::Busy { permission, code },
        _ if status == 429 || status >= 500 => ApiError::Busy { permission, code },
        _ => ApiError::Refused { permission, code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_code_and_never_by_its_words() {
        let of = |status, header: Option<&str>, body: &str| {
            refusal("ce:GetCostAndUsage", status, header.map(str::to_owned), body.as_bytes())
        };
        let denied = of(400, None, r#"{"__type":"com.amazon.coral#AccessDeniedException","Message":"canary"}"#);
        assert!(denied.to_string().starts_with("ce:GetCostAndUsage was refused"), "{denied}");
        assert_eq!(denied.lasts(), Lasts::Settles);
        assert!(!denied.to_string().contains("canary"));
        assert_eq!(of(400, Some("ThrottlingException:http://x/"), "{}").lasts(), Lasts::Passes);
        assert_eq!(of(400, None, r#"{"__type":"LimitExceededException"}"#).lasts(), Lasts::Passes);
        assert_eq!(
            of(503, None, "<html>").to_string(),
            "ce:GetCostAndUsage was answered with status 503; it is asked again later"
        );
        let wrong = of(400, None, r#"{"__type":"ValidationException\n"}"#);
        assert_eq!(
            (wrong.lasts(), wrong.to_string().as_str()),
            (Lasts::Stays, "ce:GetCostAndUsage was answered with ValidationException")
        );
        assert_eq!(of(400, None, r#"{"__type":"DataUnavailableException"}"#).lasts(), Lasts::Stays);
    }
}
