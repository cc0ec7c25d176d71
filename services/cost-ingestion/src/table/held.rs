//! Columns in memory: distinct texts and their numbers, and numbers that are kept once while they are the same.

use crate::source::{Many, Nullable};
use ahash::RandomState;
use hashbrown::HashTable;

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

    pub(super) fn number(&mut self, text: &str) -> u32 {
        let hash = self.state.hash_one(text.as_bytes());
        let (texts, ends) = (&self.texts, &self.ends);
        if let Some(known) = self.places.find(hash, |known| Self::text(texts, ends, *known) == text.as_bytes()) {
            return *known;
        }
        let number = self.ends.len() as u32;
        self.texts.extend_from_slice(text.as_bytes());
        self.ends.push(self.texts.len());
        let (texts, ends, state) = (&self.texts, &self.ends, &self.state);
        self.places.insert_unique(hash, number, |known| state.hash_one(Self::text(texts, ends, *known)));
        number
    }

    pub(super) fn get(&self, number: u32) -> &str {
        std::str::from_utf8(Self::text(&self.texts, &self.ends, number)).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() * 8 + self.places.capacity() * 5
    }
}

/// A growing column of numbers.
pub(super) enum Numbers<T> {
    Same(T, usize),
    Each(Vec<T>),
}

impl<T: Nullable> Numbers<T> {
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
}
