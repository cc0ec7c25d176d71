//! Adding up: rows go into groups by the numbers of their keys, and only a group that is new looks at texts.

use super::QueryError;
use super::rows::Rows;
use super::words::{Codes, Words};
use crate::table::TableError;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Combinations of keys that are looked up in a table rather than by hash.
const DENSE: usize = 1 << 20;
/// Bytes of distinct texts that one answer may hold: names come from customers' files.
const MAX_TEXT: usize = 64 << 20;
const NOWHERE: u32 = u32::MAX;

/// What one group adds up to: costs in units of 10^-18, and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) costs: [i128; 4],
    pub(super) rows: u64,
}

impl Sum {
    pub(super) fn add(&mut self, other: &Self) -> Result<(), TableError> {
        for (sum, more) in self.costs.iter_mut().zip(other.costs) {
            *sum = sum.checked_add(more).ok_or(TableError::TooLarge)?;
        }
        self.rows += other.rows;
        Ok(())
    }
}

/// Distinct texts and their numbers; no value is one of them.
#[derive(Debug, Default)]
struct Names {
    places: HashMap<Option<Arc<str>>, u32, ahash::RandomState>,
    texts: Vec<Option<Arc<str>>>,
    bytes: usize,
}

impl Names {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let text: Option<Arc<str>> = text.map(Arc::from);
        if let Some(known) = self.places.get(&text) {
            return *known;
        }
        let number = self.texts.len() as u32;
        self.bytes += text.as_ref().map_or(0, |text| text.len()) + 64;
        self.texts.push(text.clone());
        self.places.insert(text, number);
        number
    }
}

/// The groups so far.
#[derive(Debug)]
pub(super) struct Groups {
    names: Names,
    places: HashMap<Box<[u32]>, u32, ahash::RandomState>,
    keys: Vec<Box<[u32]>>,
    costs: [Vec<i128>; 4],
    rows: Vec<u64>,
    largest: usize,
}

impl Groups {
    /// At most `largest` groups.
    pub(super) fn new(largest: usize) -> Self {
        Self {
            names: Names::default(),
            places: HashMap::default(),
            keys: Vec::new(),
            costs: [const { Vec::new() }; 4],
            rows: Vec::new(),
            largest,
        }
    }

    /// Adds rows, those that `keep` says or all, by their `keys`.
    ///
    /// # Errors
    /// Too many groups, or a sum of too many digits.
    pub(super) fn add(&mut self, keys: &[&Words], rows: &Rows, keep: Option<&[bool]>) -> Result<(), QueryError> {
        let (codes, count) = combined(keys, rows.count);
        let Some(codes) = codes else { return self.add_same(keys, rows, keep) };
        let mut slots = vec![NOWHERE; count];
        let mut groups = Vec::with_capacity(rows.count);
        for (row, code) in codes.iter().enumerate() {
            if keep.is_some_and(|keep| keep.get(row) != Some(&true)) {
                groups.push(NOWHERE);
                continue;
            }
            let slot = slots.get_mut(*code as usize).ok_or(TableError::BadRow("a known key"))?;
            if *slot == NOWHERE {
                *slot = self.group_of(keys, row)?;
            }
            groups.push(*slot);
        }
        self.sum(&groups, rows)
    }

    /// All rows have the same keys: as above, without the look-ups.
    fn add_same(&mut self, keys: &[&Words], rows: &Rows, keep: Option<&[bool]>) -> Result<(), QueryError> {
        let any = keep.map_or(rows.count > 0, |keep| keep.iter().any(|keep| *keep));
        if !any {
            return Ok(());
        }
        let group = self.group_of(keys, 0)?;
        let groups: Vec<u32> = match keep {
            None => vec![group; rows.count],
            Some(keep) => keep.iter().map(|keep| if *keep { group } else { NOWHERE }).collect(),
        };
        self.sum(&groups, rows)
    }

    fn sum(&mut self, groups: &[u32], rows: &Rows) -> Result<(), QueryError> {
        for (sums, costs) in self.costs.iter_mut().zip(&rows.costs) {
            for (group, cost) in groups.iter().zip(costs.values()) {
                // No group has the number NOWHERE.
                if let Some(sum) = sums.get_mut(*group as usize) {
                    *sum = sum.checked_add(*cost).ok_or(TableError::TooLarge)?;
                }
            }
        }
        for (at, group) in groups.iter().enumerate() {
            if let Some(count) = self.rows.get_mut(*group as usize) {
                *count += rows.weights.as_ref().map_or(1, |weights| weights.value(at).unsigned_abs());
            }
        }
        Ok(())
    }

