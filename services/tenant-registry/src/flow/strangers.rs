//! What strangers may cost: a bounded number of answers and audit lines a minute, however many of them there are, and one look-up for an external ID that
//! nobody was given.
//!
//! Limits hold for one instance. Whoever proves to hold the token of an offer is no stranger and is not counted here, whatever strangers do.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use contracts::{AccountId, ExternalId};
use moka::future::Cache;
use runtime::quota::{PerMinute, Quota, WINDOW};

/// Audit lines a minute; what is beyond is counted in the next line that is written.
const LINES: u32 = 60;
/// Bytes of external IDs that are remembered as unknown; the least used go first. An ID of ours has 36.
const UNKNOWN: u64 = 2 * 1024 * 1024;
const UNKNOWN_FOR: Duration = Duration::from_secs(300);

/// Strangers of this minute, and external IDs that are nobody's.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Answers, by the account that the stack ID names.
    answers: Quota<AccountId>,
    window: Mutex<Window>,
    /// That an entry shadows a real ID later cannot be: the registry alone makes external IDs, of 122 random bits, and gives one out only after the transaction
    /// that stores it has committed. So whoever asks for an ID before it is there has made it up, and ours will not be that one. Every look-up of this cache's
    /// misses goes to the database that the registry writes, never to a copy that lags behind. And an ID that has stopped to be good for anything never is again.
    unknown: Cache<ExternalId, ()>,
}

/// What is told of them.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    untold: Untold,
}

/// What happened since the last audit line about strangers and stands in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Untold {
    /// Answered, and not written down.
    pub(super) answered: u64,
    /// Dropped without an answer.
    pub(super) dropped: u64,
}

/// Leave to answer one stranger.
#[derive(Debug)]
pub(super) struct Admitted(());

impl Admitted {
    /// For somebody who turned out to be no stranger: limits are not for him.
    pub(super) const KNOWN: Self = Self(());
}

impl Strangers {
    pub(super) fn new(answers: PerMinute) -> Self {
        let unknown = Cache::builder()
            .weigher(|id: &ExternalId, ()| u32::try_from(id.as_str().len()).unwrap_or(u32::MAX))
            .max_capacity(UNKNOWN)
            .time_to_live(UNKNOWN_FOR)
            .build();
        Self { answers: Quota::new(answers), window: Mutex::default(), unknown }
    }

    pub(super) async fn is_unknown(&self, id: &ExternalId) -> bool {
        self.unknown.get(id).await.is_some()
    }

    pub(super) async fn remember_unknown(&self, id: &ExternalId) {
        self.unknown.insert(id.clone(), ()).await;
    }

    /// Whether a stranger that says it is of `account` is answered. A refusal is counted as dropped.
    pub(super) fn admit(&self, account: &AccountId, now: Instant) -> Option<Admitted> {
        if !self.answers.admit(account, now) {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.turn(now);
            window.untold.dropped += 1;
            return None;
        }
        Some(Admitted(()))
    }

    /// An audit line, if there is one left, with what no line has told before it.
    pub(super) fn line(&self, now: Instant) -> Option<Untold> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.turn(now);
        if window.lines >= LINES {
            window.untold.answered += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.untold))
    }

    /// What no line has told, once the minute in which it happened is over: the end of a flood, after which no stranger may ever come again.
    pub(super) fn left_untold(&self, now: Instant) -> Option<Untold> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let over = window.since.is_some_and(|since| now.duration_since(since) >= WINDOW);
        (over && window.untold != Untold::default()).then(|| std::mem::take(&mut window.untold))
    }
}

impl Window {
    fn turn(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), lines: 0, untold: self.untold };
        }
    }
}

impl std::fmt::Display for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.answered > 0 {
            write!(f, " {} earlier ones were answered and not written down.", self.answered)?;
        }
        if self.dropped > 0 {
            write!(f, " {} earlier ones were too many and got no answer.", self.dropped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: u64) -> AccountId {
        AccountId::parse(&format!("{number:012}")).unwrap()
    }

    #[test]
    fn attack_33_a_flood_is_counted_not_written() {
        let (strangers, start) = (Strangers::new(PerMinute { all: 600, each: 30 }), Instant::now());
        let written = (0..10_000).filter(|_| strangers.line(start).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(strangers.left_untold(start), None, "the minute is not over");
        let untold = Untold { answered: 10_000 - u64::from(LINES), dropped: 0 };
        assert_eq!(strangers.line(start + WINDOW), Some(untold));
        assert_eq!(strangers.line(start + WINDOW), Some(Untold::default()));
    }

    #[test]
    fn attack_33_answers_are_bounded_for_one_account_and_for_all() {
        let (limits, start) = (PerMinute { all: 100, each: 7 }, Instant::now());
        let strangers = Strangers::new(limits);
        let admitted = |account: AccountId, at| (0..50).filter(|_| strangers.admit(&account, at).is_some()).count();
        assert_eq!(admitted(account(1), start), 7);
        assert_eq!(admitted(account(2), start), 7, "one account's junk does not silence another");
        let others: usize = (3..1000).map(|number| admitted(account(number), start)).sum();
        assert_eq!(others, 100 - 14);
        let dropped = 998 * 50 + 50 - 100;
        assert_eq!(strangers.left_untold(start + WINDOW), Some(Untold { answered: 0, dropped }));
        assert_eq!(strangers.left_untold(start + WINDOW), None, "told once");
        assert_eq!(admitted(account(1), start + WINDOW), 7);
    }
}
