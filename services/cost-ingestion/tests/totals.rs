//! The table's totals are the report's, to the last digit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::costs::{PeriodRange, QueriedCosts, QueryCostsRequest};
use cost_ingestion::ingest::{Outcome, Payers};
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Bench, NOVEMBER, OCTOBER, SAMPLE_PAYER, billed, decimal, independent, ingested, period};

#[tokio::test]
async fn the_samples_sum_to_what_an_independent_reading_says() {
    let bench = Bench::new(SAMPLE_PAYER).await;
    bench.put_sample(OCTOBER).await;
    bench.put_sample(NOVEMBER).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(
        reports.iter().map(ingested).collect::<Vec<_>>(),
        [(119_307, decimal("4064.4831315379")), (124_340, decimal("3505.3269681268")),]
    );

    let (october, october_total) = independent(OCTOBER);
    let (november, november_total) = independent(NOVEMBER);
    let costs = bench.costs().await;
    assert_eq!(costs.rows, 119_307 + 124_340);
    assert_eq!(costs.periods, [period("2018-10"), period("2018-11")]);
    assert_eq!(billed(&costs), october_total + november_total);
    let mut both = october.clone();
    for (service, cost) in &november {
        *both.entry(service.clone()).or_default() += *cost;
    }
    let by_service = |costs: &QueriedCosts| -> BTreeMap<String, Decimal> {
        costs.lines.iter().map(|line| (line.of[0].clone(), line.sum.billed.decimal())).collect()
    };
    assert_eq!(by_service(&costs), both);
    assert!(costs.lines.windows(2).all(|pair| pair[0].sum.billed >= pair[1].sum.billed));

    let periods = Some(PeriodRange { first: period("2018-11"), last: period("2018-11") });
    let mut query = QueryCostsRequest { periods, ..QueryCostsRequest::default() };
    let costs = bench.asked(&query).await;
    assert_eq!(by_service(&costs), november);
    // Amortised: what was billed, without the fees of reservations but with what their use and their waste cost. From the file, in decimals:
    // 3505.3269681268 - 147.384 (fees) + 231.40044001 (used) + 21.6 + 21.61643836 (unused).
    let effective = costs.totals[0].effective.decimal();
    assert_eq!(
        effective,
        decimal("3505.3269681268") - decimal("147.384") + decimal("231.40044001") + decimal("43.21643836")
    );

    query.top = Some(3);
    let costs = bench.asked(&query).await;
    assert_eq!(costs.lines.len(), 4);
    assert_eq!((costs.lines[3].of[0].as_str(), costs.lines[3].other), ("(other)", true));
    assert_eq!(costs.lines.iter().map(|line| line.sum.billed.decimal()).sum::<Decimal>(), november_total);
    assert_eq!(costs.lines.iter().map(|line| line.sum.rows).sum::<u64>(), 124_340);
}

#[tokio::test]
async fn a_folder_is_a_table_that_another_process_finds_again() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("costs").display().to_string();
    let mut bench = Bench::with(SAMPLE_PAYER, Arc::new(InMemory::new()), Default::default(), Payers::default()).await;
    bench.table = Arc::new(CostTable::open(&location).await.unwrap());
    let exports = Arc::new(support::OneStore(Arc::clone(&bench.bucket)));
    bench.ingestor =
        cost_ingestion::ingest::Ingestor::new(exports, Arc::clone(&bench.table), Default::default(), Payers::default());
    bench.put_sample(NOVEMBER).await;
    assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (124_340, decimal("3505.3269681268")));

    bench.table = Arc::new(CostTable::open(&location).await.unwrap());
    assert_eq!(billed(&bench.costs().await), decimal("3505.3269681268"));
    let exports = Arc::new(support::OneStore(Arc::clone(&bench.bucket)));
    bench.ingestor =
        cost_ingestion::ingest::Ingestor::new(exports, Arc::clone(&bench.table), Default::default(), Payers::default());
    assert!(matches!(bench.ingest().await.unwrap()[0].outcome, Outcome::Unchanged));
}
