//! When a connection is probed, and which is probed first.
//!
//! Time is cut into intervals, and each connection has its own instant in every interval, which follows from its (random) ID: its *slot*. A connection is due
//! at its next slot. So those that were verified in the same minute, or came due while nobody probed, are spread over the interval again by their next probe, and no two
//! probes are further apart than an interval, as long as the budget gives.
//!
//! While answers speak against the present state, and are too few to change it, the next probe comes soon. Nothing here reads a clock, a row or a message.

use std::time::Duration;

use contracts::ConnectionId;

/// Used within so long before is "in use".
pub const IN_USE: Duration = Duration::from_secs(24 * 3600);

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    pub interval: Duration,
    /// After an answer that speaks against the present state.
    pub again: Duration,
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)
}

impl Cadence {
    /// When the connection is due next, in milliseconds since 1970, as `now_ms` is.
    #[must_use]
    pub fn next(self, connection: ConnectionId, now_ms: i64, in_doubt: bool) -> i64 {
        let slot = slot(connection, now_ms, ms(self.interval));
        if in_doubt { slot.min(now_ms.saturating_add(ms(self.again))) } else { slot }
    }
}

/// The connection's first slot after `now_ms`.
fn slot(connection: ConnectionId, now_ms: i64, interval_ms: i64) -> i64 {
    // The last eight bytes of a UUIDv7 are random but for two bits.
    let (_, random) = connection.as_uuid().as_u64_pair();
    let phase = i64::try_from(random % u64::try_from(interval_ms).unwrap_or(1)).unwrap_or_default();
    let since = now_ms.saturating_sub(phase).rem_euclid(interval_ms);
    now_ms.saturating_add(interval_ms - since)
}

/// A connection that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub connection: ConnectionId,
    pub due_ms: i64,
    pub used_ms: Option<i64>,
}

impl Due {
    fn in_use(&self, now_ms: i64) -> bool {
        self.used_ms.is_some_and(|used| used >= in_use_since(now_ms))
    }
}

/// Used at or after this is in use.
#[must_use]
pub fn in_use_since(now_ms: i64) -> i64 {
    now_ms.saturating_sub(ms(IN_USE))
}

/// Puts those in use first, because only for them a loosened trust does harm today; within both, those that have been due longest.
pub fn order(due: &mut [Due], now_ms: i64) {
    due.sort_by_key(|one| (!one.in_use(now_ms), one.due_ms, one.connection));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn a_connection() -> impl Strategy<Value = ConnectionId> {
        // Version 7 with a time of its own; the rest is random.
        (0u64..1 << 40, any::<u64>()).prop_map(|(time, random)| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&((time << 16) | 0x7000).to_be_bytes());
            bytes[8..].copy_from_slice(&((random >> 2) | (1 << 63)).to_be_bytes());
            ConnectionId::from_uuid(uuid::Uuid::from_bytes(bytes))
        })
    }

    fn a_cadence() -> impl Strategy<Value = Cadence> {
        (1u64..100_000, 1u64..4_000).prop_map(|(interval, again)| Cadence {
            interval: Duration::from_secs(interval),
            again: Duration::from_secs(again),
        })
    }

    #[test]
    fn ten_thousand_verified_in_one_minute_come_due_evenly() {
        let cadence = Cadence { interval: HOUR, again: Duration::from_secs(60) };
        let start = 1_700_000_000_000;
        let mut minutes = [0u32; 61];
        for number in 0..10_000i64 {
            let due = cadence.next(ConnectionId::new(), start + number * 6, false);
            minutes[usize::try_from((due - start) / 60_000).unwrap()] += 1;
        }
        // 167 a minute in the mean; the first and the last are cut by the minute in which they were verified.
        let most = minutes.iter().max().unwrap();
        assert!(*most < 167 * 3 / 2, "{minutes:?}");
        assert!(minutes[1..60].iter().all(|count| *count > 167 / 2), "{minutes:?}");
    }

    proptest! {
        #[test]
        fn never_longer_than_an_interval_and_never_now(connection in a_connection(), now in 0i64..4_000_000_000_000, cadence in a_cadence(), in_doubt in any::<bool>()) {
            let next = cadence.next(connection, now, in_doubt);
            prop_assert!(next > now && next <= now + ms(cadence.interval));
            if in_doubt {
                prop_assert!(next <= now + ms(cadence.again));
            }
        }

        #[test]
        fn probed_in_its_slot_it_is_due_an_interval_later(connection in a_connection(), now in 0i64..4_000_000_000_000, cadence in a_cadence(), late in 0i64..1_000) {
            let first = cadence.next(connection, now, false);
            let second = cadence.next(connection, first + late.min(ms(cadence.interval) - 1), false);
            prop_assert_eq!(second - first, ms(cadence.interval));
        }

        #[test]
        fn the_slot_is_the_same_whenever_it_is_asked_for(connection in a_connection(), now in 0i64..4_000_000_000_000, cadence in a_cadence(), earlier in 0i64..100_000_000) {
            let interval = ms(cadence.interval);
            let (one, other) = (cadence.next(connection, now, false), cadence.next(connection, now + earlier, false));
            prop_assert_eq!(one.rem_euclid(interval), other.rem_euclid(interval));
        }

        #[test]
        fn those_in_use_come_first_then_the_longest_due(ones in prop::collection::vec((a_connection(), 0i64..1_000_000_000, prop::option::of(0i64..1_000_000_000)), 0..60), now in 0i64..1_000_000_000) {
            let mut due: Vec<_> = ones.iter().map(|&(connection, due_ms, used_ms)| Due { connection, due_ms, used_ms }).collect();
            order(&mut due, now);
            prop_assert_eq!(due.len(), ones.len());
            for pair in due.windows(2) {
                let (first, second) = (&pair[0], &pair[1]);
                prop_assert!(first.in_use(now) || !second.in_use(now));
                prop_assert!(first.in_use(now) != second.in_use(now) || first.due_ms <= second.due_ms);
            }
        }
    }
}
