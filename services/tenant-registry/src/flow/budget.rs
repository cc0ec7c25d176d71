//! What strangers may cost: a bounded number of audit lines a minute, however many of them there are.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Lines a minute and instance; the ones beyond are counted in the next line that is written.
const LINES: u32 = 60;

/// Who is still allowed a line.
#[derive(Debug, Default)]
pub(super) struct AuditBudget {
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl AuditBudget {
    /// A line, if there is one left, with the number of those that were left out before it.
    pub(super) fn take(&self, now: Instant) -> Option<u64> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (spent.since, spent.lines) = (Some(now), 0);
        }
        if spent.lines >= LINES {
            spent.left_out += 1;
            return None;
        }
        spent.lines += 1;
        Some(std::mem::take(&mut spent.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_written() {
        let (budget, start) = (AuditBudget::default(), Instant::now());
        let written = (0..10_000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(budget.take(start + WINDOW), Some(10_000 - u64::from(LINES)));
        assert_eq!(budget.take(start + WINDOW), Some(0));
    }
}
