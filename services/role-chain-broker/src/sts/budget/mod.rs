//! One budget of calls to STS for each provider account, shared by all instances and all tenants.
//!
//! AWS counts the calls of an account in a region and throttles all of them when they are too many
//! ([600 a second](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)), which would stop every tenant alike. So each call that the
//! chain makes is taken from here first: `window` says how many there are, `store` keeps that for all instances, `turns` says whose turn it is.
//! Whoever could not be served in its time is told so at once, and when to come again. What must not live here: STS, what a call is for.

mod store;
mod turns;
mod window;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use contracts::{AccountId, TenantId};
use messaging::async_nats::jetstream::kv;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use store::{BUDGET_BUCKET, WindowError};
pub use window::Rate;

use crate::metrics::Metrics;
use store::Windows;
use turns::Turns;
use window::Window;

/// Between two tries at a bucket that cannot be reached.
const PAUSE: Duration = Duration::from_millis(200);
/// So many lost writes in a row are worth a word and a pause.
const MANY_CONFLICTS: u32 = 20;
/// Between two looks at how many wait, for the gauge.
const EVERY: Duration = Duration::from_secs(1);
/// Whoever is told to come again is not told to come later than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// There is no call left for one who waits no longer than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget of calls to STS is used up for the next {} ms", .again_after.as_millis())]
pub struct Busy {
    /// When it is worth asking again.
    pub again_after: Duration,
}

/// Nobody hands out the calls of an account any more.
#[derive(Debug, thiserror::Error)]
#[error("the task that hands out the calls of STS of one account died")]
pub struct Died(#[source] tokio::task::JoinError);

/// Hands out calls. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    rate: Rate,
    windows: Arc<dyn Windows>,
    accounts: Mutex<HashMap<AccountId, Arc<Line>>>,
    /// Accounts that are used for the first time.
    new: mpsc::UnboundedSender<(AccountId, Arc<Line>)>,
    ended: AtomicBool,
}

/// Those who wait for calls of one account.
struct Line {
    turns: Mutex<Turns<oneshot::Sender<()>>>,
    came: Notify,
    /// Calls a second at the moment.
    pace: AtomicU32,
    throttled: AtomicBool,
}

/// Takes out of the line whoever does not listen any more.
struct Leave<'a> {
    line: &'a Line,
    tenant: TenantId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        lock(&self.line.turns).leave(self.tenant, |waiting| !waiting.is_closed());
    }
}

/// New accounts, for [`Budget::run`].
#[derive(Debug)]
pub struct NewAccounts(mpsc::UnboundedReceiver<(AccountId, Arc<Line>)>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    /// `rate` for each account, with the windows in `bucket`. Nothing is handed out before [`Budget::run`] runs.
    #[must_use]
    pub fn new(rate: Rate, bucket: kv::Store) -> (Self, NewAccounts) {
        Self::with(rate, Arc::new(bucket))
    }

    fn with(rate: Rate, windows: Arc<dyn Windows>) -> (Self, NewAccounts) {
        let (new, accounts) = mpsc::unbounded_channel();
        let inner = Inner { rate, windows, accounts: Mutex::default(), new, ended: AtomicBool::new(false) };
        (Self(Arc::new(inner)), NewAccounts(accounts))
    }

    /// Waits for one call of `account`, for `tenant`, for at most `patience`.
    ///
    /// Cancel: one who left is passed over, and costs nothing.
    ///
    /// # Errors
    /// When it would take longer, or did.
    pub async fn take(&self, account: &AccountId, tenant: TenantId, patience: Duration) -> Result<(), Busy> {
        let line = self.line(account);
        let pace = line.pace.load(Ordering::Relaxed).max(1);
        // Dropped after `called`, also when whoever asks goes away: nobody is delayed by those who have left.
        let _leave = Leave { line: &line, tenant };
        let called = {
            let mut turns = lock(&line.turns);
            let wait = Duration::from_secs_f64(turns.ahead_of(tenant) as f64 / f64::from(pace));
            if wait > patience || self.0.ended.load(Ordering::Acquire) {
                return Err(Busy { again_after: wait.min(LONGEST_WAIT) });
            }
            let (call, called) = oneshot::channel();
            turns.join(tenant, call);
            called
        };
        line.came.notify_one();
        match tokio::time::timeout(patience, called).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Busy { again_after: self.0.rate.window() }),
        }
    }

    /// AWS has throttled a call of `account`: somebody else uses it too, or its quota is lower than our rate.
    pub fn throttled(&self, account: &AccountId) {
        let line = self.line(account);
        line.throttled.store(true, Ordering::Release);
        line.came.notify_one();
    }

    fn line(&self, account: &AccountId) -> Arc<Line> {
        let mut accounts = lock(&self.0.accounts);
        if let Some(line) = accounts.get(account) {
            return line.clone();
        }
        let line = Arc::new(Line {
            turns: Mutex::default(),
            came: Notify::new(),
            pace: AtomicU32::new(Window::first(self.0.rate).pace(self.0.rate)),
            throttled: AtomicBool::new(false),
        });
        accounts.insert(account.clone(), line.clone());
        // A budget that has ended has nobody to hand it out: whoever waits runs into its patience.
        let _ = self.0.new.send((account.clone(), line.clone()));
        line
    }

    /// How many wait, over all accounts.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.0.accounts).values().map(|line| lock(&line.turns).len()).sum()
    }

    /// Hands calls out until shutdown.
    ///
    /// Cancel: whoever waits is told that there is no call. Failure: a bucket that cannot be reached is tried again; meanwhile nothing is handed out.
    ///
    /// # Errors
    /// When what hands out an account's calls has died.
    pub async fn run(
        self,
        mut accounts: NewAccounts,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Result<(), Died> {
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(EVERY);
        let died = loop {
            tokio::select! {
                Some(Err(source)) = tasks.join_next() => break Err(Died(source)),
                _ = look.tick() => metrics.sts_waiting(self.waiting()),
                () = shutdown.cancelled() => break Ok(()),
                Some((account, line)) = accounts.0.recv() => {
                    let giver = Giver { account, line, rate: self.0.rate, windows: self.0.windows.clone(), seen: None, held: None };
                    tasks.spawn(giver.give());
                }
            }
        };
        self.0.ended.store(true, Ordering::Release);
        tasks.shutdown().await;
        // Dropping their senders tells those who wait.
        lock(&self.0.accounts).values().for_each(|line| *lock(&line.turns) = Turns::default());
        died
    }
}

