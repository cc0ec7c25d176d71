//! Rows of one slice in memory: gathered in columns, and put in the order of their charge periods.
//!
//! Text is kept as numbers into a dictionary, amounts and instants as numbers, and a column that has been the same so far as one value: a row takes some 250 bytes. A run is as
//! large as its bound allows; what is done with more rows says `sort`. Dictionaries outlive the rows: the next run of the same thread has most of its texts in common, and the
//! numbers of all runs mean the same then.

use super::held::{Amounts, Dictionary, Numbers, Words};
use super::piece::View;
use super::{Sums, TableError};
use crate::focus::{self, Kind};
use crate::money::Amount;
use crate::source::{Made, Many, Mapped, Nullable as _, Text, to_json};
use arrow_array::{Array as _, StringArray};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The one column whose values are nearly all different: its texts are kept as they are.
pub(super) const UNIQUE: &str = "x_LineItemId";

/// One column.
pub(super) enum Held {
    Text(Numbers<u32>, Words),
    Unique {
        texts: Vec<u8>,
        ends: Vec<u32>,
    },
    Amounts(Amounts),
    Instants(Numbers<i64>),
    /// Sets as JSON objects.
    Tags(Numbers<u32>, Words),
}

impl Held {
    fn new(column: &focus::Column, words: Words) -> Self {
        match column.kind {
            Kind::Text if column.name == UNIQUE => Self::Unique { texts: Vec::new(), ends: Vec::new() },
            Kind::Text => Self::Text(Numbers::none(), words),
            Kind::Amount => Self::Amounts(Amounts::Short(Numbers::none())),
            Kind::Instant => Self::Instants(Numbers::none()),
            Kind::Tags => Self::Tags(Numbers::none(), words),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Text(numbers, words) | Self::Tags(numbers, words) => {
                numbers.clear();
                words.clear();
            }
            Self::Unique { texts, ends } => {
                texts.clear();
                ends.clear();
            }
            Self::Amounts(amounts) => amounts.clear(),
            Self::Instants(numbers) => numbers.clear(),
        }
    }
}

/// See the module.
pub(super) struct Run {
    rows: usize,
    columns: Vec<Held>,
    /// Of each column the values that came last, and their numbers: batches of one row group share them.
    last: Vec<Option<(StringArray, Vec<u32>)>>,
}

impl Run {
    pub(super) fn new() -> Self {
        Self::made(focus::COLUMNS.iter().map(|column| Held::new(column, Words::default())).collect())
    }

    /// One whose texts have the numbers of `shared`, a dictionary for each column.
    pub(super) fn sharing(shared: &[Arc<Dictionary>]) -> Self {
        let columns = focus::COLUMNS.iter().zip(shared);
        Self::made(columns.map(|(column, shared)| Held::new(column, Words::sharing(shared))).collect())
    }

