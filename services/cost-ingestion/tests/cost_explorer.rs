//! Connections whose stack named no export: what the account's own APIs tell, and what takes their place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use async_trait::async_trait;
use contracts::costs::{CostsFailed, CostsIngested, ExportLocation, PeriodState};
use contracts::{Region, Stream};
use cost_ingestion::credentials::Scope;
use cost_ingestion::export::{ExportError, OpenExport};
use cost_ingestion::work::explorer::{CostExplorer, Kept, OrKept};
use cost_ingestion::work::find::NamedByStack;
use cost_ingestion::work::listed::{DataExports, ReportDefinitions};
use object_store::ObjectStore;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::bureau::{self, Bureau};
use support::decimal;
use support::report::{item, with};
use support::yard::{Buckets, Customer, Program, Yard};

/// All buckets, but for one that the role may not list.
struct Guarded(Buckets, Option<String>);

#[async_trait]
impl OpenExport for Guarded {
    async fn open(
        &self,
        scope: Scope,
        at: &ExportLocation,
        region: &Region,
    ) -> Result<Arc<dyn ObjectStore>, ExportError> {
        if self.1.as_ref() == Some(&at.bucket) {
            let source = object_store::Error::PermissionDenied { path: String::new(), source: "403".into() };
            return Err(ExportError::Storage { operation: "listing the export", source });
        }
        self.0.open(scope, at, region).await
    }
}

/// A program that asks the bureau. `guarded` is a bucket that may not be listed.
async fn program(yard: &mut Yard, bureau: &Bureau, guarded: Option<String>) -> Program {
    let (apis, ledger) = (bureau.apis(), yard.ledger().await);
    let kept = Kept::new(yard.table().await.store());
    yard.finders = vec![
        Arc::new(NamedByStack),
        Arc::new(ReportDefinitions(Arc::clone(&apis))),
        Arc::new(DataExports(Arc::clone(&apis))),
        Arc::new(CostExplorer { apis, kept: kept.clone(), ledger }),
        Arc::new(kept.clone()),
    ];
    let buckets = Arc::new(Guarded(yard.buckets.clone(), guarded));
    yard.program_with(2, Arc::clone(&yard.store), Arc::new(OrKept { buckets, kept }))
}

/// Billed and effective.
async fn totals(yard: &Yard, customer: Customer) -> (Decimal, Decimal) {
    let costs = yard.costs(customer).await;
    assert_eq!(costs.totals.len(), 1);
    (costs.totals[0].billed.decimal(), costs.totals[0].effective.decimal())
}

