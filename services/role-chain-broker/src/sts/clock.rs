//! AWS's clock beside this machine's.
//!
//! STS writes the end of a session by its own clock. On a machine whose clock is minutes behind, a session would look good for minutes after its end. Each
//! answer of STS says in its `Date` header what time it is there; the difference is told, and left out of the reckoning of what is left.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeDeserializationInterceptorContextRef},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{DateTime, config_bag::ConfigBag, date_time::Format};
use contracts::Timestamp;

use crate::metrics::Metrics;

/// Beyond this a person is told, in milliseconds. AWS refuses signatures of a clock that is five minutes off.
const WORTH_TELLING: i64 = 30_000;
/// Below this it is told that it is over.
const OVER: i64 = 20_000;
/// `Date` has whole seconds and the answer was under way: less than this is no skew.
const NOISE: i64 = 2_000;
/// The middle one of the last so many measurements counts: one answer that lay somewhere for long does not.
const MEASUREMENTS: usize = 5;

/// What time it is for AWS. Cheap to clone; all clones share it.
#[derive(Debug, Clone, Default)]
pub struct AwsClock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Milliseconds by which AWS's clock is ahead of ours.
    ahead: AtomicI64,
    told: AtomicBool,
    last: Mutex<VecDeque<i64>>,
}

impl AwsClock {
    /// Now, by AWS's clock as far as it is known.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (now, ahead) = (Timestamp::now(), self.ahead());
        if ahead == 0 { now } else { Timestamp::from(now.inner().saturating_add(time::Duration::milliseconds(ahead))) }
    }

    /// How long it is until `end`, an instant by AWS's clock; zero when it has passed.
    #[must_use]
    pub fn left(&self, end: Timestamp) -> Duration {
        self.now().until(end)
    }

    /// An instant by this machine's clock, by AWS's; never an earlier one than it says: for what is denied before it, too much is safe.
    #[must_use]
    pub fn at_least(&self, here: Timestamp) -> Timestamp {
        here.plus(Duration::from_millis(u64::try_from(self.ahead()).unwrap_or(0)))
    }

    fn ahead(&self) -> i64 {
        self.0.ahead.load(Ordering::Relaxed)
    }

    /// It was `there` by AWS's clock, cut to seconds, when it was `here` by ours. Gives the skew in milliseconds.
    fn saw(&self, there: Timestamp, here: Timestamp) -> i64 {
        let measured = (there.inner() - here.inner()).whole_milliseconds() + 500;
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == MEASUREMENTS {
            last.pop_front();
        }
        last.push_back(i64::try_from(measured).unwrap_or(i64::MAX));
        let mut sorted: Vec<i64> = last.iter().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let ahead = if middle.abs() < NOISE { 0 } else { middle };
        self.0.ahead.store(ahead, Ordering::Relaxed);
        ahead
    }

    /// Says so once when the clocks have parted, and once when they are together again.
    fn tell(&self, ahead: i64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a skew are far below 2^52")]
        let seconds = ahead as f64 / 1000.0;
        if ahead.abs() > WORTH_TELLING && !self.0.told.swap(true, Ordering::Relaxed) {
            let side = if ahead > 0 { "behind" } else { "ahead of" };
            tracing::warn!(
                seconds,
                "this machine's clock is {} s {side} AWS's: AWS refuses signatures from five minutes on; check that it is kept by NTP",
                ahead.abs() / 1000
            );
        } else if ahead.abs() < OVER && self.0.told.swap(false, Ordering::Relaxed) {
            tracing::info!(seconds, "this machine's clock agrees with AWS's again");
        }
    }

    #[cfg(test)]
    pub(crate) fn set_ahead(&self, by: Duration) {
        self.0.ahead.store(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// Reads the `Date` of every answer of STS, of refusals too: with a clock that is far off there is nothing else.
#[derive(Debug)]
pub(super) struct ReadDate {
    pub(super) clock: AwsClock,
    pub(super) metrics: Metrics,
}

impl Intercept for ReadDate {
    fn name(&self) -> &'static str {
        "ReadDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date =
            context.response().headers().get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        let there = date.and_then(|date| time::OffsetDateTime::from_unix_timestamp(date.secs()).ok());
        if let Some(there) = there {
            let ahead = self.clock.saw(Timestamp::from(there), Timestamp::now());
            self.metrics.clock_skew(ahead);
            self.clock.tell(ahead);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(clock: &AwsClock, ahead_s: i64) -> i64 {
        let here = Timestamp::now();
        // As the header has it: whole seconds.
        let there = here.inner() + time::Duration::seconds(ahead_s);
        let there = time::OffsetDateTime::from_unix_timestamp(there.unix_timestamp()).unwrap();
        clock.saw(Timestamp::from(there), here)
    }

    #[test]
    fn what_a_header_cannot_tell_is_no_skew() {
        let clock = AwsClock::default();
        for ahead in [0, 1, -1] {
            assert_eq!(seen(&clock, ahead), 0);
        }
        let here = Timestamp::now();
        assert_eq!(clock.at_least(here), here);
    }

    #[test]
    fn the_end_of_a_session_is_reckoned_by_awss_clock() {
        let clock = AwsClock::default();
        assert!((239_000..=241_000).contains(&seen(&clock, 240)));
        let end = Timestamp::now().plus(Duration::from_secs(600));
        let left = clock.left(end).as_secs();
        assert!((355..=361).contains(&left), "by this machine's clock it is ten minutes, in truth six: {left}");
        assert!(clock.at_least(end) > end);
    }

    #[test]
    fn one_answer_that_was_late_is_no_skew() {
        let clock = AwsClock::default();
        seen(&clock, 0);
        seen(&clock, 0);
        assert_eq!(seen(&clock, -300), 0);
        seen(&clock, -300);
        assert!(seen(&clock, -300) < -299_000, "most of them say so");
        assert!(clock.left(Timestamp::now()) > Duration::from_secs(290), "a clock that is ahead ends nothing early");
        let here = Timestamp::now();
        assert_eq!(clock.at_least(here), here);
    }

    #[test]
    fn it_is_told_once_and_again_when_it_is_over() {
        let clock = AwsClock::default();
        let told = |ahead: i64| {
            clock.tell(ahead);
            clock.0.told.load(Ordering::Relaxed)
        };
        assert!(!told(29_000) && told(31_000) && told(25_000) && !told(-5_000) && told(-240_000));
    }
}