    fn made(columns: Vec<Held>) -> Self {
        let last = columns.iter().map(|_| None).collect();
        Self { rows: 0, columns, last }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// What its rows take of memory, roughly, and texts that have come with them.
    pub(super) fn bytes(&self) -> usize {
        let of = |held: &Held| match held {
            Held::Text(numbers, words) | Held::Tags(numbers, words) => numbers.bytes() + words.grown(),
            Held::Unique { texts, ends } => texts.len() + ends.len() * 4,
            Held::Amounts(amounts) => amounts.bytes(),
            Held::Instants(numbers) => numbers.bytes(),
        };
        self.columns.iter().map(of).sum()
    }

    /// The dictionary of each column that has one.
    pub(super) fn words(&mut self) -> impl Iterator<Item = (usize, &mut Words)> {
        self.columns.iter_mut().enumerate().filter_map(|(at, held)| match held {
            Held::Text(_, words) | Held::Tags(_, words) => Some((at, words)),
            _ => None,
        })
    }

    /// The rows are gone; room and dictionaries stay.
    pub(super) fn clear(&mut self) {
        self.rows = 0;
        self.columns.iter_mut().for_each(Held::clear);
        for (held, last) in self.columns.iter().zip(&mut self.last) {
            if matches!(held, Held::Text(_, words) if words.passing) {
                *last = None;
            }
        }
    }

    pub(super) fn push(&mut self, mapped: &Mapped) {
        for ((held, last), made) in self.columns.iter_mut().zip(&mut self.last).zip(&mapped.columns) {
            match (held, made) {
                (Held::Text(numbers, words), Made::Text(text)) => {
                    numbers.push(mapped.rows, &numbered(text, words, last));
                }
                (Held::Unique { texts, ends }, Made::Text(text)) => {
                    for row in 0..mapped.rows {
                        texts.extend_from_slice(text.at(row).unwrap_or_default().as_bytes());
                        ends.push(texts.len() as u32);
                    }
                }
                (Held::Amounts(amounts), Made::Amounts(more)) => amounts.push(mapped.rows, more),
                (Held::Instants(numbers), Made::Instants(more)) => numbers.push(mapped.rows, more),
                (Held::Tags(numbers, words), Made::Tags(maps)) => {
                    let mut places = vec![u32::NONE; maps.sets.len()];
                    for (place, set) in places.iter_mut().zip(maps.sets.iter()) {
                        *place = if set.is_empty() { u32::NONE } else { words.number(to_json(set).as_bytes()) };
                    }
                    let more = maps.keys.map(|key| places.get(key as usize).copied().unwrap_or(u32::NONE));
                    numbers.push(mapped.rows, &more);
                }
                _ => {}
            }
        }
        self.rows += mapped.rows;
    }

    /// In the order of [`focus::COLUMNS`].
    pub(super) fn columns(&self) -> &[Held] {
        &self.columns
    }

    /// Takes these rows of a piece. `meanings` are, for each column, what the numbers that outlive their runs are here; of an empty one they are what they were. `None` if the
    /// piece is not one of this table's.
    pub(super) fn push_piece(&mut self, views: &[View<'_>], rows: Range<usize>, meanings: &[Vec<u32>]) -> Option<()> {
        for ((held, view), meaning) in self.columns.iter_mut().zip(views).zip(meanings) {
            match held {
                Held::Text(numbers, words) | Held::Tags(numbers, words) => match view {
                    View::Nothing => numbers.push_same(rows.len(), u32::NONE),
                    View::Text(text) => numbers.push_same(rows.len(), words.number(text)),
                    // Zero stands for no text, and so becomes the number of none.
                    View::Numbers(keys) if meaning.is_empty() => {
                        keys.each(rows.clone(), |key| key.wrapping_sub(1), numbers)?;
                    }
                    View::Numbers(keys) => {
                        let meant = |key: u32| meaning.get(key.wrapping_sub(1) as usize).copied();
                        keys.each(rows.clone(), |key| meant(key).unwrap_or(u32::NONE), numbers)?;
                    }
                    View::Texts { keys, texts } => {
                        let mut places = vec![u32::NONE; texts.len() + 1];
                        for (at, place) in places.iter_mut().skip(1).enumerate() {
                            *place = words.number(texts.at(at)?);
                        }
                        keys.each(rows.clone(), |key| places.get(key as usize).copied().unwrap_or(u32::NONE), numbers)?;
                    }
                    _ => return None,
                },
                Held::Unique { texts, ends } => {
                    let View::Unique(view) = view else { return None };
                    for row in rows.clone() {
                        texts.extend_from_slice(view.at(row)?);
                        ends.push(texts.len() as u32);
                    }
                }
                Held::Amounts(amounts) => match view {
                    View::Nothing => amounts.push(rows.len(), &Many::One(i128::NONE)),
                    View::Amount(units) => amounts.push(rows.len(), &Many::One(*units)),
                    View::Shorts(all) => {
                        amounts.extend_short(all.get(rows.clone())?.iter().copied().map(i64::from_le_bytes));
                    }
                    View::Amounts(all) => {
                        let all = all.get(rows.clone())?.iter().copied().map(i128::from_le_bytes);
                        amounts.extend_long(rows.len(), &Many::each(all.collect()));
                    }
                    _ => return None,
                },
                Held::Instants(numbers) => match view {
                    View::Instant(at) => numbers.push_same(rows.len(), *at),
                    View::Instants(all) => {
                        numbers.extend(all.get(rows.clone())?.iter().copied().map(i64::from_le_bytes));
                    }
                    _ => return None,
                },
            }
        }
        self.rows += rows.len();
        Some(())
    }

    fn column(&self, name: &str) -> Option<&Held> {
        focus::COLUMNS.iter().position(|column| column.name == name).and_then(|at| self.columns.get(at))
    }

    /// The rows in the order in which they are written.
    pub(super) fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.rows as u32).collect();
        if let Some(Held::Instants(Numbers::Each(starts))) = self.column("ChargePeriodStart") {
            order.sort_by_key(|row| starts.get(*row as usize).copied());
        }
        order
    }

