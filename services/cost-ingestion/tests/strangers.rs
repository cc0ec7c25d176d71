//! The table as strangers see it: DuckDB sums it like the raw file, and the FOCUS project's own validator judges it.
//!
//! Both are Python packages, fetched once, pinned and hash-checked, into the build folder. Where there is no Python 3.12 (the validator's Arrow has wheels for
//! no later one) the test says so, and fails if `CI` is set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, as tests do"
)]

#[path = "support/python.rs"]
mod python;

use contracts::TenantId;
use contracts::costs::{CostKey, DayRange, Granularity, QueryCostsRequest, TagFilter};
use cost_ingestion::import::{ImportArgs, import};
use cost_ingestion::table::CostTable;
use python::{ask, python};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_util::sync::CancellationToken;

const FOCUS_PAGE: &str = include_str!("../../../docs/focus.md");

async fn imported(files: PathBuf, table: &Path) {
    let (tenant, table) = (TenantId::new(), table.display().to_string());
    let args =
        ImportArgs { files: vec![files], tenant, table, connection: None, export: None, whole: false, json: false };
    assert_eq!(import(&args, &CancellationToken::new()).await.unwrap().refused, Vec::<String>::new());
}

const SUMS: &str = r#"
import duckdb, sys
raw, table = sys.argv[1:]
def sums(source, service, cost):
    # A double's shortest text is the decimal that is meant; DuckDB prints it so.
    return duckdb.sql(f"select {service}, count(*), sum({cost}::varchar::decimal(38, 18)) from {source} group by all order by all").fetchall()
if raw.endswith('.parquet'):
    theirs = sums(f"'{raw}'", 'product_product_name', 'line_item_unblended_cost')
else:
    theirs = sums(f"read_csv('{raw}', all_varchar=true, nullstr='NULL')", 'ServiceName', 'BilledCost')
ours = sums(f"read_parquet('{table}/**/part-*.parquet', hive_partitioning=false)", 'ServiceName', 'BilledCost')
assert theirs == ours, (theirs, ours)
print(len(ours))
"#;

const EXPORT: &str = r#"
import duckdb, sys
table, out = sys.argv[1:]
duckdb.sql(f"copy (select * replace (to_json(Tags)::varchar as Tags) from read_parquet('{table}/**/part-*.parquet', hive_partitioning=false)) to '{out}'")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_sums_the_table_like_the_raw_samples_and_the_focus_validator_finds_what_is_listed() {
    let Some(python) = python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sample in [
        "tests/data/focus-1.0-sample.csv",
        "../../deploy/sandbox/data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet",
    ] {
        let folder = tempfile::tempdir().unwrap();
        imported(here.join(sample), folder.path()).await;
        let services: usize = ask(&python, SUMS, &[&here.join(sample), folder.path()]).trim().parse().unwrap();
        assert!(services > 5, "{sample}");
    }

    let folder = tempfile::tempdir().unwrap();
    let (set, table, out) =
        (folder.path().join("set"), folder.path().join("table"), folder.path().join("focus.parquet"));
    let generator = Command::new(env!("CARGO_BIN_EXE_generate-costs"))
        .args(["--format", "cur-2.0", "--rows", "3000", "--out"])
        .arg(&set)
        .status();
    assert!(generator.unwrap().success());
    imported(set, &table).await;
    ask(&python, EXPORT, &[&table, &out]);
    let (failed, passed) = validated(&python, &out);
    assert!(passed > 330, "{passed} rules hold");
    assert_eq!(failed, listed("The FOCUS validator"), "docs/focus.md lists what does not hold, and why");
}

/// The rules that do not hold of a file, and how many hold.
fn validated(python: &Path, file: &Path) -> (BTreeSet<String>, u32) {
    let packages = ask(python, "import sysconfig; print(sysconfig.get_paths()['purelib'])", &[]);
    // It opens a list by a relative path.
    let output = Command::new(python.with_file_name("focus-validator"))
        .current_dir(packages.trim())
        .args(["--block-download", "--validate-version", "1.2.0.1", "--applicability-criteria", "ALL", "--data-file"])
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said.lines().filter_map(|line| line.strip_prefix("❌ ")).filter(|line| !line.contains("AND failed"));
    let failed = failed.filter_map(|line| line.split_once(':')).map(|(rule, _)| rule.to_owned()).collect();
    let passed = said.split("Pass: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a summary");
    (failed, passed.parse().unwrap())
}

