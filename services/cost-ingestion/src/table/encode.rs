//! Rows of a run as one row group of Parquet.
//!
//! A run holds text as numbers into a dictionary, which is what a column chunk wants: keys, and the distinct values that they stand for. So no text is looked up here.
//! (`ArrowWriter`, in whose place this is, hashes the text of every row again and makes an object of every decimal. Together with pieces whose texts are numbers, this took reading two million rows of
//! CUR 2.0 from 11.4 processor seconds to 6.7.)
//! How pages are written says `chunk`.

use super::chunk::{Chunk, Packer};
use super::held::{Amounts, Dictionary, Numbers, Words, lengthened};
use super::pack::{self, Levels};
use super::run::{Held, Run, text_of};
use crate::focus;
use crate::source::{Nullable, from_json};
use ahash::RandomState;
use hashbrown::HashTable;
use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;
use std::hash::Hash;

/// Columns that engines prune by.
const COUNTED: [&str; 6] =
    ["BilledCost", "ChargePeriodEnd", "ChargePeriodStart", "RegionId", "ServiceName", "SubAccountId"];
/// Bytes of a page of plain texts, about.
const PAGE_BYTES: usize = if cfg!(test) { 512 } else { 1 << 20 };
/// Bytes of distinct texts above which they are written row by row, in pages of bounded size.
const DISTINCT_BYTES: usize = if cfg!(test) { 400 } else { 16 << 20 };
/// Rows by which is told whether a column's numbers repeat.
const SAMPLE: usize = 2048;
/// Bytes of a text that is a bound in statistics; a longer one is none.
const BOUND: usize = 64;

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;
type Done = Result<(), ParquetError>;