/// Hands out the calls of one account in this instance.
struct Giver {
    account: AccountId,
    line: Arc<Line>,
    rate: Rate,
    windows: Arc<dyn Windows>,
    /// The window that was seen last, its revision, and since when.
    seen: Option<(Window, u64, Instant)>,
    /// Calls that were taken and not given yet, and until when they may be.
    held: Option<(u32, Instant)>,
}

impl Giver {
    async fn give(mut self) {
        loop {
            self.line.came.notified().await;
            if self.line.throttled.swap(false, Ordering::AcqRel) {
                self.slow_down().await;
            }
            while lock(&self.line.turns).len() > 0 {
                let calls = self.calls().await;
                let given = self.hand_out(calls);
                self.held = (given < calls).then(|| (calls - given, Instant::now() + self.rate.window()));
            }
        }
    }

    /// Wakes up to `calls` of those who wait; one who has left costs nothing.
    fn hand_out(&self, calls: u32) -> u32 {
        let mut turns = lock(&self.line.turns);
        let mut given = 0;
        while given < calls {
            let Some(next) = turns.next() else { break };
            given += u32::from(next.send(()).is_ok());
        }
        given
    }

    /// At least one call, however long that takes.
    async fn calls(&mut self) -> u32 {
        if let Some((held, until)) = self.held.take()
            && Instant::now() < until
        {
            return held;
        }
        let mut conflicts = 0_u32;
        loop {
            match self.try_take().await {
                Ok(0) => {
                    let open_since = self.seen.map_or_else(Instant::now, |(_, _, since)| since);
                    tokio::time::sleep_until(open_since + self.rate.window()).await;
                }
                Ok(calls) => return calls,
                Err(WindowError::Conflict) => {
                    conflicts += 1;
                    if conflicts.is_multiple_of(MANY_CONFLICTS) {
                        tracing::warn!(account = %self.account, conflicts, "calls to STS wait: others are always faster at the budget");
                        tokio::time::sleep(PAUSE).await;
                    }
                    self.seen = self.seen_again().await;
                }
                Err(error) => {
                    tracing::warn!(account = %self.account, %error, "calls to STS wait");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if self.line.throttled.swap(false, Ordering::AcqRel) {
                self.slow_down().await;
            }
        }
    }

    async fn try_take(&mut self) -> Result<u32, WindowError> {
        let waiting = lock(&self.line.turns).len();
        let (window, revision, since) = match self.seen {
            Some(seen) => seen,
            None => self.look().await?,
        };
        let (after, calls) = self.of_now(window, since).take(waiting.max(1), self.rate);
        if calls == 0 {
            return Ok(0);
        }
        let revision = self.windows.put(&self.account, after, revision).await?;
        let since = if after.number == window.number { since } else { Instant::now() };
        self.saw(after, revision, since);
        Ok(calls)
    }

    /// The window, or the next one if it has been seen for its whole length.
    fn of_now(&self, window: Window, since: Instant) -> Window {
        if since.elapsed() >= self.rate.window() { window.next(self.rate) } else { window }
    }

    /// The window in the bucket; none yet is one that nobody has taken of.
    async fn look(&mut self) -> Result<(Window, u64, Instant), WindowError> {
        let (window, revision) = self.windows.get(&self.account).await?;
        let window = window.unwrap_or_else(|| Window::first(self.rate));
        // The same window is not younger for being looked at again.
        let since = self.seen.filter(|(seen, _, _)| seen.number == window.number).map(|(_, _, since)| since);
        let since = since.unwrap_or_else(Instant::now);
        self.saw(window, revision, since);
        Ok((window, revision, since))
    }

    async fn seen_again(&mut self) -> Option<(Window, u64, Instant)> {
        self.look().await.ok()
    }

    fn saw(&mut self, window: Window, revision: u64, since: Instant) {
        self.line.pace.store(window.pace(self.rate), Ordering::Relaxed);
        self.seen = Some((window, revision, since));
    }

    /// One try: another instance that is throttled too does the same.
    async fn slow_down(&mut self) {
        let Ok((window, revision, since)) = self.look().await else { return };
        let Some(slower) = self.of_now(window, since).slower() else { return };
        let since = if slower.number == window.number { since } else { Instant::now() };
        if let Ok(revision) = self.windows.put(&self.account, slower, revision).await {
            tracing::warn!(account = %self.account, calls_per_second = slower.pace(self.rate), "AWS throttles our calls to STS: fewer for a while");
            self.saw(slower, revision, since);
        }
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
