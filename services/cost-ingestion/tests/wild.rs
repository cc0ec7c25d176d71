//! Files as AWS, other providers and other people's tools write them (`wild.py`): each sums to what a plain DuckDB query on the raw file says, per service and in all, or is
//! refused with a word on what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

#[path = "support/python.rs"]
mod python;

use contracts::TenantId;
use contracts::costs::QueryCostsRequest;
use cost_ingestion::import::{ImportArgs, import};
use cost_ingestion::table::CostTable;
use rust_decimal::Decimal;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const WRITER: &str = include_str!("wild.py");

#[derive(Deserialize)]
struct Case {
    name: String,
    files: Vec<PathBuf>,
    rows: u64,
    /// Billed, as DuckDB sums it.
    services: BTreeMap<String, Decimal>,
    /// What the refusals say between them; empty where nothing is refused.
    refused: Vec<String>,
}

/// What is wrong with a case.
async fn wrong(case: &Case, table: &Path) -> Option<String> {
    let (tenant, location) = (TenantId::new(), table.display().to_string());
    let (files, table) = (case.files.clone(), location.clone());
    let args = ImportArgs { files, tenant, table, connection: None, export: None, whole: false, json: false };
    let report = match import(&args, &CancellationToken::new()).await {
        Ok(report) => report,
        Err(error) => return Some(format!("{error:?}")),
    };
    let said = report.refused.join("\n");
    if case.refused.is_empty() != said.is_empty() || !case.refused.iter().all(|wanted| said.contains(wanted)) {
        return Some(format!("refused: {said}"));
    }
    let request = QueryCostsRequest { limit: Some(500), ..QueryCostsRequest::default() };
    let costs = CostTable::open(&location).await.unwrap().query(tenant, &request).await.unwrap();
    let services: BTreeMap<String, Decimal> =
        costs.lines.iter().map(|line| (line.of[0].clone(), line.sum.billed.decimal())).collect();
    let total = costs.totals.first().map(|total| total.billed.decimal()).unwrap_or_default();
    let same = report.rows == case.rows
        && costs.rows == case.rows
        && services == case.services
        && total == case.services.values().sum::<Decimal>();
    (!same).then(|| format!("{} rows of {}, {services:?} for {:?}", costs.rows, case.rows, case.services))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_habit_sum_to_what_duckdb_says_or_are_refused_with_a_word_on_what_to_do() {
    let Some(python) = python::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let count: usize = python::ask(&python, WRITER, &[folder.path()]).trim().parse().unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(folder.path().join("cases.json")).unwrap()).unwrap();
    assert!(count == cases.len() && count > 80, "{count}");
    let mut all = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Some(wrong) = wrong(case, &folder.path().join(format!("table-{number}"))).await {
            all.push(format!("{}: {wrong}", case.name));
        }
    }
    assert!(all.is_empty(), "{} of {count}:\n{}", all.len(), all.join("\n"));
}
