//! Credentials that were issued and are still good, in memory alone.
//!
//! The key holds everything that makes a session another one and nothing that changes per request, so that a thousand who ask at once share
//! one chain. Who asked is not in it, nor in the session's name (`check::session_name`).

use std::{sync::Arc, time::Duration};

use contracts::{ExternalId, Region, RoleArn, TenantId, Timestamp, connection::Grant, credentials::Purpose};
use moka::{Expiry, future::Cache, ops::compute::Op};

use crate::{
    grants::Withdrawal,
    sts::{Session, SessionDuration},
};

/// Sessions kept; the least used give way. One is some 2 KB.
const MOST: u64 = 50_000;
/// A session with less left than this is not kept: nobody is given it.
const MARGIN: Duration = Duration::from_secs(30);

/// Which session. Holds an external ID beside a role ARN: no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub tenant: TenantId,
    pub role: RoleArn,
    pub external_id: ExternalId,
    pub purpose: Purpose,
    pub region: Region,
    pub duration: SessionDuration,
}

impl SessionKey {
    #[must_use]
    pub fn of(grant: &Grant, purpose: Purpose, duration: SessionDuration) -> Self {
        Self {
            tenant: grant.tenant,
            role: grant.role_arn.clone(),
            external_id: grant.external_id.clone(),
            purpose,
            region: grant.region.clone(),
            duration,
        }
    }
}

/// A session in a customer's role, and its name there.
#[derive(Debug)]
pub struct Issued {
    pub session: Session,
    pub session_name: String,
}

impl Issued {
    fn left(&self) -> Duration {
        Timestamp::now().until(self.session.expires_at)
    }
}

struct UntilSpent;

impl Expiry<SessionKey, Arc<Issued>> for UntilSpent {
    fn expire_after_create(&self, _: &SessionKey, issued: &Arc<Issued>, _: std::time::Instant) -> Option<Duration> {
        Some(issued.left().saturating_sub(MARGIN))
    }
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Cache<SessionKey, Arc<Issued>>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).expire_after(UntilSpent).build())
    }
}

impl Sessions {
    /// The session of `key` with at least `min_remaining` left, and whether it was there already; `make` runs once for all who wait.
    ///
    /// Cancel: when the one who makes it goes away, another who waits goes on. A failure is not kept, but given to all who waited.
    ///
    /// # Errors
    /// What `make` gave.
    pub async fn get<E: Send + Sync + 'static>(
        &self,
        key: SessionKey,
        min_remaining: Duration,
        make: impl Future<Output = Result<Issued, E>>,
    ) -> Result<(Arc<Issued>, bool), Arc<E>> {
        if let Some(spent) = self.0.get(&key).await.filter(|issued| issued.left() < min_remaining) {
            self.drop_exactly(&key, &spent).await;
        }
        let made = async { make.await.map(Arc::new) };
        let entry = self.0.entry(key).or_try_insert_with(made).await?;
        let fresh = entry.is_fresh();
        Ok((entry.into_value(), !fresh))
    }

    /// Drops this very session; one that another has put in its place meanwhile stays.
    async fn drop_exactly(&self, key: &SessionKey, spent: &Arc<Issued>) {
        let is_it = |entry: Option<moka::Entry<SessionKey, Arc<Issued>>>| {
            let same = entry.is_some_and(|entry| Arc::ptr_eq(entry.value(), spent));
            std::future::ready(if same { Op::Remove } else { Op::Nop })
        };
        self.0.entry(key.clone()).and_compute_with(is_it).await;
    }

    /// Drops all sessions of the role that was granted, or those of the purposes that were.
    pub async fn withdraw(&self, withdrawal: &Withdrawal) {
        let of_grant = |key: &SessionKey| {
            let purpose = withdrawal.purposes.as_ref().is_none_or(|purposes| purposes.contains(&key.purpose));
            key.tenant == withdrawal.tenant && key.role == withdrawal.role && purpose
        };
        let keys: Vec<_> = self.0.iter().map(|(key, _)| key).filter(|key| of_grant(key)).collect();
        for key in keys {
            self.0.invalidate(&*key).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{grants::tests::grant, sts::Keys};

    fn issued(seconds: u64) -> Issued {
        let keys = Keys { access_key_id: "ASIA".into(), secret_access_key: "canary".into(), session_token: None };
        let session = Session {
            keys,
            issued_at: Timestamp::now(),
            expires_at: Timestamp::now().plus(Duration::from_secs(seconds)),
        };
        Issued { session, session_name: "rolebridge.cost-read.0123456789ab".to_owned() }
    }

    fn key(grant: &Grant) -> SessionKey {
        SessionKey::of(grant, Purpose::CostRead, SessionDuration::LONGEST)
    }

    async fn get(sessions: &Sessions, key: &SessionKey, min_remaining: u64, made: &AtomicUsize, seconds: u64) -> bool {
        let make = async {
            made.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok::<_, std::convert::Infallible>(issued(seconds))
        };
        sessions.get(key.clone(), Duration::from_secs(min_remaining), make).await.unwrap().1
    }

    #[tokio::test]
    async fn a_spent_session_is_made_anew_once_for_all() {
        let (sessions, key, made) = (Sessions::default(), key(&grant(1)), AtomicUsize::new(0));
        assert!(!get(&sessions, &key, 300, &made, 400).await);
        assert!(get(&sessions, &key, 300, &made, 400).await);
        futures::future::join_all((0..100).map(|_| get(&sessions, &key, 1000, &made, 3600))).await;
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_session_that_is_nearly_over_is_not_kept() {
        let (sessions, key, made) = (Sessions::default(), key(&grant(1)), AtomicUsize::new(0));
        for _ in 0..3 {
            get(&sessions, &key, 0, &made, 20).await;
        }
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn withdrawing_takes_one_role_of_one_tenant() {
        let (sessions, made) = (Sessions::default(), AtomicUsize::new(0));
        let (mine, others) = (grant(1), grant(1));
        for grant in [&mine, &others] {
            get(&sessions, &key(grant), 0, &made, 3600).await;
        }
        let of_no_purpose = Withdrawal { purposes: Some(Vec::new()), ..Withdrawal::all(&mine) };
        sessions.withdraw(&of_no_purpose).await;
        assert!(get(&sessions, &key(&mine), 0, &made, 3600).await, "other purposes go on");
        let of_this = Withdrawal { purposes: Some(vec![Purpose::CostRead]), ..Withdrawal::all(&mine) };
        sessions.withdraw(&of_this).await;
        assert!(!get(&sessions, &key(&mine), 0, &made, 3600).await);
        sessions.withdraw(&Withdrawal::all(&mine)).await;
        assert!(get(&sessions, &key(&others), 0, &made, 3600).await);
        assert!(!get(&sessions, &key(&mine), 0, &made, 3600).await);
    }

    #[tokio::test]
    async fn a_failure_is_given_to_all_who_waited_and_not_kept() {
        let (sessions, key, made) = (Sessions::default(), key(&grant(1)), AtomicUsize::new(0));
        let failing = || async {
            let make = async {
                made.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err("no session")
            };
            sessions.get(key.clone(), Duration::ZERO, make).await.is_err()
        };
        let failed = futures::future::join_all((0..10).map(|_| failing())).await;
        assert!(failed.into_iter().all(|failed| failed));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert!(!get(&sessions, &key, 0, &made, 3600).await);
    }
}
