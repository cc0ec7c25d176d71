//! Exact amounts: money, unit prices and quantities as decimals with 18 digits after the point.
//!
//! Lives here: the one number type of the pipeline, and the one way in from text and from a source's floating-point column. Must not live here:
//! currencies, rounding for display, knowledge of any source.
//!
//! AWS computes bills in decimals and then writes some of them as doubles. The decimal that was meant is the shortest one that reads back as
//! the same double ("0.1", not 0.1000000000000000055...), so that text is what is taken. Binary arithmetic on money never happens: sums are
//! integer sums.

use std::fmt;
use std::fmt::Write as _;

/// Digits after the point that are kept. The exports carry at most 10; unit prices in newer ones up to 18.
pub const SCALE: u32 = 18;
/// Digits in all: what a Delta Lake `decimal` holds, so amounts stay below 10^20.
pub const PRECISION: u8 = 38;
/// `SCALE` as the type that Arrow uses.
pub const ARROW_SCALE: i8 = 18;

const LIMIT: i128 = 10_i128.pow(PRECISION as u32);

/// An exact decimal: `units` times 10^-18, with |value| < 10^20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// Why a number is refused. The text is never quoted: it comes from a file that nobody vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a finite decimal number in plain or exponent notation.
    #[error("it is not a decimal number")]
    NotANumber,
    /// 10^20 or more.
    #[error("it has more than 20 digits before the point")]
    TooLarge,
}

/// A number read in, and whether digits beyond the 18th had to be rounded away (half to even).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The amount.
    pub amount: Amount,
    /// True if the source had more than 18 digits after the point.
    pub rounded: bool,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The decimal that is meant by a double: its shortest text that reads back as the same double.
    ///
    /// # Errors
    /// Infinities, NaN, and values of 10^20 or more.
    pub fn from_double(value: f64) -> Result<Read, AmountError> {
        if let Some(units) = short_decimal(value) {
            return Ok(Read { amount: Self(units), rounded: false });
        }
        let mut text = Text::default();
        // Infinities and NaN print as words, which parse refuses.
        write!(text, "{value:e}").map_err(|_| AmountError::NotANumber)?;
        Self::parse(text.as_str())
    }

    /// Reads `-12.5`, `+.5`, `1.25E-7`. No blanks, no separators.
    ///
    /// # Errors
    /// Anything else, and values of 10^20 or more.
    pub fn parse(text: &str) -> Result<Read, AmountError> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (digits, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => {
                let (digits, exponent) = rest.split_at(at);
                (digits, parse_exponent(exponent.get(1..).unwrap_or_default())?)
            }
            None => (rest, 0),
        };
        let (mantissa, fraction_digits) = parse_digits(digits)?;
        let (magnitude, rounded) = rescale(mantissa, i64::from(exponent) - fraction_digits + i64::from(SCALE))?;
        Ok(Read { amount: Self(if negative { -magnitude } else { magnitude }), rounded })
    }

    /// From an integer count of 10^-18.
    ///
    /// # Errors
    /// 10^38 units or more.
    pub fn from_units(units: i128) -> Result<Self, AmountError> {
        if units.abs() < LIMIT { Ok(Self(units)) } else { Err(AmountError::TooLarge) }
    }

    /// The integer count of 10^-18: what an Arrow `Decimal128(38, 18)` holds.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// The sum, if it is below 10^20.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|units| Self::from_units(units).ok())
    }

    /// The difference, if it is below 10^20.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(Self(-other.0))
    }

    /// The product, rounded half to even at the 18th digit, if it is below 10^20 and no factor has too many digits to be multiplied exactly.
    #[must_use]
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let ((a, a_scale), (b, b_scale)) = (self.trimmed(), other.trimmed());
        let product = a.checked_mul(b)?;
        let shift = i64::from(SCALE) - i64::from(a_scale) - i64::from(b_scale);
        let (magnitude, _) = rescale(product.abs(), shift).ok()?;
        Self::from_units(if product < 0 { -magnitude } else { magnitude }).ok()
    }

    /// The quotient to 18 digits, the rest cut off; `None` for a divisor of zero, and from 10^20 on.
    #[must_use]
    pub fn checked_div(self, other: Self) -> Option<Self> {
        let (dividend, divisor) = (self.0.unsigned_abs(), other.0.unsigned_abs());
        let (mut quotient, mut rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
        for _ in 0..SCALE {
            let next = rest.checked_mul(10)?;
            quotient = quotient.checked_mul(10)?.checked_add(next / divisor)?;
            rest = next % divisor;
        }
        let quotient = i128::try_from(quotient).ok()?;
        Self::from_units(if (self.0 < 0) == (other.0 < 0) { quotient } else { -quotient }).ok()
    }

    /// Without trailing zeros: (digits, how many of them stand behind the point).
    fn trimmed(self) -> (i128, u32) {
        let (mut units, mut scale) = (self.0, SCALE);
        while scale > 0 && units % 10 == 0 {
            units /= 10;
            scale -= 1;
        }
        (units, scale)
    }

    /// The same number for the wire. `None` if it needs more than 28 digits, which `rust_decimal` cannot hold.
    #[must_use]
    pub fn to_decimal(self) -> Option<rust_decimal::Decimal> {
        let (units, scale) = self.trimmed();
        rust_decimal::Decimal::try_from_i128_with_scale(units, scale).ok()
    }
}

