//! Columns in memory: distinct texts and their numbers, and numbers that are kept once while they are the same.

use crate::source::{Many, Nullable};
use ahash::RandomState;
use hashbrown::HashTable;
use std::sync::Arc;

/// Distinct texts and their numbers.
#[derive(Default)]
pub(super) struct Dictionary {
    places: HashTable<u32>,
    state: RandomState,
    texts: Vec<u8>,
    ends: Vec<usize>,
}

impl Dictionary {
    fn text<'a>(texts: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
        let at = number as usize;
        let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        let end = ends.get(at).copied().unwrap_or(start);
        texts.get(start..end).unwrap_or_default()
    }

    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        let same = |known: &u32| Self::text(&self.texts, &self.ends, *known) == text;
        self.places.find(self.state.hash_one(text), same).copied()
    }

    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        let hash = self.state.hash_one(text);
        let (texts, ends) = (&self.texts, &self.ends);
        if let Some(known) = self.places.find(hash, |known| Self::text(texts, ends, *known) == text) {
            return *known;
        }
        let number = self.ends.len() as u32;
        self.texts.extend_from_slice(text);
        self.ends.push(self.texts.len());
        let (texts, ends, state) = (&self.texts, &self.ends, &self.state);
        self.places.insert_unique(hash, number, |known| state.hash_one(Self::text(texts, ends, *known)));
        number
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        Self::text(&self.texts, &self.ends, number)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() * 8 + self.places.capacity() * 5
    }

    /// The first texts of it.
    pub(super) fn first(&self, count: usize) -> Self {
        let mut first = Self::default();
        for number in 0..count as u32 {
            first.number(self.get(number));
        }
        first
    }
}

/// Texts of a run: those that all runs of a slice share, and behind them its own.
#[derive(Default)]
pub(super) struct Words {
    shared: Arc<Dictionary>,
    own: Dictionary,
    /// How many of its own were there when its rows began, and their bytes.
    before: (usize, usize),
    /// Its own do not outlive its rows: they are too large for that.
    pub(super) passing: bool,
}

impl Words {
    /// Its own do not outlive its rows.
    pub(super) fn sharing(shared: &Arc<Dictionary>) -> Self {
        Self { shared: Arc::clone(shared), passing: true, ..Self::default() }
    }

    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        if self.shared.len() == 0 {
            return self.own.number(text);
        }
        self.shared.find(text).unwrap_or_else(|| self.shared.len() as u32 + self.own.number(text))
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        match number.checked_sub(self.shared.len() as u32) {
            Some(own) => self.own.get(own),
            None => self.shared.get(number),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// Of its own.
    pub(super) fn bytes(&self) -> usize {
        self.own.bytes()
    }

    /// What has come with its rows, in bytes.
    pub(super) fn grown(&self) -> usize {
        self.own.bytes().saturating_sub(self.before.1)
    }

    /// From now on they do not outlive their rows. Gives those that rows before have.
    pub(super) fn pass(&mut self) -> Dictionary {
        self.passing = true;
        self.own.first(self.before.0)
    }

    /// The rows are gone.
    pub(super) fn clear(&mut self) {
        if self.passing {
            self.own = Dictionary::default();
        }
        self.before = (self.own.len(), self.own.bytes());
    }

    pub(super) fn into_own(self) -> Dictionary {
        self.own
    }
}

/// A growing column of numbers.
pub(super) enum Numbers<T> {
    Same(T, usize),
    Each(Vec<T>),
}

impl<T: Nullable> Numbers<T> {
    pub(super) fn none() -> Self {
        Self::Same(T::NONE, 0)
    }

    pub(super) fn push(&mut self, rows: usize, more: &Many<T>) {
        match more {
            Many::One(next) => self.push_same(rows, *next),
            Many::Each(next) => self.extend(next.iter().copied()),
        }
    }

    /// The same value, that many times.
    pub(super) fn push_same(&mut self, rows: usize, next: T) {
        if let Self::Same(value, count) = self
            && (*value == next || *count == 0)
        {
            *value = next;
            *count += rows;
            return;
        }
        self.extend(std::iter::repeat_n(next, rows));
    }

    /// One for each row.
    pub(super) fn extend(&mut self, more: impl Iterator<Item = T>) {
        if let Self::Same(value, count) = *self {
            *self = Self::Each(vec![value; count]);
        }
        if let Self::Each(all) = self {
            all.extend(more);
        }
    }

    pub(super) fn at(&self, row: usize) -> T {
        match self {
            Self::Same(value, _) => *value,
            Self::Each(all) => all.get(row).copied().unwrap_or(T::NONE),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Same(..) => 0,
            Self::Each(all) => all.len() * size_of::<T>(),
        }
    }

