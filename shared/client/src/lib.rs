//! Asking the broker for credentials, the way a job should: with a key of its own, and with the broker's key pinned.
//!
//! Nothing is cached here and nothing is decided; what comes back has been opened with the pinned key and compared with what was asked for.

use std::time::Duration;

use contracts::{
    ConnectionId, Endpoint, SealingKey, TenantId,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials},
};
use messaging::{
    Bus, RequestError,
    seal::{SealError, SealSeed},
};

/// How long the broker may take: a cold chain is two calls to STS, each with its retries.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The broker refused, or was not reached.
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(
        "the answer was sealed by {found}, but the pinned broker key is {pinned}: refused; if the broker's key was changed on purpose, pin the new one"
    )]
    OtherBroker { pinned: SealingKey, found: SealingKey },
    #[error("the answer does not open with the pinned broker key: refused")]
    Open(#[source] SealError),
    #[error("what was in the sealed box is for another tenant, connection or purpose than was asked for: refused")]
    OtherAnswer,
    #[error("what was in the sealed box is not of the contract {contract}: are both sides of the same version?")]
    Malformed {
        contract: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

/// What a job asks for beside tenant and connection.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub purpose: Purpose,
    /// Seconds, 900 to 3,600.
    pub duration_s: Option<u32>,
    /// Seconds that must be left at least, 0 to 3,000.
    pub min_remaining_s: Option<u32>,
}

impl From<Purpose> for Wanted {
    fn from(purpose: Purpose) -> Self {
        Self { purpose, duration_s: None, min_remaining_s: None }
    }
}

/// Asks for credentials over one bus.
#[derive(Debug)]
pub struct Client {
    bus: Bus,
    seed: SealSeed,
    broker: SealingKey,
    requester: String,
}

impl Client {
    /// A client named `requester` (2 to 32 characters of `[\w+=,.@-]`) that believes the broker with the key `broker` alone.
    /// Its own key is made anew and never leaves it.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(bus: Bus, broker: SealingKey, requester: impl Into<String>) -> Result<Self, SealError> {
        Ok(Self { bus, seed: SealSeed::generate()?, broker, requester: requester.into() })
    }

    /// Credentials of `connection`, with everything about them that is not secret.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn issue(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        wanted: impl Into<Wanted>,
    ) -> Result<(IssuedCredentials, SealedCredentials), IssueError> {
        let wanted = wanted.into();
        let request = IssueRequest {
            requester_key: self.seed.public().clone(),
            requester: self.requester.clone(),
            duration_s: wanted.duration_s,
            min_remaining_s: wanted.min_remaining_s,
        };
        let subject = IssueCredentials::subject(wanted.purpose, tenant, connection);
        let issued = self.bus.request::<IssueCredentials>(subject, &request, TIMEOUT).await?;
        if issued.broker_key != self.broker {
            return Err(IssueError::OtherBroker { pinned: self.broker.clone(), found: issued.broker_key });
        }
        let plain = self.seed.open(&self.broker, &issued.sealed).map_err(IssueError::Open)?;
        let credentials: SealedCredentials = serde_json::from_slice(&plain)
            .map_err(|source| IssueError::Malformed { contract: IssueCredentials::NAME, source })?;
        let asked = (tenant, connection, wanted.purpose);
        if (credentials.tenant, credentials.connection, credentials.purpose) != asked {
            return Err(IssueError::OtherAnswer);
        }
        Ok((issued, credentials))
    }
}
