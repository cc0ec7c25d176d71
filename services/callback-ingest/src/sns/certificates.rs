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

/// Why a certificate could not be had. Holds no URL: what was asked for is the caller's to say.
///
/// None of them says anything about the message, which a stranger did not sign and a proxy, a host of the authority's, or a missing root of ours may keep from
/// being judged. So nothing of them is kept, and the message stays in the queue; SQS puts it aside, whole, when that lasts.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error("the certificate could not be fetched: {0}")]
    Unreachable(String),
    #[error("there is no certificate where it should be (HTTP status {0}): does a proxy stand between?")]
    Absent(u16),
    #[error("what lies where the certificate should be is over {MOST_BYTES} bytes: does a proxy stand between?")]
    TooLong,
    #[error("what lies at SigningCertURL is no certificate: does a proxy stand between?")]
    NoCertificate,
    #[error(
        "the signing certificate and its issuers make no chain to a public root: can the host that its issuer names be reached over http?"
    )]
    NoChain,
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

    /// A chain that needed an issuer is given out only when it holds: issuers come over plain http, where whoever sits between may answer.
    async fn load(&self, url: &Url) -> Result<Arc<Chain>, FetchError> {
        let pem = self.fetch.get(url).await?;
        let mut chain = Chain::from_pem(&pem).map_err(|_: CertificateError| FetchError::NoCertificate)?;
        if !chain.is_incomplete(&self.roots, UnixTime::now()) {
            return Ok(Arc::new(chain));
        }
        for _ in 0..MOST_ISSUERS {
            let Some(issuer) = chain.issuer_url() else { break };
            chain.add_issuer(self.fetch.get(&issuer).await?);
            if chain.holds(&self.roots, UnixTime::now()) {
                return Ok(Arc::new(chain));
            }
        }
        Err(FetchError::NoChain)
    }
}
