//! Questions about costs: summaries say what rows say, pages fit together, bounds hold, and a tenant sees its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::costs::{
    Cost, CostKey, CostLine, DayRange, Granularity, NONE, OTHER, PeriodRange, QueriedCosts, QueryCostsRequest,
    TagFilter,
};
use contracts::{ConnectionId, TenantId};
use cost_ingestion::import::{ImportArgs, import};
use cost_ingestion::table::{CostTable, From, QueryError};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::report::{self, item, with};
use support::{Bench, decimal, period};
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "222222222222";

/// Rows of two months for a tenant, in a table that may be others' too; gives billed totals of both, as the generator knows them.
async fn generated(folder: &Path, table: &str, seed: &str) -> (TenantId, Decimal) {
    let (tenant, mut billed) = (TenantId::new(), Decimal::ZERO);
    for month in ["2025-01", "2025-02"] {
        let out = folder.join(format!("{seed}-{month}"));
        let more = ["--format", "cur-2.0", "--rows", "4000", "--seed", seed, "--period", month, "--out"];
        assert!(Command::new(env!("CARGO_BIN_EXE_generate-costs")).args(more).arg(&out).status().unwrap().success());
        let totals: Value = serde_json::from_slice(&std::fs::read(out.join("totals.json")).unwrap()).unwrap();
        billed += decimal(totals["billed"].as_str().unwrap());
        let table = table.to_owned();
        let args =
            ImportArgs { files: vec![out], tenant, table, connection: None, export: None, whole: false, json: false };
        assert_eq!(import(&args, &CancellationToken::new()).await.unwrap().refused, Vec::<String>::new());
    }
    (tenant, billed)
}

fn key() -> impl Strategy<Value = CostKey> {
    let tag = |name: &str| CostKey::Tag(name.to_owned());
    prop::sample::select(vec![
        CostKey::Service,
        CostKey::Account,
        CostKey::Region,
        CostKey::ChargeCategory,
        CostKey::Connection,
        CostKey::Period,
        tag("team"),
        tag("nobody"),
    ])
}

/// Questions that may be asked, also with hostile filters.
fn question() -> impl Strategy<Value = QueryCostsRequest> {
    let some = |values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        prop::sample::subsequence(values.clone(), 0..=values.len())
    };
    let hostile = "' or true --";
    let days = prop::option::of((1_u8..=28, 1_u8..=28));
    let keys = prop::collection::btree_set(key(), 0..=3);
    let texts = (
        some(&["Amazon Elastic Compute Cloud", "AWS Lambda", hostile]),
        some(&["111111111100", "111111111107", "*", NONE]),
        some(&["eu-central-1", "us-east-1", "%", NONE]),
        some(&["Usage", "Tax", "Purchase", "Credit"]),
        some(&["red", "blue", NONE]),
    );
    let shape = (
        prop::sample::select(vec![Granularity::Total, Granularity::Daily, Granularity::Monthly]),
        prop::option::of(1_u16..5),
    );
    (keys, shape, days, texts, prop::bool::ANY).prop_map(|(by, (granularity, top), days, texts, all_costs)| {
        let (services, accounts, regions, charge_categories, teams) = texts;
        let day = |day: u8| format!("2025-01-{day:02}").parse().unwrap();
        let tags = if teams.is_empty() { vec![] } else { vec![TagFilter { key: "team".to_owned(), values: teams }] };
        QueryCostsRequest {
            by: by.into_iter().collect(),
            granularity,
            days: days.map(|(a, b)| DayRange { first: day(a.min(b)), last: day(a.max(b)) }),
            services,
            accounts,
            regions,
            charge_categories,
            tags,
            all_costs,
            rank_by: if all_costs { Cost::List } else { Cost::Effective },
            top,
            limit: Some(25),
            ..QueryCostsRequest::default()
        }
    })
}

fn without_source(costs: QueriedCosts) -> QueriedCosts {
    QueriedCosts { from_summary: false, ..costs }
}

