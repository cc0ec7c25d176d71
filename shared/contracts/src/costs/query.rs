//! `costs.query`: what a tenant's costs add up to.
//!
//! Here are the question, its bounds and the answer. A question is about one tenant, who stands in the subject and not in the request, so that permissions
//! can see him.

use std::{collections::BTreeSet, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Date, Month};

use super::{Amount, BillingPeriod, Currency};
use crate::{ConnectionId, TenantId, message::endpoint};

/// Stands in an answer, and in a filter, for a value that a row does not have.
pub const NONE: &str = "(none)";
/// Stands in an answer for all that is not among the `top`.
pub const OTHER: &str = "(other)";

/// A calendar day in UTC: `2026-10-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// The text is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a day is a year, a month and a day such as 2026-10-31, which this text is not")]
pub struct ParseDayError;

impl Day {
    #[must_use]
    pub const fn date(self) -> Date {
        self.0
    }
}

impl From<Date> for Day {
    fn from(date: Date) -> Self {
        Self(date)
    }
}

impl FromStr for Day {
    type Err = ParseDayError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |range: std::ops::Range<usize>| {
            let digits = text.get(range).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
            digits.and_then(|part| part.parse::<u16>().ok()).ok_or(ParseDayError)
        };
        if text.len() != 10 || text.get(4..5) != Some("-") || text.get(7..8) != Some("-") {
            return Err(ParseDayError);
        }
        let part = |range| number(range).and_then(|n| u8::try_from(n).map_err(|_| ParseDayError));
        let month = Month::try_from(part(5..7)?).map_err(|_| ParseDayError)?;
        Date::from_calendar_date(number(0..4)?.into(), month, part(8..10)?).map(Self).map_err(|_| ParseDayError)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Day {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Day".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
    }
}

/// What costs are told apart by: `service`, `account`, `region`, `charge-category`, `connection`, `period`, or `tag:KEY`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CostKey {
    /// FOCUS `ServiceName`.
    Service,
    /// FOCUS `SubAccountId`: the AWS account that used it.
    Account,
    /// FOCUS `RegionId`.
    Region,
    /// FOCUS `ChargeCategory`.
    ChargeCategory,
    /// The connection by which it was read.
    Connection,
    /// The billing period.
    Period,
    /// The value of this key in FOCUS `Tags`; keys of customers have no prefix there.
    Tag(String),
}

/// The text names nothing that costs are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "costs are told apart by service, account, region, charge-category, connection, period or tag:KEY (of 1 to 256 characters), which this text is not"
)]
pub struct ParseCostKeyError;

impl FromStr for CostKey {
    type Err = ParseCostKeyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "service" => Self::Service,
            "account" => Self::Account,
            "region" => Self::Region,
            "charge-category" => Self::ChargeCategory,
            "connection" => Self::Connection,
            "period" => Self::Period,
            other => match other.strip_prefix("tag:") {
                Some(key) if (1..=256).contains(&key.chars().count()) => Self::Tag(key.to_owned()),
                _ => return Err(ParseCostKeyError),
            },
        })
    }
}

impl fmt::Display for CostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Account => f.write_str("account"),
            Self::Region => f.write_str("region"),
            Self::ChargeCategory => f.write_str("charge-category"),
            Self::Connection => f.write_str("connection"),
            Self::Period => f.write_str("period"),
            Self::Tag(key) => write!(f, "tag:{key}"),
        }
    }
}

impl Serialize for CostKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CostKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for CostKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CostKey".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let pattern = "^(service|account|region|charge-category|connection|period|tag:.{1,256})$";
        schemars::json_schema!({ "type": "string", "pattern": pattern })
    }
}

/// Whether costs are told apart by time, too: by the UTC day or month in which FOCUS `ChargePeriodStart` lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    #[default]
    Total,
    Daily,
    Monthly,
}

/// One of the four costs of FOCUS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    #[default]
    Billed,
    Effective,
    List,
    Contracted,
}

/// Billing periods, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeriodRange {
    pub first: BillingPeriod,
    pub last: BillingPeriod,
}

/// Days, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DayRange {
    pub first: Day,
    pub last: Day,
}

/// Only rows whose tag of this key has one of these values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagFilter {
    pub key: String,
    /// `(none)` is for rows without the key.
    pub values: Vec<String>,
}

/// A question about one tenant's costs. All filters hold at once; an empty list filters nothing; `(none)` in one is for rows without a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryCostsRequest {
    /// What costs are told apart by: at most 3, none twice; by service when absent, not at all when empty. Currencies are always told apart.
    #[serde(default = "by_service", skip_serializing_if = "is_by_service")]
    pub by: Vec<CostKey>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub granularity: Granularity,
    /// Only these billing periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periods: Option<PeriodRange>,
    /// Only charges that began on these days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<DayRange>,
    /// Only these connections; at most 100, as of all filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionId>,
    /// Only these services (FOCUS `ServiceName`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Only these accounts (FOCUS `SubAccountId`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// Only these regions (FOCUS `RegionId`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Only these charge categories (FOCUS `ChargeCategory`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charge_categories: Vec<String>,
    /// Only rows that have all of these tags; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagFilter>,
    /// Also list and contracted costs, which take longer to add up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub all_costs: bool,
    /// The cost by which lines are ordered and the dearest found; `list` and `contracted` need `all_costs`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rank_by: Cost,
    /// The dearest so many of each currency, over the whole time asked for; the rest is summed up as `(other)`. 1 to 1000; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<u16>,
    /// At most so many lines in one answer, 1 to 500; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// `next` of the answer before, with the same question otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

fn by_service() -> Vec<CostKey> {
    vec![CostKey::Service]
}

