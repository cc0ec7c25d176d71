//! A bound on what strangers may cause, for one instance: so many a minute in all, and so many of one key.
//!
//! A minute begins with the first that comes after the last one is over. Memory is bounded by the bound itself: only what was admitted is
//! remembered. What must not live here: who is a stranger, and what a key is.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long what was admitted counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How many a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerMinute {
    /// All together.
    pub all: u32,
    /// Those of one key.
    pub each: u32,
}

/// Admits so many.
#[derive(Debug)]
pub struct Quota<K> {
    limits: PerMinute,
    window: Mutex<Window<K>>,
}

#[derive(Debug)]
struct Window<K> {
    since: Option<Instant>,
    admitted: u32,
    /// Holds keys that were admitted, so no more than were admitted.
    by_key: HashMap<K, u32>,
}

impl<K: Eq + Hash + Clone> Quota<K> {
    #[must_use]
    pub fn new(limits: PerMinute) -> Self {
        Self { limits, window: Mutex::new(Window { since: None, admitted: 0, by_key: HashMap::new() }) }
    }

    /// Whether one more of `key` is within the bounds; then it counts.
    pub fn admit(&self, key: &K, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *window = Window { since: Some(now), admitted: 0, by_key: HashMap::new() };
        }
        let of_key = window.by_key.get(key).copied().unwrap_or(0);
        if window.admitted >= self.limits.all || of_key >= self.limits.each {
            return false;
        }
        window.admitted += 1;
        window.by_key.insert(key.clone(), of_key + 1);
        true
    }
}

/// How many strangers one instance answers: the same settings for each service that answers them.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct StrangersConfig {
    /// Requests of strangers that one instance answers in a minute, FAILED; those beyond are dropped and counted.
    #[arg(long, env = "ROLEBRIDGE_STRANGERS_PER_MINUTE", default_value_t = 600, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub strangers_per_minute: u32,

    /// Those of them that name one account. It is a claim: this keeps one customer's mistake from using up everything, and not an attacker.
    #[arg(long, env = "ROLEBRIDGE_STRANGERS_PER_ACCOUNT", default_value_t = 30, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub strangers_per_account: u32,
}

impl StrangersConfig {
    #[must_use]
    pub const fn limits(&self) -> PerMinute {
        PerMinute { all: self.strangers_per_minute, each: self.strangers_per_account }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_one_key_and_so_many_in_all_and_again_a_minute_later() {
        let (quota, start) = (Quota::new(PerMinute { all: 100, each: 7 }), Instant::now());
        let admitted = |key: u32, at| (0..50).filter(|_| quota.admit(&key, at)).count();
        assert_eq!(admitted(1, start), 7);
        assert_eq!(admitted(2, start), 7, "one key does not use up another's");
        let late = start + WINDOW - Duration::from_millis(1);
        let others: usize = (3..1000).map(|key| admitted(key, late)).sum();
        assert_eq!(others, 100 - 14);
        assert!(quota.window.lock().unwrap().by_key.len() <= 100, "memory is bounded too");
        assert_eq!(admitted(1, start + WINDOW), 7);
        assert_eq!(quota.window.lock().unwrap().by_key.len(), 1, "and nothing of before is kept");
    }
}