    /// The start of a row's charge period.
    pub(super) fn start(&self, row: u32) -> i64 {
        match self.column("ChargePeriodStart") {
            Some(Held::Instants(starts)) => starts.at(row as usize),
            _ => i64::NONE,
        }
    }

    /// Sums by currency.
    pub(super) fn totals(&self) -> Result<BTreeMap<String, Sums>, TableError> {
        let missing = TableError::BadRow;
        let Some(Held::Text(currencies, names)) = self.column("BillingCurrency") else {
            return Err(missing("BillingCurrency"));
        };
        let Some(Held::Amounts(billed)) = self.column("BilledCost") else { return Err(missing("BilledCost")) };
        let Some(Held::Amounts(effective)) = self.column("EffectiveCost") else {
            return Err(missing("EffectiveCost"));
        };
        let mut sums: BTreeMap<u32, Sums> = BTreeMap::new();
        for row in 0..self.rows {
            let currency = Some(currencies.at(row)).filter(|number| *number != u32::NONE);
            let of = sums.entry(currency.ok_or(missing("BillingCurrency"))?).or_default();
            let amount = |units| Amount::from_units(units).map_err(|_| TableError::TooLarge);
            of.add(amount(billed.at(row))?, amount(effective.at(row))?)?;
        }
        let named =
            sums.into_iter().map(|(number, sums)| (String::from_utf8_lossy(names.get(number)).into_owned(), sums));
        Ok(named.collect())
    }
}

/// Numbers in the run's dictionary; only values that rows have are looked up, and those of one array once.
fn numbered(text: &Text, words: &mut Words, last: &mut Option<(StringArray, Vec<u32>)>) -> Many<u32> {
    let known = |of: &StringArray| {
        let (of_now, nulls) = (&text.values, of.null_count() + text.values.null_count());
        nulls == 0 && of.values().ptr_eq(of_now.values()) && of.offsets().ptr_eq(of_now.offsets())
    };
    if !last.as_ref().is_some_and(|(of, _)| known(of)) {
        *last = Some((text.values.clone(), vec![u32::NONE; text.values.len()]));
    }
    let places = last.as_mut().map(|(_, places)| places.as_mut_slice()).unwrap_or_default();
    let mut place = |key: u32| match places.get_mut(key as usize) {
        None => u32::NONE,
        Some(place) => {
            if *place == u32::NONE {
                *place = text.value(key).map_or(u32::NONE, |text| words.number(text.as_bytes()));
            }
            *place
        }
    };
    match &text.keys {
        Many::One(key) => Many::One(place(*key)),
        Many::Each(keys) => Many::each(keys.iter().map(|key| place(*key)).collect()),
    }
}

/// The text of a row among texts that are kept as they are; empty is none.
pub(super) fn text_of<'a>(texts: &'a [u8], ends: &[u32], row: u32) -> &'a [u8] {
    let row = row as usize;
    let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0) as usize;
    let end = ends.get(row).copied().unwrap_or_default() as usize;
    texts.get(start..end).unwrap_or_default()
}
