//! Typed reading of a batch's columns: text with empty values as none, amounts as exact decimals, instants in UTC, maps.

use super::SourceError;
use super::compute::{epoch, full_time, since_1970};
use super::value::{Distinct, Many, Maps, Nullable as _, Pairs, Text, from_json, sorted};
use crate::focus::{self, Kind};
use crate::money::{Amount, Read};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Schema};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Longest text that is taken (descriptions are below 1 kB): a file of huge texts must not become huge memory.
pub const MAX_TEXT: usize = 64 * 1024;

/// The columns of one file by the names that mappings use.
///
/// The legacy report's CSV says `lineItem/UnblendedCost` where its Parquet says `line_item_unblended_cost`; mappings know the latter. Tables that were copied from
/// engine to engine say `LINE_ITEM_UNBLENDED_COST` or `billedcost`: names are compared by [`folded`].
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// By folded name.
    places: HashMap<String, usize>,
    /// (name in mappings, name in the file), in the file's order.
    names: Vec<(String, String)>,
}

impl Layout {
    /// Of a file or a batch with these columns. Of two columns with one name the first counts.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let mut layout = Self::default();
        for (at, field) in schema.fields().iter().enumerate() {
            let name = plain_name(field.name());
            layout.places.entry(folded(&name)).or_insert(at);
            layout.names.push((name, field.name().clone()));
        }
        layout
    }

    /// Whether the column is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(&folded(name))
    }

    /// (name in mappings, name in the file) of the columns with this prefix.
    pub fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().filter(move |(name, _)| has_prefix(name, prefix)).map(|(name, label)| (&**name, &**label))
    }
}

