//! The news: what was read, what was restated, what could not be read. Each has an ID that follows from what it says, so that saying it twice is one
//! message.

use super::ledger::{Entry, Pending, ServiceSum, Version};
use super::same_id;
use crate::credentials::Scope;
use crate::ingest::Tally;
use crate::money::Amount;
use crate::table::{Slice, Sums, TableError};
use contracts::costs::{
    Amount as WireAmount, BillingPeriod, CostTotal, CostsFailed, CostsIngested, CostsRestated, Currency, PeriodTotals,
    ServiceDifference,
};
use contracts::{AccountId, CloudEvent, Timestamp};
use messaging::{Bus, PublishError, event};
use rust_decimal::Decimal;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Services that a restatement lists.
const MAX_LISTED: usize = 200;
const OTHER: &str = "(other)";

/// Sums as they are kept and said.
///
/// # Errors
/// When a sum has more digits than a decimal.
pub(super) fn totals(totals: &BTreeMap<String, Sums>) -> Result<Vec<CostTotal>, TableError> {
    let total = |(currency, sums): (&String, &Sums)| {
        Ok(CostTotal { currency: code(currency)?, billed: wire(sums.billed)?, effective: wire(sums.effective)? })
    };
    totals.iter().map(total).collect()
}

/// Sums by service as they are kept.
///
/// # Errors
/// As [`totals`].
pub(super) fn services(tally: &Tally) -> Result<Vec<ServiceSum>, TableError> {
    let sum = |((currency, service), sums): (&(String, String), &Sums)| {
        Ok(ServiceSum {
            service: service.clone(),
            currency: code(currency)?,
            billed: wire(sums.billed)?,
            effective: wire(sums.effective)?,
        })
    };
    tally.services.iter().map(sum).collect()
}

fn code(currency: &str) -> Result<Currency, TableError> {
    currency.parse().map_err(|_| TableError::BadRow("BillingCurrency"))
}

fn wire(amount: Amount) -> Result<WireAmount, TableError> {
    amount.to_decimal().map(WireAmount::new).ok_or(TableError::TooLarge)
}

/// Says that a version was read, and what it changed.
pub(super) async fn read(
    bus: &Bus,
    slice: &Slice,
    account: &AccountId,
    before: &Entry,
    now: &Pending,
) -> Result<(), PublishError> {
    let Slice { tenant, connection, export, period } = slice;
    let version = &now.version;
    let id = |what: &str| {
        let (slice, print) = (slice.name(), format!("{:?}", version.fingerprint));
        same_id(millis(version.seen.at), &[what, &slice, &print])
    };
    let ingested = CostsIngested {
        tenant: *tenant,
        connection: *connection,
        account: account.clone(),
        export: export.as_str().to_owned(),
        period: period.clone(),
        rows: version.seen.rows,
        totals: version.seen.totals.clone(),
    };
    bus.publish(&CloudEvent { id: id("ingested"), ..event(ingested) }).await?;
    let Some(held) = before.held() else { return Ok(()) };
    let by_service = difference(&before.services, &now.services);
    if by_service.is_empty() && totals_of(held) == totals_of(version) {
        return Ok(());
    }
    let restated = CostsRestated {
        tenant: *tenant,
        connection: *connection,
        account: account.clone(),
        export: export.as_str().to_owned(),
        period: period.clone(),
        before: totals_of(held),
        now: totals_of(version),
        by_service,
    };
    bus.publish(&CloudEvent { id: id("restated"), ..event(restated) }).await
}

/// Milliseconds since 1970.
pub(super) fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.inner().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

fn totals_of(version: &Version) -> PeriodTotals {
    PeriodTotals { rows: version.seen.rows, totals: version.seen.totals.clone() }
}

/// What could not be read.
pub(super) struct Refused<'r> {
    pub(super) scope: Scope,
    pub(super) export: Option<&'r str>,
    pub(super) period: Option<&'r BillingPeriod>,
    pub(super) reason: &'r str,
}

