//! Rows of one slice in memory: gathered in columns, and put in the order of their charge periods.
//!
//! Text is kept as numbers into a dictionary of the whole run, amounts and instants as numbers, and a column that has been the same so far as one value:
//! a row takes some 300 bytes. A run is as large as its bound allows; what is done with more rows says `sort`.

use super::held::{Dictionary, Numbers};
use super::piece::View;
use super::{Sums, TableError};
use crate::focus::{self, Kind};
use crate::money::{ARROW_SCALE, Amount, PRECISION};
use crate::source::{Made, Many, Mapped, Nullable as _, Pairs, Text, from_json, to_json};
use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array as _, ArrayRef, Decimal128Array, DictionaryArray, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// The one column whose values are nearly all different: its texts are kept as they are.
pub(super) const UNIQUE: &str = "x_LineItemId";

/// The schema that data files are written with: as [`focus::SCHEMA`], but text as dictionaries. In Parquet the two are the same.
pub(super) static WRITTEN: LazyLock<SchemaRef> = LazyLock::new(|| {
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |column: &focus::Column| {
        let kind = match column.kind {
            Kind::Text if column.name == UNIQUE => DataType::Utf8,
            Kind::Text => dictionary(),
            other => focus::arrow_type(other),
        };
        Field::new(column.name, kind, true)
    };
    Arc::new(Schema::new(focus::COLUMNS.iter().map(field).collect::<Vec<_>>()))
});

/// One column.
pub(super) enum Held {
    Text(Numbers<u32>, Dictionary),
    Unique { texts: Vec<u8>, ends: Vec<u32> },
    Amounts(Numbers<i128>),
    Instants(Numbers<i64>),
    Tags(Numbers<u32>, Dictionary),
}

/// See the module.
pub(super) struct Run {
    rows: usize,
    columns: Vec<Held>,
}

impl Run {
    pub(super) fn new() -> Self {
        let held = |column: &focus::Column| match column.kind {
            Kind::Text if column.name == UNIQUE => Held::Unique { texts: Vec::new(), ends: Vec::new() },
            Kind::Text => Held::Text(Numbers::Same(u32::NONE, 0), Dictionary::default()),
            Kind::Amount => Held::Amounts(Numbers::Same(i128::NONE, 0)),
            Kind::Instant => Held::Instants(Numbers::Same(i64::NONE, 0)),
            Kind::Tags => Held::Tags(Numbers::Same(u32::NONE, 0), Dictionary::default()),
        };
        Self { rows: 0, columns: focus::COLUMNS.iter().map(held).collect() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// What it takes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let of = |held: &Held| match held {
            Held::Text(numbers, dictionary) | Held::Tags(numbers, dictionary) => numbers.bytes() + dictionary.bytes(),
            Held::Unique { texts, ends } => texts.len() + ends.len() * 4,
            Held::Amounts(numbers) => numbers.bytes(),
            Held::Instants(numbers) => numbers.bytes(),
        };
        self.columns.iter().map(of).sum()
    }

