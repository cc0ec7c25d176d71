//! The FOCUS columns that the legacy CUR does not simply hold: categories and the amortised costs.
//!
//! All follow from the line item's type:
//! <https://docs.aws.amazon.com/cur/latest/userguide/Lineitem-columns.html>. Amortisation is the formula of AWS's own guide
//! (<https://docs.aws.amazon.com/cur/latest/userguide/amortized-reservation.html>), in decimals.

use super::columns::{KIND, UNBLENDED};
use super::services;
use crate::money::Amount;
use crate::source::{Amounts, Batch, Line, SourceError};
use arrow_array::{Array, StringViewArray};

pub(super) const RI_ARN: &str = "reservation_reservation_a_r_n";
pub(super) const RI_EFFECTIVE: &str = "reservation_effective_cost";
pub(super) const RI_UNUSED_FEE: &str = "reservation_unused_recurring_fee";
pub(super) const RI_UNUSED_UPFRONT: &str = "reservation_unused_amortized_upfront_fee_for_billing_period";
pub(super) const SP_ARN: &str = "savings_plan_savings_plan_a_r_n";
pub(super) const SP_EFFECTIVE: &str = "savings_plan_savings_plan_effective_cost";
pub(super) const SP_TOTAL: &str = "savings_plan_total_commitment_to_date";
pub(super) const SP_USED: &str = "savings_plan_used_commitment";

/// A line item's type, as far as rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Usage,
    RiUsage,
    SpUsage,
    SpNegation,
    RiFee,
    SpFee,
    SpUpfront,
    Fee,
    Tax,
    Credit,
    Refund,
    /// Discounts of every sort, and types that do not exist yet.
    Other,
}

impl Type {
    fn parse(text: &str) -> Self {
        match text {
            "Usage" => Self::Usage,
            "DiscountedUsage" => Self::RiUsage,
            "SavingsPlanCoveredUsage" => Self::SpUsage,
            "SavingsPlanNegation" => Self::SpNegation,
            "RIFee" => Self::RiFee,
            "SavingsPlanRecurringFee" => Self::SpFee,
            "SavingsPlanUpfrontFee" => Self::SpUpfront,
            "Fee" => Self::Fee,
            "Tax" => Self::Tax,
            "Credit" => Self::Credit,
            "Refund" => Self::Refund,
            _ => Self::Other,
        }
    }

    /// Use of a service, however it is paid for.
    const fn is_use(self) -> bool {
        matches!(self, Self::Usage | Self::RiUsage | Self::SpUsage)
    }
}

fn types(batch: &Batch<'_>) -> Result<Vec<Type>, SourceError> {
    let texts = batch.first_text(&[KIND])?;
    Ok(texts.iter().map(|text| Type::parse(text.unwrap_or_default())).collect())
}

fn text_rule(batch: &Batch<'_>, rule: impl Fn(Type) -> Option<&'static str>) -> Result<StringViewArray, SourceError> {
    Ok(types(batch)?.into_iter().map(rule).collect())
}

fn at(amounts: &Amounts, line: Line) -> Option<Amount> {
    amounts.get(line).copied().flatten()
}

pub(super) fn charge_category(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    text_rule(batch, |kind| {
        Some(match kind {
            // A negation takes back what covered usage was billed with: it belongs to that usage.
            Type::Usage | Type::RiUsage | Type::SpUsage | Type::SpNegation => "Usage",
            Type::RiFee | Type::SpFee | Type::SpUpfront | Type::Fee => "Purchase",
            Type::Tax => "Tax",
            Type::Credit => "Credit",
            Type::Refund | Type::Other => "Adjustment",
        })
    })
}

pub(super) fn charge_class(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    text_rule(batch, |kind| (kind == Type::Refund).then_some("Correction"))
}

pub(super) fn charge_frequency(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    text_rule(batch, |kind| {
        Some(match kind {
            Type::Usage | Type::RiUsage | Type::SpUsage | Type::SpNegation => "Usage-Based",
            Type::RiFee | Type::SpFee => "Recurring",
            _ => "One-Time",
        })
    })
}

/// Which commitment pays for the line: reservations are committed in usage, Savings Plans in spend.
fn commitment(
    batch: &Batch<'_>,
    reservation: &'static str,
    plan: &'static str,
) -> Result<StringViewArray, SourceError> {
    let (reservations, plans) = (batch.first_text(&[RI_ARN])?, batch.first_text(&[SP_ARN])?);
    let pick = |line| match (reservations.is_valid(line), plans.is_valid(line)) {
        (true, _) => Some(reservation),
        (false, true) => Some(plan),
        (false, false) => None,
    };
    Ok((0..batch.rows()).map(pick).collect())
}

pub(super) fn commitment_category(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    commitment(batch, "Usage", "Spend")
}

pub(super) fn commitment_type(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    commitment(batch, "Reserved Instance", "Savings Plan")
}

pub(super) fn commitment_status(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    text_rule(batch, |kind| match kind {
        Type::RiUsage | Type::SpUsage => Some("Used"),
        _ => None,
    })
}

pub(super) fn pricing_category(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    let (terms, usage) = (batch.first_text(&["pricing_term"])?, batch.first_text(&["line_item_usage_type"])?);
    let kinds = types(batch)?;
    let pick = |(line, kind): (Line, Type)| match kind {
        Type::RiUsage | Type::SpUsage => Some("Committed"),
        Type::Usage if usage.is_valid(line) && usage.value(line).contains("SpotUsage") => Some("Dynamic"),
        Type::Usage if terms.is_valid(line) && terms.value(line) == "OnDemand" => Some("Standard"),
        Type::Usage => Some("Other"),
        _ => None,
    };
    Ok(kinds.into_iter().enumerate().map(pick).collect())
}

