//! How many probes may be ordered: a bucket of tokens, one for each probe, that fills evenly up to ten seconds' worth.
//!
//! A quarter of what flows in is reserved for the schedule. The rest is shared: with requests, which must find a token there, and with stacks that call back,
//! which are never kept waiting and take what they need, into debt if need be. So neither a storm of callbacks nor somebody who asks again and again ends the watching.
//!
//! Amounts are whole numbers ([`PROBE`] units make a probe), so that nothing is lost to rounding however often the bucket is looked at. Nothing here reads a clock or a row.

use std::time::Duration;

/// Units that a probe costs; with it both shares flow in whole units a millisecond.
const PROBE: i64 = 4 * 60_000;
/// How long the bucket fills from empty to full.
const FULL_AFTER_MS: i64 = 10_000;

/// Who wants a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spender {
    Schedule,
    /// Somebody asked for it.
    Request,
    /// A stack waits.
    Callback,
}

/// What flows in: probes a minute, of all instances together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_minute: u32,
}

impl Rate {
    #[must_use]
    pub const fn per_minute(per_minute: u32) -> Self {
        Self { per_minute: if per_minute == 0 { 1 } else { per_minute } }
    }

    /// Units a millisecond, of the two shares.
    fn reserved(self) -> i64 {
        i64::from(self.per_minute)
    }

    fn shared(self) -> i64 {
        3 * i64::from(self.per_minute)
    }

    /// The most that a share holds: ten seconds' worth, and at least the probe that it is there for.
    fn most(flow: i64) -> i64 {
        flow.saturating_mul(FULL_AFTER_MS).max(PROBE)
    }
}

/// What is there at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub reserved: i64,
    /// Below zero after many callbacks, as far as it can be above.
    pub shared: i64,
    /// When it was filled last, in milliseconds since 1970.
    pub at_ms: i64,
}

/// There is no token; after this long there may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    pub retry_after: Duration,
}

impl Bucket {
    /// What has flowed in since. A clock that is behind the last one fills nothing, and takes nothing back.
    #[must_use]
    pub fn filled(self, now_ms: i64, rate: Rate) -> Self {
        let passed = now_ms.saturating_sub(self.at_ms).max(0);
        let fill = |held: i64, flow: i64| held.saturating_add(flow.saturating_mul(passed)).min(Rate::most(flow));
        Self {
            reserved: fill(self.reserved, rate.reserved()),
            shared: fill(self.shared, rate.shared()),
            at_ms: now_ms.max(self.at_ms),
        }
    }

    /// Takes the token for a probe.
    ///
    /// # Errors
    /// There is none for this spender.
    pub fn spend(self, now_ms: i64, rate: Rate, spender: Spender) -> Result<Self, Exhausted> {
        let full = self.filled(now_ms, rate);
        let shared = full.shared.saturating_sub(PROBE);
        match spender {
            Spender::Schedule if full.reserved >= PROBE => Ok(Self { reserved: full.reserved - PROBE, ..full }),
            Spender::Schedule | Spender::Request if shared >= 0 => Ok(Self { shared, ..full }),
            Spender::Callback => Ok(Self { shared: shared.max(-Rate::most(rate.shared())), ..full }),
            Spender::Schedule => Err(Exhausted::when(PROBE - full.reserved, rate.reserved(), -shared, rate.shared())),
            Spender::Request => Err(Exhausted::when(-shared, rate.shared(), -shared, rate.shared())),
        }
    }
}

