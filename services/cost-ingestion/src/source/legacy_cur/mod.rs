//! The legacy Cost and Usage Report in Parquet (`line_item_unblended_cost` and its kin).
//!
//! Lives here: how such a file is recognised and how a batch is put together. What each FOCUS column is made of is in `columns.rs`, the rules
//! that need thought are in `rules.rs`.

mod columns;
mod rules;
mod services;

use super::batch::{amount_array, open_end};
use super::{Batch, CostSource, Mapped, SourceError};
use crate::focus::{self, Kind};
use arrow_array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow_schema::{DataType, Schema};
use columns::{From, MAPPING, TAG_PREFIX};
use std::sync::Arc;

/// See the module.
pub struct LegacyCur;

impl CostSource for LegacyCur {
    fn name(&self) -> &'static str {
        "legacy-cur"
    }

    fn recognises(&self, schema: &Schema) -> bool {
        let has = |name: &str| schema.field_with_name(name).is_ok();
        // CUR 2.0 shares these names, but folds products and tags into maps: it is another format.
        let maps = |name: &str| schema.field_with_name(name).is_ok_and(|f| matches!(f.data_type(), DataType::Map(..)));
        has("line_item_unblended_cost")
            && has(columns::PERIOD_START)
            && has("identity_line_item_id")
            && !maps("product")
            && !maps("resource_tags")
    }

    fn period_column(&self) -> &'static str {
        columns::PERIOD_START
    }

    fn wants(&self, column: &str) -> bool {
        column.starts_with(TAG_PREFIX)
            || columns::RULE_INPUTS.contains(&column)
            || MAPPING.iter().any(|(_, from)| match from {
                From::Text(names) => names.contains(&column),
                From::Amount(name) | From::Instant(name) | From::End(name) => *name == column,
                _ => false,
            })
    }

    fn map(&self, rows: &RecordBatch) -> Result<Mapped, SourceError> {
        let batch = Batch::new(rows);
        for column in columns::REQUIRED {
            if !batch.has(column) {
                return Err(SourceError::MissingColumn { column });
            }
        }
        let mut arrays = Vec::with_capacity(MAPPING.len());
        for (column, (name, from)) in focus::COLUMNS.iter().zip(MAPPING) {
            debug_assert_eq!(column.name, *name);
            let array = make(&batch, from, column.kind)?;
            if column.required && array.null_count() > 0 {
                return Err(SourceError::Empty { column: column.name });
            }
            arrays.push(array);
        }
        let rows = RecordBatch::try_new(Arc::clone(&focus::SCHEMA), arrays).map_err(SourceError::Arrow)?;
        Ok(Mapped { rows, rounded: batch.rounded() })
    }
}

fn make(batch: &Batch<'_>, from: &From, kind: Kind) -> Result<ArrayRef, SourceError> {
    Ok(match from {
        From::Constant(text) => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(*text, batch.rows()))),
        From::Text(names) => Arc::new(batch.first_text(names)?),
        From::Amount(name) => amount_array(&batch.amounts(name)?)?,
        From::Instant(name) => batch.instants(name)?,
        From::End(name) => open_end(&batch.instants(name)?),
        From::TextRule(rule) => Arc::new(rule(batch)?),
        From::AmountRule(rule) => amount_array(&rule(batch)?)?,
        From::Tags => batch.tags(&columns::tag_columns(batch))?,
        From::Absent(_) => arrow_array::new_null_array(&focus::arrow_type(kind), batch.rows()),
    })
}

#[cfg(test)]
mod tests;