/// What names are compared by: their letters and digits, in lower case.
#[must_use]
pub(super) fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a column's name begins so, in whatever case.
#[must_use]
pub(super) fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// As AWS writes the report's names for Athena: `reservation/ReservationARN` is `reservation_reservation_a_r_n`.
#[must_use]
pub fn plain_name(label: &str) -> String {
    let label = label.trim_start_matches('\u{feff}').trim();
    if !label.contains('/') {
        return label.to_owned();
    }
    let mut name = String::with_capacity(label.len() + 8);
    for c in label.chars() {
        match c {
            'A'..='Z' => {
                if !name.is_empty() && !name.ends_with('_') {
                    name.push('_');
                }
                name.push(c.to_ascii_lowercase());
            }
            c if c.is_alphanumeric() => name.push(c),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name
}

/// A batch of source rows, read by column name. Columns come and go between months: an absent one reads as none.
pub(super) struct Batch<'a> {
    rows: &'a RecordBatch,
    layout: &'a Layout,
    texts: RefCell<HashMap<String, Text>>,
    amounts: RefCell<HashMap<String, Many<i128>>>,
    maps: RefCell<HashMap<String, Maps>>,
    rounded: Cell<u64>,
}

impl<'a> Batch<'a> {
    /// Reads `rows`, whose columns are `layout`.
    #[must_use]
    pub(super) fn new(rows: &'a RecordBatch, layout: &'a Layout) -> Self {
        Self {
            rows,
            layout,
            texts: RefCell::default(),
            amounts: RefCell::default(),
            maps: RefCell::default(),
            rounded: Cell::new(0),
        }
    }

    /// How many rows.
    #[must_use]
    pub(super) fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// How many numbers were rounded so far: each value once, however many rows have it.
    #[must_use]
    pub(super) fn rounded(&self) -> u64 {
        self.rounded.get()
    }

    /// The file's columns.
    #[must_use]
    pub(super) fn layout(&self) -> &Layout {
        self.layout
    }

    /// Whether the file holds numbers there.
    #[must_use]
    pub(super) fn is_number(&self, name: &str) -> bool {
        self.column(name).is_some_and(|found| found.data_type().is_numeric())
    }

    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.layout.places.get(&folded(name)).and_then(|at| self.rows.columns().get(*at))
    }

    /// A text column.
    ///
    /// # Errors
    /// When it is not text, or holds one that is absurdly long.
    pub(super) fn text(&self, name: &str) -> Result<Text, SourceError> {
        if let Some(known) = self.texts.borrow().get(name) {
            return Ok(known.clone());
        }
        let read = match self.column(name) {
            None => Text::constant(None),
            Some(found) if is_map(found.data_type()) => self.maps(name)?.to_text(),
            Some(found) => self.read_text(found, name)?,
        };
        self.texts.borrow_mut().insert(name.to_owned(), read.clone());
        Ok(read)
    }

    fn read_text(&self, found: &ArrayRef, name: &str) -> Result<Text, SourceError> {
        let text = if let Some(dictionary) = found.as_any_dictionary_opt() {
            let keys = cast(dictionary.keys(), name, &DataType::Int32, "text")?;
            let keys = keys.as_primitive::<Int32Type>();
            let values = cast(dictionary.values(), name, &DataType::Utf8, "text")?;
            let (keys, values) = used(keys, values.as_string::<i32>());
            Text::new(keys, values)
        } else {
            let values = cast(found, name, &DataType::Utf8, "text")?;
            let rows = values.len() as u32;
            Text::new(Many::each((0..rows).collect()), values.as_string::<i32>().clone())
        };
        let longest = text.values.offsets().windows(2).map(|pair| pair.last().zip(pair.first()));
        if longest.flatten().any(|(end, start)| (end - start) as usize > MAX_TEXT) {
            return Err(SourceError::TooLong { column: name.to_owned(), limit: MAX_TEXT });
        }
        Ok(text)
    }

    /// A column of amounts. Doubles are read as the decimals that were meant, text as what it says.
    ///
    /// # Errors
    /// When it holds anything that is no amount.
    pub(super) fn amounts(&self, name: &str) -> Result<Many<i128>, SourceError> {
        if let Some(known) = self.amounts.borrow().get(name) {
            return Ok(known.clone());
        }
        let read = match self.column(name) {
            None => Many::One(i128::NONE),
            Some(found) => self.read_amounts(found, name)?,
        };
        self.amounts.borrow_mut().insert(name.to_owned(), read.clone());
        Ok(read)
    }

    fn read_amounts(&self, found: &ArrayRef, name: &str) -> Result<Many<i128>, SourceError> {
        let keep = |read: Result<Read, _>| {
            let read = read.map_err(|why| SourceError::BadAmount { column: name.to_owned(), why })?;
            self.rounded.set(self.rounded.get() + u64::from(read.rounded));
            Ok(read.amount.units())
        };
        match found.data_type() {
            DataType::Float64 => {
                let (mut last, mut units) = (0_f64.to_bits(), 0);
                let mut read = |value: f64| {
                    if value.to_bits() != last {
                        units = keep(Amount::from_double(value))?;
                        last = value.to_bits();
                    }
                    Ok(units)
                };
                let values = found.as_primitive::<Float64Type>();
                let values = values.iter().map(|value| value.map_or(Ok(i128::NONE), &mut read));
                values.collect::<Result<_, SourceError>>().map(Many::each)
            }
            // Printed as the shortest decimal that means it, without an exponent.
            DataType::Float32 => {
                let read = |value: f32| keep(Amount::parse(&value.to_string()));
                let values = found.as_primitive::<Float32Type>().iter();
                let values = values.map(|value| value.map_or(Ok(i128::NONE), read));
                values.collect::<Result<_, SourceError>>().map(Many::each)
            }
            DataType::Decimal128(_, scale @ 0..=18) => {
                let factor = 10_i128.pow(18 - u32::from(scale.unsigned_abs()));
                let read = |units: i128| units.checked_mul(factor).and_then(|units| Amount::from_units(units).ok());
                let too_large =
                    || SourceError::BadAmount { column: name.to_owned(), why: crate::money::AmountError::TooLarge };
                let values = found.as_primitive::<Decimal128Type>().iter();
                let values = values.map(|value| match value {
                    None => Ok(i128::NONE),
                    Some(units) => read(units).map(Amount::units).ok_or_else(too_large),
                });
                values.collect::<Result<_, SourceError>>().map(Many::each)
            }
            // Exact by way of text: Arrow prints decimals and integers digit by digit.
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Dictionary(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => {
                let text = self.read_text(found, name)?;
                let read = |key| text.value(key).map_or(Ok(i128::NONE), |text| keep(Amount::parse(text)));
                let all = (0..text.values.len() as u32).map(read).collect::<Result<Vec<_>, SourceError>>()?;
                Ok(text.keys.map(|key| all.get(key as usize).copied().unwrap_or(i128::NONE)))
            }
            other => {
                Err(SourceError::WrongType { column: name.to_owned(), expected: "an amount", found: other.to_string() })
            }
        }
    }

    /// A column of instants in UTC, in microseconds.
    ///
    /// # Errors
    /// When it is no timestamp.
    pub(super) fn instants(&self, name: &str) -> Result<Many<i64>, SourceError> {
        let wanted = focus::arrow_type(Kind::Instant);
        let Some(found) = self.column(name) else { return Ok(Many::One(i64::NONE)) };
        let expected = "an instant";
        let values = |array: &ArrayRef| -> Vec<i64> {
            let instants = array.as_primitive::<TimestampMicrosecondType>();
            instants.iter().map(|at| at.unwrap_or(i64::NONE)).collect()
        };
        match found.data_type() {
            DataType::Timestamp(..) | DataType::Date32 => {
                Ok(Many::each(values(&cast(found, name, &wanted, expected)?)))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                let text = self.text(name)?;
                // Values that no row has (empty ones) need not be instants.
                let known: Vec<_> = (0..text.values.len() as u32).map(|key| text.value(key)).collect();
                let written = known.iter().map(|text| text.filter(|text| epoch(text).is_none()).map(full_time));
                let written: ArrayRef = std::sync::Arc::new(written.collect::<StringArray>());
                let mut all = values(&cast(&written, name, &wanted, expected)?);
                for (at, text) in all.iter_mut().zip(&known) {
                    *at = text.and_then(epoch).unwrap_or(*at);
                }
                Ok(text.keys.map(|key| all.get(key as usize).copied().unwrap_or(i64::NONE)))
            }
            DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
                let wrong =
                    || SourceError::WrongType { column: name.to_owned(), expected, found: "a number".to_owned() };
                let numbers = cast(found, name, &DataType::Int64, expected)?;
                let instant = |at: Option<i64>| at.map_or(Ok(i64::NONE), |at| since_1970(at).ok_or_else(wrong));
                let all = numbers.as_primitive::<Int64Type>().iter().map(instant);
                all.collect::<Result<_, SourceError>>().map(Many::each)
            }
            other => Err(SourceError::WrongType { column: name.to_owned(), expected, found: other.to_string() }),
        }
    }

    /// A map column, or JSON objects as text.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn maps(&self, name: &str) -> Result<Maps, SourceError> {
        if let Some(known) = self.maps.borrow().get(name) {
            return Ok(known.clone());
        }
        let read = match self.column(name) {
            None => Maps { keys: Many::One(u32::NONE), sets: Rc::default() },
            Some(found) if is_map(found.data_type()) => read_maps(found, name)?,
            Some(_) => {
                let text = self.text(name)?;
                let bad = || SourceError::BadMap { column: name.to_owned() };
                let read = |key| text.value(key).map_or(Ok(Pairs::new()), |text| from_json(text).ok_or_else(bad));
                let sets = (0..text.values.len() as u32).map(read).collect::<Result<Vec<_>, SourceError>>()?;
                Maps { keys: text.keys, sets: Rc::new(sets) }
            }
        };
        self.maps.borrow_mut().insert(name.to_owned(), read.clone());
        Ok(read)
    }
}