/// Room that is kept from column to column.
pub(super) struct Encoder {
    packer: Packer,
    state: RandomState,
    /// Of each row that has a value: which of the distinct ones.
    keys: Vec<u32>,
    /// Of each row 1 if it has a value, else 0; looked at only where rows differ in that.
    levels: Vec<u32>,
    /// Of each number of a dictionary its key; [`u32::NONE`] between columns.
    places: Vec<u32>,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, ParquetError> {
        let (keys, levels, places) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { packer: Packer::new()?, state: RandomState::new(), keys, levels, places })
    }

    /// Writes these rows, in their order, as the next row group of a file whose columns are [`focus::SCHEMA`].
    pub(super) fn write(&mut self, run: &Run, rows: &[u32], file: &mut SerializedFileWriter<Vec<u8>>) -> Done {
        let leaves = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group()?;
        self.columns(run, rows, leaves, &mut group)?;
        group.close().map(drop)
    }

    fn columns(&mut self, run: &Run, rows: &[u32], leaves: Vec<ColumnDescPtr>, group: &mut Group<'_>) -> Done {
        let mut leaves = leaves.into_iter();
        let mut leaf = || leaves.next().ok_or_else(|| ParquetError::General("a column is missing".to_owned()));
        for (column, held) in focus::COLUMNS.iter().zip(run.columns()) {
            let counted = COUNTED.contains(&column.name);
            match held {
                Held::Text(numbers, texts) => self.text(leaf()?, (numbers, texts), rows, counted, group)?,
                Held::Unique { texts, ends } => {
                    let mut chunk = Chunk::new(leaf()?, &mut self.packer);
                    plain_texts(&mut chunk, rows.iter().map(|row| text_of(texts, ends, *row)))?;
                    chunk.end(rows.len(), None, group)?;
                }
                Held::Amounts(Amounts::Short(all)) => {
                    let bounds = |ends: [i64; 2], nulls| amount_bounds(ends.map(lengthened), nulls);
                    let bytes = |short: i64| lengthened(short).to_be_bytes();
                    self.fixed(leaf()?, all, rows, bytes, counted.then_some(bounds), group)?;
                }
                Held::Amounts(Amounts::Long(all)) => {
                    self.fixed(leaf()?, all, rows, i128::to_be_bytes, counted.then_some(amount_bounds), group)?;
                }
                Held::Instants(all) => {
                    let bounds =
                        |[min, max]: [i64; 2], nulls| Statistics::int64(Some(min), Some(max), None, nulls, false);
                    self.fixed(leaf()?, all, rows, i64::to_le_bytes, counted.then_some(bounds), group)?;
                }
                Held::Tags(numbers, sets) => self.tags([leaf()?, leaf()?], (numbers, sets), rows, group)?,
            }
        }
        Ok(())
    }

    fn text(
        &mut self,
        leaf: ColumnDescPtr,
        (numbers, dictionary): (&Numbers<u32>, &Words),
        rows: &[u32],
        counted: bool,
        group: &mut Group<'_>,
    ) -> Done {
        let used = self.number(numbers, dictionary.len(), rows);
        let texts = || used.iter().map(|number| dictionary.get(*number));
        let nulls = Some((rows.len() - self.keys.len()) as u64);
        let statistics = counted.then(|| text_bounds(texts(), nulls));
        let levels = levels(&self.keys, &self.levels, rows.len());
        let mut chunk = Chunk::new(leaf, &mut self.packer);
        if texts().map(<[u8]>::len).sum::<usize>() > DISTINCT_BYTES {
            let mut keys = self.keys.iter();
            let mut text = |there: u32| match there {
                0 => &[],
                _ => keys
                    .next()
                    .and_then(|key| used.get(*key as usize))
                    .map_or(&[][..], |number| dictionary.get(*number)),
            };
            match levels {
                Levels::Same(level, count) => plain_texts(&mut chunk, (0..count).map(|_| text(level)))?,
                Levels::Each(all) => plain_texts(&mut chunk, all.iter().map(|level| text(*level)))?,
            }
        } else {
            let mut bytes = Vec::new();
            texts().for_each(|text| plain_text(text, &mut bytes));
            keyed(&mut chunk, (&bytes, used.len()), &self.keys, Levels::Same(0, 0), levels)?;
        }
        chunk.end(rows.len(), statistics, group)
    }

    /// Numbers of so many bytes each.
    fn fixed<T: Nullable + Hash + Ord, const N: usize>(
        &mut self,
        leaf: ColumnDescPtr,
        numbers: &Numbers<T>,
        rows: &[u32],
        bytes: impl Fn(T) -> [u8; N],
        bounds: Option<impl Fn([T; 2], Option<u64>) -> Statistics>,
        group: &mut Group<'_>,
    ) -> Done {
        self.levels.clear();
        let mut values: Vec<T> = Vec::with_capacity(rows.len());
        for value in rows.iter().map(|row| numbers.at(*row as usize)) {
            self.levels.push(u32::from(value != T::NONE));
            if value != T::NONE {
                values.push(value);
            }
        }
        let nulls = Some((rows.len() - values.len()) as u64);
        let ends = || Some([*values.iter().min()?, *values.iter().max()?]);
        let statistics = bounds.and_then(|bounds| Some(bounds(ends()?, nulls)));
        let distinct = self.distinct(&values);
        let levels = levels(&values, &self.levels, rows.len());
        let mut chunk = Chunk::new(leaf, &mut self.packer);
        let write = |values: &[T], out: &mut Vec<u8>| {
            out.reserve(values.len() * N);
            values.iter().for_each(|value| out.extend_from_slice(&bytes(*value)));
        };
        match distinct {
            Some(distinct) => {
                let mut out = Vec::new();
                write(&distinct, &mut out);
                keyed(&mut chunk, (&out, distinct.len()), &self.keys, Levels::Same(0, 0), levels)?;
            }
            None => chunk.page(Levels::Same(0, 0), levels, Encoding::PLAIN, |out| write(&values, out))?,
        }
        chunk.end(rows.len(), statistics, group)
    }

    /// The distinct values, if there are so few that keys are shorter; then `keys` says which each is.
    fn distinct<T: Copy + Eq + Hash>(&mut self, values: &[T]) -> Option<Vec<T>> {
        let (mut known, mut distinct): (HashTable<u32>, Vec<T>) = (HashTable::new(), Vec::new());
        self.keys.clear();
        let mut last = None;
        for (at, value) in values.iter().enumerate() {
            if let Some((_, key)) = last.filter(|(known, _)| known == value) {
                self.keys.push(key);
                continue;
            }
            let hash = self.state.hash_one(value);
            let found = known.find(hash, |key| distinct.get(*key as usize) == Some(value)).copied();
            let key = found.unwrap_or_else(|| {
                let key = distinct.len() as u32;
                distinct.push(*value);
                known.insert_unique(hash, key, |key| {
                    distinct.get(*key as usize).map_or(0, |value| self.state.hash_one(value))
                });
                key
            });
            last = Some((*value, key));
            self.keys.push(key);
            if at >= SAMPLE && distinct.len() > at / 3 {
                return None;
            }
        }
        Some(distinct)
    }

    /// Each key and value is a leaf of its own; a row without tags is an empty map.
    fn tags(
        &mut self,
        [names_leaf, values_leaf]: [ColumnDescPtr; 2],
        (numbers, sets): (&Numbers<u32>, &Words),
        rows: &[u32],
        group: &mut Group<'_>,
    ) -> Done {
        let used = self.number(numbers, sets.len(), rows);
        let (mut names, mut values) = (Dictionary::default(), Dictionary::default());
        let mut set = |number: &u32| {
            let pairs = std::str::from_utf8(sets.get(*number)).ok().and_then(from_json).unwrap_or_default();
            let number =
                |(name, value): &(String, String)| (names.number(name.as_bytes()), values.number(value.as_bytes()));
            pairs.iter().map(number).collect::<Vec<_>>()
        };
        let sets: Vec<Vec<(u32, u32)>> = used.iter().map(&mut set).collect();
        let (mut name_keys, mut value_keys, mut repeated, mut defined) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut keys = self.keys.iter();
        let all = self.keys.len() == rows.len();
        for row in 0..rows.len() {
            let there = all || self.levels.get(row) == Some(&1);
            let set = if there { keys.next().and_then(|key| sets.get(*key as usize)) } else { None };
            let Some(((name, value), rest)) = set.and_then(|set| set.split_first()) else {
                repeated.push(0);
                defined.push(1);
                continue;
            };
            repeated.push(0);
            repeated.extend(rest.iter().map(|_| 1));
            defined.extend(std::iter::repeat_n(2, 1 + rest.len()));
            name_keys.push(*name);
            value_keys.push(*value);
            name_keys.extend(rest.iter().map(|(name, _)| *name));
            value_keys.extend(rest.iter().map(|(_, value)| *value));
        }
        for (leaf, dictionary, keys) in [(names_leaf, names, name_keys), (values_leaf, values, value_keys)] {
            let there = u32::from(leaf.max_def_level().unsigned_abs());
            defined.iter_mut().filter(|level| **level > 1).for_each(|level| *level = there);
            let mut bytes = Vec::new();
            (0..dictionary.len() as u32).for_each(|number| plain_text(dictionary.get(number), &mut bytes));
            let mut chunk = Chunk::new(leaf, &mut self.packer);
            let (repeated, defined) = (Levels::Each(&repeated), Levels::Each(&defined));
            keyed(&mut chunk, (&bytes, dictionary.len()), &keys, repeated, defined)?;
            chunk.end(rows.len(), None, group)?;
        }
        Ok(())
    }

    /// Counts anew from zero, in the order in which these rows first have them: `keys` and `levels` say what each row has. Gives which they were.
    fn number(&mut self, numbers: &Numbers<u32>, known: usize, rows: &[u32]) -> Vec<u32> {
        self.keys.clear();
        self.levels.clear();
        let all = match numbers {
            Numbers::Same(u32::NONE, _) => return Vec::new(),
            Numbers::Same(number, _) => {
                self.keys.resize(rows.len(), 0);
                return vec![*number];
            }
            Numbers::Each(all) => all,
        };
        self.places.resize(known.max(self.places.len()), u32::NONE);
        let mut used = Vec::new();
        for row in rows {
            let number = all.get(*row as usize).copied().unwrap_or(u32::NONE);
            let Some(place) = self.places.get_mut(number as usize) else {
                self.levels.push(0);
                continue;
            };
            if *place == u32::NONE {
                *place = used.len() as u32;
                used.push(number);
            }
            self.levels.push(1);
            self.keys.push(*place);
        }
        for number in &used {
            if let Some(place) = self.places.get_mut(*number as usize) {
                *place = u32::NONE;
            }
        }
        used
    }
}