    fn group_of(&mut self, keys: &[&Words], row: usize) -> Result<u32, QueryError> {
        let key = keys.iter().map(|words| self.names.number(words.text(words.code(row)))).collect();
        self.group(key)
    }

    fn group(&mut self, key: Box<[u32]>) -> Result<u32, QueryError> {
        if let Some(known) = self.places.get(&key) {
            return Ok(*known);
        }
        if self.keys.len() >= self.largest || self.names.bytes > MAX_TEXT {
            return Err(QueryError::TooManyGroups(self.largest));
        }
        let group = self.keys.len() as u32;
        self.keys.push(key.clone());
        self.places.insert(key, group);
        self.costs.iter_mut().for_each(|sums| sums.push(0));
        self.rows.push(0);
        Ok(group)
    }

    /// Puts the groups of another part of the rows to these.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn merge(&mut self, other: Self) -> Result<(), QueryError> {
        for (key, sum) in other.into_sums() {
            let key = key.iter().map(|text| self.names.number(text.as_deref())).collect();
            let group = self.group(key)? as usize;
            for (sums, more) in self.costs.iter_mut().zip(sum.costs) {
                if let Some(of) = sums.get_mut(group) {
                    *of = of.checked_add(more).ok_or(TableError::TooLarge)?;
                }
            }
            if let Some(count) = self.rows.get_mut(group) {
                *count += sum.rows;
            }
        }
        Ok(())
    }

    /// Each group's texts and sum, in no order.
    pub(super) fn into_sums(self) -> impl Iterator<Item = (Vec<Option<Arc<str>>>, Sum)> {
        let Self { names, keys, costs, rows, .. } = self;
        keys.into_iter().enumerate().map(move |(group, key)| {
            let texts = key.iter().map(|number| names.texts.get(*number as usize).cloned().flatten()).collect();
            let of = |at: usize| costs.get(at).and_then(|sums| sums.get(group)).copied().unwrap_or(0);
            let sum = Sum { costs: [of(0), of(1), of(2), of(3)], rows: rows.get(group).copied().unwrap_or(0) };
            (texts, sum)
        })
    }
}

/// One number for each row's combination of keys, and how many there may be; none when all rows have the same keys.
fn combined<'a>(keys: &[&'a Words], rows: usize) -> (Option<Cow<'a, [u32]>>, usize) {
    let mut so_far: Option<(Cow<'a, [u32]>, usize)> = None;
    for words in keys {
        let Codes::Each(next) = &words.codes else { continue };
        so_far = Some(match so_far {
            None => (Cow::Borrowed(next), words.count()),
            Some((codes, count)) => {
                let width = words.count();
                let both = codes.iter().zip(next).map(|(a, b)| u64::from(*a) * width as u64 + u64::from(*b));
                match count.checked_mul(width).filter(|count| *count <= DENSE) {
                    Some(count) => (Cow::Owned(both.map(|code| code as u32).collect()), count),
                    None => {
                        let (codes, count) = renumbered(both, rows);
                        (Cow::Owned(codes), count)
                    }
                }
            }
        });
    }
    match so_far {
        None => (None, 1),
        // One column of very many words, few of which these rows may have.
        Some((codes, count)) if count > DENSE.max(rows * 4) => {
            let (codes, count) = renumbered(codes.iter().map(|code| u64::from(*code)), rows);
            (Some(Cow::Owned(codes)), count)
        }
        Some((codes, count)) => (Some(codes), count),
    }
}

/// Numbers counted anew from zero, in the order in which they come.
fn renumbered(codes: impl Iterator<Item = u64>, rows: usize) -> (Vec<u32>, usize) {
    let mut places: HashMap<u64, u32, ahash::RandomState> = HashMap::default();
    let mut fresh = Vec::with_capacity(rows);
    for code in codes {
        let next = places.len() as u32;
        fresh.push(*places.entry(code).or_insert(next));
    }
    (fresh, places.len())
}