impl fmt::Display for Amount {
    /// Plain notation without trailing zeros: `-12.5`, `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10_u128.pow(SCALE);
        let (whole, fraction) = (self.0.unsigned_abs() / one, self.0.unsigned_abs() % one);
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{fraction:018}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// The units of a double that is a decimal of at most 15 digits; `None` if it is not, or not surely.
///
/// Decimals of at most 15 digits are told apart by their doubles, so one that reads back as the double is its shortest text. That it reads back is an exact
/// question: both the digits (below 2^53) and the power of ten (up to 10^22) are doubles themselves, and IEEE division rounds correctly, as reading does.
fn short_decimal(value: f64) -> Option<i128> {
    const POWERS: [f64; 19] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
    if value == 0.0 {
        return Some(0);
    }
    for scale in [10_usize, 15, 18] {
        let power = POWERS.get(scale)?;
        let digits = (value * power).round();
        if digits.abs() < 1e15 && digits / power == value {
            return (digits as i128).checked_mul(10_i128.checked_pow(SCALE.checked_sub(scale as u32)?)?);
        }
    }
    None
}

/// Digits with at most one point, and how many of them stand behind it.
fn parse_digits(text: &[u8]) -> Result<(i128, i64), AmountError> {
    let (mut mantissa, mut fraction, mut any, mut point) = (0_i128, 0_i64, false, false);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                any = true;
                let digit = i128::from(byte - b'0');
                match mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)) {
                    Some(longer) => (mantissa, fraction) = (longer, fraction + i64::from(point)),
                    // More than 38 digits: what stands that far behind the point is rounded away in any case.
                    None if point => {}
                    None => return Err(AmountError::TooLarge),
                }
            }
            b'.' if !point => point = true,
            _ => return Err(AmountError::NotANumber),
        }
    }
    if any { Ok((mantissa, fraction)) } else { Err(AmountError::NotANumber) }
}

fn parse_exponent(text: &[u8]) -> Result<i32, AmountError> {
    let text = std::str::from_utf8(text).map_err(|_| AmountError::NotANumber)?;
    // Bounded, so that the sums above cannot overflow; no double has a larger one.
    text.parse().ok().filter(|exponent: &i32| exponent.abs() <= 1000).ok_or(AmountError::NotANumber)
}

/// `mantissa` times 10^`shift`, as an integer, rounded half to even.
fn rescale(mantissa: i128, shift: i64) -> Result<(i128, bool), AmountError> {
    if mantissa == 0 {
        return Ok((0, false));
    }
    let power = |digits: i64| u32::try_from(digits).ok().and_then(|digits| 10_i128.checked_pow(digits));
    let (units, rounded) = if shift >= 0 {
        (power(shift).and_then(|factor| mantissa.checked_mul(factor)).ok_or(AmountError::TooLarge)?, false)
    } else {
        match power(-shift) {
            None => (0, true), // below 10^-38 of a unit
            Some(divisor) => {
                let (quotient, rest) = (mantissa / divisor, mantissa % divisor);
                let up = match (rest * 2).cmp(&divisor) {
                    std::cmp::Ordering::Greater => true,
                    std::cmp::Ordering::Equal => quotient % 2 != 0,
                    std::cmp::Ordering::Less => false,
                };
                (quotient + i128::from(up), rest != 0)
            }
        }
    };
    if units < LIMIT { Ok((units, rounded)) } else { Err(AmountError::TooLarge) }
}