    pub(super) fn push(&mut self, mapped: &Mapped) {
        for (held, made) in self.columns.iter_mut().zip(&mapped.columns) {
            match (held, made) {
                (Held::Text(numbers, dictionary), Made::Text(text)) => {
                    numbers.push(mapped.rows, &numbered(text, dictionary));
                }
                (Held::Unique { texts, ends }, Made::Text(text)) => {
                    for row in 0..mapped.rows {
                        texts.extend_from_slice(text.at(row).unwrap_or_default().as_bytes());
                        ends.push(texts.len() as u32);
                    }
                }
                (Held::Amounts(numbers), Made::Amounts(more)) => numbers.push(mapped.rows, more),
                (Held::Instants(numbers), Made::Instants(more)) => numbers.push(mapped.rows, more),
                (Held::Tags(numbers, dictionary), Made::Tags(maps)) => {
                    let mut places = vec![u32::NONE; maps.sets.len()];
                    for (place, set) in places.iter_mut().zip(maps.sets.iter()) {
                        *place = if set.is_empty() { u32::NONE } else { dictionary.number(&to_json(set)) };
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

    /// The text of a row in the column whose values are nearly all different; empty is none.
    pub(super) fn unique(&self, row: u32) -> &str {
        match self.column(UNIQUE) {
            Some(Held::Unique { texts, ends }) => text_of(texts, ends, row as usize),
            _ => "",
        }
    }

    /// Takes these rows of a piece. `None` if the piece is not one of this table's.
    pub(super) fn push_piece(&mut self, views: &[View<'_>], rows: Range<usize>) -> Option<()> {
        for (held, view) in self.columns.iter_mut().zip(views) {
            match held {
                Held::Text(numbers, dictionary) | Held::Tags(numbers, dictionary) => match view {
                    View::Nothing => numbers.push_same(rows.len(), u32::NONE),
                    View::Text(text) => numbers.push_same(rows.len(), dictionary.number(text)),
                    View::Texts { keys, texts } => {
                        let mut places = vec![u32::NONE; texts.len()];
                        let mut all = Vec::with_capacity(rows.len());
                        for key in rows.clone().map(|row| keys.at(row)) {
                            // Zero stands for no text.
                            let Some(at) = key?.checked_sub(1) else {
                                all.push(u32::NONE);
                                continue;
                            };
                            let place = places.get_mut(at as usize)?;
                            if *place == u32::NONE {
                                *place = dictionary.number(texts.at(at as usize)?);
                            }
                            all.push(*place);
                        }
                        numbers.extend(all.into_iter());
                    }
                    _ => return None,
                },
                Held::Unique { texts, ends } => {
                    let View::Unique(view) = view else { return None };
                    for row in rows.clone() {
                        texts.extend_from_slice(view.at(row)?.as_bytes());
                        ends.push(texts.len() as u32);
                    }
                }
                Held::Amounts(numbers) => match view {
                    View::Nothing => numbers.push_same(rows.len(), i128::NONE),
                    View::Amount(units) => numbers.push_same(rows.len(), *units),
                    View::Amounts(all) => {
                        numbers.extend(all.get(rows.clone())?.iter().copied().map(i128::from_le_bytes))
                    }
                    _ => return None,
                },
                Held::Instants(numbers) => match view {
                    View::Nothing => numbers.push_same(rows.len(), i64::NONE),
                    View::Instant(at) => numbers.push_same(rows.len(), *at),
                    View::Instants(all) => {
                        numbers.extend(all.get(rows.clone())?.iter().copied().map(i64::from_le_bytes))
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
        if let Some(Held::Instants(starts)) = self.column("ChargePeriodStart") {
            order.sort_by_key(|row| starts.at(*row as usize));
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
        let mut sums = vec![Sums::default(); names.len()];
        for row in 0..self.rows {
            let of = sums.get_mut(currencies.at(row) as usize).ok_or(missing("BillingCurrency"))?;
            let amount = |units| Amount::from_units(units).map_err(|_| TableError::TooLarge);
            of.add(amount(billed.at(row))?, amount(effective.at(row))?)?;
        }
        let named = sums.into_iter().enumerate().map(|(number, sums)| (names.get(number as u32).to_owned(), sums));
        Ok(named.collect())
    }

    /// These rows as a batch of [`WRITTEN`].
    pub(super) fn batch(&self, order: &[u32]) -> Result<RecordBatch, ArrowError> {
        let arrays = self.columns.iter().map(|held| array(held, order)).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(Arc::clone(&WRITTEN), arrays)
    }
}

/// Numbers in the run's dictionary; only values that rows have are looked up.
fn numbered(text: &Text, dictionary: &mut Dictionary) -> Many<u32> {
    let mut places = vec![u32::NONE; text.values.len()];
    let mut place = |key: u32| match places.get_mut(key as usize) {
        None => u32::NONE,
        Some(place) => {
            if *place == u32::NONE {
                *place = text.value(key).map_or(u32::NONE, |text| dictionary.number(text));
            }
            *place
        }
    };
    match &text.keys {
        Many::One(key) => Many::One(place(*key)),
        Many::Each(keys) => Many::each(keys.iter().map(|key| place(*key)).collect()),
    }
}

fn text_of<'a>(texts: &'a [u8], ends: &[u32], row: usize) -> &'a str {
    let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0) as usize;
    let end = ends.get(row).copied().unwrap_or_default() as usize;
    texts.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn array(held: &Held, order: &[u32]) -> Result<ArrayRef, ArrowError> {
    let rows = || order.iter().map(|row| *row as usize);
    Ok(match held {
        Held::Text(numbers, dictionary) => {
            let (keys, used) = dense(numbers, dictionary.len(), order);
            let values: StringArray = used.iter().map(|number| Some(dictionary.get(*number))).collect();
            Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), Arc::new(values))?)
        }
        Held::Unique { texts, ends } => {
            let text = |row| Some(text_of(texts, ends, row)).filter(|text| !text.is_empty());
            Arc::new(rows().map(text).collect::<StringArray>())
        }
        Held::Amounts(numbers) => {
            let units = rows().map(|row| Some(numbers.at(row)).filter(|units| *units != i128::NONE));
            Arc::new(units.collect::<Decimal128Array>().with_precision_and_scale(PRECISION, ARROW_SCALE)?)
        }
        Held::Instants(numbers) => {
            let at = rows().map(|row| Some(numbers.at(row)).filter(|at| *at != i64::NONE));
            Arc::new(at.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        Held::Tags(numbers, dictionary) => {
            let (keys, used) = dense(numbers, dictionary.len(), order);
            let sets: Vec<Pairs> =
                used.iter().map(|number| from_json(dictionary.get(*number)).unwrap_or_default()).collect();
            let entries = focus::tag_entries();
            let names =
                MapFieldNames { entry: entries.name().clone(), key: "key".to_owned(), value: "value".to_owned() };
            let mut tags = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
            for key in keys {
                let set = key.and_then(|key| sets.get(key as usize));
                for (key, value) in set.into_iter().flatten() {
                    tags.keys().append_value(key);
                    tags.values().append_value(value);
                }
                tags.append(true)?;
            }
            Arc::new(tags.finish())
        }
    })
}

/// Numbers counted anew from zero in the order in which these rows first have them, and which they were.
fn dense(numbers: &Numbers<u32>, known: usize, order: &[u32]) -> (Vec<Option<i32>>, Vec<u32>) {
    let (mut places, mut used) = (vec![i32::MAX; known], Vec::new());
    let mut place = |number: u32| {
        let place = places.get_mut(number as usize)?;
        if *place == i32::MAX {
            *place = used.len() as i32;
            used.push(number);
        }
        Some(*place)
    };
    let keys = match numbers {
        Numbers::Same(number, _) => vec![place(*number); order.len()],
        Numbers::Each(all) => order.iter().map(|row| place(all.get(*row as usize).copied()?)).collect(),
    };
    (keys, used)
}
