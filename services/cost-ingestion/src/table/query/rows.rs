//! Rows to be added up, whether they are rows of data files or of a daily summary: columns of numbers.

use super::words::Words;
use crate::money::{ARROW_SCALE, PRECISION};
use crate::table::TableError;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, Decimal128Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};

const MICROS_OF_A_DAY: i64 = 86_400_000_000;

/// Text columns that summaries have, in the order in which they are held. The last is always read.
pub(super) const TEXTS: [&str; 5] = ["ServiceName", "SubAccountId", "RegionId", "ChargeCategory", "BillingCurrency"];
/// Cost columns; the first two are always read.
pub(super) const COSTS: [&str; 4] = ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"];
/// When a charge began.
pub(super) const START: &str = "ChargePeriodStart";
/// Place of the currency in [`TEXTS`].
pub(super) const CURRENCY: usize = 4;

/// What of a data file is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) texts: [bool; 5],
    pub(super) days: bool,
    /// Tag keys.
    pub(super) tags: Vec<String>,
    /// 2, or all 4.
    pub(super) costs: usize,
}

impl Wanted {
    /// The columns of a data file.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let texts = TEXTS.iter().zip(self.texts).filter(|(_, wanted)| *wanted).map(|(name, _)| *name);
        let times = self.days.then_some(START);
        let tags = (!self.tags.is_empty()).then_some("Tags");
        texts.chain(COSTS.iter().take(self.costs).copied()).chain(times).chain(tags).collect()
    }
}

/// See the module. What was not wanted is not there.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) count: usize,
    /// Days since 1970.
    pub(super) days: Option<Vec<i32>>,
    pub(super) texts: [Option<Words>; 5],
    /// In the order of [`Wanted::tags`].
    pub(super) tags: Vec<Words>,
    pub(super) costs: Vec<Decimal128Array>,
    /// How many rows of the table each stands for; one when absent.
    pub(super) weights: Option<Int64Array>,
}

impl Rows {
    /// Of a batch that has the columns that are wanted.
    pub(super) fn of(batch: &RecordBatch, wanted: &Wanted) -> Result<Self, TableError> {
        let mut texts = [const { None }; 5];
        for ((place, name), is_wanted) in texts.iter_mut().zip(TEXTS).zip(wanted.texts) {
            if is_wanted {
                // A column that a file does not have has no values.
                *place = Some(match batch.column_by_name(name) {
                    Some(column) => Words::of(column, name)?,
                    None => Words::same(None),
                });
            }
        }
        Ok(Self {
            count: batch.num_rows(),
            days: if wanted.days { Some(days(batch)?) } else { None },
            texts,
            tags: tags(batch, &wanted.tags)?,
            costs: costs(batch, wanted.costs)?,
            weights: None,
        })
    }

    /// Memory that they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().flatten().chain(&self.tags).map(Words::bytes).sum();
        texts + self.count * (self.costs.len() * 16 + 4 + 8)
    }
}

/// The costs of a batch.
pub(super) fn costs(batch: &RecordBatch, count: usize) -> Result<Vec<Decimal128Array>, TableError> {
    let wanted = DataType::Decimal128(PRECISION, ARROW_SCALE);
    let cost = |name: &&'static str| {
        let bad = || TableError::BadRow(name);
        let column = batch.column_by_name(name).ok_or_else(bad)?;
        let column = if *column.data_type() == wanted {
            column.as_primitive_opt::<Decimal128Type>().ok_or_else(bad)?.clone()
        } else {
            let column = arrow_cast::cast(column, &wanted).map_err(|_| bad())?;
            column.as_primitive_opt::<Decimal128Type>().ok_or_else(bad)?.clone()
        };
        if column.null_count() == 0 { Ok(column) } else { Err(bad()) }
    };
    COSTS.iter().take(count).map(cost).collect()
}

fn days(batch: &RecordBatch) -> Result<Vec<i32>, TableError> {
    let bad = || TableError::BadRow(START);
    let wanted = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let column = arrow_cast::cast(batch.column_by_name(START).ok_or_else(bad)?, &wanted).map_err(|_| bad())?;
    let starts = column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(bad)?;
    if starts.null_count() > 0 {
        return Err(bad());
    }
    Ok(starts.values().iter().map(|start| start.div_euclid(MICROS_OF_A_DAY) as i32).collect())
}

fn tags(batch: &RecordBatch, keys: &[String]) -> Result<Vec<Words>, TableError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let bad = || TableError::BadRow("Tags");
    let Some(column) = batch.column_by_name("Tags") else {
        return Ok(keys.iter().map(|_| Words::same(None)).collect());
    };
    let maps = column.as_map_opt().ok_or_else(bad)?;
    let text = |array| arrow_cast::cast(array, &DataType::Utf8).map_err(|_| bad());
    let (names, values) = (text(maps.keys())?, text(maps.values())?);
    let (names, values) =
        (names.as_string_opt::<i32>().ok_or_else(bad)?, values.as_string_opt::<i32>().ok_or_else(bad)?);
    let of_row = |key: &str, row: usize| {
        let range = if maps.is_valid(row) { maps.value_offsets().get(row..=row + 1)? } else { return None };
        let [from, to] = *range else { return None };
        let at = (from..to).map(|at| at as usize).find(|at| names.value(*at) == key)?;
        values.is_valid(at).then(|| values.value(at))
    };
    Ok(keys.iter().map(|key| Words::gathered((0..maps.len()).map(|row| of_row(key, row)))).collect())
}

/// The column `Rows` of a summary.
pub(super) fn weights(batch: &RecordBatch) -> Result<Int64Array, TableError> {
    let column = batch.column_by_name("Rows").and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.cloned().ok_or(TableError::BadRow("Rows"))
}