fn month(day: &str) -> &str {
    &day[..7]
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_explorer_tells_the_costs_to_the_last_digit_until_an_export_does() {
    let (mut yard, customer, bureau) = (Yard::new().await, Customer::new(), Bureau::start(bureau::costs()).await);
    bureau.state.lock().unwrap().page = 2;
    let _program = program(&mut yard, &bureau, None).await;
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(2).await;
    yard.until_idle().await;

    let [this, last] = bureau::months();
    let ((billed, effective), (billed_last, effective_last)) = (bureau.total(month(&this)), bureau.total(month(&last)));
    assert_eq!(totals(&yard, customer).await, (billed + billed_last, effective + effective_last));
    let services = yard.costs(customer).await.lines;
    let services: BTreeMap<_, _> =
        services.iter().map(|line| (line.of[0].as_str(), line.sum.billed.decimal())).collect();
    assert_eq!(services["Amazon Elastic Compute Cloud - Compute"], decimal("12.3456789015"));
    assert_eq!(services["A \"quoted\", company's service"], decimal("-1.5"));
    for shown in yard.exports(customer.tenant).await {
        assert_eq!((shown.export.as_str(), shown.format.as_deref()), ("cost-explorer", Some("cost-explorer")));
        assert_eq!(shown.state, PeriodState::Done);
    }
    // Accounts in one page, seven groups of the one account in pages of two; and no more on this day.
    let asked = bureau.asked("GetCostAndUsage");
    assert_eq!(asked.len(), 1 + 4);
    assert!(
        asked[1..].iter().all(|body| body["GroupBy"].as_array().unwrap().len() == 2 && body["Granularity"] == "DAILY")
    );
    yard.look_at(customer, None).await;
    yard.until_idle().await;
    assert_eq!(bureau.asked("GetCostAndUsage").len(), 5, "once on a day");

    // An export appears in the account's list: of a payer that Cost Explorer does not name.
    yard.put(customer, "reports/cur", month(&this), &[item("AmazonEC2", "7.25"), item("AmazonS3", "0.5")]).await;
    bureau.state.lock().unwrap().reports = vec![(customer.bucket(), "reports/".to_owned(), "cur".to_owned())];
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(3).await;
    yard.until_idle().await;
    assert_eq!(totals(&yard, customer).await.0, decimal("7.75") + billed_last, "it counts once");
    let shown = yard.exports(customer.tenant).await;
    let state = |export: &str, day: &str| {
        let shown = shown
            .iter()
            .find(|shown| shown.export.ends_with(export) && shown.period.as_ref().unwrap().as_str() == month(day));
        shown.unwrap().state
    };
    assert_eq!(
        (state("/reports/cur", &this), state("cost-explorer", &this)),
        (PeriodState::Done, PeriodState::Superseded)
    );
    assert_eq!(state("cost-explorer", &last), PeriodState::Done);
    assert_eq!((yard.events::<CostsFailed>().await.len(), yard.held(Stream::DeadLetters).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_another_payer_takes_cost_explorers_place_too() {
    let (mut yard, customer, bureau) = (Yard::new().await, Customer::new(), Bureau::start(bureau::costs()).await);
    yard.payers = cost_ingestion::ingest::Payers::Any;
    let _program = program(&mut yard, &bureau, None).await;
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(2).await;
    yard.until_idle().await;
    let [this, last] = bureau::months();
    let lines = [with(item("AmazonEC2", "2"), &[("bill_payer_account_id", "999999999999")])];
    for day in [&this, &last] {
        yard.put(customer, "exports/member", month(day), &lines).await;
    }
    bureau.state.lock().unwrap().exports = vec![(customer.bucket(), "exports".to_owned(), "member".to_owned())];
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(4).await;
    yard.until_idle().await;
    assert_eq!(totals(&yard, customer).await.0, decimal("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_accounts_are_asked_for_together_and_throttled_requests_again() {
    let (mut yard, customer) = (Yard::new().await, Customer::new());
    let [this, _] = bureau::months();
    let cost = |at: u32| {
        (this.clone(), format!("{at:012}"), "Amazon Simple Queue Service", "eu-west-1", "0.0000000001", "0.1")
    };
    let bureau = Bureau::start((1..=7).map(cost).collect()).await;
    (bureau.state.lock().unwrap().throttled, bureau.state.lock().unwrap().page) = (2, 3);
    bureau.state.lock().unwrap().denied = ["cur:DescribeReportDefinitions", "bcm-data-exports:ListExports"].into();
    let _program = program(&mut yard, &bureau, None).await;
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(1).await;
    yard.until_idle().await;
    assert_eq!(totals(&yard, customer).await, (decimal("0.0000000007"), decimal("0.7")));
    let asked = bureau.asked("GetCostAndUsage");
    assert_eq!(asked.len(), 2 + 3 + 3, "two were throttled, and there are three pages of accounts and of costs");
    assert_eq!(asked.last().unwrap()["GroupBy"][1]["Key"], "LINKED_ACCOUNT");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_shown_with_the_missing_permission_and_keeps_nothing_else_out() {
    let (mut yard, customer, bureau) = (Yard::new().await, Customer::new(), Bureau::start(bureau::costs()).await);
    let [this, _] = bureau::months();
    {
        let mut state = bureau.state.lock().unwrap();
        state.denied = ["ce:GetCostAndUsage", "cur:DescribeReportDefinitions"].into();
        let guarded = ("guarded".to_owned(), "costs".to_owned(), "daily".to_owned());
        state.exports = vec![guarded, (customer.bucket(), String::new(), "cur".to_owned())];
    }
    yard.put(customer, "cur", month(&this), &[item("AmazonEC2", "3")]).await;
    let _program = program(&mut yard, &bureau, Some("guarded".to_owned())).await;
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(1).await;
    let failed = yard.until::<CostsFailed>(3).await;
    yard.until_idle().await;
    assert_eq!(totals(&yard, customer).await.0, decimal("3"));
    let reasons: Vec<_> = failed.iter().map(|failed| failed.data.reason.as_str()).collect();
    for wanted in ["ce:GetCostAndUsage was refused", "cur:DescribeReportDefinitions was refused", "s3:ListBucket"] {
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "{wanted}: {reasons:?}");
    }
    let shown = yard.exports(customer.tenant).await;
    let failed: Vec<_> =
        shown.iter().filter(|shown| shown.state == PeriodState::Failed).map(|shown| shown.export.as_str()).collect();
    for wanted in ["Cost Explorer", "the account's report definitions", "s3://guarded/costs/daily"] {
        assert!(failed.contains(&wanted), "{wanted}: {failed:?}");
    }
    assert_eq!(bureau.asked("GetCostAndUsage").len(), 3, "a refusal is tried three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_reports_and_exports_are_read_page_by_page_and_what_tells_no_costs_is_left_out() {
    let (mut yard, customer, bureau) = (Yard::new().await, Customer::new(), Bureau::start(Vec::new()).await);
    let [this, _] = bureau::months();
    let named = |prefix: &str, at: usize| (customer.bucket(), format!("{prefix}-{at}"), "costs".to_owned());
    for (prefix, cost) in [("reports", "1"), ("exports", "100")] {
        for at in 0..5 {
            // Bills of several accounts, so that they add up.
            let payer = format!("{cost:0>11}{at}");
            let line = with(item("AmazonEC2", cost), &[("bill_payer_account_id", payer.as_str())]);
            yard.put(
                customer,
                &format!(
                    "{prefix}-{at}/{}",
                    if prefix == "exports" { format!("costs-{at}") } else { "costs".to_owned() }
                ),
                month(&this),
                &[line],
            )
            .await;
        }
    }
    {
        let mut state = bureau.state.lock().unwrap();
        state.reports = (0..5).map(|at| named("reports", at)).collect();
        state.exports = (0..5).map(|at| (customer.bucket(), format!("exports-{at}"), format!("costs-{at}"))).collect();
        // It lies where nothing could be read.
        state.exports.push(("nowhere".to_owned(), String::new(), "recommendations".to_owned()));
        state.recommendations = ["recommendations".to_owned()].into();
        state.list_page = 2;
    }
    yard.payers = cost_ingestion::ingest::Payers::Any;
    let _program = program(&mut yard, &bureau, Some("nowhere".to_owned())).await;
    yard.look_at(customer, None).await;
    yard.until::<CostsIngested>(10).await;
    yard.until_idle().await;
    assert_eq!(totals(&yard, customer).await.0, decimal("505"));
    assert_eq!((bureau.asked("DescribeReportDefinitions").len(), bureau.asked("ListExports").len()), (3, 3));
    assert_eq!(yard.events::<CostsFailed>().await.len(), 0);
}
