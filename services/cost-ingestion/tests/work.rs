//! A connection's periods as jobs: found, read, restated, superseded, refused, shown; and each thing said once.
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
use contracts::costs::{CostsFailed, CostsIngested, CostsProgress, CostsRestated, ExportLocation, PeriodState};
use contracts::{Region, Stream};
use cost_ingestion::credentials::{CredentialError, Scope};
use cost_ingestion::export::{ExportError, OpenExport};
use cost_ingestion::ingest::Payers;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::decimal;
use support::report::{self, item, with};
use support::store::Troubled;
use support::yard::{ACCOUNT, Customer, Yard};
use tracing::Instrument as _;

/// Exports for which there are no credentials at first.
struct Refusing(CredentialError, AtomicUsize, support::yard::Buckets);

#[async_trait]
impl OpenExport for Refusing {
    async fn open(
        &self,
        scope: Scope,
        at: &ExportLocation,
        region: &Region,
    ) -> Result<Arc<dyn ObjectStore>, ExportError> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(ExportError::Credentials(self.0.clone())) } else { self.2.open(scope, at, region).await }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_months_are_read_newest_first_and_each_is_said_in_the_trace_of_its_order() {
    let log = telemetry::LogConfig { log_format: telemetry::LogFormat::Human };
    let _telemetry = telemetry::init("cost-ingestion-test", &log).unwrap();
    let (yard, customer) = (Yard::new().await, Customer::new());
    let months = ["2018-09", "2018-11", "2018-10", "2017-12"];
    for month in months {
        yard.put(customer, "cur", month, &[item("AmazonEC2", "1.25"), item("AmazonS3", "0.5")]).await;
    }
    let job = yard.look(customer).instrument(tracing::info_span!("ordered")).await;
    let _program = yard.program(2, Arc::clone(&yard.store));
    let said = yard.until::<CostsIngested>(4).await;
    let periods: Vec<_> = said.iter().map(|said| said.data.period.as_str()).collect();
    assert_eq!(periods, ["2018-11", "2018-10", "2018-09", "2017-12"]);
    assert!(said.iter().all(|said| said.data.rows == 2 && said.data.totals[0].billed.decimal() == decimal("1.75")));
    let trace = |traceparent: &Option<String>| traceparent.as_deref().unwrap().split('-').nth(1).unwrap().to_owned();
    assert!(
        said.iter().all(|said| trace(&said.traceparent) == trace(&job.traceparent)),
        "one trace from order to news"
    );
    yard.until_idle().await;
    assert_eq!(yard.billed(customer).await, decimal("7"));
    let shown = yard.exports(customer.tenant).await;
    assert_eq!(shown.len(), 4);
    for shown in shown {
        assert_eq!((shown.state, shown.versions, shown.files, shown.tries), (PeriodState::Done, 1, 1, 0));
        assert_eq!((shown.latest[0].rows, shown.format.as_deref()), (2, Some("legacy-cur")));
        assert_eq!(shown.export, format!("s3://{}/cur", customer.bucket()));
    }
    let progress = yard.events::<CostsProgress>().await;
    assert!(!progress.is_empty() && progress.iter().all(|told| told.data.periods == 4 && told.data.percent <= 100));
    assert_eq!((yard.held(Stream::DeadLetters).await, yard.events::<CostsRestated>().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_asked_for_again_and_what_has_is_told_by_service() {
    let (yard, customer) = (Yard::new().await, Customer::new());
    let bucket = Arc::new(Troubled::new());
    yard.buckets.put(&customer.bucket(), bucket.clone());
    for month in ["2018-10", "2018-11"] {
        yard.put(customer, "cur", month, &[item("AmazonEC2", "3"), item("AmazonS3", "0.5"), item("AmazonSNS", "1")])
            .await;
    }
    let _program = yard.program(2, Arc::clone(&yard.store));
    yard.look(customer).await;
    yard.until::<CostsIngested>(2).await;
    yard.until_idle().await;
    bucket.take_reads();
    yard.look(customer).await;
    yard.until_idle().await;
    assert_eq!(bucket.take_reads(), [], "neither manifests nor files");

    // A month that was closed long ago, too.
    yard.put(
        customer,
        "cur",
        "2018-10",
        &[item("AmazonEC2", "2.5"), item("AmazonSQS", "0.25"), item("AmazonSNS", "1")],
    )
    .await;
    yard.look(customer).await;
    let restated = yard.until::<CostsRestated>(1).await.remove(0).data;
    yard.until_idle().await;
    assert_eq!((restated.period.as_str(), restated.before.rows, restated.now.rows), ("2018-10", 3, 3));
    let totals = |totals: &[contracts::costs::CostTotal]| totals[0].billed.decimal();
    assert_eq!((totals(&restated.before.totals), totals(&restated.now.totals)), (decimal("4.5"), decimal("3.75")));
    let lines: BTreeMap<_, _> =
        restated.by_service.iter().map(|line| (line.service.as_str(), line.billed.decimal())).collect();
    let wanted = [("AmazonEC2", "-0.5"), ("AmazonS3", "-0.5"), ("AmazonSQS", "0.25")];
    assert_eq!(lines, wanted.map(|(service, cost)| (service, decimal(cost))).into());
    assert!(
        bucket.take_reads().iter().all(|path| !path.as_ref().contains("2018-11")),
        "the other month was left alone"
    );
    assert_eq!(yard.billed(customer).await, decimal("8.25"));
    let shown = yard.exports(customer.tenant).await;
    let october = shown.iter().find(|shown| shown.period.as_ref().unwrap().as_str() == "2018-10").unwrap();
    assert_eq!((october.versions, october.latest.len()), (2, 2));
    assert!(october.latest[0].table_version > october.latest[1].table_version);
    // What is written anew with the same contents is a version, but no news of a restatement.
    yard.put(customer, "cur", "2018-11", &[item("AmazonS3", "0.5"), item("AmazonEC2", "3"), item("AmazonSNS", "1")])
        .await;
    yard.look(customer).await;
    yard.until::<CostsIngested>(4).await;
    yard.until_idle().await;
    assert_eq!(yard.events::<CostsRestated>().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exports_of_one_bill_count_once_and_a_better_one_takes_the_others_place() {
    let (mut yard, customer) = (Yard::new().await, Customer::new());
    yard.payers = Payers::Any;
    yard.put(customer, "b", "2018-11", &[item("AmazonEC2", "5")]).await;
    let _program = yard.program(2, Arc::clone(&yard.store));
    yard.look(customer).await;
    yard.until::<CostsIngested>(1).await;
    yard.until_idle().await;
    assert_eq!(yard.billed(customer).await, decimal("5"));

    // The same bill told by an export that goes before it, and the bill of another account.
    let other = with(item("AmazonEC2", "100"), &[("bill_payer_account_id", "333333333333")]);
    yard.put(customer, "a", "2018-11", &[item("AmazonEC2", "5.5")]).await;
    yard.put(customer, "c", "2018-11", &[other]).await;
    yard.look(customer).await;
    yard.until::<CostsIngested>(3).await;
    yard.until_idle().await;
    let costs = yard.costs(customer).await;
    assert_eq!((costs.rows, support::billed(&costs)), (2, decimal("105.5")));
    let shown = yard.exports(customer.tenant).await;
    let states: Vec<_> = shown.iter().map(|shown| (shown.export.rsplit('/').next().unwrap(), shown.state)).collect();
    assert_eq!(states, [("a", PeriodState::Done), ("b", PeriodState::Superseded), ("c", PeriodState::Done)]);
    assert!(
        shown[1].reason.as_ref().unwrap().contains("/a (legacy-cur) tells the same costs"),
        "{:?}",
        shown[1].reason
    );

    // The better one goes away: the other one serves again, although the very same version of it was read before.
    let bucket = yard.buckets.bucket(&customer.bucket());
    bucket.delete(&Path::from("a/20181101-20181101/daily-Manifest.json")).await.unwrap();
    yard.look(customer).await;
    yard.until::<CostsIngested>(4).await;
    yard.until_idle().await;
    assert_eq!(yard.billed(customer).await, decimal("105"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_then_said_and_shown_and_keeps_nobody() {
    let (yard, customer) = (Yard::new().await, Customer::new());
    yard.put(customer, "cur", "2018-10", &[item("AmazonEC2", "1")]).await;
    let whole = report::file_of("2018-11", &[item("AmazonEC2", "1.25")]);
    yard.put_file(customer, "cur", "2018-11", whole.slice(..whole.len() / 2)).await;
    let _program = yard.program(2, Arc::clone(&yard.store));
    yard.look(customer).await;
    yard.until::<CostsIngested>(1).await;
    let said = yard.until::<CostsFailed>(1).await.remove(0).data;
    yard.until_idle().await;
    assert_eq!((said.tenant, said.connection), (customer.tenant, customer.connection));
    assert_eq!(said.period.unwrap().as_str(), "2018-11");
    assert!(said.reason.contains("2018-11.parquet is not a complete Parquet file"), "{}", said.reason);
    let shown = yard.exports(customer.tenant).await.remove(0);
    assert_eq!((shown.state, shown.tries, shown.reason.as_ref()), (PeriodState::Failed, 1, Some(&said.reason)));
    assert!(shown.next_try.is_some());
    // In the same version it is not tried again each hour, and not said again.
    yard.look(customer).await;
    yard.until_idle().await;
    assert_eq!(yard.exports(customer.tenant).await[0].tries, 1);
    // Mended, it is read.
    yard.put(customer, "cur", "2018-11", &[item("AmazonEC2", "1.25")]).await;
    yard.look(customer).await;
    yard.until_idle().await;
    assert_eq!(yard.billed(customer).await, decimal("2.25"));
    assert_eq!((yard.events::<CostsFailed>().await.len(), yard.held(Stream::DeadLetters).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for_and_one_that_stays_away_is_said() {
    let yard = Yard::new().await;
    let away = || CredentialError::Unavailable { reason: "the broker is away".into() };
    let customers = [Customer::new(), Customer::new()];
    for customer in customers {
        yard.put(customer, "cur", "2018-11", &[item("AmazonEC2", "1.25")]).await;
    }
    let back = Arc::new(Refusing(away(), AtomicUsize::new(2), yard.buckets.clone()));
    let program = yard.program_with(1, Arc::clone(&yard.store), back);
    yard.look(customers[0]).await;
    yard.until::<CostsIngested>(1).await;
    yard.until_idle().await;
    assert_eq!(yard.events::<CostsFailed>().await.len(), 0);
    drop(program);

    let gone = Arc::new(Refusing(away(), AtomicUsize::new(usize::MAX), yard.buckets.clone()));
    let _program = yard.program_with(1, Arc::clone(&yard.store), gone);
    yard.look(customers[1]).await;
    let said = yard.until::<CostsFailed>(1).await.remove(0).data;
    yard.until_idle().await;
    assert!(said.reason.contains("the broker is away") && said.period.is_none(), "{}", said.reason);
    let shown = yard.exports(customers[1].tenant).await.remove(0);
    assert_eq!((shown.state, shown.tries), (PeriodState::Failed, yard.patience.tries));
    assert_eq!((yard.events::<CostsFailed>().await.len(), yard.held(Stream::DeadLetters).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_a_broken_export_is_an_event_with_the_reason_and_no_error_of_ours() {
    let (yard, customer) = (Yard::new().await, Customer::new());
    let bucket = yard.buckets.bucket(&customer.bucket());
    let manifest = report::manifest(ACCOUNT, &["../elsewhere/a.parquet"]);
    bucket.put(&Path::from("cur/20181101-20181201/cur-Manifest.json"), manifest.into()).await.unwrap();
    yard.put(customer, "cur", "2018-10", &[item("AmazonEC2", "1")]).await;
    let _program = yard.program(1, Arc::clone(&yard.store));
    yard.look(customer).await;
    let said = yard.until::<CostsFailed>(1).await.remove(0).data;
    yard.until_idle().await;
    assert_eq!(said.period.unwrap().as_str(), "2018-11");
    assert!(said.reason.contains("cannot be used"), "{}", said.reason);
    assert_eq!(yard.billed(customer).await, decimal("1"), "the other month is read");
    yard.look(customer).await;
    yard.until_idle().await;
    assert_eq!((yard.events::<CostsFailed>().await.len(), yard.held(Stream::DeadLetters).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_manifest_are_told_apart_once() {
    let (yard, customer) = (Yard::new().await, Customer::new());
    let bucket = Arc::new(Troubled::new());
    yard.buckets.put(&customer.bucket(), bucket.clone());
    for (name, month, cost) in [("a", "2018-10", "1"), ("b", "2018-11", "2"), ("c", "2018-11", "4")] {
        let file = report::file_of(month, &[item("AmazonEC2", cost)]);
        bucket.put(&Path::from(format!("{name}.parquet")), file.into()).await.unwrap();
    }
    let _program = yard.program(1, Arc::clone(&yard.store));
    yard.look(customer).await;
    yard.until::<CostsIngested>(2).await;
    yard.until_idle().await;
    bucket.take_reads();
    bucket.put(&Path::from("c.parquet"), report::file_of("2018-11", &[item("AmazonEC2", "8")]).into()).await.unwrap();
    yard.look(customer).await;
    yard.until::<CostsIngested>(3).await;
    yard.until_idle().await;
    assert!(bucket.take_reads().iter().all(|path| path.as_ref() != "a.parquet"));
    assert_eq!(yard.billed(customer).await, decimal("11"));
}