/// The keys, and the values that they use: a row group's dictionary may hold many times what one batch of it needs.
fn used(keys: &arrow_array::Int32Array, values: &StringArray) -> (Many<u32>, StringArray) {
    let key = |key: Option<i32>| key.and_then(|key| u32::try_from(key).ok()).unwrap_or(u32::NONE);
    // Up to here the whole dictionary is cheaper: it is the same one in all batches of a row group, and its texts are then looked up once for all of them.
    if values.len() <= keys.len().saturating_mul(8) {
        return (Many::each(keys.iter().map(key).collect()), values.clone());
    }
    let (mut places, mut taken) = (vec![u32::NONE; values.len()], Vec::new());
    let keys = keys.iter().map(|at| match places.get_mut(key(at) as usize) {
        None => u32::NONE,
        Some(place) => {
            if *place == u32::NONE {
                *place = taken.len() as u32;
                taken.push(key(at) as usize);
            }
            *place
        }
    });
    let keys = Many::each(keys.collect());
    (keys, taken.into_iter().map(|at| values.is_valid(at).then(|| values.value(at))).collect())
}

/// A map, or what engines without maps make of one: a list of pairs.
fn is_map(kind: &DataType) -> bool {
    match kind {
        DataType::Map(..) => true,
        DataType::List(item) => matches!(item.data_type(), DataType::Struct(fields) if fields.len() == 2),
        _ => false,
    }
}

