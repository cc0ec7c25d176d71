//! `rolebridge costs query`: what a tenant's costs add up to, as a table with bars, JSON or CSV.
//!
//! Here are the flags, the question made of them, and the pages of its answer. How it is printed stands in `print.rs`.

use std::{str::FromStr, time::Duration};

use clap::{Args as ClapArgs, ValueEnum};
use contracts::{
    ConnectionId, TenantId,
    costs::{
        BillingPeriod, Cost, CostKey, Day, DayRange, Granularity, PeriodRange, QueriedCosts, QueryCosts,
        QueryCostsRequest, TagFilter,
    },
};
use messaging::Bus;

use super::print;
use crate::{error::CliError, show::Output};

/// A query may read many files of the table.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What to add up.
#[derive(Debug, ClapArgs)]
pub(crate) struct Query {
    tenant: TenantId,
    /// Tell apart by service, account, region, charge-category, connection, period or tag:KEY; up to three.
    #[arg(long, value_name = "KEY", value_delimiter = ',', default_value = "service")]
    by: Vec<CostKey>,
    /// Only this billing period (2026-10), or those from the first to the last (2026-01..2026-10).
    #[arg(long, value_name = "MONTH[..MONTH]")]
    period: Option<Span<BillingPeriod>>,
    /// Only charges that began on this day (2026-10-31, in UTC), or from the first to the last.
    #[arg(long, value_name = "DAY[..DAY]")]
    days: Option<Span<Day>>,
    /// Tell days apart.
    #[arg(long, conflicts_with = "monthly")]
    daily: bool,
    /// Tell months apart.
    #[arg(long)]
    monthly: bool,
    /// Only this connection; may be repeated, as all filters may.
    #[arg(long)]
    connection: Vec<ConnectionId>,
    /// Only this service, by its name; (none) is for rows without one, as in all filters.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Only this AWS account.
    #[arg(long, value_name = "ACCOUNT")]
    account: Vec<String>,
    /// Only this region.
    #[arg(long)]
    region: Vec<String>,
    /// Only this charge category: Usage, Purchase, Tax, Credit or Adjustment.
    #[arg(long, value_name = "CATEGORY")]
    charge_category: Vec<String>,
    /// Only rows with this tag; one key several times means any of the values.
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Vec<Tag>,
    /// Also list and contracted costs.
    #[arg(long)]
    all_costs: bool,
    /// The cost that orders the lines, finds the dearest and makes the bars.
    #[arg(long, value_enum, default_value_t = RankBy::Billed)]
    rank_by: RankBy,
    /// The dearest so many of each currency; the rest is one line, (other).
    #[arg(long)]
    top: Option<u16>,
    /// At most so many lines in all; they are fetched page by page.
    #[arg(long, default_value_t = 1000)]
    lines: usize,
    /// Print comma-separated values (RFC 4180). A name that a spreadsheet would take for a formula gets a ' in front.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// One value, or all from one to another.
#[derive(Debug, Clone)]
struct Span<T> {
    first: T,
    last: T,
}

impl<T: FromStr + Clone> FromStr for Span<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((first, last)) = text.split_once("..") {
            return Ok(Self { first: first.parse()?, last: last.parse()? });
        }
        let only: T = text.parse()?;
        Ok(Self { first: only.clone(), last: only })
    }
}

#[derive(Debug, Clone)]
struct Tag {
    key: String,
    value: String,
}

/// The text is no tag.
#[derive(Debug, thiserror::Error)]
#[error("a tag is written as KEY=VALUE; KEY=(none) is for rows without it")]
struct ParseTagError;

impl FromStr for Tag {
    type Err = ParseTagError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or(ParseTagError)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RankBy {
    Billed,
    Effective,
    List,
    Contracted,
}

impl Query {
    fn request(&self) -> QueryCostsRequest {
        let mut tags: Vec<TagFilter> = Vec::new();
        for Tag { key, value } in &self.tag {
            match tags.iter_mut().find(|known| known.key == *key) {
                Some(known) => known.values.push(value.clone()),
                None => tags.push(TagFilter { key: key.clone(), values: vec![value.clone()] }),
            }
        }
        let rank_by = self.rank();
        QueryCostsRequest {
            by: self.by.clone(),
            granularity: match (self.daily, self.monthly) {
                (true, _) => Granularity::Daily,
                (false, true) => Granularity::Monthly,
                (false, false) => Granularity::Total,
            },
            periods: self.period.clone().map(|Span { first, last }| PeriodRange { first, last }),
            days: self.days.clone().map(|Span { first, last }| DayRange { first, last }),
            connections: self.connection.clone(),
            services: self.service.clone(),
            accounts: self.account.clone(),
            regions: self.region.clone(),
            charge_categories: self.charge_category.clone(),
            tags,
            all_costs: self.all_costs || matches!(rank_by, Cost::List | Cost::Contracted),
            rank_by,
            top: self.top,
            limit: None,
            after: None,
        }
    }

    fn rank(&self) -> Cost {
        match self.rank_by {
            RankBy::Billed => Cost::Billed,
            RankBy::Effective => Cost::Effective,
            RankBy::List => Cost::List,
            RankBy::Contracted => Cost::Contracted,
        }
    }
}

pub(crate) async fn run(bus: &Bus, args: &Query, output: Output) -> Result<(), CliError> {
    let request = args.request();
    request.check()?;
    let costs = all(bus, args.tenant, request, args.lines).await?;
    if output.is_json() {
        println!("{}", serde_json::to_string_pretty(&costs)?);
    } else if args.csv {
        print!("{}", print::csv(&costs));
    } else {
        print!("{}", print::table(&costs, args.rank(), print::Canvas::of_stdout()));
    }
    Ok(())
}

/// Page after page, until there are no more or enough.
async fn all(bus: &Bus, tenant: TenantId, ask: QueryCostsRequest, lines: usize) -> Result<QueriedCosts, CliError> {
    let mut gathered: Option<QueriedCosts> = None;
    let mut ask = ask;
    loop {
        let had = gathered.as_ref().map_or(0, |costs| costs.lines.len());
        let left = lines.saturating_sub(had).clamp(1, usize::from(QueryCostsRequest::LARGEST));
        ask.limit = u16::try_from(left).ok();
        let page = bus.request::<QueryCosts>(QueryCosts::subject(tenant), &ask, TIMEOUT).await?;
        let (next, is_empty) = (page.next.clone(), page.lines.is_empty());
        let costs = match &mut gathered {
            None => gathered.insert(page),
            Some(costs) => {
                costs.lines.extend(page.lines);
                costs.next = page.next;
                costs
            }
        };
        if next.is_none() || is_empty || costs.lines.len() >= lines {
            return Ok(costs.clone());
        }
        ask.after = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_one_value_or_two() {
        let one: Span<BillingPeriod> = "2026-10".parse().unwrap();
        assert_eq!((one.first.as_str(), one.last.as_str()), ("2026-10", "2026-10"));
        let two: Span<Day> = "2026-10-30..2026-11-01".parse().unwrap();
        assert_eq!((two.first.to_string(), two.last.to_string()), ("2026-10-30".to_owned(), "2026-11-01".to_owned()));
        assert!("2026-10..".parse::<Span<BillingPeriod>>().is_err());
        assert!("2026-02-30".parse::<Span<Day>>().is_err());
    }
}
