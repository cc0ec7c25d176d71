//! Credentials for a customer's bucket: where they come from, and how the storage client gets fresh ones in the middle of a file.

use async_trait::async_trait;
use contracts::{ConnectionId, TenantId};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

/// Whose credentials: one connection of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantId,
    /// One of its connections.
    pub connection: ConnectionId,
}

/// Short-lived credentials for the purpose `cost-read`. Not printable.
pub struct Credentials {
    /// The access key's ID.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: SecretString,
    /// The session token.
    pub session_token: SecretString,
    /// When they end.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(until {})", self.expires_at)
    }
}

/// Why there are none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// The broker says no: asking again does not help.
    #[error("the broker refuses credentials for this connection: {reason}")]
    Refused {
        /// The broker's sentence.
        reason: String,
    },
    /// The connection is not (yet, or no longer) one to issue for.
    #[error("the broker gives no credentials for this connection at this time: {reason}")]
    NotNow {
        /// The broker's sentence.
        reason: String,
    },
    /// The broker cannot be reached, or is not able to right now.
    #[error("credentials cannot be had right now: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl CredentialError {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotNow { .. })
    }
}

/// Gives credentials. May be asked often; whoever implements it decides what is cached.
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// Credentials with some minutes left.
    ///
    /// # Errors
    /// [`CredentialError`]; cancelling by dropping is safe at any point.
    async fn credentials(&self, scope: Scope) -> Result<Credentials, CredentialError>;
}

/// Renewed when less than this is left: longer than any one request to S3 takes with its retries.
const MARGIN: Duration = Duration::minutes(5);

/// Hands credentials to the storage client, which asks before each request: a read that outlives a session goes on with the next one.
pub struct Renewing {
    source: Arc<dyn CredentialSource>,
    scope: Scope,
    held: Mutex<Option<Held>>,
    now: fn() -> OffsetDateTime,
}

struct Held {
    credential: Arc<AwsCredential>,
    renew_at: OffsetDateTime,
}

impl Renewing {
    /// For one connection.
    #[must_use]
    pub fn new(source: Arc<dyn CredentialSource>, scope: Scope) -> Self {
        Self { source, scope, held: Mutex::new(None), now: OffsetDateTime::now_utc }
    }

    /// Those that are held, or fresh ones.
    ///
    /// # Errors
    /// When there are none to be had.
    pub async fn get(&self) -> Result<Arc<AwsCredential>, CredentialError> {
        // Held while asking: of many requests that find old credentials, one asks and the rest wait for it.
        let mut held = self.held.lock().await;
        let now = (self.now)();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew_at) {
            return Ok(Arc::clone(&held.credential));
        }
        let fresh = self.source.credentials(self.scope).await?;
        // Sessions shorter than three margins (the emulator gives some of seconds) are renewed at two thirds of their life.
        let life = fresh.expires_at - now;
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id.clone(),
            secret_key: fresh.secret_access_key.expose_secret().to_owned(),
            token: Some(fresh.session_token.expose_secret().to_owned()),
        });
        // Where the clocks differ, some come that have ended by ours: they are tried once, and never kept.
        let margin = MARGIN.min(life / 3).max(Duration::ZERO);
        *held = Some(Held { credential: Arc::clone(&credential), renew_at: fresh.expires_at - margin });
        Ok(credential)
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Renewing {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.get().await.map_err(|error| match &error {
            CredentialError::Refused { .. } => {
                object_store::Error::PermissionDenied { path: String::new(), source: Box::new(error) }
            }
            _ => object_store::Error::Generic { store: "credentials", source: Box::new(error) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    /// Numbered credentials of a given life, or refusals.
    struct Fake {
        life: Duration,
        asked: AtomicUsize,
        refuses: bool,
    }

    #[async_trait]
    impl CredentialSource for Fake {
        async fn credentials(&self, _: Scope) -> Result<Credentials, CredentialError> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.refuses {
                return Err(CredentialError::Refused { reason: "revoked".into() });
            }
            Ok(Credentials {
                access_key_id: format!("ASIA{number}"),
                secret_access_key: "secret-canary".into(),
                session_token: "token-canary".into(),
                expires_at: now() + self.life,
            })
        }
    }

    static CLOCK: AtomicI64 = AtomicI64::new(1_800_000_000);

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(CLOCK.load(Ordering::SeqCst)).unwrap()
    }

    fn renewing(life: Duration, refuses: bool) -> (Arc<Fake>, Renewing) {
        let fake = Arc::new(Fake { life, asked: AtomicUsize::new(0), refuses });
        let scope = Scope { tenant: TenantId::new(), connection: ConnectionId::new() };
        let source: Arc<dyn CredentialSource> = fake.clone();
        (fake, Renewing { now, ..Renewing::new(source, scope) })
    }

    #[tokio::test]
    async fn renewed_before_they_end_and_asked_for_once_by_many() {
        let (fake, renewing) = renewing(Duration::hours(1), false);
        let asks = futures::future::join_all((0..20).map(|_| renewing.get_credential())).await;
        assert!(asks.iter().all(|ask| ask.as_ref().unwrap().key_id == "ASIA0"));
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
        CLOCK.fetch_add(54 * 60, Ordering::SeqCst);
        assert_eq!(renewing.get_credential().await.unwrap().key_id, "ASIA0");
        CLOCK.fetch_add(2 * 60, Ordering::SeqCst);
        assert_eq!(renewing.get_credential().await.unwrap().key_id, "ASIA1");
    }

    #[tokio::test]
    async fn what_has_ended_already_is_asked_for_anew_each_time() {
        for life in [Duration::ZERO, Duration::seconds(-1), Duration::hours(-1), Duration::weeks(-10_000)] {
            let (fake, renewing) = renewing(life, false);
            assert_eq!(renewing.get_credential().await.unwrap().key_id, "ASIA0");
            assert_eq!(renewing.get_credential().await.unwrap().key_id, "ASIA1", "{life}");
            assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_a_refusal_and_nothing_is_printed() {
        let (_, refused) = renewing(Duration::hours(1), true);
        assert!(matches!(refused.get_credential().await, Err(object_store::Error::PermissionDenied { .. })));
        let (fake, renewing) = renewing(Duration::hours(1), false);
        renewing.get_credential().await.unwrap();
        let printed = format!("{renewing:?} {:?}", fake.credentials(renewing.scope).await.unwrap());
        assert!(!printed.contains("canary"), "{printed}");
    }
}
