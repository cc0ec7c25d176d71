//! How often something that failed is tried again, and when.

use crate::export::Lasts;
use contracts::Timestamp;
use messaging::{Backoff, Delivery};
use std::time::Duration;

/// Times between tries.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between tries that may pass.
    pub backoff: Backoff,
    /// Tries at something that may pass.
    pub tries: u32,
    /// Tries at something that was refused.
    pub refusals: u32,
    /// After how long something that was given up but may pass is tried again.
    pub soon: Duration,
    /// After how long something that stays until somebody mends it is tried again in the same version.
    pub late: Duration,
    /// How often it is looked whether a connection's periods go on.
    pub look: Duration,
}

impl Patience {
    /// As the program has it, where exports are looked for in this interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            backoff: Backoff { first: Duration::from_secs(2), most: Duration::from_secs(300) },
            tries: 8,
            refusals: 3,
            soon: interval,
            late: interval.max(Duration::from_secs(24 * 60 * 60)),
            look: Duration::from_secs(5),
        }
    }

    /// When a job whose tenant has no place left comes back.
    #[must_use]
    pub fn turn(&self, delivery: Delivery) -> Duration {
        let doublings = u32::try_from(delivery.attempt.clamp(1, 6) - 1).unwrap_or_default();
        (self.look / 60).saturating_mul(1 << doublings).min(self.look)
    }

    /// How long to wait for an instant, and at most for a while: the clock may be set.
    #[must_use]
    pub fn until(&self, at: Option<Timestamp>) -> Duration {
        let wait = at.map_or(self.look, |at| Timestamp::now().until(at));
        wait.clamp(self.look / 60, Duration::from_secs(60))
    }

    /// Whether this many tries are enough.
    #[must_use]
    pub const fn is_over(&self, lasts: Lasts, tries: u32) -> bool {
        tries
            >= match lasts {
                Lasts::Passes => self.tries,
                Lasts::Settles => self.refusals,
                Lasts::Stays => 1,
            }
    }

    /// When it is tried again after this many tries.
    #[must_use]
    pub fn next(&self, lasts: Lasts, tries: u32) -> Timestamp {
        let wait = match (self.is_over(lasts, tries), lasts) {
            (true, Lasts::Stays) => self.late,
            (true, _) => self.soon,
            (false, _) => {
                let doublings = tries.saturating_sub(1).min(30);
                self.backoff.first.saturating_mul(1 << doublings).min(self.backoff.most)
            }
        };
        Timestamp::now().plus(wait)
    }
}
