//! The columns of each format.

use super::lines::{Kind, Line};
use std::borrow::Cow;

type Text = Option<Cow<'static, str>>;
pub(super) type Pairs = Vec<(&'static str, String)>;

/// Where a column's values come from.
#[derive(Clone, Copy)]
pub(super) enum From {
    Text(fn(&Line) -> Text),
    /// In 10^-10.
    Amount(fn(&Line) -> Option<i64>),
    /// Seconds since 1970.
    Time(fn(&Line) -> i64),
    Map(fn(&Line) -> Pairs),
}

pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) from: From,
    /// Whether an export may be without it.
    pub(super) may_go: bool,
}

fn word(text: &'static str) -> Text {
    Some(Cow::Borrowed(text))
}

fn tags(line: &Line, prefix: bool) -> Pairs {
    let Some(team) = line.team() else { return Vec::new() };
    let mut tags = vec![(if prefix { "user_team" } else { "team" }, team.to_owned())];
    if line.resource.is_multiple_of(3) {
        tags.push((
            if prefix { "user_environment" } else { "environment" },
            if line.resource.is_multiple_of(2) { "prod" } else { "dev" }.to_owned(),
        ));
    }
    tags
}

fn category(line: &Line) -> &'static str {
    match line.kind {
        Kind::Usage | Kind::RiUsage | Kind::SpUsage | Kind::SpNegation => "Usage",
        Kind::RiFee | Kind::SpFee => "Purchase",
        Kind::Tax => "Tax",
        Kind::Credit => "Credit",
        Kind::Refund | Kind::Discount => "Adjustment",
    }
}

fn line_type(line: &Line) -> &'static str {
    match line.kind {
        Kind::Usage => "Usage",
        Kind::RiUsage => "DiscountedUsage",
        Kind::SpUsage => "SavingsPlanCoveredUsage",
        Kind::SpNegation => "SavingsPlanNegation",
        Kind::RiFee => "RIFee",
        Kind::SpFee => "SavingsPlanRecurringFee",
        Kind::Tax => "Tax",
        Kind::Credit => "Credit",
        Kind::Refund => "Refund",
        Kind::Discount => "EdpDiscount",
    }
}

fn service_category(line: &Line) -> &'static str {
    match line.service.0 {
        "AmazonEC2" | "AWSLambda" => "Compute",
        "AmazonS3" => "Storage",
        "AmazonRDS" | "AmazonDynamoDB" => "Databases",
        "AmazonCloudWatch" => "Management and Governance",
        "AWSQueueService" => "Integration",
        "awskms" => "Security",
        _ => "Networking",
    }
}

fn sku(line: &Line) -> String {
    let number = line
        .usage_type
        .bytes()
        .chain(line.region.0.bytes())
        .fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    format!("{:016X}", number)
}

fn instant(seconds: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{:04}-{:02}-{:02}T{:02}:00:00Z", at.year(), u8::from(at.month()), at.day(), at.hour())
}

pub(super) fn time_text(seconds: i64) -> String {
    instant(seconds)
}

macro_rules! columns {
    ($($name:literal $(($go:ident))? = $kind:ident $from:expr;)*) => {
        vec![$(Column { name: $name, from: From::$kind($from), may_go: columns!(@go $($go)?) }),*]
    };
    (@go) => { false };
    (@go $go:ident) => { true };
}

