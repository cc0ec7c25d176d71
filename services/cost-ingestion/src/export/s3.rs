//! The customer's bucket as an object store.

use super::ExportError;
use crate::credentials::{CredentialSource, Renewing, Scope};
use async_trait::async_trait;
use contracts::Region;
use contracts::costs::ExportLocation;
use object_store::aws::{AmazonS3Builder, resolve_bucket_region};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Opens the export of a connection. Narrow, so that tests can put a store in memory behind it.
#[async_trait]
pub trait OpenExport: Send + Sync + 'static {
    /// The bucket as a store, with credentials at hand. `region` is that of the customer's stack.
    ///
    /// # Errors
    /// When there are no credentials, or no client can be made.
    async fn open(
        &self,
        scope: Scope,
        location: &ExportLocation,
        region: &Region,
    ) -> Result<Arc<dyn ObjectStore>, ExportError>;
}

/// S3, with credentials of the connection that are renewed as needed.
pub struct S3Exports {
    source: Arc<dyn CredentialSource>,
    endpoint: Option<Url>,
}

impl S3Exports {
    /// `endpoint` is for the sandbox; without it AWS's own of the region is used.
    #[must_use]
    pub fn new(source: Arc<dyn CredentialSource>, endpoint: Option<Url>) -> Self {
        Self { source, endpoint }
    }

    /// Exports often lie in another region than the stack. S3 tells anybody which one; where it does not, the stack's is tried.
    async fn region(&self, location: &ExportLocation, stack: &Region) -> String {
        if self.endpoint.is_none() && stack.partition().as_str() == "aws" && !location.bucket.contains('.') {
            let client = ClientOptions::new().with_timeout(Duration::from_secs(5));
            match resolve_bucket_region(&location.bucket, &client).await {
                Ok(found) if Region::parse(&found).is_ok() => return found,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the bucket's region could not be found out"),
            }
        }
        stack.as_str().to_owned()
    }
}

#[async_trait]
impl OpenExport for S3Exports {
    async fn open(
        &self,
        scope: Scope,
        location: &ExportLocation,
        region: &Region,
    ) -> Result<Arc<dyn ObjectStore>, ExportError> {
        if !location.is_well_formed() {
            return Err(ExportError::BadLocation);
        }
        // Asked for once before anything is read, so that a refusal of the broker is not taken for one of S3.
        let credentials = Arc::new(Renewing::new(Arc::clone(&self.source), scope));
        credentials.get().await.map_err(ExportError::Credentials)?;
        // Requests are not renewed while they are retried, so the retries end well before the credentials' margin does.
        let retry =
            RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(90), backoff: BackoffConfig::default() };
        let client =
            ClientOptions::new().with_timeout(Duration::from_secs(60)).with_connect_timeout(Duration::from_secs(5));
        let builder = AmazonS3Builder::new()
            .with_client_options(client)
            .with_bucket_name(&location.bucket)
            .with_region(self.region(location, region).await)
            .with_retry(retry)
            .with_credentials(credentials);
        let builder = match &self.endpoint {
            None => builder.with_virtual_hosted_style_request(!location.bucket.contains('.')),
            Some(endpoint) => builder
                .with_endpoint(endpoint.as_str().trim_end_matches('/'))
                .with_allow_http(endpoint.scheme() == "http")
                .with_virtual_hosted_style_request(false),
        };
        Ok(Arc::new(builder.build().map_err(ExportError::Client)?))
    }
}