/// Marketplace rows are sold by another company under its own name.
pub(super) fn publisher(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    let (entity, seller) =
        (batch.first_text(&["bill_billing_entity"])?, batch.first_text(&["line_item_legal_entity"])?);
    let pick = |line| {
        let market = entity.is_valid(line) && entity.value(line) == "AWS Marketplace";
        if market && seller.is_valid(line) { seller.value(line) } else { "AWS" }
    };
    Ok(StringViewArray::from_iter_values((0..batch.rows()).map(pick)))
}

pub(super) fn region_name(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    let (place, kind) = (batch.first_text(&["product_location"])?, batch.first_text(&["product_location_type"])?);
    let pick = |line| {
        (kind.is_valid(line) && kind.value(line) == "AWS Region" && place.is_valid(line)).then(|| place.value(line))
    };
    Ok((0..batch.rows()).map(pick).collect())
}

pub(super) fn service_category(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    let codes = batch.first_text(&["line_item_product_code"])?;
    Ok(codes.iter().map(|code| Some(services::category(code.unwrap_or_default()))).collect())
}

/// FOCUS: consumption is null wherever nothing was consumed.
pub(super) fn consumed_quantity(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, amounts) = (types(batch)?, batch.amounts("line_item_usage_amount")?);
    Ok(kinds.iter().enumerate().map(|(line, kind)| kind.is_use().then(|| at(&amounts, line)).flatten()).collect())
}

pub(super) fn consumed_unit(batch: &Batch<'_>) -> Result<StringViewArray, SourceError> {
    let (kinds, units) = (types(batch)?, batch.first_text(&["pricing_unit"])?);
    let pick = |(line, kind): (Line, &Type)| (kind.is_use() && units.is_valid(line)).then(|| units.value(line));
    Ok(kinds.iter().enumerate().map(pick).collect())
}

pub(super) fn pricing_quantity(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, amounts) = (types(batch)?, batch.amounts("line_item_usage_amount")?);
    let priced = |kind: &Type| kind.is_use() || matches!(kind, Type::RiFee | Type::SpFee | Type::SpUpfront | Type::Fee);
    Ok(kinds.iter().enumerate().map(|(line, kind)| priced(kind).then(|| at(&amounts, line)).flatten()).collect())
}

/// The rate that on-demand usage was billed at, which holds negotiated prices. Commitments have no rate of this sort.
pub(super) fn contracted_unit_price(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, rates) = (types(batch)?, batch.amounts("line_item_unblended_rate")?);
    Ok(kinds
        .iter()
        .enumerate()
        .map(|(line, kind)| (*kind == Type::Usage).then(|| at(&rates, line)).flatten())
        .collect())
}

/// At public prices. Only use has a public price; everything else stands with what was billed, as FOCUS asks.
pub(super) fn list_cost(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, billed) = (types(batch)?, batch.amounts(UNBLENDED)?);
    let public = batch.amounts("pricing_public_on_demand_cost")?;
    let pick = |(line, kind): (Line, &Type)| match kind {
        kind if kind.is_use() => at(&public, line).or_else(|| at(&billed, line)),
        Type::SpNegation => Some(Amount::ZERO),
        _ => at(&billed, line),
    };
    Ok(kinds.iter().enumerate().map(pick).collect())
}

/// At negotiated prices, before commitments. For reserved usage the report has the public price alone.
pub(super) fn contracted_cost(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, billed) = (types(batch)?, batch.amounts(UNBLENDED)?);
    let public = batch.amounts("pricing_public_on_demand_cost")?;
    let pick = |(line, kind): (Line, &Type)| match kind {
        Type::RiUsage => at(&public, line).or_else(|| at(&billed, line)),
        Type::SpNegation => Some(Amount::ZERO),
        _ => at(&billed, line),
    };
    Ok(kinds.iter().enumerate().map(pick).collect())
}

/// Amortised: what commitments cost is spread over the use they cover, and their fees keep only what was left unused.
/// Where a file lacks the columns for that, the billed cost stands in.
pub(super) fn effective_cost(batch: &Batch<'_>) -> Result<Vec<Option<Amount>>, SourceError> {
    let (kinds, billed) = (types(batch)?, batch.amounts(UNBLENDED)?);
    let (ri, ri_fee, ri_upfront) =
        (batch.amounts(RI_EFFECTIVE)?, batch.amounts(RI_UNUSED_FEE)?, batch.amounts(RI_UNUSED_UPFRONT)?);
    let (sp, sp_total, sp_used) = (batch.amounts(SP_EFFECTIVE)?, batch.amounts(SP_TOTAL)?, batch.amounts(SP_USED)?);
    let reservations = batch.first_text(&[RI_ARN])?;
    let too_large = || SourceError::TooLarge { column: "EffectiveCost" };
    let pick = |(line, kind): (Line, &Type)| {
        let billed = at(&billed, line);
        Ok(match kind {
            Type::RiUsage => at(&ri, line).or(billed),
            Type::SpUsage => at(&sp, line).or(billed),
            Type::RiFee => match (at(&ri_fee, line), at(&ri_upfront, line)) {
                (Some(fee), Some(upfront)) => Some(fee.checked_add(upfront).ok_or_else(too_large)?),
                _ => billed,
            },
            Type::SpFee => match (at(&sp_total, line), at(&sp_used, line)) {
                (Some(total), Some(used)) => Some(total.checked_sub(used).ok_or_else(too_large)?),
                _ => billed,
            },
            Type::SpNegation | Type::SpUpfront => Some(Amount::ZERO),
            // The one-time fee of a reservation is in the effective cost of the use it covers.
            Type::Fee if reservations.is_valid(line) => Some(Amount::ZERO),
            _ => billed,
        })
    };
    kinds.iter().enumerate().map(pick).collect()
}