/// CUR 2.0 as Data Exports deliver it, 49 columns.
pub(super) fn cur2() -> Vec<Column> {
    columns! {
        "bill_bill_type" (may_go) = Text |_| word("Anniversary");
        "bill_billing_entity" (may_go) = Text |_| word("AWS");
        "bill_billing_period_end_date" = Time |line| line.period.1;
        "bill_billing_period_start_date" = Time |line| line.period.0;
        "bill_invoice_id" (may_go) = Text |_| word("2100000001");
        "bill_invoicing_entity" (may_go) = Text |_| word("Amazon Web Services EMEA SARL");
        "bill_payer_account_id" = Text |_| word("111111111100");
        "bill_payer_account_name" (may_go) = Text |_| word("Payer");
        "cost_category" (may_go) = Map |line| line.team().map(|team| vec![("Team", team.to_owned())]).unwrap_or_default();
        "discount" (may_go) = Map |_| Vec::new();
        "identity_line_item_id" (may_go) = Text |line| Some(format!("{:052x}", u128::from(line.number) * 0x9e37_79b9_7f4a_7c15_f39c_c060).into());
        "identity_time_interval" (may_go) = Text |line| Some(format!("{}/{}", instant(line.start()), instant(line.end())).into());
        "line_item_availability_zone" (may_go) = Text |line| line.is_use().then(|| format!("{}a", line.region.0).into());
        "line_item_currency_code" = Text |_| word("USD");
        "line_item_legal_entity" (may_go) = Text |_| word("Amazon Web Services EMEA SARL");
        "line_item_line_item_description" (may_go) = Text |line| Some(line.description().into());
        "line_item_line_item_type" = Text |line| word(line_type(line));
        "line_item_operation" (may_go) = Text |line| line.is_use().then_some(Cow::Borrowed(line.service.4));
        "line_item_product_code" = Text |line| word(line.service.0);
        "line_item_resource_id" (may_go) = Text |line| line.resource_arn().map(Cow::Owned);
        "line_item_unblended_cost" = Amount |line| Some(line.billed);
        "line_item_unblended_rate" (may_go) = Text |line| line.is_use().then(|| super::decimal(i128::from(line.price)).into());
        "line_item_usage_account_id" = Text |line| Some(line.account.to_string().into());
        "line_item_usage_account_name" (may_go) = Text |line| Some(format!("account-{}", line.account % 100).into());
        "line_item_usage_amount" = Amount |line| Some(line.quantity);
        "line_item_usage_end_date" = Time Line::end;
        "line_item_usage_start_date" = Time Line::start;
        "line_item_usage_type" = Text |line| word(line.usage_type);
        "pricing_currency" (may_go) = Text |_| word("USD");
        "pricing_public_on_demand_cost" = Amount |line| line.is_use().then_some(line.list);
        "pricing_public_on_demand_rate" (may_go) = Text |line| line.is_use().then(|| super::decimal(i128::from(line.price)).into());
        "pricing_purchase_option" (may_go) = Text |line| (line.kind == Kind::RiFee).then_some(Cow::Borrowed("No Upfront"));
        "pricing_rate_code" (may_go) = Text |line| Some(format!("{}.JRTCKXETXF.6YS6EN2CT7", sku(line)).into());
        "pricing_term" (may_go) = Text |line| line.is_use().then_some(Cow::Borrowed("OnDemand"));
        "pricing_unit" = Text |line| word(line.service.2);
        "product" = Map |line| vec![("product_name", line.service.1.to_owned()), ("region", line.region.0.to_owned()), ("sku", sku(line))];
        "product_product_family" (may_go) = Text |_| word("Service");
        "product_region_code" (may_go) = Text |line| word(line.region.0);
        "product_servicecode" (may_go) = Text |line| word(line.service.0);
        "product_sku" (may_go) = Text |line| Some(sku(line).into());
        "reservation_effective_cost" = Amount |line| (line.kind == Kind::RiUsage).then_some(line.effective);
        "reservation_reservation_a_r_n" = Text |line| line.reservation().map(Cow::Owned);
        "reservation_unused_amortized_upfront_fee_for_billing_period" = Amount |line| (line.kind == Kind::RiFee).then_some(1_111_111_111);
        "reservation_unused_recurring_fee" = Amount |line| (line.kind == Kind::RiFee).then_some(2_222_222_222);
        "resource_tags" = Map |line| tags(line, true);
        "savings_plan_savings_plan_a_r_n" = Text |line| line.savings_plan().map(Cow::Owned);
        "savings_plan_savings_plan_effective_cost" = Amount |line| (line.kind == Kind::SpUsage).then_some(line.effective);
        "savings_plan_total_commitment_to_date" = Amount |line| (line.kind == Kind::SpFee).then_some(line.committed.0);
        "savings_plan_used_commitment" = Amount |line| (line.kind == Kind::SpFee).then_some(line.committed.1);
    }
}

