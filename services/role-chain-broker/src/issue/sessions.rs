//! Credentials that were issued and are still good, in memory alone.
//!
//! The key holds everything that makes a session another one and nothing that changes per request, so that a thousand who ask at once share
//! one chain. Who asked is not in it, nor in the session's name (`check::session_name`).
//!
//! - A session is made once for all who wait (a *flight*), by a task of its own: whoever goes away leaves the others nothing to do again.
//! - One that is asked for while it grows old is made anew behind the back of those who ask. Nobody who is still served well waits, and what nobody asks
//!   for is not made anew.
//! - What AWS has refused, or throttled, is remembered for seconds, for that very grant.
//! - What is withdrawn goes from memory, and out of the hands of the flights that are under way.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws::{FailureKind, Unclear};
use contracts::{
    ConnectionId, ExternalId, Region, RoleArn, TenantId, Timestamp, connection::Grant, credentials::Purpose,
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use moka::{Expiry, sync::Cache};
use secrecy::SecretSlice;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::{
    chain::{ChainError, Hop},
    grants::Withdrawal,
    journal::JournalError,
    sts::{AwsClock, Session, SessionDuration},
};

/// Sessions kept; the least used give way. One is some 2 KB.
const MOST: u64 = 50_000;
/// A session with less left than this is not kept: nobody is given it.
const MARGIN: Duration = Duration::from_secs(30);
/// Sessions that are made anew before they must be, at the same time. What finds no place is tried again by the next who asks.
const MOST_REFRESHES: usize = 16;
/// After a session could not be made anew in time, seconds until it is tried again: from, and how many more at most.
const REST: (u64, u64) = (5, 5);
/// For how long a refusal of the customer's role is the answer.
const REFUSED: Duration = Duration::from_secs(5);
/// For how long "throttled" is: what requesters are told to wait.
pub(crate) const THROTTLED: Duration = Duration::from_secs(2);
/// Refusals remembered.
const MOST_REFUSED: u64 = 10_000;

/// Which session. Holds an external ID beside a role ARN: no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub tenant: TenantId,
    pub connection: ConnectionId,
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
            connection: grant.connection,
            role: grant.role_arn.clone(),
            external_id: grant.external_id.clone(),
            purpose,
            region: grant.region.clone(),
            duration,
        }
    }

    fn is_of(&self, withdrawal: &Withdrawal) -> bool {
        let purpose = withdrawal.purposes.as_ref().is_none_or(|purposes| purposes.contains(&self.purpose));
        self.tenant == withdrawal.tenant && self.role == withdrawal.role && purpose
    }
}

/// A session in a customer's role, and its name there.
#[derive(Debug)]
pub struct Issued {
    pub session: Session,
    pub session_name: String,
    /// What is sealed for whoever asks, as JSON.
    pub contents: SecretSlice<u8>,
    /// Which part of its time, in thousandths, is left when it is made anew: another for each, or all that began together would end together.
    early: u32,
    made: Instant,
    /// Milliseconds from `made` until which it is not tried to make it anew.
    rests: AtomicU64,
}

fn random(below: u64) -> u64 {
    u64::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(below.max(1))).unwrap_or(0)
}

impl Issued {
    #[must_use]
    pub fn new(session: Session, session_name: String, contents: SecretSlice<u8>) -> Self {
        let early = 200 + u32::try_from(random(150)).unwrap_or(0);
        Self { session, session_name, contents, early, made: Instant::now(), rests: AtomicU64::new(0) }
    }

    /// Whether it began before `denied`.
    pub fn is_denied(&self, denied: Option<Timestamp>) -> bool {
        denied.is_some_and(|denied| self.session.issued_at < denied)
    }

    /// Whether it is time to make it anew for those who want `needed` left.
    fn grows_old(&self, left: Duration, needed: Duration) -> bool {
        let spare = self.session.issued_at.until(self.session.expires_at).saturating_sub(needed);
        left < needed + spare * self.early / 1000 && self.age() >= self.rests.load(Ordering::Relaxed)
    }

    fn age(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rest(&self) {
        let rest = 1000 * REST.0 + random(1000 * REST.1);
        self.rests.store(self.age().saturating_add(rest), Ordering::Relaxed);
    }
}

/// What a session is begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody waits for it.
    Request,
    /// The one before it grows old; nobody waits.
    Age,
}

