//! What expressions compute of values: sums and products of decimals, instants moved, and instants in the forms that exports write them in.

use super::SourceError;
use super::expression::{Move, Op};
use super::value::{Many, Nullable as _};
use crate::money::Amount;
use time::{Date, Month, OffsetDateTime};

/// Row by row; none where either is none, and where something is divided by zero.
///
/// # Errors
/// When a result has too many digits.
pub(super) fn math(op: Op, a: &Many<i128>, b: &Many<i128>) -> Result<Many<i128>, SourceError> {
    let failed = std::cell::Cell::new(false);
    let result = a.zip(b, |a, b| {
        if a == i128::NONE || b == i128::NONE || (op == Op::Div && b == 0) {
            return i128::NONE;
        }
        let (Ok(a), Ok(b)) = (Amount::from_units(a), Amount::from_units(b)) else { return i128::NONE };
        let result = match op {
            Op::Add => a.checked_add(b),
            Op::Sub => a.checked_sub(b),
            Op::Mul => a.checked_mul(b),
            Op::Div => a.checked_div(b),
        };
        result.map(Amount::units).unwrap_or_else(|| {
            failed.set(true);
            i128::NONE
        })
    });
    if failed.get() { Err(SourceError::TooLarge) } else { Ok(result) }
}

const SECOND: i64 = 1_000_000;

/// Some exports write a closed end (`23:59:59`) where FOCUS asks for an open one.
pub(super) fn moved(how: Move, at: i64) -> i64 {
    if at == i64::NONE {
        return at;
    }
    match how {
        Move::OpenEnd if at.rem_euclid(60 * SECOND) == 59 * SECOND => at.saturating_add(SECOND),
        Move::OpenEnd => at,
        Move::MonthStart => month(at, false).unwrap_or(i64::NONE),
        Move::MonthEnd => month(at, true).unwrap_or(i64::NONE),
    }
}

/// The first instant of the month, or of the next.
fn month(at: i64, next: bool) -> Option<i64> {
    let date = OffsetDateTime::from_unix_timestamp(at.div_euclid(SECOND)).ok()?.date();
    let (year, month) = match (next, date.month()) {
        (true, Month::December) => (date.year() + 1, Month::January),
        (true, month) => (date.year(), month.next()),
        (false, month) => (date.year(), month),
    };
    Some(Date::from_calendar_date(year, month, 1).ok()?.midnight().assume_utc().unix_timestamp() * SECOND)
}

/// A text of digits alone as an instant, in microseconds.
pub(super) fn epoch(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok().and_then(since_1970)).flatten()
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, in microseconds: for the years that bills are of (1973 to 5138), the digits tell which.
pub(super) fn since_1970(number: i64) -> Option<i64> {
    match number {
        100_000_000..100_000_000_000 => Some(number * 1_000_000),
        100_000_000_000..100_000_000_000_000 => Some(number * 1_000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        100_000_000_000_000_000.. => Some(number / 1_000),
        _ => None,
    }
}

/// Some exports write no seconds (`2024-09-01T00:00Z`), or `UTC` for the zone.
pub(super) fn full_time(text: &str) -> String {
    let text = text.trim();
    let (text, zone) = text.strip_suffix("UTC").map_or((text, ""), |rest| (rest.trim_end(), "Z"));
    let (head, rest) = text.split_at_checked(16).unwrap_or((text, ""));
    let no_seconds = head.len() == 16 && head.as_bytes().get(13) == Some(&b':') && !rest.starts_with(':');
    let seconds = if no_seconds { ":00" } else { "" };
    format!("{head}{seconds}{rest}{zone}")
}