    /// The rows are gone; their room stays.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Same(_, count) => *count = 0,
            Self::Each(all) => all.clear(),
        }
    }

    fn map<U>(&self, change: impl Fn(T) -> U) -> Numbers<U> {
        match self {
            Self::Same(value, count) => Numbers::Same(change(*value), *count),
            Self::Each(all) => Numbers::Each(all.iter().map(|value| change(*value)).collect()),
        }
    }
}

/// A growing column of amounts: in half the room while all of them are whole numbers of 10^-10, as bills have them.
pub(super) enum Amounts {
    /// Of 10^-10.
    Short(Numbers<i64>),
    /// Of 10^-18.
    Long(Numbers<i128>),
}

const SHORT_UNIT: i128 = 10_i128.pow(8);

impl Amounts {
    pub(super) fn push(&mut self, rows: usize, more: &Many<i128>) {
        if let Self::Short(numbers) = self {
            let short = match more {
                Many::One(units) => shortened(*units).map(Many::One),
                Many::Each(all) => all.iter().map(|units| shortened(*units)).collect::<Option<_>>().map(Many::each),
            };
            if let Some(short) = short {
                return numbers.push(rows, &short);
            }
        }
        self.extend_long(rows, more);
    }

    /// Of 10^-10.
    pub(super) fn extend_short(&mut self, more: impl Iterator<Item = i64>) {
        match self {
            Self::Short(numbers) => numbers.extend(more),
            Self::Long(numbers) => numbers.extend(more.map(lengthened)),
        }
    }

    /// Of 10^-18: all are so from now on.
    pub(super) fn extend_long(&mut self, rows: usize, more: &Many<i128>) {
        if let Self::Short(numbers) = self {
            *self = Self::Long(numbers.map(lengthened));
        }
        if let Self::Long(numbers) = self {
            numbers.push(rows, more);
        }
    }

    pub(super) fn at(&self, row: usize) -> i128 {
        match self {
            Self::Short(numbers) => lengthened(numbers.at(row)),
            Self::Long(numbers) => numbers.at(row),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Short(numbers) => numbers.bytes(),
            Self::Long(numbers) => numbers.bytes(),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Short(numbers) => numbers.clear(),
            Self::Long(numbers) => numbers.clear(),
        }
    }
}

/// What 5^8 must be multiplied by to be 1 modulo 2^128, found by Newton's method: each step doubles the bits that are right.
const FIFTHS: i128 = {
    let five = 5_i128.pow(8);
    let (mut inverse, mut step) = (five, 0);
    while step < 7 {
        inverse = inverse.wrapping_mul(2_i128.wrapping_sub(five.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
};

/// In units of 10^-10, if that is exact. A division of 128 bits takes ten times as long as this multiplication, which gives the same wherever nothing is left over.
fn shortened(units: i128) -> Option<i64> {
    if units == i128::NONE {
        return Some(i64::NONE);
    }
    let short = i64::try_from((units >> 8).wrapping_mul(FIFTHS)).ok()?;
    (short != i64::NONE && i128::from(short) * SHORT_UNIT == units).then_some(short)
}

/// In units of 10^-18.
pub(super) fn lengthened(short: i64) -> i128 {
    if short == i64::NONE { i128::NONE } else { i128::from(short) * SHORT_UNIT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_amount_is_short_if_nothing_is_lost(short in any::<i64>(), more in 1_i128..SHORT_UNIT) {
            prop_assert_eq!(shortened(lengthened(short)), Some(short));
            if short != i64::NONE {
                prop_assert_eq!(shortened(lengthened(short) + more), None);
            }
        }

        #[test]
        fn any_amount_is_what_it_was(all in proptest::collection::vec(prop_oneof![any::<i64>().prop_map(lengthened), any::<i128>()], 1..40)) {
            let mut amounts = Amounts::Short(Numbers::none());
            all.iter().for_each(|units| amounts.push(1, &Many::One(*units)));
            prop_assert_eq!((0..all.len()).map(|row| amounts.at(row)).collect::<Vec<_>>(), all);
        }
    }

    #[test]
    fn shared_texts_are_not_kept_twice() {
        let mut shared = Dictionary::default();
        shared.number(b"a");
        shared.number(b"b");
        let mut words = Words::sharing(&Arc::new(shared));
        assert_eq!([b"b", b"c", b"a", b"c"].map(|text| words.number(text)), [1, 2, 0, 2]);
        assert_eq!((words.get(1), words.get(2), words.len()), (&b"b"[..], &b"c"[..], 3));
    }
}
