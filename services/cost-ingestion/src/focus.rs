//! The columns of the table: FOCUS 1.2, and our own `x_` columns beside them.
//!
//! Lives here: names, types and order of the columns, and the Arrow schema made of them. Must not live here: where a value comes from (each
//! source has its own mapping), or how the table is stored.
//!
//! Names, types and meaning: <https://focus.finops.org/focus-specification/v1-2/>. FOCUS asks custom columns to start with `x_`; ours are written
//! in lower case, and those that AWS's own FOCUS export has keep its names (`x_ServiceCode`, `x_UsageType`, `x_Operation`).

use crate::money::{ARROW_SCALE, PRECISION};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8; the empty text is never stored, it is null.
    Text,
    /// `decimal(38, 18)`: money, unit price or quantity.
    Amount,
    /// Microseconds since 1970 in UTC.
    Instant,
    /// Key and value pairs.
    Tags,
}

/// One column of the table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in the table.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether every row must have a value: a source that cannot give it is refused.
    pub required: bool,
}

const fn must(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, required: true }
}

const fn may(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, required: false }
}

/// All columns that data files hold, in order. The partition columns (`table::PARTITIONS`) are held by the table's log instead.
pub const COLUMNS: &[Column] = &[
    may("AvailabilityZone", Kind::Text),
    must("BilledCost", Kind::Amount),
    must("BillingAccountId", Kind::Text),
    may("BillingAccountName", Kind::Text),
    may("BillingAccountType", Kind::Text),
    must("BillingCurrency", Kind::Text),
    must("BillingPeriodEnd", Kind::Instant),
    must("BillingPeriodStart", Kind::Instant),
    may("CapacityReservationId", Kind::Text),
    may("CapacityReservationStatus", Kind::Text),
    must("ChargeCategory", Kind::Text),
    may("ChargeClass", Kind::Text),
    may("ChargeDescription", Kind::Text),
    may("ChargeFrequency", Kind::Text),
    must("ChargePeriodEnd", Kind::Instant),
    must("ChargePeriodStart", Kind::Instant),
    may("CommitmentDiscountCategory", Kind::Text),
    may("CommitmentDiscountId", Kind::Text),
    may("CommitmentDiscountName", Kind::Text),
    may("CommitmentDiscountQuantity", Kind::Amount),
    may("CommitmentDiscountStatus", Kind::Text),
    may("CommitmentDiscountType", Kind::Text),
    may("CommitmentDiscountUnit", Kind::Text),
    may("ConsumedQuantity", Kind::Amount),
    may("ConsumedUnit", Kind::Text),
    must("ContractedCost", Kind::Amount),
    may("ContractedUnitPrice", Kind::Amount),
    must("EffectiveCost", Kind::Amount),
    may("InvoiceId", Kind::Text),
    may("InvoiceIssuerName", Kind::Text),
    must("ListCost", Kind::Amount),
    may("ListUnitPrice", Kind::Amount),
    may("PricingCategory", Kind::Text),
    may("PricingCurrency", Kind::Text),
    may("PricingCurrencyContractedUnitPrice", Kind::Amount),
    may("PricingCurrencyEffectiveCost", Kind::Amount),
    may("PricingCurrencyListUnitPrice", Kind::Amount),
    may("PricingQuantity", Kind::Amount),
    may("PricingUnit", Kind::Text),
    must("ProviderName", Kind::Text),
    may("PublisherName", Kind::Text),
    may("RegionId", Kind::Text),
    may("RegionName", Kind::Text),
    may("ResourceId", Kind::Text),
    may("ResourceName", Kind::Text),
    may("ResourceType", Kind::Text),
    must("ServiceCategory", Kind::Text),
    must("ServiceName", Kind::Text),
    may("ServiceSubcategory", Kind::Text),
    may("SkuId", Kind::Text),
    may("SkuMeter", Kind::Text),
    may("SkuPriceDetails", Kind::Text),
    may("SkuPriceId", Kind::Text),
    may("SubAccountId", Kind::Text),
    may("SubAccountName", Kind::Text),
    may("SubAccountType", Kind::Text),
    may("Tags", Kind::Tags),
    may("x_LineItemId", Kind::Text),
    may("x_LineItemType", Kind::Text),
    may("x_Operation", Kind::Text),
    may("x_ServiceCode", Kind::Text),
    may("x_UsageType", Kind::Text),
];

/// How `kind` is held in memory. Text is a view, so that a repeated long text is held once.
#[must_use]
pub fn arrow_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8View,
        Kind::Amount => DataType::Decimal128(PRECISION, ARROW_SCALE),
        Kind::Instant => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Tags => DataType::Map(tag_entries(), false),
    }
}

/// The entry type of `Tags`, with the names that Parquet gives to maps.
#[must_use]
pub fn tag_entries() -> Arc<Field> {
    let fields =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
    Arc::new(Field::new("key_value", DataType::Struct(fields), false))
}

/// The schema of the data files. Every column is nullable there: a column that becomes optional must not break old files, and what is required
/// is checked where rows come in.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(COLUMNS.iter().map(|c| Field::new(c.name, arrow_type(c.kind), true)).collect::<Vec<_>>()))
});

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_ours_are_marked() {
        let names: BTreeSet<_> = COLUMNS.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
        let ours = names.iter().filter(|name| name.starts_with("x_")).count();
        assert_eq!(names.len() - ours, 57, "FOCUS 1.2 has 57 columns");
        assert!(names.iter().all(|name| name.starts_with("x_") || name.starts_with(|c: char| c.is_ascii_uppercase())));
    }
}
