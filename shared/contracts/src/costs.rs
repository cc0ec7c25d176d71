//! Costs: where an export lies, what was read, and what it adds up to. Questions about them are in `costs/query.rs`.

mod query;

use std::{fmt, str::FromStr};

pub use query::{
    Cost, CostKey, CostLine, CostSum, Day, DayRange, Granularity, InvalidCostQuery, NONE, OTHER, ParseCostKeyError,
    ParseDayError, PeriodRange, QueriedCosts, QueryCosts, QueryCostsRequest, TagFilter,
};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, ConnectionId, JobId, Page, Region, TenantId, Timestamp,
    message::{endpoint, message},
};

/// An exact amount of money or of use: decimal text on the wire, never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(Decimal);

impl Amount {
    #[must_use]
    pub const fn new(amount: Decimal) -> Self {
        Self(amount)
    }

    #[must_use]
    pub const fn decimal(self) -> Decimal {
        self.0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$" })
    }
}

/// A currency code of ISO 4217, such as `USD`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Currency(#[schemars(regex(pattern = "^[A-Z]{3}$"))] String);

/// The text is not three capital letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters (ISO 4217), which this text is not")]
pub struct ParseCurrencyError;

impl FromStr for Currency {
    type Err = ParseCurrencyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseCurrencyError)
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A calendar month of billing: `2018-11`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct BillingPeriod(#[schemars(regex(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$"))] String);

/// The text is not a year and a month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a billing period is a year and a month such as 2018-11, which this text is not")]
pub struct ParsePeriodError;

impl BillingPeriod {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BillingPeriod {
    type Err = ParsePeriodError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (year, month) = text.split_once('-').ok_or(ParsePeriodError)?;
        let digits = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
        let in_year = month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month));
        if digits(year, 4) && digits(month, 2) && in_year { Ok(Self(text.to_owned())) } else { Err(ParsePeriodError) }
    }
}

impl fmt::Display for BillingPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BillingPeriod {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The bucket and prefix under which a customer's cost export lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportLocation {
    /// S3's general-purpose [bucket naming rules](https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html): 3 to 63 of `[a-z0-9.-]`.
    pub bucket: String,
    /// Without leading or trailing slash; empty for the whole bucket. At most 512 characters of `[A-Za-z0-9!_.*'()/=-]`, no `..`.
    #[serde(default)]
    pub prefix: String,
}

impl ExportLocation {
    /// Whether both parts keep to the rules above.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bucket = self.bucket.as_bytes();
        let bucket_is_fine = (3..=63).contains(&bucket.len())
            && edge(bucket.first())
            && edge(bucket.last())
            && bucket.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-' || *b == b'.')
            && !self.bucket.contains("..");
        let prefix_is_fine = self.prefix.len() <= 512
            && self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"!_.*'()/=-".contains(&b))
            && !self.prefix.contains("..")
            && !self.prefix.starts_with('/')
            && !self.prefix.ends_with('/');
        bucket_is_fine && prefix_is_fine
    }
}

/// What one currency adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostTotal {
    pub currency: Currency,
    /// Sum of FOCUS `BilledCost`.
    pub billed: Amount,
    /// Sum of FOCUS `EffectiveCost`.
    pub effective: Amount,
}

/// Look what cost exports this connection has, and order the periods that are to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoverExports {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    pub region: Region,
    /// What the customer's stack named, if it named any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<ExportLocation>,
}

message!(DiscoverExports { type: "rolebridge.internal.discover-exports.v1", subject: "rolebridge.internal.v1.jobs.cost.discover.*.*", stream: Jobs,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "Job: look what cost exports this connection has, and order the periods that are to be read." });

/// Read one billing period of one export. Of each connection one such job is in the stream at a time, and orders the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IngestPeriod {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// The export's name in the table's column `x_export`.
    pub export: String,
    pub period: BillingPeriod,
}

message!(IngestPeriod { type: "rolebridge.internal.ingest-period.v1", subject: "rolebridge.internal.v1.jobs.cost.period.*.*", stream: Jobs,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "Job: read one billing period of one export of this connection." });

/// A billing period of an export stands in the table in a version that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostsIngested {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    /// The export's name in the table's column `x_export`.
    pub export: String,
    pub period: BillingPeriod,
    /// Of the whole period, as it stands now.
    pub rows: u64,
    pub totals: Vec<CostTotal>,
}

