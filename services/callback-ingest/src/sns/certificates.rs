//! Fetching signing certificates, and keeping them for a while.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::future::Cache;
use reqwest::{StatusCode, redirect};
use rustls_pki_types::{TrustAnchor, UnixTime};
use url::Url;

use super::certificate::{CertificateError, Chain};

/// Most bytes of one certificate file. Real ones have some 2 KiB.
const MOST_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
/// AWS replaces its certificates about once a year, under a new name.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Most certificates kept; AWS has one per region and year.
const MOST_KEPT: u64 = 64;
/// Most issuers asked for above one certificate.
const MOST_ISSUERS: usize = 3;

/// Why a file could not be had. Holds no URL: what was asked for is the caller's to say.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// May be another time.
    #[error("the certificate could not be fetched: {0}")]
    Unreachable(String),
    /// Will not be.
    #[error("there is no certificate at SigningCertURL (HTTP status {0})")]
    Absent(u16),
    #[error("what lies at SigningCertURL is over {MOST_BYTES} bytes")]
    TooLong,
    #[error("what lies at SigningCertURL is no certificate")]
    NoCertificate,
}

/// Gets a small file over HTTP.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// # Errors
    /// When it is not there, too long, or cannot be reached.
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError>;
}

/// Over the network; redirects are not followed.
#[derive(Debug, Clone)]
pub struct HttpFetch {
    client: reqwest::Client,
}

impl HttpFetch {
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT).build()?;
        Ok(Self { client })
    }
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(error.without_url().to_string());
        let mut reply = self.client.get(url.clone()).send().await.map_err(unreachable)?;
        match reply.status() {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(FetchError::Unreachable(format!("HTTP status {}", status.as_u16())));
            }
            status => return Err(FetchError::Absent(status.as_u16())),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MOST_BYTES {
                return Err(FetchError::TooLong);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Signing certificates by URL, and the roots that they must chain to.
pub struct Certificates {
    fetch: Arc<dyn Fetch>,
    roots: Vec<TrustAnchor<'static>>,
    kept: Cache<Url, Arc<Chain>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("kept", &self.kept.entry_count()).finish_non_exhaustive()
    }
}

impl Certificates {
    #[must_use]
    pub fn new(fetch: Arc<dyn Fetch>, roots: Vec<TrustAnchor<'static>>) -> Self {
        Self { fetch, roots, kept: Cache::builder().max_capacity(MOST_KEPT).time_to_live(KEPT_FOR).build() }
    }

    /// Over the network, with the roots of the web (Mozilla's, compiled in).
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn of_the_web() -> Result<Self, reqwest::Error> {
        Ok(Self::new(Arc::new(HttpFetch::new()?), webpki_roots::TLS_SERVER_ROOTS.to_vec()))
    }

    pub(super) fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.roots
    }

    /// The chain at `url`, fetched once for all who ask at the same time. Failures are not kept.
    pub(super) async fn chain(&self, url: &Url) -> Result<Arc<Chain>, Arc<FetchError>> {
        self.kept.try_get_with(url.clone(), self.load(url)).await
    }

    async fn load(&self, url: &Url) -> Result<Arc<Chain>, FetchError> {
        let pem = self.fetch.get(url).await?;
        let mut chain = Chain::from_pem(&pem).map_err(|_: CertificateError| FetchError::NoCertificate)?;
        for _ in 0..MOST_ISSUERS {
            if !chain.is_incomplete(&self.roots, UnixTime::now()) {
                break;
            }
            let Some(issuer) = chain.issuer_url() else { break };
            match self.fetch.get(&issuer).await {
                Ok(der) => chain.add_issuer(der),
                Err(error @ FetchError::Unreachable(_)) => return Err(error),
                // The check of the chain will say what is missing.
                Err(_) => break,
            }
        }
        Ok(Arc::new(chain))
    }
}