fn read_maps(found: &ArrayRef, name: &str) -> Result<Maps, SourceError> {
    let (maps, offsets) = match found.as_list_opt::<i32>() {
        Some(list) => (list.values().as_struct(), list.value_offsets()),
        None => (found.as_map().entries(), found.as_map().value_offsets()),
    };
    let (Some(keys), Some(values)) = (maps.columns().first(), maps.columns().get(1)) else {
        return Err(SourceError::BadMap { column: name.to_owned() });
    };
    let all_keys = cast(keys, name, &DataType::Utf8, "a map of texts")?;
    let all_values = cast(values, name, &DataType::Utf8, "a map of texts")?;
    let (all_keys, all_values) = (all_keys.as_string::<i32>(), all_values.as_string::<i32>());
    let longest = |texts: &StringArray| (0..texts.len()).any(|at| texts.value_length(at) as usize > MAX_TEXT);
    if longest(all_keys) || longest(all_values) {
        return Err(SourceError::TooLong { column: name.to_owned(), limit: MAX_TEXT });
    }
    let mut distinct = Distinct::<Box<[u8]>>::default();
    let (mut keys, mut sets, mut bytes) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
    for (row, range) in offsets.windows(2).enumerate() {
        let (Some(start), Some(end)) = (range.first(), range.last()) else { continue };
        if found.is_null(row) || start == end {
            keys.push(u32::NONE);
            continue;
        }
        let entries = *start as usize..*end as usize;
        bytes.clear();
        for at in entries.clone() {
            for text in [all_keys, all_values] {
                bytes.extend_from_slice(&text.value_length(at).to_le_bytes());
                bytes.push(u8::from(text.is_valid(at)));
                bytes.extend_from_slice(text.value(at).as_bytes());
            }
        }
        let key = match distinct.find(bytes.as_slice()) {
            Some(key) => key,
            None => {
                let pair = |at| {
                    all_values.is_valid(at).then(|| (all_keys.value(at).to_owned(), all_values.value(at).to_owned()))
                };
                sets.push(sorted(entries.filter_map(pair).collect()));
                distinct.key(bytes.clone().into_boxed_slice())
            }
        };
        keys.push(key);
    }
    Ok(Maps { keys: Many::each(keys), sets: Rc::new(sets) })
}

fn cast(from: &dyn Array, name: &str, to: &DataType, expected: &'static str) -> Result<ArrayRef, SourceError> {
    if from.data_type() == to {
        return Ok(from.slice(0, from.len()));
    }
    let wrong = || SourceError::WrongType { column: name.to_owned(), expected, found: from.data_type().to_string() };
    if matches!(to, DataType::Utf8) && from.data_type().is_nested() {
        return Err(wrong());
    }
    // safe: false, because a value that does not fit must be an error and not a null.
    let options = arrow_cast::CastOptions { safe: false, ..Default::default() };
    arrow_cast::cast_with_options(from, to, &options).map_err(|error| match error {
        ArrowError::CastError(_) | ArrowError::ParseError(_) => wrong(),
        other => SourceError::Arrow(other),
    })
}