fn sums(costs: &QueriedCosts) -> (Decimal, u64) {
    (costs.lines.iter().map(|line| line.sum.billed.decimal()).sum(), costs.lines.iter().map(|line| line.sum.rows).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_say_what_rows_say_and_a_tenant_sees_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("table").display().to_string();
    let (first, first_billed) = generated(folder.path(), &location, "1").await;
    let (second, second_billed) = generated(folder.path(), &location, "2").await;
    let table = CostTable::open(&location).await.unwrap();
    let nothing = QueryCostsRequest { by: Vec::new(), ..QueryCostsRequest::default() };
    assert!(!table.query(first, &nothing).await.unwrap().from_summary);
    let token = CancellationToken::new();
    assert_eq!(table.summarise(&token).await.unwrap(), 4);
    assert_eq!(table.summarise(&token).await.unwrap(), 0, "each once");
    for (tenant, billed) in [(first, first_billed), (second, second_billed)] {
        let whole = table.query(tenant, &nothing).await.unwrap();
        assert!(whole.from_summary);
        assert_eq!((whole.totals[0].billed.decimal(), whole.rows, whole.lines.len()), (billed, 8000, 1));
    }
    assert_eq!(table.query(TenantId::new(), &nothing).await.unwrap().rows, 0, "a stranger has nothing");

    let mut runner = TestRunner::deterministic();
    let (mut answered, mut cut) = (0, 0);
    for _ in 0..150 {
        let request = question().new_tree(&mut runner).unwrap().current();
        let ours = table.query(first, &request).await.unwrap();
        assert_eq!(ours.from_summary, !is_tagged(&request), "{request:?}");
        let rows = table.query_from(first, &request, From::Rows).await.unwrap();
        assert_eq!(without_source(ours.clone()), rows, "{request:?}");
        answered += usize::from(ours.rows > 0);
        // Lines are all of the totals, unless there is another page.
        if ours.next.is_none() {
            let totals = (ours.totals.iter().map(|sum| sum.billed.decimal()).sum(), ours.rows);
            assert_eq!(sums(&ours), totals, "{request:?}");
        } else {
            cut += 1;
        }
        // A filter takes rows away and never brings others in.
        assert!(ours.rows <= 8000, "{request:?}");
        let open = QueryCostsRequest { top: None, ..request.clone() };
        let theirs = table.query(second, &open).await.unwrap();
        let both = table.query(first, &open).await.unwrap().rows + theirs.rows;
        assert!(both <= 16_000, "{request:?}");
    }
    assert!(answered > 40 && cut > 0, "{answered} questions had rows, {cut} more than a page");
}

fn is_tagged(request: &QueryCostsRequest) -> bool {
    !request.tags.is_empty() || request.by.iter().any(|key| matches!(key, CostKey::Tag(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_one_answer_fit_together_and_a_changed_table_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("table").display().to_string();
    let (tenant, _) = generated(folder.path(), &location, "1").await;
    let table = CostTable::open(&location).await.unwrap();
    let by = vec![CostKey::Account, CostKey::Tag("team".to_owned())];
    let ask = QueryCostsRequest { by, limit: Some(500), ..QueryCostsRequest::default() };
    let whole = table.query(tenant, &ask).await.unwrap();
    assert!(whole.next.is_none() && whole.lines.len() > 20, "{} lines", whole.lines.len());
    let (mut lines, mut page) = (Vec::<CostLine>::new(), QueryCostsRequest { limit: Some(7), ..ask.clone() });
    loop {
        // Another process answers each page.
        let table = CostTable::open(&location).await.unwrap();
        let answer = table.query(tenant, &page).await.unwrap();
        assert_eq!((answer.rows, &answer.totals), (whole.rows, &whole.totals), "totals are of the whole answer");
        lines.extend(answer.lines);
        match answer.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(lines, whole.lines);

    let first = table.query(tenant, &QueryCostsRequest { limit: Some(7), ..ask.clone() }).await.unwrap();
    let after = first.next.clone();
    let other = QueryCostsRequest { by: vec![CostKey::Region], after: after.clone(), ..ask.clone() };
    for (tenant, request) in [
        (tenant, other),
        (tenant, QueryCostsRequest { after: Some("x".to_owned()), ..ask.clone() }),
        (tenant, QueryCostsRequest { after: after.as_ref().map(|mark| format!("{mark}x")), ..ask.clone() }),
        (TenantId::new(), QueryCostsRequest { after: after.clone(), ..ask.clone() }),
    ] {
        let error = table.query(tenant, &request).await.unwrap_err();
        assert!(matches!(error, QueryError::ForeignMark), "{error}");
    }
    // Another tenant's rows come in: nothing that this answer is of has changed.
    generated(folder.path(), &location, "2").await;
    let second = QueryCostsRequest { limit: Some(7), after, ..ask };
    let answer = table.query(tenant, &second).await.unwrap();
    assert_eq!(answer.lines, whole.lines[7..14]);
    // A month of this tenant is replaced.
    let out = folder.path().join("1-2025-01");
    let more = ["--format", "cur-2.0", "--rows", "4000", "--seed", "1", "--period", "2025-01", "--restate", "--out"];
    assert!(Command::new(env!("CARGO_BIN_EXE_generate-costs")).args(more).arg(&out).status().unwrap().success());
    let args = ImportArgs {
        files: vec![out],
        tenant,
        table: location,
        connection: None,
        export: None,
        whole: false,
        json: false,
    };
    assert_eq!(import(&args, &CancellationToken::new()).await.unwrap().periods[0].outcome, "written");
    let error = table.query(tenant, &second).await.unwrap_err();
    assert!(matches!(error, QueryError::Changed), "{error}");
}

#[tokio::test]
async fn currencies_stay_apart_and_what_is_missing_has_a_word() {
    let bench = Bench::new(ACCOUNT).await;
    let euro = |item| with(item, &[("line_item_currency_code", "EUR")]);
    let many = (0..6).map(|at| item(["a", "b", "c", "d", "e", "f"][at], &(at + 1).to_string()));
    bench
        .put(
            "cur/a.parquet",
            report::file(&many.chain([euro(item("a", "100")), euro(item("b", "7"))]).collect::<Vec<_>>()),
        )
        .await;
    bench.ingest().await.unwrap();
    let costs = bench.asked(&QueryCostsRequest { top: Some(1), ..QueryCostsRequest::default() }).await;
    let seen: Vec<_> = costs
        .lines
        .iter()
        .map(|line| {
            (line.sum.currency.to_string(), line.of[0].clone(), line.other, line.sum.billed.to_string(), line.sum.rows)
        })
        .collect();
    let line = |currency: &str, service: &str, billed: &str, rows| {
        (currency.to_owned(), service.to_owned(), service == OTHER, billed.to_owned(), rows)
    };
    assert_eq!(
        seen,
        [line("EUR", "a", "100", 1), line("EUR", OTHER, "7", 1), line("USD", "f", "6", 1), line("USD", OTHER, "15", 5)]
    );
    assert_eq!(costs.totals.iter().map(|sum| sum.billed.to_string()).collect::<Vec<_>>(), ["107", "21"]);

    let by_region = QueryCostsRequest { by: vec![CostKey::Region], ..QueryCostsRequest::default() };
    assert!(bench.asked(&by_region).await.lines.iter().all(|line| line.of == [NONE]));
    let without = QueryCostsRequest { regions: vec![NONE.to_owned()], ..by_region.clone() };
    assert_eq!(bench.asked(&without).await.rows, 8);
    let with_one = QueryCostsRequest { regions: vec!["eu-central-1".to_owned()], ..by_region };
    assert_eq!(bench.asked(&with_one).await.rows, 0);
    let elsewhen = PeriodRange { first: period("2019-01"), last: period("2019-12") };
    let elsewhen = QueryCostsRequest { periods: Some(elsewhen), ..QueryCostsRequest::default() };
    assert_eq!((bench.asked(&elsewhen).await.rows, bench.asked(&elsewhen).await.periods), (0, vec![]));
    let nobody = QueryCostsRequest { connections: vec![ConnectionId::new()], ..QueryCostsRequest::default() };
    assert_eq!(bench.asked(&nobody).await.rows, 0);
}

#[tokio::test]
async fn a_question_out_of_bounds_is_refused_with_what_to_do() {
    let bench = Bench::new(ACCOUNT).await;
    let ask = QueryCostsRequest::default;
    let day = |text: &str| text.parse().unwrap();
    let many = vec!["x".to_owned(); 101];
    let long = vec!["x".repeat(1025)];
    for (request, why) in [
        (QueryCostsRequest { by: vec![CostKey::Service; 2], ..ask() }, "none of them twice"),
        (QueryCostsRequest { services: many, ..ask() }, "at most 100 values"),
        (QueryCostsRequest { accounts: long, ..ask() }, "at most 1024 bytes"),
        (QueryCostsRequest { top: Some(0), ..ask() }, "`top` is 1 to 1000"),
        (QueryCostsRequest { limit: Some(501), ..ask() }, "`limit` is 1 to 500"),
        (QueryCostsRequest { rank_by: Cost::List, ..ask() }, "needs `all_costs`"),
        (
            QueryCostsRequest { days: Some(DayRange { first: day("2025-01-02"), last: day("2025-01-01") }), ..ask() },
            "exchange `first` and `last`",
        ),
        (
            QueryCostsRequest { tags: vec![TagFilter { key: "k".to_owned(), values: vec![] }], ..ask() },
            "at least one value",
        ),
    ] {
        let error = bench.table.query(bench.order.scope.tenant, &request).await.unwrap_err();
        assert!(matches!(error, QueryError::Invalid(_)) && error.to_string().contains(why), "{error}");
    }
    assert!(
        serde_json::from_str::<QueryCostsRequest>(r#"{"tenant": "another"}"#).is_err(),
        "unknown fields are refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_slice_is_replaced_and_summed_up_again_readers_see_before_or_after() {
    let bench = Arc::new(Bench::new(ACCOUNT).await);
    let version =
        |number: i64| report::file(&[item("AmazonEC2", &number.to_string()), item("AmazonS3", &number.to_string())]);
    bench.put("cur/a.parquet", version(1)).await;
    bench.ingest().await.unwrap();
    let done = CancellationToken::new();
    let (reader, summer) = ((Arc::clone(&bench), done.clone()), (Arc::clone(&bench), done.clone()));
    let reader = tokio::spawn(async move {
        let (mut seen, mut summed) = (BTreeSet::new(), 0);
        while !reader.1.is_cancelled() {
            let costs = reader.0.costs().await;
            assert_eq!(costs.lines[0].sum.billed, costs.lines[1].sum.billed, "both of one version");
            seen.insert(costs.totals[0].billed);
            summed += usize::from(costs.from_summary);
        }
        (seen, summed)
    });
    let summer = tokio::spawn(async move {
        while !summer.1.is_cancelled() {
            summer.0.table.summarise(&summer.1).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for number in 2..=15 {
        bench.put("cur/a.parquet", version(number)).await;
        bench.ingest().await.unwrap();
        // Read after the commit: the new rows, whether or not they are summed up yet.
        assert_eq!(support::billed(&bench.costs().await), Decimal::from(2 * number));
    }
    done.cancel();
    summer.await.unwrap();
    assert!(!reader.await.unwrap().0.is_empty());
    bench.table.summarise(&CancellationToken::new()).await.unwrap();
    let costs = bench.costs().await;
    assert_eq!((costs.from_summary, costs.totals[0].billed.decimal()), (true, decimal("30")));
}

#[tokio::test]
async fn a_summary_that_cannot_be_read_costs_time_and_nothing_else() {
    use futures::TryStreamExt as _;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};
    let bench = Bench::new(ACCOUNT).await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1.5")])).await;
    bench.ingest().await.unwrap();
    bench.table.summarise(&CancellationToken::new()).await.unwrap();
    let folder = object_store::path::Path::from("_rolebridge/summary");
    let there: Vec<_> = bench.table.store().list(Some(&folder)).try_collect().await.unwrap();
    assert_eq!(there.len(), 1);
    for broken in [&b""[..], b"PAR1 and then nothing of the kind PAR1"] {
        bench.table.store().put(&there[0].location, broken.to_vec().into()).await.unwrap();
        let costs = bench.costs().await;
        assert_eq!((costs.from_summary, support::billed(&costs)), (false, decimal("1.5")));
    }
}