fn is_by_service(by: &[CostKey]) -> bool {
    by == [CostKey::Service]
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for QueryCostsRequest {
    fn default() -> Self {
        Self {
            by: by_service(),
            granularity: Granularity::Total,
            periods: None,
            days: None,
            connections: Vec::new(),
            services: Vec::new(),
            accounts: Vec::new(),
            regions: Vec::new(),
            charge_categories: Vec::new(),
            tags: Vec::new(),
            all_costs: false,
            rank_by: Cost::Billed,
            top: None,
            limit: None,
            after: None,
        }
    }
}

/// A question that cannot be asked: what is wrong with it, and what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCostQuery {
    #[error("`by` names at most 3 keys, none of them twice")]
    By,
    #[error("`{0}` ends before it begins: exchange `first` and `last`")]
    Backwards(&'static str),
    #[error("`{0}` is a list of at most 100 values of at most 1024 bytes each: ask several times")]
    Filter(&'static str),
    #[error("`tags` is at most 5 keys of 1 to 256 characters, none twice, each with at least one value")]
    Tags,
    #[error("`top` is 1 to 1000; leave it out to have all, page by page")]
    Top,
    #[error("`limit` is 1 to 500")]
    Limit,
    #[error("ordering by list or contracted cost needs `all_costs`")]
    Rank,
}

impl QueryCostsRequest {
    /// Most lines of one answer.
    pub const LARGEST: u16 = 500;

    /// Whether the question keeps to the bounds that its fields name.
    ///
    /// # Errors
    /// The first bound that it does not keep to.
    pub fn check(&self) -> Result<(), InvalidCostQuery> {
        if self.by.len() > 3 || self.by.iter().collect::<BTreeSet<_>>().len() != self.by.len() {
            return Err(InvalidCostQuery::By);
        }
        if self.periods.as_ref().is_some_and(|range| range.first > range.last) {
            return Err(InvalidCostQuery::Backwards("periods"));
        }
        if self.days.is_some_and(|range| range.first > range.last) {
            return Err(InvalidCostQuery::Backwards("days"));
        }
        let is_fine = |values: &[String]| values.len() <= 100 && values.iter().all(|value| value.len() <= 1024);
        for (name, values) in [
            ("services", &self.services),
            ("accounts", &self.accounts),
            ("regions", &self.regions),
            ("charge_categories", &self.charge_categories),
        ] {
            if !is_fine(values) {
                return Err(InvalidCostQuery::Filter(name));
            }
        }
        if self.connections.len() > 100 {
            return Err(InvalidCostQuery::Filter("connections"));
        }
        let keys: BTreeSet<_> = self.tags.iter().map(|tag| &tag.key).collect();
        let key_is_fine = |tag: &TagFilter| (1..=256).contains(&tag.key.chars().count()) && !tag.values.is_empty();
        if self.tags.len() > 5 || keys.len() != self.tags.len() || !self.tags.iter().all(key_is_fine) {
            return Err(InvalidCostQuery::Tags);
        }
        if !self.tags.iter().all(|tag| is_fine(&tag.values)) {
            return Err(InvalidCostQuery::Filter("tags"));
        }
        if self.top.is_some_and(|top| !(1..=1000).contains(&top)) {
            return Err(InvalidCostQuery::Top);
        }
        if self.limit.is_some_and(|limit| !(1..=Self::LARGEST).contains(&limit)) {
            return Err(InvalidCostQuery::Limit);
        }
        if !self.all_costs && matches!(self.rank_by, Cost::List | Cost::Contracted) {
            return Err(InvalidCostQuery::Rank);
        }
        Ok(())
    }
}

/// What one currency adds up to; currencies are never added to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostSum {
    pub currency: Currency,
    /// Sum of FOCUS `BilledCost`.
    pub billed: Amount,
    /// Sum of FOCUS `EffectiveCost`.
    pub effective: Amount,
    /// Sum of FOCUS `ListCost`; there when `all_costs` was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Amount>,
    /// Sum of FOCUS `ContractedCost`; there when `all_costs` was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contracted: Option<Amount>,
    /// Rows of the table that were added up.
    pub rows: u64,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostLine {
    /// The day (`2026-10-31`) or month (`2026-10`) if `granularity` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The values of the keys in `by`, in that order: `(none)` where a row has none, `(other)` for what is not among the `top`. Longer ones than 1024
    /// characters are cut, which `…` at their end says.
    pub of: Vec<String>,
    /// True of the line that sums up what is not among the `top`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub other: bool,
    #[serde(flatten)]
    pub sum: CostSum,
}

/// The answer, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueriedCosts {
    /// The version of the table that was added up.
    pub version: u64,
    /// True if everything came from daily summaries, false if rows were read.
    pub from_summary: bool,
    /// Rows that were added up.
    pub rows: u64,
    /// Billing periods that the table holds of what was asked for.
    pub periods: Vec<BillingPeriod>,
    /// What everything asked for adds up to, whatever page this is.
    pub totals: Vec<CostSum>,
    /// What `of` in each line holds.
    pub by: Vec<CostKey>,
    /// Oldest first, then by currency, dearest first.
    pub lines: Vec<CostLine>,
    /// Send this as `after`, with the same question, to get the next page; absent on the last one. It is refused with `conflict` when the costs that were
    /// asked for have been written anew meanwhile: then begin again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

endpoint!(QueryCosts { service: "cost-ingestion", name: "costs-query", subject: "rolebridge.rpc.v1.costs.query.*", keys: (tenant: TenantId),
    request: QueryCostsRequest, response: QueriedCosts, summary: "Adds up a tenant's costs by up to three keys, in all or by day or month." });