/// Says that something could not be read. `since` (milliseconds since 1970) and `about` tell one row of tries from another.
pub(super) async fn failed(bus: &Bus, refused: &Refused<'_>, since: u64, about: &str) -> Result<(), PublishError> {
    let Refused { scope, export, period, reason } = refused;
    tracing::warn!(tenant = %scope.tenant, connection = %scope.connection, export, period = period.map(BillingPeriod::as_str), reason, "costs could not be read");
    let connection = scope.connection.to_string();
    let parts = ["failed", &connection, export.unwrap_or_default(), period.map_or("", BillingPeriod::as_str), about];
    let failed = CostsFailed {
        tenant: scope.tenant,
        connection: scope.connection,
        export: export.map(str::to_owned),
        period: period.cloned(),
        reason: (*reason).to_owned(),
    };
    bus.publish(&CloudEvent { id: same_id(since, &parts), ..event(failed) }).await
}

/// What services cost now less what they cost before: the greatest difference first, the rest summed up.
fn difference(before: &[ServiceSum], now: &[ServiceSum]) -> Vec<ServiceDifference> {
    let mut sums: BTreeMap<(&str, &Currency), (Decimal, Decimal)> = BTreeMap::new();
    for (sign, all) in [(Decimal::NEGATIVE_ONE, before), (Decimal::ONE, now)] {
        for sum in all {
            let of = sums.entry((&sum.service, &sum.currency)).or_default();
            of.0 += sign * sum.billed.decimal();
            of.1 += sign * sum.effective.decimal();
        }
    }
    sums.retain(|_, (billed, effective)| !billed.is_zero() || !effective.is_zero());
    let mut all: Vec<_> = sums.into_iter().collect();
    all.sort_by_key(|((service, _), (billed, effective))| (Reverse(billed.abs()), Reverse(effective.abs()), *service));
    let rest = all.split_off(all.len().min(MAX_LISTED));
    let line = |service: &str, currency: &Currency, (billed, effective): (Decimal, Decimal)| ServiceDifference {
        service: service.to_owned(),
        currency: currency.clone(),
        billed: WireAmount::new(billed),
        effective: WireAmount::new(effective),
    };
    let mut others: BTreeMap<&Currency, (Decimal, Decimal)> = BTreeMap::new();
    for ((_, currency), (billed, effective)) in rest {
        let of = others.entry(currency).or_default();
        *of = (of.0 + billed, of.1 + effective);
    }
    let listed = all.into_iter().map(|((service, currency), sums)| line(service, currency, sums));
    listed.chain(others.into_iter().map(|(currency, sums)| line(OTHER, currency, sums))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(service: &str, currency: &str, billed: &str) -> ServiceSum {
        let amount = WireAmount::new(billed.parse().unwrap());
        let currency = currency.parse().unwrap();
        ServiceSum { service: service.to_owned(), currency, billed: amount, effective: amount }
    }

    fn lines(before: &[ServiceSum], now: &[ServiceSum]) -> Vec<(String, String, String)> {
        let line =
            |d: ServiceDifference| (d.service, d.currency.to_string(), d.billed.decimal().normalize().to_string());
        difference(before, now).into_iter().map(line).collect()
    }

    #[test]
    fn differences_are_told_greatest_first_and_currencies_apart() {
        let before = [sum("EC2", "USD", "10"), sum("S3", "USD", "3"), sum("RDS", "USD", "1"), sum("S3", "EUR", "2")];
        let now = [sum("EC2", "USD", "10.0"), sum("S3", "USD", "0.5"), sum("SQS", "USD", "4"), sum("S3", "EUR", "3")];
        let wanted = [("SQS", "USD", "4"), ("S3", "USD", "-2.5"), ("RDS", "USD", "-1"), ("S3", "EUR", "1")];
        let mut told = lines(&before, &now);
        told[2..].sort();
        let mut wanted = wanted.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).to_vec();
        wanted[2..].sort();
        assert_eq!(told, wanted);
        assert_eq!(lines(&now, &now), []);
    }

    #[test]
    fn beyond_two_hundred_the_rest_is_one_line_and_nothing_is_lost() {
        let now: Vec<_> = (1..=250).map(|n| sum(&format!("service {n:03}"), "USD", &n.to_string())).collect();
        let told = difference(&[], &now);
        assert_eq!((told.len(), told[0].service.as_str(), told[200].service.as_str()), (201, "service 250", OTHER));
        assert_eq!(told[200].billed.decimal(), (1..=50).sum::<i32>().into());
        let all: Decimal = told.iter().map(|line| line.billed.decimal()).sum();
        assert_eq!(all, (1..=250).sum::<i32>().into());
    }
}
