//! One request, and what must be true of its answer.

use std::{sync::Arc, time::Duration};

use contracts::{
    ConnectionId, Endpoint, SealingKey, TenantId, Timestamp,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials},
};
use messaging::{
    Bus, RequestError,
    seal::{SealError, SealSeed},
};

use crate::{CachedCredentials, Pinned, Renewal};

/// How long the broker may take: a cold chain is two calls to STS, each with its retries.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The broker refused, or was not reached.
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(
        "the answer was sealed by {found}, but the pinned broker key is {pinned}: refused; if the broker's key was changed on purpose, pin the new one"
    )]
    OtherBroker { pinned: Pinned, found: SealingKey },
    #[error("the answer does not open with the pinned broker key: refused")]
    Open(#[source] SealError),
    #[error("what was in the sealed box is for another tenant, connection or purpose than was asked for: refused")]
    OtherAnswer,
    #[error(
        "account, role, region or end beside the sealed box are not those in it: refused; somebody between broker and requester has changed them"
    )]
    Altered,
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

/// Credentials, with what is known about them.
#[derive(Debug)]
pub struct Session {
    /// What the broker says beside the box. It agrees with what is in the box; of a broker of before account, role and region stood there, whoever could answer in
    /// its place could have written those three.
    pub about: IssuedCredentials,
    /// What was in the box, sealed with a pinned key.
    pub credentials: SealedCredentials,
}

impl Session {
    /// How long they still last, by this machine's clock; zero when they have ended.
    #[must_use]
    pub fn left(&self) -> Duration {
        Timestamp::now().until(self.credentials.expires_at)
    }
}

/// Asks for credentials over one bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Requester>);

#[derive(Debug)]
struct Requester {
    bus: Bus,
    seed: SealSeed,
    pinned: Pinned,
    name: String,
}

impl Client {
    /// A client named `requester` (2 to 32 characters of `[\w+=,.@-]`) that believes the broker with the key `broker`, or one of several, alone.
    /// Its own key is made anew and never leaves it.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(bus: Bus, broker: impl Into<Pinned>, requester: impl Into<String>) -> Result<Self, SealError> {
        let seed = SealSeed::generate()?;
        Ok(Self(Arc::new(Requester { bus, seed, pinned: broker.into(), name: requester.into() })))
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
        let session = self.issue_within(tenant, connection, wanted.into(), TIMEOUT).await?;
        Ok((session.about, session.credentials))
    }

    /// Credentials of `connection` that are kept and renewed; nothing is asked before the first use. `wanted.min_remaining_s` replaces that of [`Renewal::default`].
    #[must_use]
    pub fn cached(&self, tenant: TenantId, connection: ConnectionId, wanted: impl Into<Wanted>) -> CachedCredentials {
        let wanted = wanted.into();
        let usual = Renewal::default();
        let min_remaining = wanted.min_remaining_s.map(|seconds| Duration::from_secs(seconds.into()));
        let renewal = Renewal { min_remaining: min_remaining.unwrap_or(usual.min_remaining), ..usual };
        self.cached_with(tenant, connection, wanted, renewal)
    }

    /// As [`Client::cached`], with rules of one's own; `wanted.min_remaining_s` is not looked at.
    #[must_use]
    pub fn cached_with(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        wanted: impl Into<Wanted>,
        renewal: Renewal,
    ) -> CachedCredentials {
        CachedCredentials::new(self.clone(), tenant, connection, wanted.into(), renewal)
    }

    pub(crate) async fn issue_within(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<Session, IssueError> {
        let requester = &self.0;
        let request = IssueRequest {
            requester_key: requester.seed.public().clone(),
            requester: requester.name.clone(),
            duration_s: wanted.duration_s,
            min_remaining_s: wanted.min_remaining_s,
        };
        let subject = IssueCredentials::subject(wanted.purpose, tenant, connection);
        let about = requester.bus.request::<IssueCredentials>(subject, &request, timeout).await?;
        if !requester.pinned.holds(&about.broker_key) {
            return Err(IssueError::OtherBroker { pinned: requester.pinned.clone(), found: about.broker_key });
        }
        // One of the pinned, as was just seen: the answer chooses among them, and cannot add to them.
        let plain = requester.seed.open(&about.broker_key, &about.sealed).map_err(IssueError::Open)?;
        let credentials: SealedCredentials = serde_json::from_slice(&plain)
            .map_err(|source| IssueError::Malformed { contract: IssueCredentials::NAME, source })?;
        let asked = (tenant, connection, wanted.purpose);
        if (credentials.tenant, credentials.connection, credentials.purpose) != asked {
            return Err(IssueError::OtherAnswer);
        }
        if !credentials.agree_with(&about) {
            return Err(IssueError::Altered);
        }
        Ok(Session { about, credentials })
    }
}