impl Exhausted {
    /// When the first of two shares has what it lacks.
    fn when(one: i64, flow: i64, other: i64, other_flow: i64) -> Self {
        let wait = |lacks: i64, flow: i64| lacks.max(0).saturating_add(flow - 1) / flow.max(1);
        let ms = wait(one, flow).min(wait(other, other_flow)).max(1);
        Self { retry_after: Duration::from_millis(u64::try_from(ms).unwrap_or_default()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn empty() -> Bucket {
        Bucket { reserved: 0, shared: 0, at_ms: 0 }
    }

    fn a_spender() -> impl Strategy<Value = Spender> {
        prop::sample::select(vec![Spender::Schedule, Spender::Request, Spender::Callback])
    }

    /// Units that flow in over a span, and the most that lay there before.
    fn bound(rate: Rate, span_ms: i64) -> i64 {
        Rate::most(rate.reserved()) + Rate::most(rate.shared()) + (rate.reserved() + rate.shared()) * span_ms
    }

    #[test]
    fn a_minute_gives_a_minutes_worth() {
        let (rate, mut bucket, mut given) = (Rate::per_minute(600), empty(), 0);
        for now in 0..60_000 {
            while let Ok(left) = bucket.spend(now, rate, Spender::Schedule) {
                (bucket, given) = (left, given + 1);
            }
        }
        assert!((598..=600).contains(&given), "{given}");
    }

    #[test]
    fn a_database_that_was_away_for_a_year_gives_ten_seconds_worth() {
        let (rate, mut bucket, mut given) = (Rate::per_minute(600), empty(), 0);
        while let Ok(left) = bucket.spend(i64::MAX, rate, Spender::Schedule) {
            (bucket, given) = (left, given + 1);
        }
        assert_eq!(given, 100);
    }

    #[test]
    fn the_smallest_rate_gives_its_probe() {
        let rate = Rate::per_minute(1);
        assert!(empty().spend(60_000 * 4, rate, Spender::Schedule).is_ok());
        assert!(empty().spend(60_000 * 4 / 3, rate, Spender::Request).is_ok());
    }

    proptest! {
        #[test]
        fn any_number_of_instances_with_clocks_of_their_own_get_no_more_than_one_would(
            per_minute in 1u32..100_000,
            asked in prop::collection::vec((0i64..5_000, -30_000i64..30_000, a_spender()), 1..300),
        ) {
            let rate = Rate::per_minute(per_minute);
            let start = 1_000_000i64;
            let (mut bucket, mut now, mut given, mut latest) = (Bucket { at_ms: start, ..empty() }, start, 0i64, start);
            for (passed, skew, spender) in asked {
                now += passed;
                latest = latest.max(now + skew);
                if let Ok(left) = bucket.spend(now + skew, rate, spender) {
                    bucket = left;
                    given += i64::from(spender != Spender::Callback);
                }
            }
            prop_assert!(given * PROBE <= bound(rate, latest - start));
        }

        #[test]
        fn whatever_callbacks_take_the_schedule_keeps_a_quarter(per_minute in 4u32..2_000, callbacks in 0usize..20, seconds in 1i64..120) {
            let (rate, mut bucket, mut given) = (Rate::per_minute(per_minute), empty(), 0i64);
            for now in (0..seconds * 1_000).step_by(100) {
                for _ in 0..callbacks {
                    bucket = bucket.spend(now, rate, Spender::Callback).unwrap();
                }
                while let Ok(left) = bucket.spend(now, rate, Spender::Schedule) {
                    (bucket, given) = (left, given + 1);
                }
            }
            prop_assert!(given + 1 >= rate.reserved() * (seconds * 1_000 - 100) / PROBE, "{given}");
        }

        #[test]
        fn who_waits_as_long_as_told_gets_a_token_and_not_before(per_minute in 1u32..100_000, taken in 0usize..500, by_request in any::<bool>()) {
            let rate = Rate::per_minute(per_minute);
            let spender = if by_request { Spender::Request } else { Spender::Schedule };
            let mut bucket = empty();
            for _ in 0..taken {
                bucket = bucket.spend(0, rate, Spender::Callback).unwrap();
            }
            let wait = bucket.spend(0, rate, spender).unwrap_err().retry_after.as_millis() as i64;
            prop_assert!(bucket.spend(wait, rate, spender).is_ok());
            prop_assert!(bucket.spend(wait - 1, rate, spender).is_err());
        }

        #[test]
        fn debt_is_bounded(per_minute in 1u32..100_000, taken in 0usize..2_000) {
            let rate = Rate::per_minute(per_minute);
            let mut bucket = empty();
            for _ in 0..taken {
                bucket = bucket.spend(0, rate, Spender::Callback).unwrap();
            }
            let wait = bucket.spend(0, rate, Spender::Request).unwrap_err().retry_after.as_millis() as i64;
            // What the debt may be, and the probe itself.
            prop_assert!(wait <= 2 * Rate::most(rate.shared()) / rate.shared() + 1, "{wait}");
        }
    }
}