/// FOCUS 1.2.
pub(super) fn focus12() -> Vec<Column> {
    columns! {
        "AvailabilityZone" (may_go) = Text |line| line.is_use().then(|| format!("{}a", line.region.0).into());
        "BilledCost" = Amount |line| Some(line.billed);
        "BillingAccountId" = Text |_| word("111111111100");
        "BillingAccountName" (may_go) = Text |_| word("Payer");
        "BillingAccountType" = Text |_| word("Payer Account");
        "BillingCurrency" = Text |_| word("USD");
        "BillingPeriodEnd" = Time |line| line.period.1;
        "BillingPeriodStart" = Time |line| line.period.0;
        "ChargeCategory" = Text |line| word(category(line));
        "ChargeClass" = Text |line| (line.kind == Kind::Refund).then_some(Cow::Borrowed("Correction"));
        "ChargeDescription" (may_go) = Text |line| Some(line.description().into());
        "ChargeFrequency" = Text |line| word(match line.kind { Kind::RiFee | Kind::SpFee => "Recurring", _ if category(line) == "Usage" => "Usage-Based", _ => "One-Time" });
        "ChargePeriodEnd" = Time Line::end;
        "ChargePeriodStart" = Time Line::start;
        "CommitmentDiscountCategory" = Text |line| line.reservation().map(|_| Cow::Borrowed("Usage")).or_else(|| line.savings_plan().map(|_| Cow::Borrowed("Spend")));
        "CommitmentDiscountId" = Text |line| line.reservation().or_else(|| line.savings_plan()).map(Cow::Owned);
        "CommitmentDiscountStatus" = Text |line| (category(line) == "Usage" && (line.reservation().is_some() || line.savings_plan().is_some())).then_some(Cow::Borrowed("Used"));
        "CommitmentDiscountType" = Text |line| line.reservation().map(|_| Cow::Borrowed("Reserved Instance")).or_else(|| line.savings_plan().map(|_| Cow::Borrowed("Savings Plan")));
        "ConsumedQuantity" = Amount |line| line.is_use().then_some(line.quantity);
        "ConsumedUnit" = Text |line| line.is_use().then_some(Cow::Borrowed(line.service.2));
        "ContractedCost" = Amount |line| Some(line.list);
        "EffectiveCost" = Amount |line| Some(line.effective);
        "InvoiceId" = Text |_| word("2100000001");
        "InvoiceIssuerName" = Text |_| word("Amazon Web Services EMEA SARL");
        "ListCost" = Amount |line| Some(line.list);
        "ListUnitPrice" (may_go) = Amount |line| line.is_use().then_some(line.price);
        "PricingCategory" = Text |line| match line.kind { Kind::RiUsage | Kind::SpUsage => word("Committed"), Kind::Usage => word("Standard"), _ => None };
        "PricingCurrency" (may_go) = Text |_| word("USD");
        "PricingQuantity" = Amount |line| line.is_use().then_some(line.quantity);
        "PricingUnit" = Text |line| line.is_use().then_some(Cow::Borrowed(line.service.2));
        "ProviderName" = Text |_| word("AWS");
        "PublisherName" = Text |_| word("AWS");
        "RegionId" = Text |line| word(line.region.0);
        "RegionName" = Text |line| word(line.region.1);
        "ResourceId" (may_go) = Text |line| line.resource_arn().map(Cow::Owned);
        "ServiceCategory" = Text |line| word(service_category(line));
        "ServiceName" = Text |line| word(line.service.1);
        "ServiceSubcategory" (may_go) = Text |line| Some(format!("Other ({})", service_category(line)).into());
        "SkuId" (may_go) = Text |line| Some(sku(line).into());
        "SkuMeter" (may_go) = Text |line| word(line.usage_type);
        "SkuPriceId" (may_go) = Text |line| Some(format!("{}.JRTCKXETXF.6YS6EN2CT7", sku(line)).into());
        "SubAccountId" = Text |line| Some(line.account.to_string().into());
        "SubAccountName" (may_go) = Text |line| Some(format!("account-{}", line.account % 100).into());
        "SubAccountType" (may_go) = Text |_| word("Usage Account");
        "Tags" = Map |line| tags(line, false);
        "x_Operation" (may_go) = Text |line| line.is_use().then_some(Cow::Borrowed(line.service.4));
        "x_ServiceCode" (may_go) = Text |line| word(line.service.0);
        "x_UsageType" (may_go) = Text |line| word(line.usage_type);
    }
}