/// Why there is no session to give.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoSession {
    #[error("the chain broke")]
    Chain {
        #[source]
        error: Arc<ChainError>,
        /// Said before and remembered, for so much longer.
        remembered: Option<Duration>,
    },
    #[error("the session could not be written down")]
    Journal(#[source] Arc<JournalError>),
    #[error("the session was withdrawn while it was made")]
    Withdrawn,
    #[error("the session that AWS gave is shorter than what was asked for")]
    TooShort,
    #[error("the tenant's sessions were revoked while it was made")]
    Denied,
    #[error("what is sealed could not be written")]
    Unwritable,
    #[error("making the session panicked")]
    Lost,
}

impl From<ChainError> for NoSession {
    fn from(error: ChainError) -> Self {
        Self::Chain { error: Arc::new(error), remembered: None }
    }
}

type Made = Result<Arc<Issued>, NoSession>;

/// A session that is being made.
struct Flight {
    number: u64,
    made: Shared<BoxFuture<'static, Made>>,
}

struct Refusal {
    error: Arc<ChainError>,
    until: Instant,
}

struct UntilSpent(AwsClock);

impl Expiry<SessionKey, Arc<Issued>> for UntilSpent {
    fn expire_after_create(&self, _: &SessionKey, issued: &Arc<Issued>, _: Instant) -> Option<Duration> {
        Some(self.0.left(issued.session.expires_at).saturating_sub(MARGIN))
    }

    fn expire_after_update(
        &self,
        _: &SessionKey,
        issued: &Arc<Issued>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.0.left(issued.session.expires_at).saturating_sub(MARGIN))
    }
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    kept: Cache<SessionKey, Arc<Issued>>,
    flights: Mutex<HashMap<SessionKey, Flight>>,
    numbers: AtomicU64,
    /// By the grant's revision, so that a changed grant is asked for anew.
    refused: Cache<(SessionKey, u64), Arc<Refusal>>,
    refreshes: Arc<Semaphore>,
    clock: AwsClock,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(AwsClock::default())
    }
}

impl Sessions {
    #[must_use]
    pub fn new(clock: AwsClock) -> Self {
        Self(Arc::new(Inner {
            kept: Cache::builder().max_capacity(MOST).expire_after(UntilSpent(clock.clone())).build(),
            flights: Mutex::default(),
            numbers: AtomicU64::new(0),
            refused: Cache::builder().max_capacity(MOST_REFUSED).time_to_live(REFUSED).build(),
            refreshes: Arc::new(Semaphore::new(MOST_REFRESHES)),
            clock,
        }))
    }

