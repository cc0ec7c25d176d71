//! Credentials of one connection, kept as long as they are good and renewed ahead of their end.
//!
//! - Given out are credentials with at least `min_remaining` left, never others.
//! - In the last stretch before that (`ahead`) whoever asks still gets the kept ones, and one renewal begins in the background. With fewer left, all who ask wait for it.
//! - One renewal is under way at a time, in a task of its own: who waits for it may go away without ending it.
//! - What may pass by itself (throttled, broker or bus away) is tried again when the broker said, within `time_limit`. Meanwhile, and after it, the kept ones serve as above.
//! - When the broker says that there are none for this connection (`denied`, `not-verified`, `not-found`), the kept ones are dropped: its word is newer than they are.
//!
//! What must not live here: what an answer must be (`ask`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contracts::{ConnectionId, ErrorCode, TenantId};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use messaging::RequestError;
use tokio::time::{Instant, sleep};

use crate::{Client, IssueError, Session, Wanted, ask::TIMEOUT};

/// Between two tries, when the broker did not say how long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After a renewal ahead of time that brought nothing better, the next one waits so long.
const REST: Duration = Duration::from_secs(10);
/// A refusal lasts until somebody does something about the connection.
const REST_AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// Of the time that a session has beyond `min_remaining`, at most this part is `ahead`: short ones would be renewed all the time.
const AHEAD_PART: u32 = 3;

/// When credentials are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Credentials with less left are not given out. At most 3,000 s, and 60 s less than the session lasts: the broker refuses more.
    pub min_remaining: Duration,
    /// So long before that a renewal begins in the background; at most a third of the time that the session has until then.
    pub ahead: Duration,
    /// How long a renewal may take, with its tries.
    pub time_limit: Duration,
}

impl Default for Renewal {
    /// 300 s, 300 s, 30 s.
    fn default() -> Self {
        let (min_remaining, ahead) = (Duration::from_secs(300), Duration::from_secs(300));
        Self { min_remaining, ahead, time_limit: Duration::from_secs(30) }
    }
}

/// Why there are no credentials; the same for all who waited.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    Issue(#[from] Arc<IssueError>),
    #[error(
        "the broker's credentials last {left_s} s by this machine's clock, and at least {wanted_s} s were asked for: set the clock, or ask for less (min_remaining)"
    )]
    TooShort { left_s: u64, wanted_s: u64 },
    #[error("the renewal of the credentials was broken off: the program is ending")]
    BrokenOff,
}

impl CredentialsError {
    /// What went wrong with the request, if it is that.
    #[must_use]
    pub fn issue(&self) -> Option<&IssueError> {
        match self {
            Self::Issue(error) => Some(error),
            Self::TooShort { .. } | Self::BrokenOff => None,
        }
    }
}

/// Credentials of one connection for one purpose. Cheap to clone; clones share what is kept.
///
/// Cancel: dropping [`CachedCredentials::get`] leaves a renewal to end by itself, within its time limit. Failure: given to all who waited for it, and not kept.
#[derive(Clone)]
pub struct CachedCredentials(Arc<Kept>);

struct Kept {
    source: Box<dyn Source>,
    renewal: Renewal,
    state: Mutex<State>,
}

/// Where credentials come from; there is another one in the tests.
trait Source: Send + Sync + fmt::Debug {
    fn ask(&self, min_remaining: Duration, within: Duration) -> BoxFuture<'_, Result<Session, IssueError>>;
}

#[derive(Debug)]
struct Asked {
    client: Client,
    tenant: TenantId,
    connection: ConnectionId,
    wanted: Wanted,
}

impl Source for Asked {
    fn ask(&self, min_remaining: Duration, within: Duration) -> BoxFuture<'_, Result<Session, IssueError>> {
        let seconds = u32::try_from(min_remaining.as_secs()).unwrap_or(u32::MAX);
        let wanted = Wanted { min_remaining_s: Some(seconds), ..self.wanted };
        self.client.issue_within(self.tenant, self.connection, wanted, within).boxed()
    }
}