/// A short text on the stack: a bill has millions of numbers, and none of them is worth an allocation.
#[derive(Default)]
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len + s.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::Decimal;
    use std::str::FromStr;

    fn amount(text: &str) -> Amount {
        let read = Amount::parse(text).unwrap();
        assert!(!read.rounded, "{text} was rounded");
        read.amount
    }

    #[test]
    fn a_double_is_the_decimal_that_was_meant() {
        assert_eq!(Amount::from_double(0.1).unwrap().amount.to_string(), "0.1");
        assert_eq!(Amount::from_double(0.0011111111).unwrap().amount.to_string(), "0.0011111111");
        assert_eq!(Amount::from_double(-5e-10).unwrap().amount.to_string(), "-0.0000000005");
        assert_eq!(Amount::from_double(18_406_679.5).unwrap().amount.to_string(), "18406679.5");
        assert_eq!(Amount::from_double(-0.0).unwrap().amount, Amount::ZERO);
        // Ten times a tenth is one, which doubles do not manage.
        let tenth = Amount::from_double(0.1).unwrap().amount;
        let sum = (0..10).try_fold(Amount::ZERO, |sum, _| sum.checked_add(tenth)).unwrap();
        assert_eq!(sum, amount("1"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "e5", "1e", "1 ", "1,5", "0x1", "--1", "1.2.3", "NaN", "inf", "1e99999", "\u{663}"] {
            assert_eq!(Amount::parse(text), Err(AmountError::NotANumber), "{text}");
        }
        assert_eq!(Amount::from_double(f64::NAN), Err(AmountError::NotANumber));
        assert_eq!(Amount::from_double(f64::INFINITY), Err(AmountError::NotANumber));
        assert_eq!(Amount::parse("100000000000000000000"), Err(AmountError::TooLarge));
        assert_eq!(Amount::from_double(f64::MAX), Err(AmountError::TooLarge));
    }

    #[test]
    fn digits_beyond_the_eighteenth_round_half_to_even_and_say_so() {
        let read = |text| {
            let read = Amount::parse(text).unwrap();
            (read.amount.units(), read.rounded)
        };
        assert_eq!(read("0.0000000000000000005"), (0, true));
        assert_eq!(read("0.0000000000000000015"), (2, true));
        assert_eq!(read("0.0000000000000000025"), (2, true));
        assert_eq!(read("-0.0000000000000000016"), (-2, true));
        assert_eq!(read("1e-300"), (0, true));
        assert_eq!(read("0.0000000000000000010"), (1, false));
    }

    proptest! {
        #[test]
        fn plain_text_round_trips(units in -(LIMIT - 1)..LIMIT) {
            let before = Amount::from_units(units).unwrap();
            prop_assert_eq!(amount(&before.to_string()), before);
        }

        /// Every double whose shortest text fits keeps its value: reading the amount's text gives the same double.
        #[test]
        fn a_double_survives(value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
            match Amount::from_double(value) {
                Ok(Read { amount, rounded: false }) => prop_assert_eq!(amount.to_string().parse::<f64>().unwrap(), value),
                Ok(Read { amount, rounded: true }) => prop_assert!((amount.to_string().parse::<f64>().unwrap() - value).abs() <= 1e-18 * 1.01),
                Err(error) => { prop_assert_eq!(error, AmountError::TooLarge); prop_assert!(value.abs() >= 1e20); }
            }
        }

        /// Bills have at most 10 digits after the point: what was written as such a decimal comes back as it, through a double.
        #[test]
        fn a_billed_decimal_survives_its_double(cents in -99_999_999_999_999_i64..=99_999_999_999_999) {
            let decimal = Decimal::new(cents, 10);
            let double: f64 = decimal.to_string().parse().unwrap();
            let read = Amount::from_double(double).unwrap();
            prop_assert!(!read.rounded);
            prop_assert_eq!(read.amount.to_decimal().unwrap(), decimal);
        }

        #[test]
        fn sums_agree_with_an_independent_decimal(values in proptest::collection::vec(-10_i64.pow(14)..10_i64.pow(14), 0..50)) {
            let ours = values.iter().try_fold(Amount::ZERO, |sum, v| sum.checked_add(amount(&Decimal::new(*v, 10).to_string()))).unwrap();
            let theirs: Decimal = values.iter().map(|v| Decimal::new(*v, 10)).sum();
            prop_assert_eq!(ours.to_decimal().unwrap(), theirs);
            prop_assert_eq!(Decimal::from_str(&ours.to_string()).unwrap(), theirs);
        }

        /// The short way and the long way are one.
        #[test]
        fn doubles_are_read_alike_by_both_ways(digits in -10_i64.pow(16)..10_i64.pow(16), scale in 0_u32..22) {
            let double: f64 = format!("{digits}e-{scale}").parse().unwrap();
            if let Some(units) = short_decimal(double) {
                let long = Amount::parse(&format!("{double:e}")).unwrap();
                prop_assert_eq!(long, Read { amount: Amount(units), rounded: false });
            }
        }

        #[test]
        fn products_and_quotients_agree_with_an_independent_decimal(a in -10_i64.pow(9)..10_i64.pow(9), b in 1_i64..10_i64.pow(9)) {
            let (x, y) = (Decimal::new(a, 5), Decimal::new(b, 4));
            let (ours, theirs) = (amount(&x.to_string()), amount(&y.to_string()));
            prop_assert_eq!(ours.checked_mul(theirs).unwrap().to_decimal().unwrap(), (x * y).normalize());
            let quotient = ours.checked_div(theirs).unwrap();
            let back = quotient.checked_mul(theirs).unwrap_or(Amount::ZERO);
            prop_assert!(quotient.checked_mul(theirs).is_none() || back.checked_sub(ours).unwrap().units().abs() <= 100_000);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = Amount::parse(&text);
        }
    }
}