message!(CostsIngested { type: "rolebridge.costs.ingested.v1", subject: "rolebridge.events.v1.costs.ingested.*.*", stream: CostsEvents,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "A billing period was written to the cost table and can be queried." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostsFailed {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// The export's name in the table's column `x_export`; absent when it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// The period; absent when the export as a whole is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<BillingPeriod>,
    /// What happened, to which object, and what to do.
    pub reason: String,
}

message!(CostsFailed { type: "rolebridge.costs.failed.v1", subject: "rolebridge.events.v1.costs.failed.*.*", stream: CostsEvents,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "An export, or a period of it, could not be read; nothing of it was written." });

/// What a period held, or holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeriodTotals {
    pub rows: u64,
    pub totals: Vec<CostTotal>,
}

/// How much more or less a service costs after a restatement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceDifference {
    /// FOCUS `ServiceName`; `(other)` sums up what is not listed.
    pub service: String,
    pub currency: Currency,
    /// Billed cost now less billed cost before; negative when it became cheaper.
    pub billed: Amount,
    /// The same of effective cost.
    pub effective: Amount,
}

/// AWS rewrote a billing period that had been read before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostsRestated {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub account: AccountId,
    /// The export's name in the table's column `x_export`.
    pub export: String,
    pub period: BillingPeriod,
    pub before: PeriodTotals,
    pub now: PeriodTotals,
    /// The services that differ, the greatest difference first: at most 200, the rest summed up.
    pub by_service: Vec<ServiceDifference>,
}

message!(CostsRestated { type: "rolebridge.costs.restated.v1", subject: "rolebridge.events.v1.costs.restated.*.*", stream: CostsEvents,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "A billing period that had been read before was rewritten by AWS and read again; the difference by service." });

/// How far reading a connection's costs is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostsProgress {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// The export's name in the table's column `x_export`.
    pub export: String,
    /// The period that is being read, or was the last.
    pub period: BillingPeriod,
    /// Periods of this export that are done, of those that were found.
    pub periods_done: u32,
    pub periods: u32,
    /// Rows read so far, of all its periods.
    pub rows: u64,
    /// Bytes of source files read so far, of those that are to be read.
    pub bytes: u64,
    pub bytes_total: u64,
    /// 0 to 100, by bytes.
    pub percent: u8,
}

message!(CostsProgress { type: "rolebridge.costs.progress.v1", subject: "rolebridge.events.v1.costs.progress.*.*", stream: CostsEvents,
    producer: "cost-ingestion", keys: [tenant, connection], summary: "How far reading a connection's costs is; at most one a second of each export." });

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListCostExportsRequest {
    /// Only this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// At most so many periods, 1 to 200; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How it stands with a billing period of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeriodState {
    /// The version that was found is to be read.
    Waiting,
    /// It is being read.
    Reading,
    /// The table holds it.
    Done,
    /// It could not be read; the reason stands beside it.
    Failed,
    /// Another export of the connection tells the same costs, and serves instead.
    Superseded,
}

/// A version of a period that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeriodVersion {
    /// When it was read.
    pub at: Timestamp,
    pub rows: u64,
    pub totals: Vec<CostTotal>,
    /// Bytes of the source files.
    pub bytes: u64,
    /// The version of the table from which on it can be read.
    pub table_version: u64,
}

/// How it stands with a billing period of an export, or with an export as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportPeriod {
    pub connection: ConnectionId,
    /// The export's name in the table's column `x_export`, or where it was looked for.
    pub export: String,
    /// Absent when the export as a whole is concerned: it could not even be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<BillingPeriod>,
    pub state: PeriodState,
    /// The source format, once it was read or looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Files of the version that was found last.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// How many versions were read so far.
    pub versions: u32,
    /// The latest of them, the newest first, at most three.
    pub latest: Vec<PeriodVersion>,
    /// Why it failed (this time), or which export serves instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Tries at the version that was found last.
    pub tries: u32,
    /// When it is tried again, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
}

endpoint!(ListCostExports { service: "cost-ingestion", name: "costs-exports", subject: "rolebridge.rpc.v1.costs.exports.*", keys: (tenant: TenantId),
    request: ListCostExportsRequest, response: Page<ExportPeriod>, summary: "Lists a tenant's cost exports with their periods: what is read, what waits, what failed and why." });
