//! The column mapping of the legacy CUR: FOCUS column <- source column or rule. This table is the whole of it.
//!
//! Source columns: <https://docs.aws.amazon.com/cur/latest/userguide/data-dictionary.html> (in Parquet the names are written
//! `line_item_unblended_cost` for `lineItem/UnblendedCost`). A column that is absent from a file reads as empty; only [`REQUIRED`] ones must exist.

use super::rules;
use crate::money::Amount;
use crate::source::{Batch, SourceError};
use arrow_array::StringViewArray;

/// Where a FOCUS column comes from.
pub(super) enum From {
    /// The same text in each row.
    Constant(&'static str),
    /// The first of these text columns that has a value in the row.
    Text(&'static [&'static str]),
    /// A column of amounts.
    Amount(&'static str),
    /// A timestamp.
    Instant(&'static str),
    /// A timestamp that ends a period; `23:59:59` becomes the open end that FOCUS asks for.
    End(&'static str),
    /// A rule over several columns, giving text.
    TextRule(fn(&Batch<'_>) -> Result<StringViewArray, SourceError>),
    /// A rule over several columns, giving amounts.
    AmountRule(fn(&Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError>),
    /// All columns that start with [`TAG_PREFIX`].
    Tags,
    /// The legacy CUR cannot give it; why.
    Absent(#[allow(dead_code, reason = "it is there for the reader, and a test prints it")] &'static str),
}

pub(super) const PERIOD_START: &str = "bill_billing_period_start_date";
pub(super) const KIND: &str = "line_item_line_item_type";
pub(super) const UNBLENDED: &str = "line_item_unblended_cost";

/// Without these a file is refused: a cost without one of them would be a guess.
pub(super) const REQUIRED: &[&str] = &[
    PERIOD_START,
    "bill_billing_period_end_date",
    "bill_payer_account_id",
    "line_item_currency_code",
    KIND,
    "line_item_product_code",
    UNBLENDED,
    "line_item_usage_end_date",
    "line_item_usage_start_date",
];

/// Columns that rules read beside those named in [`MAPPING`].
pub(super) const RULE_INPUTS: &[&str] = &[
    "bill_billing_entity",
    KIND,
    "line_item_legal_entity",
    "line_item_product_code",
    UNBLENDED,
    "line_item_unblended_rate",
    "line_item_usage_amount",
    "line_item_usage_type",
    "pricing_public_on_demand_cost",
    "pricing_term",
    "pricing_unit",
    "product_location",
    "product_location_type",
    rules::RI_ARN,
    rules::RI_EFFECTIVE,
    rules::RI_UNUSED_FEE,
    rules::RI_UNUSED_UPFRONT,
    rules::SP_ARN,
    rules::SP_EFFECTIVE,
    rules::SP_TOTAL,
    rules::SP_USED,
];

/// One entry for each column of [`crate::focus::COLUMNS`], in its order.
pub(super) const MAPPING: &[(&str, From)] = &[
    ("AvailabilityZone", From::Text(&["line_item_availability_zone"])),
    // What is on the invoice. Discounts and Savings Plans negations are rows of their own, so the unblended column alone sums to it.
    ("BilledCost", From::Amount(UNBLENDED)),
    ("BillingAccountId", From::Text(&["bill_payer_account_id"])),
    ("BillingAccountName", From::Text(&["bill_payer_account_name"])),
    ("BillingAccountType", From::Absent("AWS has one type of billing account")),
    ("BillingCurrency", From::Text(&["line_item_currency_code"])),
    ("BillingPeriodEnd", From::End("bill_billing_period_end_date")),
    ("BillingPeriodStart", From::Instant(PERIOD_START)),
    ("CapacityReservationId", From::Absent("the report does not tie usage to capacity reservations")),
    ("CapacityReservationStatus", From::Absent("the report does not tie usage to capacity reservations")),
    ("ChargeCategory", From::TextRule(rules::charge_category)),
    ("ChargeClass", From::TextRule(rules::charge_class)),
    ("ChargeDescription", From::Text(&["line_item_line_item_description"])),
    ("ChargeFrequency", From::TextRule(rules::charge_frequency)),
    ("ChargePeriodEnd", From::End("line_item_usage_end_date")),
    ("ChargePeriodStart", From::Instant("line_item_usage_start_date")),
    ("CommitmentDiscountCategory", From::TextRule(rules::commitment_category)),
    ("CommitmentDiscountId", From::Text(&[rules::RI_ARN, rules::SP_ARN])),
    ("CommitmentDiscountName", From::Absent("commitments have no name in the report")),
    ("CommitmentDiscountQuantity", From::Absent("commitment units differ per row and are not stated in one unit")),
    ("CommitmentDiscountStatus", From::TextRule(rules::commitment_status)),
    ("CommitmentDiscountType", From::TextRule(rules::commitment_type)),
    ("CommitmentDiscountUnit", From::Absent("as CommitmentDiscountQuantity")),
    ("ConsumedQuantity", From::AmountRule(rules::consumed_quantity)),
    ("ConsumedUnit", From::TextRule(rules::consumed_unit)),
    ("ContractedCost", From::AmountRule(rules::contracted_cost)),
    ("ContractedUnitPrice", From::AmountRule(rules::contracted_unit_price)),
    ("EffectiveCost", From::AmountRule(rules::effective_cost)),
    ("InvoiceId", From::Text(&["bill_invoice_id"])),
    ("InvoiceIssuerName", From::Text(&["bill_invoicing_entity", "line_item_legal_entity"])),
    ("ListCost", From::AmountRule(rules::list_cost)),
    ("ListUnitPrice", From::Amount("pricing_public_on_demand_rate")),
    ("PricingCategory", From::TextRule(rules::pricing_category)),
    ("PricingCurrency", From::Text(&["pricing_currency"])),
    ("PricingCurrencyContractedUnitPrice", From::Absent("prices are stated in the billing currency alone")),
    ("PricingCurrencyEffectiveCost", From::Absent("prices are stated in the billing currency alone")),
    ("PricingCurrencyListUnitPrice", From::Absent("prices are stated in the billing currency alone")),
    ("PricingQuantity", From::AmountRule(rules::pricing_quantity)),
    ("PricingUnit", From::Text(&["pricing_unit"])),
    ("ProviderName", From::Constant("AWS")),
    ("PublisherName", From::TextRule(rules::publisher)),
    ("RegionId", From::Text(&["product_region_code", "product_region"])),
    ("RegionName", From::TextRule(rules::region_name)),
    ("ResourceId", From::Text(&["line_item_resource_id"])),
    ("ResourceName", From::Absent("the report has resource IDs alone")),
    ("ResourceType", From::Absent("the report has resource IDs alone")),
    ("ServiceCategory", From::TextRule(rules::service_category)),
    ("ServiceName", From::Text(&["product_product_name", "line_item_product_code"])),
    ("ServiceSubcategory", From::Absent("not derivable from a product code alone")),
    ("SkuId", From::Text(&["product_sku"])),
    ("SkuMeter", From::Text(&["line_item_usage_type"])),
    ("SkuPriceDetails", From::Absent("spread over dozens of product_ columns that change each month")),
    ("SkuPriceId", From::Text(&["pricing_rate_code", "pricing_rate_id"])),
    ("SubAccountId", From::Text(&["line_item_usage_account_id"])),
    ("SubAccountName", From::Text(&["line_item_usage_account_name"])),
    ("SubAccountType", From::Absent("AWS has one type of sub account")),
    ("Tags", From::Tags),
    ("x_LineItemId", From::Text(&["identity_line_item_id"])),
    ("x_LineItemType", From::Text(&[KIND])),
    ("x_Operation", From::Text(&["line_item_operation"])),
    ("x_ServiceCode", From::Text(&["line_item_product_code"])),
    ("x_UsageType", From::Text(&["line_item_usage_type"])),
];

/// Prefix of the columns of resource tags, one for each activated tag key.
pub(super) const TAG_PREFIX: &str = "resource_tags_";

/// (tag key, source column). The export writes keys in lower case with `_` for other characters, and what was there before is not in the file.
/// `user_` is dropped; AWS's own tags keep their prefix as `aws:`, which FOCUS asks for.
pub(super) fn tag_columns(batch: &Batch<'_>) -> Vec<(String, String)> {
    let pair = |column: String| {
        let key = column.strip_prefix(TAG_PREFIX).unwrap_or(&column);
        let key = match (key.strip_prefix("user_"), key.strip_prefix("aws_")) {
            (Some(own), _) => own.to_owned(),
            (None, Some(aws)) => format!("aws:{aws}"),
            (None, None) => key.to_owned(),
        };
        (key, column)
    };
    batch.names_with_prefix(TAG_PREFIX).into_iter().map(pair).collect()
}
