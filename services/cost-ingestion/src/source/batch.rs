//! Typed reading of a batch's columns: text with empty values as null, amounts as exact decimals, instants in UTC.

use super::SourceError;
use crate::focus;
use crate::money::{Amount, Read};
use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, Decimal128Array, RecordBatch, StringViewArray};
use arrow_schema::{ArrowError, DataType};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A column of amounts; `None` is null.
pub type Amounts = Rc<Vec<Option<Amount>>>;

/// Longest text that is taken (descriptions are below 1 kB): a file of huge texts must not become huge memory.
const MAX_TEXT: usize = 64 * 1024;

/// A batch of source rows, read by column name. Columns come and go between months: an absent one reads as null.
pub struct Batch<'a> {
    rows: &'a RecordBatch,
    amounts: RefCell<HashMap<&'static str, Amounts>>,
    rounded: Cell<u64>,
}

/// One row's place in a batch.
pub type Line = usize;

impl<'a> Batch<'a> {
    /// Reads `rows`.
    #[must_use]
    pub fn new(rows: &'a RecordBatch) -> Self {
        Self { rows, amounts: RefCell::default(), rounded: Cell::new(0) }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// How many numbers were rounded so far.
    #[must_use]
    pub fn rounded(&self) -> u64 {
        self.rounded.get()
    }

    /// Names of the columns that are there and start with `prefix`.
    pub fn names_with_prefix(&self, prefix: &str) -> Vec<String> {
        let fields = self.rows.schema_ref().fields().iter();
        fields.filter(|f| f.name().starts_with(prefix)).map(|f| f.name().clone()).collect()
    }

    /// Whether the column is there.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.rows.column_by_name(column).is_some()
    }

    /// A text column, empty values as null; `None` if it is absent.
    ///
    /// # Errors
    /// When it is not text, or holds one that is absurdly long.
    pub fn text(&self, column: &str) -> Result<Option<StringViewArray>, SourceError> {
        let Some(found) = self.rows.column_by_name(column) else { return Ok(None) };
        let views = self.cast(found, column, &DataType::Utf8View, "text")?;
        let views = views.as_string_view();
        // A view's low 32 bits are its length: no bytes are touched.
        let length = |view: &u128| (*view & u128::from(u32::MAX)) as usize;
        if views.views().iter().any(|view| length(view) > MAX_TEXT) {
            return Err(SourceError::TooLong { column: column.to_owned(), limit: MAX_TEXT });
        }
        let empty: BooleanArray = views.views().iter().map(|view| Some(length(view) == 0)).collect();
        let array = arrow_select::nullif::nullif(views, &empty).map_err(SourceError::Arrow)?;
        Ok(Some(array.as_string_view().clone()))
    }