    /// The session of `key` with at least `min_remaining` left, and whether it was there or on its way already, and not begun by this very call. `make` is
    /// called where one must be made, once for all who wait, and ahead of time for one that is in use. `revision` is the grant's.
    ///
    /// Cancel: whoever goes away leaves the making going on. Failure: given to all who waited; what AWS decided is remembered for seconds. A session that
    /// could not be made anew ahead of time is given out for as long as it is good.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get<F>(
        &self,
        key: SessionKey,
        revision: u64,
        min_remaining: Duration,
        make: impl FnOnce(Cause) -> F,
    ) -> Result<(Arc<Issued>, bool), NoSession>
    where
        F: Future<Output = Result<Issued, NoSession>> + Send + 'static,
    {
        let needed = min_remaining.max(MARGIN);
        if let Some((issued, left)) = self.good(&key, needed) {
            if issued.grows_old(left, needed) {
                self.refresh(&issued, key, revision, make);
            }
            return Ok((issued, true));
        }
        let known = (key, revision);
        if let Some(refusal) = self.0.refused.get(&known) {
            let longer = refusal.until.saturating_duration_since(Instant::now());
            if !longer.is_zero() {
                return Err(NoSession::Chain { error: refusal.error.clone(), remembered: Some(longer) });
            }
        }
        let (made, cached) = self.join(known.0, revision, needed, make);
        let issued = made.await?;
        if self.0.clock.left(issued.session.expires_at) < min_remaining {
            return Err(NoSession::TooShort);
        }
        Ok((issued, cached))
    }

    /// Drops all sessions of the role that was granted, or those of the purposes that were; those that are being made are given to nobody.
    pub fn withdraw(&self, withdrawal: &Withdrawal) {
        // First: a flight that lands after this finds that it is none any more, and one that landed before has put its session where it is found below.
        self.flights().retain(|key, _| !key.is_of(withdrawal));
        for (key, _) in self.0.kept.iter().filter(|(key, _)| key.is_of(withdrawal)) {
            self.0.kept.invalidate(&*key);
        }
    }

    fn good(&self, key: &SessionKey, needed: Duration) -> Option<(Arc<Issued>, Duration)> {
        let issued = self.0.kept.get(key)?;
        let left = self.0.clock.left(issued.session.expires_at);
        (left >= needed).then_some((issued, left))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<SessionKey, Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flight that is under way, or a new one; and whether it was.
    fn join<F>(
        &self,
        key: SessionKey,
        revision: u64,
        needed: Duration,
        make: impl FnOnce(Cause) -> F,
    ) -> (Shared<BoxFuture<'static, Made>>, bool)
    where
        F: Future<Output = Result<Issued, NoSession>> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            return (flight.made.clone(), true);
        }
        // It may have landed since we looked.
        if let Some((issued, _)) = self.good(&key, needed) {
            return (std::future::ready(Ok(issued)).boxed().shared(), true);
        }
        (self.begin(&mut flights, key, revision, make(Cause::Request)), false)
    }

    /// Makes it anew behind the back of whoever asked, if there is room and nobody does already.
    fn refresh<F>(&self, old: &Arc<Issued>, key: SessionKey, revision: u64, make: impl FnOnce(Cause) -> F)
    where
        F: Future<Output = Result<Issued, NoSession>> + Send + 'static,
    {
        let Ok(permit) = self.0.refreshes.clone().try_acquire_owned() else { return };
        let mut flights = self.flights();
        if flights.contains_key(&key) {
            return;
        }
        let (old, made) = (old.clone(), make(Cause::Age));
        // Nobody waits for it.
        drop(self.begin(&mut flights, key, revision, async move {
            let made = made.await;
            drop(permit);
            if made.is_err() {
                old.rest();
            }
            made
        }));
    }

    fn begin(
        &self,
        flights: &mut HashMap<SessionKey, Flight>,
        key: SessionKey,
        revision: u64,
        make: impl Future<Output = Result<Issued, NoSession>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Made>> {
        let (number, sessions) = (self.0.numbers.fetch_add(1, Ordering::Relaxed), self.clone());
        let whose = key.clone();
        let flight = async move {
            let made = match AssertUnwindSafe(make).catch_unwind().await {
                Ok(Ok(issued)) => Ok(Arc::new(issued)),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(NoSession::Lost),
            };
            sessions.land(whose, number, revision, made)
        };
        let made = flight.in_current_span().boxed().shared();
        flights.insert(key, Flight { number, made: made.clone() });
        tokio::spawn(made.clone());
        made
    }

    /// Keeps what was made, unless it was withdrawn meanwhile.
    fn land(&self, key: SessionKey, number: u64, revision: u64, made: Made) -> Made {
        let mut flights = self.flights();
        if flights.get(&key).is_none_or(|flight| flight.number != number) {
            return Err(NoSession::Withdrawn);
        }
        match &made {
            Ok(issued) => self.0.kept.insert(key.clone(), issued.clone()),
            Err(NoSession::Chain { error, .. }) => {
                if let Some(lasts) = remembered(error) {
                    let refusal = Refusal { error: error.clone(), until: Instant::now() + lasts };
                    self.0.refused.insert((key.clone(), revision), Arc::new(refusal));
                }
            }
            Err(_) => {}
        }
        flights.remove(&key);
        made
    }
}

/// For how long a failure is the answer: only what AWS has decided, and nothing that the next try may find otherwise at once.
fn remembered(error: &ChainError) -> Option<Duration> {
    let ChainError::Sts { hop, failure } = error else { return None };
    match (failure.kind, hop) {
        (FailureKind::Refused, Hop::Customer) => Some(REFUSED),
        (FailureKind::Indeterminate(Unclear::Throttled), _) => Some(THROTTLED),
        _ => None,
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