/// The rules that a section of the page on FOCUS lists.
fn listed(section: &str) -> BTreeSet<String> {
    let section = FOCUS_PAGE.split("\n## ").find(|text| text.starts_with(section)).unwrap();
    let words = section.lines().filter(|line| line.starts_with("| `")).flat_map(|line| line.split('`'));
    words.filter(|word| word.contains("-C-")).map(str::to_owned).collect()
}

const COST_EXPLORER: &str = "payer_account,time_period_start,time_period_end,linked_account,service,region,unblended_cost,amortized_cost,cost_unit,usage_quantity,usage_unit,estimated\n\
222222222222,2026-10-01,2026-10-02,222222222222,Amazon Simple Storage Service,eu-central-1,12.3456789012,10.0000000001,USD,24,N/A,false\n\
222222222222,2026-10-02,2026-10-03,333333333333,Amazon Elastic Compute Cloud - Compute,NoRegion,0.0000000003,0.0000000003,USD,24,Hrs,true\n\
222222222222,2026-10-02,2026-10-03,222222222222,\"A quoted, foreign service\",global,-1.5,-1.5,USD,1,N/A,false\n\
222222222222,2026-10-31,2026-11-01,222222222222,Tax,NoRegion,0.19,0.19,USD,0,N/A,false\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_focus_validator_finds_in_cost_explorers_rows_what_is_listed() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, table, out) =
        (folder.path().join("days.csv"), folder.path().join("table"), folder.path().join("focus.parquet"));
    std::fs::write(&file, COST_EXPLORER).unwrap();
    imported(file, &table).await;
    ask(&python, EXPORT, &[&table, &out]);
    let (failed, passed) = validated(&python, &out);
    assert!(passed > 330, "{passed} rules hold");
    let sum = "import duckdb, sys; print(duckdb.sql(f\"select count(*), sum(BilledCost), sum(EffectiveCost) from '{sys.argv[1]}'\").fetchone())";
    let sums = ask(&python, sum, &[&out]);
    assert!(sums.contains("4, ") && sums.contains("11.0356789015") && sums.contains("8.6900000004"), "{sums}");
    assert_eq!(failed, listed("What Cost Explorer tells"), "docs/focus.md lists what does not hold, and why");
}

const ANSWERS: &str = r#"
import duckdb, json, sys
files, = sys.argv[1:]
for line in json.load(sys.stdin):
    keys = "".join(key + ", " for key in line["keys"])
    rows = duckdb.sql(f"""select {keys} BillingCurrency, sum(BilledCost), sum(EffectiveCost), sum(ListCost), sum(ContractedCost), count(*)
        from read_parquet('{files}', hive_partitioning=false) where {line["filter"]} group by all""").fetchall()
    print(json.dumps([["(none)" if cell is None else format(cell, "f") if hasattr(cell, "as_tuple") else str(cell) for cell in row] for row in rows]))
"#;

