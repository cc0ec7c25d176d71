//! `ce:GetCostAndUsage`: what an account costs, by day, service, account and region.
//!
//! The API groups by two dimensions at most. So it is asked first which accounts there are, and then, while they are few, for each of them by service and
//! region; of more accounts the region stays untold. Each cost belongs to one account, service and region: nothing is missing and nothing told twice.
//! Amounts are taken as they stand. Each request costs the customer 0.01 USD.
//!
//! <https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_GetCostAndUsage.html>

use super::{ApiError, Caller, Operation};
use crate::export::ExportError;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const GET_COST_AND_USAGE: Operation = Operation {
    permission: "ce:GetCostAndUsage",
    service: "ce",
    host: "ce",
    target: "AWSInsightsIndexService.GetCostAndUsage",
};
static OPERATION: Operation = GET_COST_AND_USAGE;

/// Accounts up to which each is asked for by itself.
pub const ACCOUNTS_BY_REGION: usize = 5;

/// Whom each request is told to before it is sent: it costs money.
#[async_trait]
pub trait Spend: Send + Sync {
    /// # Errors
    /// When there are to be no more.
    async fn spend(&self, sent: u32) -> Result<(), ExportError>;
}

/// What a day, service, account and region cost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// `2026-11-01`; the day ends where the next begins.
    pub start: String,
    /// `2026-11-02`.
    pub end: String,
    /// The account that used it.
    pub account: String,
    /// As Cost Explorer calls it.
    pub service: String,
    /// `NoRegion` and `global` are no regions; empty where it was not asked for.
    pub region: String,
    unblended: Metric,
    amortized: Metric,
    quantity: Metric,
    estimated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    amount: String,
    unit: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    results_by_time: Vec<OfTime>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfTime {
    time_period: TimePeriod,
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(default)]
    estimated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimePeriod {
    start: String,
    end: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    keys: Vec<String>,
    metrics: BTreeMap<String, Metric>,
}

/// Asks for all costs from the day `start` until before the day `end` (both `2026-11-01`).
///
/// # Errors
/// When any part could not be had: half of it would look complete and be too cheap.
pub async fn costs(caller: &Caller<'_>, start: &str, end: &str, purse: &dyn Spend) -> Result<Vec<Line>, ExportError> {
    let asker = Asker { caller, purse, start, end };
    let mut accounts = BTreeSet::new();
    for of_time in asker.all("MONTHLY", &["LINKED_ACCOUNT"], None).await? {
        for group in of_time.groups {
            let [account] = keys(group.keys)?;
            accounts.insert(account);
        }
    }
    let mut lines = Vec::new();
    if accounts.len() <= ACCOUNTS_BY_REGION {
        for account in accounts {
            for of_time in asker.all("DAILY", &["SERVICE", "REGION"], Some(&account)).await? {
                add(&mut lines, of_time, |keys| {
                    let [service, region] = keys;
                    (account.clone(), service, region)
                })?;
            }
        }
    } else {
        for of_time in asker.all("DAILY", &["SERVICE", "LINKED_ACCOUNT"], None).await? {
            add(&mut lines, of_time, |[service, account]| (account, service, String::new()))?;
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

struct Asker<'a> {
    caller: &'a Caller<'a>,
    purse: &'a dyn Spend,
    start: &'a str,
    end: &'a str,
}

impl Asker<'_> {
    /// All pages.
    async fn all(&self, granularity: &str, by: &[&str], account: Option<&str>) -> Result<Vec<OfTime>, ExportError> {
        let by: Vec<Value> = by.iter().map(|key| json!({ "Type": "DIMENSION", "Key": key })).collect();
        let mut body = json!({
            "TimePeriod": { "Start": self.start, "End": self.end },
            "Granularity": granularity,
            "Metrics": ["UnblendedCost", "AmortizedCost", "UsageQuantity"],
            "GroupBy": by,
        });
        let set = |body: &mut Value, name: &str, value: Value| {
            body.as_object_mut().and_then(|fields| fields.insert(name.to_owned(), value))
        };
        if let Some(account) = account {
            set(&mut body, "Filter", json!({ "Dimensions": { "Key": "LINKED_ACCOUNT", "Values": [account] } }));
        }
        let mut found = Vec::new();
        loop {
            self.purse.spend(self.caller.sent()).await?;
            let answer: Answer = self.caller.call(&OPERATION, &body).await?;
            found.extend(answer.results_by_time);
            let Some(token) = answer.next_page_token.filter(|token| !token.is_empty()) else { return Ok(found) };
            set(&mut body, "NextPageToken", token.into());
        }
    }
}

fn keys<const N: usize>(keys: Vec<String>) -> Result<[String; N], ApiError> {
    keys.try_into().map_err(|_| bad("a group has other keys than were asked for"))
}

fn bad(why: &str) -> ApiError {
    ApiError::BadAnswer { permission: OPERATION.permission, why: why.to_owned() }
}

fn add(
    lines: &mut Vec<Line>,
    of_time: OfTime,
    name: impl Fn([String; 2]) -> (String, String, String),
) -> Result<(), ApiError> {
    let OfTime { time_period: TimePeriod { start, end }, groups, estimated } = of_time;
    if !is_day(&start) || !is_day(&end) {
        return Err(bad("a time period has no days"));
    }
    for Group { keys: named, mut metrics } in groups {
        let mut metric = |name: &str| metrics.remove(name).ok_or_else(|| bad("a metric is missing"));
        let (unblended, amortized) = (metric("UnblendedCost")?, metric("AmortizedCost")?);
        let quantity = metric("UsageQuantity")?;
        if unblended.unit != amortized.unit {
            return Err(bad("a cost has two currencies"));
        }
        let (account, service, region) = name(keys(named)?);
        let (start, end) = (start.clone(), end.clone());
        lines.push(Line { start, end, account, service, region, unblended, amortized, quantity, estimated });
    }
    Ok(())
}

/// `2026-11-01`.
fn is_day(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() })
}

/// Lines as CSV, for each month: the form in which `cost-explorer.mapping` reads them. The same lines always give the same text. `payer` is the account
/// that was asked: the API does not name who pays.
#[must_use]
pub fn months(lines: &[Line], payer: &str) -> BTreeMap<String, String> {
    const HEADER: &str = "payer_account,time_period_start,time_period_end,linked_account,service,region,\
        unblended_cost,amortized_cost,cost_unit,usage_quantity,usage_unit,estimated\n";
    let mut months = BTreeMap::new();
    for line in lines {
        let month = line.start.get(..7).unwrap_or_default().to_owned();
        let text = months.entry(month).or_insert_with(|| HEADER.to_owned());
        let (start, end) = (format!("{}T00:00:00Z", line.start), format!("{}T00:00:00Z", line.end));
        let Metric { amount: quantity, unit } = &line.quantity;
        let (unblended, amortized) = (&line.unblended.amount, &line.amortized.amount);
        let fields: [&str; 11] = [
            &start,
            &end,
            &line.account,
            &line.service,
            &line.region,
            unblended,
            amortized,
            &line.unblended.unit,
            quantity,
            unit,
            if line.estimated { "true" } else { "false" },
        ];
        text.push_str(payer);
        for field in fields {
            // Writing to a text cannot fail.
            let _ = write!(text, ",\"{}\"", field.replace('"', "\"\""));
        }
        text.push('\n');
    }
    months
}
