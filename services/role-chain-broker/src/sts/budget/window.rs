//! The arithmetic of the budget: windows of a tenth of a second, each with so many calls. Pure.
//!
//! One window is open at a time for all instances. Whoever wants to call takes some of its calls by compare-and-set; whoever has *seen* the window
//! for its whole length opens the next one. Seeing comes after opening, so windows are never opened faster than that, by whatever
//! clocks; at most two windows' worth of calls meet at their border.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A slow budget has windows of a second, or there would be less than one call in each.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(1);

/// Calls a second, 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    /// Clamped to its range.
    #[must_use]
    pub fn per_second(calls: u32) -> Self {
        Self(calls.clamp(1, 10_000))
    }

    /// How long a window is.
    pub(super) fn window(self) -> Duration {
        if self.0 >= 50 { SHORT } else { LONG }
    }

    /// Calls in a window when nothing is throttled.
    pub(super) fn calls(self) -> u32 {
        if self.0 >= 50 { self.0 / 10 } else { self.0 }
    }

    /// Taken at once by one instance at the most, so that others find some too.
    fn share(self) -> u32 {
        self.calls().div_ceil(4)
    }
}

/// A window as it stands in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Grows by one with each.
    pub number: u64,
    /// Calls that were taken.
    taken: u32,
    /// Calls that may be taken: fewer than the rate's after AWS has throttled us.
    limit: u32,
    /// Whether AWS's throttling has been answered in this window.
    slowed: bool,
}

impl Window {
    pub(super) fn first(rate: Rate) -> Self {
        Self { number: 0, taken: 0, limit: rate.calls(), slowed: false }
    }

    /// The window after takes of up to `wanted` calls, and how many they are; 0 when it is used up.
    pub(super) fn take(self, wanted: usize, rate: Rate) -> (Self, u32) {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(rate.share());
        // An operator may have lowered the rate meanwhile.
        let given = self.limit.min(rate.calls()).saturating_sub(self.taken).min(wanted);
        (Self { taken: self.taken + given, ..self }, given)
    }

    /// The one after it. What throttling took away comes back by a twentieth of the rate in each.
    pub(super) fn next(self, rate: Rate) -> Self {
        let limit = self.limit.saturating_add(rate.calls().div_ceil(20)).min(rate.calls());
        Self { number: self.number + 1, taken: 0, limit, slowed: false }
    }

    /// AWS has throttled a call: half as many from now on, once in each window; at least one.
    pub(super) fn slower(self) -> Option<Self> {
        (!self.slowed).then(|| Self { limit: (self.limit / 2).max(1), slowed: true, ..self })
    }

    /// Calls a second at this limit, at least 1.
    pub(super) fn pace(self, rate: Rate) -> u32 {
        let windows = if rate.window() == SHORT { 10 } else { 1 };
        (self.limit * windows).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_gives_no_more_than_its_calls(calls in 1_u32..2000, wants in prop::collection::vec(0_usize..500, 0..40), throttled in any::<bool>()) {
            let rate = Rate::per_second(calls);
            let mut window = Window::first(rate);
            if throttled {
                window = window.slower().unwrap();
                prop_assert_eq!(window.slower(), None);
            }
            let mut sum = 0;
            for want in wants {
                let (after, given) = window.take(want, rate);
                prop_assert!(given as usize <= want);
                sum += given;
                window = after;
            }
            let most = if throttled { (rate.calls() / 2).max(1) } else { rate.calls() };
            prop_assert!(sum <= most);
            prop_assert!(f64::from(rate.calls()) <= f64::from(calls) * rate.window().as_secs_f64() + 1e-9);
        }
    }

    #[test]
    fn throttling_halves_and_passes() {
        let rate = Rate::per_second(600);
        let mut window = Window::first(rate);
        for _ in 0..10 {
            window = window.slower().unwrap().next(rate);
        }
        assert!(window.take(100, rate).1 <= 6, "{window:?}");
        for _ in 0..20 {
            window = window.next(rate);
        }
        assert_eq!(window.pace(rate), 600);
        assert_eq!(window.take(100, rate).1, 15, "others find some too");
        let lowered = Rate::per_second(10);
        assert_eq!(
            (0..20)
                .fold((window, 0), |(w, n), _| {
                    let (w, given) = w.take(9, lowered);
                    (w, n + given)
                })
                .1,
            10
        );
    }
}