/// Keys and filters in our words and in DuckDB's.
fn questions() -> Vec<(QueryCostsRequest, Vec<&'static str>, &'static str)> {
    let keys = [
        (CostKey::Service, "ServiceName"),
        (CostKey::Account, "SubAccountId"),
        (CostKey::Region, "RegionId"),
        (CostKey::ChargeCategory, "ChargeCategory"),
        (CostKey::Tag("team".to_owned()), "Tags['team']"),
    ];
    let day = "strftime(ChargePeriodStart at time zone 'UTC', '%Y-%m-%d')";
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    let all = || QueryCostsRequest { all_costs: true, limit: Some(500), ..QueryCostsRequest::default() };
    let days = DayRange { first: "2025-01-05".parse().unwrap(), last: "2025-01-06".parse().unwrap() };
    let red = TagFilter { key: "team".to_owned(), values: texts(&["red", "(none)"]) };
    let filters = [
        (all(), "true"),
        (QueryCostsRequest { regions: texts(&["eu-central-1"]), ..all() }, "RegionId = 'eu-central-1'"),
        (QueryCostsRequest { regions: texts(&["(none)"]), ..all() }, "RegionId is null"),
        (
            QueryCostsRequest {
                services: texts(&["AWS Lambda", "Amazon Simple Storage Service"]),
                charge_categories: texts(&["Usage"]),
                ..all()
            },
            "ServiceName in ('AWS Lambda', 'Amazon Simple Storage Service') and ChargeCategory = 'Usage'",
        ),
        (
            QueryCostsRequest { days: Some(days), ..all() },
            "ChargePeriodStart >= '2025-01-05 00:00:00+00'::timestamptz and ChargePeriodStart < '2025-01-07 00:00:00+00'::timestamptz",
        ),
        (QueryCostsRequest { tags: vec![red], ..all() }, "coalesce(Tags['team'], 'red') = 'red'"),
    ];
    let mut all = Vec::new();
    for (request, filter) in filters {
        for (at, (key, column)) in keys.iter().enumerate() {
            let (other, other_column) = &keys[(at + 1) % keys.len()];
            let by = |by: &[&CostKey]| by.iter().map(|key| (*key).clone()).collect();
            all.push((QueryCostsRequest { by: by(&[key]), ..request.clone() }, vec![*column], filter));
            all.push((
                QueryCostsRequest { by: by(&[key, other]), ..request.clone() },
                vec![*column, *other_column],
                filter,
            ));
            let daily = QueryCostsRequest { by: by(&[key]), granularity: Granularity::Daily, ..request.clone() };
            all.push((daily, vec![day, *column], filter));
        }
        all.push((QueryCostsRequest { by: Vec::new(), ..request }, Vec::new(), filter));
    }
    all
}

/// All pages of an answer, as DuckDB would print its lines.
async fn answered(table: &CostTable, tenant: TenantId, request: &QueryCostsRequest) -> Vec<Vec<String>> {
    let (mut lines, mut request) = (Vec::new(), request.clone());
    loop {
        let answer = table.query(tenant, &request).await.unwrap();
        for line in answer.lines {
            let costs = [Some(line.sum.billed), Some(line.sum.effective), line.sum.list, line.sum.contracted];
            let costs = costs.map(|cost| format!("{:.18}", cost.unwrap().decimal()));
            let keys = line.time.into_iter().chain(line.of).chain([line.sum.currency.to_string()]);
            lines.push(keys.chain(costs).chain([line.sum.rows.to_string()]).collect());
        }
        match answer.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_answers_every_question_with_the_same_digits() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (set, table) = (folder.path().join("set"), folder.path().join("table"));
    let generator = Command::new(env!("CARGO_BIN_EXE_generate-costs"))
        .args(["--format", "cur-2.0", "--rows", "5000", "--out"])
        .arg(&set)
        .status();
    assert!(generator.unwrap().success());
    let (tenant, location) = (TenantId::new(), table.display().to_string());
    let args = ImportArgs {
        files: vec![set],
        tenant,
        table: location.clone(),
        connection: None,
        export: None,
        whole: false,
        json: false,
    };
    assert_eq!(import(&args, &CancellationToken::new()).await.unwrap().refused, Vec::<String>::new());
    // Another tenant's rows lie in the same table: DuckDB is shown the first one's files alone.
    imported(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/focus-1.0-sample.csv"), &table).await;

    let questions = questions();
    let in_sql = questions.iter().map(|(_, keys, filter)| serde_json::json!({"keys": keys, "filter": filter}));
    let mut asked = Command::new(&python)
        .args(["-c", ANSWERS, &format!("{location}/x_tenant_id={tenant}/**/part-*.parquet")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(asked.stdin.take().unwrap(), &in_sql.collect::<Vec<_>>()).unwrap();
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success());
    let theirs: Vec<Vec<Vec<String>>> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(theirs.len(), questions.len());

    let table = CostTable::open(&location).await.unwrap();
    for summed in [false, true] {
        if summed {
            assert_eq!(table.summarise(&CancellationToken::new()).await.unwrap(), 3);
        }
        for ((request, keys, filter), theirs) in questions.iter().zip(&theirs) {
            let mut theirs = theirs.clone();
            theirs.sort();
            assert_eq!(answered(&table, tenant, request).await, theirs, "{keys:?} where {filter}, summed: {summed}");
        }
    }
    assert!(theirs.iter().filter(|answer| answer.len() > 1).count() > 60);
}