    /// For each row the first of these columns that has a value; null if none has.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn first_text(&self, columns: &[&str]) -> Result<StringViewArray, SourceError> {
        let mut best: Option<StringViewArray> = None;
        for column in columns {
            let Some(next) = self.text(column)? else { continue };
            best = Some(match best {
                None => next,
                Some(best) => {
                    let keep: BooleanArray = (0..best.len()).map(|row| Some(best.is_valid(row))).collect();
                    let merged = arrow_select::zip::zip(&keep, &best, &next).map_err(SourceError::Arrow)?;
                    merged.as_string_view().clone()
                }
            });
            if best.as_ref().is_some_and(|best| best.null_count() == 0) {
                break;
            }
        }
        Ok(best.unwrap_or_else(|| StringViewArray::new_null(self.rows())))
    }

    /// A column of amounts; all null if it is absent. Doubles are read as the decimals that were meant, text as what it says.
    ///
    /// # Errors
    /// When it holds anything that is no amount.
    pub fn amounts(&self, column: &'static str) -> Result<Amounts, SourceError> {
        if let Some(known) = self.amounts.borrow().get(column) {
            return Ok(Rc::clone(known));
        }
        let read = Rc::new(match self.rows.column_by_name(column) {
            None => vec![None; self.rows()],
            Some(found) => self.read_amounts(found, column)?,
        });
        self.amounts.borrow_mut().insert(column, Rc::clone(&read));
        Ok(read)
    }

    fn read_amounts(&self, found: &ArrayRef, column: &str) -> Result<Vec<Option<Amount>>, SourceError> {
        let keep = |read: Result<Read, _>| {
            let read = read.map_err(|why| SourceError::BadAmount { column: column.to_owned(), why })?;
            self.rounded.set(self.rounded.get() + u64::from(read.rounded));
            Ok(read.amount)
        };
        match found.data_type() {
            DataType::Float64 => {
                let values = found.as_primitive::<Float64Type>();
                values.iter().map(|value| value.map(|value| keep(Amount::from_double(value))).transpose()).collect()
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                let texts = self.text(column)?.unwrap_or_else(|| StringViewArray::new_null(self.rows()));
                texts.iter().map(|text| text.map(|text| keep(Amount::parse(text))).transpose()).collect()
            }
            DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Int32 | DataType::Int64 => {
                // Exact by way of text: Arrow prints decimals and integers digit by digit.
                let texts = self.cast(found, column, &DataType::Utf8View, "an amount")?;
                let texts = texts.as_string_view();
                texts.iter().map(|text| text.map(|text| keep(Amount::parse(text))).transpose()).collect()
            }
            other => Err(SourceError::WrongType {
                column: column.to_owned(),
                expected: "an amount",
                found: other.to_string(),
            }),
        }
    }

    /// A column of instants in UTC, in microseconds; all null if it is absent.
    ///
    /// # Errors
    /// When it is no timestamp.
    pub fn instants(&self, column: &str) -> Result<ArrayRef, SourceError> {
        let wanted = focus::arrow_type(focus::Kind::Instant);
        let Some(found) = self.rows.column_by_name(column) else {
            return Ok(arrow_array::new_null_array(&wanted, self.rows()));
        };
        match found.data_type() {
            DataType::Timestamp(..) | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                self.cast(found, column, &wanted, "an instant")
            }
            other => Err(SourceError::WrongType {
                column: column.to_owned(),
                expected: "an instant",
                found: other.to_string(),
            }),
        }
    }

    /// Pairs from many columns: (key, column of its values); a row without a value has no such key.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn tags(&self, columns: &[(String, String)]) -> Result<ArrayRef, SourceError> {
        let mut values = Vec::with_capacity(columns.len());
        for (key, column) in columns {
            if let Some(texts) = self.text(column)?
                && texts.null_count() < texts.len()
            {
                values.push((key.as_str(), texts));
            }
        }
        let entries = focus::tag_entries();
        let names = MapFieldNames { entry: entries.name().clone(), key: "key".to_owned(), value: "value".to_owned() };
        let mut tags = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        for row in 0..self.rows() {
            for (key, texts) in &values {
                if texts.is_valid(row) {
                    tags.keys().append_value(key);
                    tags.values().append_value(texts.value(row));
                }
            }
            tags.append(true).map_err(SourceError::Arrow)?;
        }
        Ok(Arc::new(tags.finish()))
    }

    fn cast(
        &self,
        from: &ArrayRef,
        name: &str,
        to: &DataType,
        expected: &'static str,
    ) -> Result<ArrayRef, SourceError> {
        if from.data_type() == to {
            return Ok(Arc::clone(from));
        }
        // safe: false, because a value that does not fit must be an error and not a null.
        let options = arrow_cast::CastOptions { safe: false, ..Default::default() };
        arrow_cast::cast_with_options(from, to, &options).map_err(|error| match error {
            ArrowError::CastError(_) => {
                SourceError::WrongType { column: name.to_owned(), expected, found: from.data_type().to_string() }
            }
            other => SourceError::Arrow(other),
        })
    }
}

/// Amounts as the table's column.
///
/// # Errors
/// Never in practice: every [`Amount`] fits the column.
pub(super) fn amount_array(amounts: &[Option<Amount>]) -> Result<ArrayRef, SourceError> {
    let units: Decimal128Array = amounts.iter().map(|amount| amount.map(Amount::units)).collect();
    let typed = units.with_precision_and_scale(crate::money::PRECISION, crate::money::ARROW_SCALE);
    Ok(Arc::new(typed.map_err(SourceError::Arrow)?))
}

/// Instants whose second is :59 moved to the next second: some exports write a closed end (`23:59:59`) where FOCUS asks for an open one.
#[must_use]
pub(super) fn open_end(instants: &ArrayRef) -> ArrayRef {
    const SECOND: i64 = 1_000_000;
    let closed = |at: i64| at.rem_euclid(60 * SECOND) == 59 * SECOND;
    let moved = instants.as_primitive::<TimestampMicrosecondType>();
    let moved =
        moved.unary::<_, TimestampMicrosecondType>(|at| if closed(at) { at.saturating_add(SECOND) } else { at });
    Arc::new(moved.with_timezone("UTC"))
}