type Outcome = Result<Arc<Session>, CredentialsError>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    flight: Option<Flight>,
    /// No renewal ahead of time begins before.
    rest_until: Option<Instant>,
}

#[derive(Clone)]
struct Held {
    session: Arc<Session>,
    /// With less left than this, a renewal begins.
    renew_below: Duration,
}

/// A renewal that is under way.
#[derive(Clone)]
struct Flight {
    /// Ahead of time it asks for more than is needed, and may fail where a plain one would not.
    ahead: bool,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

impl fmt::Debug for CachedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.0.state().held.as_ref().map(|held| held.session.credentials.expires_at.to_string());
        f.debug_struct("CachedCredentials").field("source", &self.0.source).field("held_until", &held).finish()
    }
}

impl CachedCredentials {
    pub(crate) fn new(
        client: Client,
        tenant: TenantId,
        connection: ConnectionId,
        wanted: Wanted,
        renewal: Renewal,
    ) -> Self {
        Self::of(Asked { client, tenant, connection, wanted }, renewal)
    }

    fn of(source: impl Source + 'static, renewal: Renewal) -> Self {
        Self(Arc::new(Kept { source: Box::new(source), renewal, state: Mutex::default() }))
    }

    /// The rules it goes by.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        self.0.renewal
    }

    /// Credentials with at least `min_remaining` left. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there are none, and none came within `time_limit`.
    pub async fn get(&self) -> Result<Arc<Session>, CredentialsError> {
        loop {
            let flight = match self.0.step(&mut self.0.state()) {
                Step::Use(session) => return Ok(session),
                Step::Wait(flight) => flight,
            };
            match flight.outcome.await {
                Ok(fresh) => {
                    // Another may have waited long for its turn to run.
                    let left = fresh.left();
                    return if left >= self.0.renewal.min_remaining { Ok(fresh) } else { Err(self.0.too_short(left)) };
                }
                Err(CredentialsError::BrokenOff) => {
                    // It can no longer take itself off.
                    self.0.state().flight = None;
                    return Err(CredentialsError::BrokenOff);
                }
                // It asked for more than is needed here: the next one does not.
                Err(_) if flight.ahead => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl CachedCredentials {
    /// Renews ahead of time also while nobody asks, for whoever cannot wait when he does. Never ends: drop it when nobody needs them any more.
    ///
    /// Failure: tried again after ten seconds or when the broker said, and a minute after it said that there are none.
    pub async fn keep_fresh(&self) {
        loop {
            let rest = match self.get().await {
                Ok(session) => {
                    let held = self.0.renew_below().unwrap_or_default();
                    session.left().saturating_sub(held) + Duration::from_secs(1)
                }
                Err(error) => match error.issue() {
                    Some(issue) if is_final(issue) => REST_AFTER_REFUSAL,
                    Some(issue) => retry_after(issue).unwrap_or(REST),
                    None => REST,
                },
            };
            sleep(rest.max(REST)).await;
        }
    }
}

enum Step {
    Use(Arc<Session>),
    Wait(Flight),
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; what is kept is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(self: &Arc<Self>, state: &mut State) -> Step {
        let min_remaining = self.renewal.min_remaining;
        if let Some(held) = state.held.clone() {
            let left = held.session.left();
            if left >= min_remaining && !left.is_zero() {
                let rested = state.rest_until.is_none_or(|until| until <= Instant::now());
                if left < held.renew_below && rested && state.flight.is_none() {
                    state.flight = Some(self.begin(true));
                }
                return Step::Use(held.session);
            }
        }
        let flight = state.flight.get_or_insert_with(|| self.begin(false));
        Step::Wait(flight.clone())
    }

    fn begin(self: &Arc<Self>, ahead: bool) -> Flight {
        let renewing = tokio::spawn(self.clone().renew(ahead));
        let outcome = renewing.map(|ended| ended.unwrap_or(Err(CredentialsError::BrokenOff))).boxed().shared();
        Flight { ahead, outcome }
    }

    async fn renew(self: Arc<Self>, ahead: bool) -> Outcome {
        let min_remaining = self.renewal.min_remaining;
        // Otherwise the broker, which keeps sessions too, would give the very one that is to be renewed.
        let asked_for = if ahead { self.renew_below().unwrap_or(min_remaining) } else { min_remaining };
        let asked = self.ask(asked_for).await;
        let mut state = self.state();
        state.flight = None;
        let (outcome, rest) = match asked {
            Ok(fresh) => (self.keep(&mut state, fresh), REST),
            Err(error) => {
                if is_final(&error) {
                    state.held = None;
                }
                let rest = retry_after(&error).unwrap_or(REST).max(REST);
                (Err(CredentialsError::Issue(Arc::new(error))), rest)
            }
        };
        state.rest_until = Some(Instant::now() + rest);
        if let (true, Err(error)) = (ahead, &outcome) {
            tracing::warn!(%error, "credentials were not renewed ahead of time: those at hand go on while they last");
        }
        outcome
    }

    fn renew_below(&self) -> Option<Duration> {
        self.state().held.as_ref().map(|held| held.renew_below)
    }

    /// Keeps what came, unless what is held lasts longer.
    fn keep(&self, state: &mut State, fresh: Session) -> Outcome {
        let (left, min_remaining) = (fresh.left(), self.renewal.min_remaining);
        if left < min_remaining || left.is_zero() {
            return Err(self.too_short(left));
        }
        let held_until = state.held.as_ref().map(|held| held.session.credentials.expires_at);
        if held_until.is_none_or(|until| until < fresh.credentials.expires_at) {
            let ahead = self.renewal.ahead.min((left - min_remaining) / AHEAD_PART);
            state.held = Some(Held { session: Arc::new(fresh), renew_below: min_remaining + ahead });
        }
        let held = state.held.as_ref().map(|held| held.session.clone());
        held.ok_or(CredentialsError::BrokenOff)
    }

    fn too_short(&self, left: Duration) -> CredentialsError {
        CredentialsError::TooShort { left_s: left.as_secs(), wanted_s: self.renewal.min_remaining.as_secs() }
    }

    /// Asks until there is an answer that will not change by itself, or the time is up.
    async fn ask(&self, min_remaining: Duration) -> Result<Session, IssueError> {
        let end = Instant::now() + self.renewal.time_limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let within = end.saturating_duration_since(Instant::now()).min(TIMEOUT);
            let error = match self.source.ask(min_remaining, within).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if !may_pass(&error) {
                return Err(error);
            }
            let wait = retry_after(&error).unwrap_or(pause);
            if Instant::now() + wait >= end {
                return Err(error);
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Whether the same request may succeed a little later.
fn may_pass(error: &IssueError) -> bool {
    match error {
        IssueError::Request(RequestError::Refused(reply)) => reply.retry_after_ms.is_some(),
        IssueError::Request(
            RequestError::NoResponders { .. } | RequestError::TimedOut { .. } | RequestError::Send { .. },
        ) => true,
        _ => false,
    }
}

/// When the broker wants to be asked again, if it said so.
fn retry_after(error: &IssueError) -> Option<Duration> {
    match error {
        IssueError::Request(request) => request.refusal()?.retry_after_ms.map(Duration::from_millis),
        _ => None,
    }
}

/// Whether the broker has said that nothing may be had for this connection.
fn is_final(error: &IssueError) -> bool {
    let IssueError::Request(RequestError::Refused(reply)) = error else { return false };
    matches!(reply.code, ErrorCode::Denied | ErrorCode::NotVerified | ErrorCode::NotFound)
        && reply.retry_after_ms.is_none()
}

#[cfg(test)]
#[path = "cached_tests.rs"]
mod tests;