/// Which rows have a value, of which there are as many as `there`.
fn levels<'a, T>(there: &[T], levels: &'a [u32], rows: usize) -> Levels<'a> {
    match there.len() {
        0 => Levels::Same(0, rows),
        all if all == rows => Levels::Same(1, rows),
        _ => Levels::Each(levels),
    }
}

/// Distinct values, and a page of keys.
fn keyed(
    chunk: &mut Chunk<'_>,
    (distinct, count): (&[u8], usize),
    keys: &[u32],
    repeated: Levels<'_>,
    defined: Levels<'_>,
) -> Done {
    let Some(largest) = count.checked_sub(1) else {
        return chunk.page(repeated, defined, Encoding::PLAIN, |_| {});
    };
    chunk.distinct(distinct, count)?;
    let width = pack::width(largest as u32);
    chunk.page(repeated, defined, Encoding::RLE_DICTIONARY, |out| {
        out.push(width as u8);
        pack::pack(keys, width, out);
    })
}

fn plain_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

/// Each text as it is, the empty one as none.
fn plain_texts<'a>(chunk: &mut Chunk<'_>, texts: impl Iterator<Item = &'a [u8]>) -> Done {
    let (mut bytes, mut there) = (Vec::new(), Vec::new());
    let mut page = |bytes: &mut Vec<u8>, there: &mut Vec<u32>| {
        let defined = if there.contains(&0) { Levels::Each(there) } else { Levels::Same(1, there.len()) };
        chunk.page(Levels::Same(0, 0), defined, Encoding::PLAIN, |out| out.append(bytes))?;
        there.clear();
        Done::Ok(())
    };
    for text in texts {
        there.push(u32::from(!text.is_empty()));
        if !text.is_empty() {
            plain_text(text, &mut bytes);
        }
        if bytes.len() >= PAGE_BYTES {
            page(&mut bytes, &mut there)?;
        }
    }
    if there.is_empty() { Ok(()) } else { page(&mut bytes, &mut there) }
}

fn text_bounds<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone, nulls: Option<u64>) -> Statistics {
    let (min, max) = (texts.clone().min(), texts.max());
    let bounds = min.zip(max).filter(|(min, max)| min.len().max(max.len()) <= BOUND);
    let [min, max] = bounds.map_or([None, None], |(min, max)| [min, max].map(|text| Some(ByteArray::from(text))));
    Statistics::ByteArray(ValueStatistics::new(min, max, None, nulls, false))
}

fn amount_bounds(ends: [i128; 2], nulls: Option<u64>) -> Statistics {
    let [min, max] = ends.map(|units| Some(ByteArray::from(units.to_be_bytes().to_vec()).into()));
    Statistics::FixedLenByteArray(ValueStatistics::new(min, max, None, nulls, false))
}
