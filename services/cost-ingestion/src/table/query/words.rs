//! Columns of few distinct texts: which there are, and each row's number among them.
//!
//! All that is grouped and filtered by is held so: the work of a row is arithmetic on small numbers, and the work on texts is done once for each distinct one.

use crate::table::TableError;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_schema::DataType;
use std::collections::HashMap;
use std::sync::Arc;

/// Each row's number.
#[derive(Clone, Debug)]
pub(super) enum Codes {
    /// All rows have this one.
    Same(u32),
    Each(Vec<u32>),
}

/// See the module. A number beyond the texts stands for no value.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) codes: Codes,
    texts: StringArray,
}

impl Words {
    /// All rows have this text, or no value.
    pub(super) fn same(text: Option<&str>) -> Self {
        Self { codes: Codes::Same(0), texts: text.into_iter().map(Some).collect() }
    }

    /// Rows that have these numbers among these texts; another number stands for no value.
    pub(super) fn new(codes: Vec<u32>, texts: StringArray) -> Self {
        Self { codes: Codes::Each(codes), texts }
    }

    /// Of a column of any text type.
    pub(super) fn of(column: &ArrayRef, name: &'static str) -> Result<Self, TableError> {
        let wanted = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let column = if *column.data_type() == wanted {
            Arc::clone(column)
        } else {
            arrow_cast::cast(column, &wanted).map_err(|_| TableError::BadRow(name))?
        };
        let column = column.as_dictionary_opt::<Int32Type>().ok_or(TableError::BadRow(name))?;
        let texts = column.values().as_string_opt::<i32>().ok_or(TableError::BadRow(name))?.clone();
        let (keys, none) = (column.keys(), texts.len() as u32);
        if texts.is_empty() {
            return Ok(Self::same(None));
        }
        let codes = if keys.null_count() == 0 {
            if texts.len() == 1 {
                return Ok(Self { codes: Codes::Same(0), texts });
            }
            keys.values().iter().map(|key| key.cast_unsigned()).collect()
        } else {
            keys.iter().map(|key| key.map_or(none, i32::cast_unsigned)).collect()
        };
        Ok(Self { codes: Codes::Each(codes), texts })
    }

    /// Of texts as they come.
    pub(super) fn gathered<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Self {
        let (mut places, mut distinct) = (HashMap::<&str, u32, ahash::RandomState>::default(), Vec::new());
        let mut codes: Vec<u32> = Vec::new();
        for text in texts {
            codes.push(text.map_or(u32::MAX, |text| {
                *places.entry(text).or_insert_with(|| {
                    distinct.push(Some(text));
                    (distinct.len() - 1) as u32
                })
            }));
        }
        let none = distinct.len() as u32;
        codes.iter_mut().filter(|code| **code == u32::MAX).for_each(|code| *code = none);
        Self::new(codes, distinct.into_iter().collect())
    }

    /// How many numbers there are, that of no value among them.
    pub(super) fn count(&self) -> usize {
        self.texts.len() + 1
    }

    /// The number of a row.
    pub(super) fn code(&self, row: usize) -> u32 {
        match &self.codes {
            Codes::Same(code) => *code,
            Codes::Each(codes) => codes.get(row).copied().unwrap_or(u32::MAX),
        }
    }

    /// The text of a number.
    pub(super) fn text(&self, code: u32) -> Option<&str> {
        let at = code as usize;
        (at < self.texts.len() && self.texts.is_valid(at)).then(|| self.texts.value(at))
    }

    /// Memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Same(_) => 0,
            Codes::Each(codes) => codes.len() * 4,
        };
        codes + self.texts.get_array_memory_size()
    }
}
