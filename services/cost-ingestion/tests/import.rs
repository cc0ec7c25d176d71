//! Every format, from files that lie here: totals to the last digit, the same files once, restatements, drift, and bounds on what unpacks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::costs::QueryCostsRequest;
use cost_ingestion::export::Limits;
use cost_ingestion::ingest::{Outcome, Payers};
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::desk::{Desk, data, gzip, zip};
use support::{Bench, decimal, ingested, refusal};

/// What DuckDB sums the sample to (`sum(BilledCost::decimal(38,18))`): two periods in one file, and bills of four providers.
#[tokio::test(flavor = "multi_thread")]
async fn a_focus_csv_sums_to_what_duckdb_says_however_it_is_packed() {
    let sample = data("focus-1.0-sample.csv");
    for bytes in [sample.clone(), gzip(&sample), zip(&sample)] {
        let desk = Desk::new();
        // The name says nothing of what it is.
        let report = desk.import(&[desk.put("costs.txt", &bytes)]).await;
        assert_eq!(report.refused, Vec::<String>::new());
        assert_eq!(report.rows, 1000);
        let periods: Vec<_> = report.periods.iter().map(|line| (line.period.as_str(), line.rows)).collect();
        assert_eq!(periods, [("2024-09", Some(999)), ("2024-10", Some(1))]);
        assert_eq!(report.totals["USD"].billed, "20.52022672899");
        assert_eq!(report.totals["USD"].effective, "14.97651418586");
        assert_eq!(report.periods[0].totals["USD"].billed, "20.28022672899");
        assert_eq!(desk.held().await, (1000, "20.52022672899".into(), "14.97651418586".into()));

        let table = CostTable::open(&desk.table()).await.unwrap();
        let query = QueryCostsRequest { top: Some(4), ..QueryCostsRequest::default() };
        let costs = table.query(desk.tenant, &query).await.unwrap();
        let services: Vec<_> = costs
            .lines
            .iter()
            .map(|s| (s.of[0].as_str(), s.sum.rows, s.sum.billed.decimal().normalize().to_string()))
            .collect();
        let known = |service, rows, billed: &str| (service, rows, billed.to_owned());
        assert_eq!(
            services[..4],
            [
                known("Amazon Elastic Compute Cloud", 554, "16.0416930505"),
                known("Azure Kubernetes Service", 1, "1.58088"),
                known("Amazon Relational Database Service", 13, "0.7532270852"),
                known("COMPUTE", 5, "0.536"),
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cur_2_with_a_few_columns_and_legacy_parquet_side_by_side() {
    let desk = Desk::new();
    let mock = desk.put("mock/cur.csv", &data("cur-2.0-mock.csv"));
    let report = desk.import(&[mock, support::sample(support::NOVEMBER)]).await;
    let lines: Vec<_> = report
        .periods
        .iter()
        .map(|line| (line.period.as_str(), line.rows.unwrap(), line.totals["USD"].billed.as_str()))
        .collect();
    assert!(lines.contains(&("2025-01", 4, "0.0652")), "{lines:?}");
    assert!(lines.contains(&("2018-11", 124_340, "3505.3269681268")), "{lines:?}");
    assert_eq!(report.rows, 124_344);
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_sets_of_every_format_sum_to_their_known_totals() {
    for format in ["cur-2.0", "focus-1.2"] {
        for packing in ["parquet", "csv-gz"] {
            let desk = Desk::new();
            let more = ["--format", format, "--packing", packing, "--rows", "20000", "--files", "3", "--drift"];
            let (folder, known) = desk.generate("set", &more);
            let report = desk.import(&[folder]).await;
            assert_eq!(report.refused, Vec::<String>::new(), "{format} {packing}");
            assert_eq!(report.rows, 20_000);
            assert_eq!(report.totals["USD"].billed, known["billed"], "{format} {packing}");
            assert_eq!(report.totals["USD"].effective, known["effective"], "{format} {packing}");
            let table = CostTable::open(&desk.table()).await.unwrap();
            for line in table.query(desk.tenant, &QueryCostsRequest::default()).await.unwrap().lines {
                let billed = line.sum.billed.decimal().normalize().to_string();
                assert_eq!(known["billedByService"][&line.of[0]], Value::String(billed), "{}", line.of[0]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_count_once_and_a_restatement_replaces_them() {
    let desk = Desk::new();
    let set = ["--format", "cur-2.0", "--rows", "3000", "--seed", "7"];
    let (folder, first) = desk.generate("set", &set);
    assert_eq!(desk.import(std::slice::from_ref(&folder)).await.periods[0].outcome, "written");
    let again = desk.import(std::slice::from_ref(&folder)).await;
    assert_eq!((again.rows, again.periods[0].outcome), (0, "unchanged"));
    // Named one by one they are the same export.
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.into_iter().filter(|path| path.extension().unwrap() == "parquet").collect();
    assert_eq!(desk.import(&[&files[..], &files[..]].concat()).await.periods[0].outcome, "unchanged");
    assert_eq!(desk.held().await.1, first["billed"]);

    let (_, second) = desk.generate("set", &[&set[..], &["--restate"]].concat());
    assert_ne!(first["billed"], second["billed"]);
    assert_eq!(desk.import(&[folder]).await.periods[0].outcome, "written");
    let (rows, billed, effective) = desk.held().await;
    assert_eq!(
        (rows, Value::String(billed), Value::String(effective)),
        (3000, second["billed"].clone(), second["effective"].clone())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_manifest_is_read_by_it() {
    let desk = Desk::new();
    let (_, known) = desk.generate("x/data/BILLING_PERIOD=2025-01", &["--format", "cur-2.0", "--rows", "500"]);
    desk.put("x/data/BILLING_PERIOD=2025-01/old.parquet", b"what the manifest does not name is not looked at");
    let files = serde_json::json!({"dataFiles": ["s3://a-bucket/costs/x/data/BILLING_PERIOD=2025-01/costs-00001.snappy.parquet"]});
    desk.put("x/metadata/BILLING_PERIOD=2025-01/x-Manifest.json", files.to_string().as_bytes());
    let report = desk.import(&[desk.path("x")]).await;
    assert_eq!((report.rows, report.periods.len()), (500, 1));
    assert_eq!(report.totals["USD"].billed, known["billed"]);
    assert!(report.periods[0].export.ends_with("/x"), "{}", report.periods[0].export);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_data_file_are_in_the_order_of_their_charge_periods() {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let desk = Desk::new();
    let (folder, _) = desk.generate("set", &["--format", "cur-2.0", "--rows", "5000"]);
    desk.import(&[folder]).await;
    let mut seen = 0;
    for file in walk(&desk.path("table")).into_iter().filter(|path| path.to_str().unwrap().ends_with(".zstd.parquet")) {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap()).unwrap().build().unwrap();
        let mut last = i64::MIN;
        for batch in reader {
            let batch = batch.unwrap();
            let starts = batch.column_by_name("ChargePeriodStart").unwrap();
            let starts = arrow_cast::cast(starts, &arrow_schema::DataType::Int64).unwrap();
            for start in arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(&starts).iter() {
                assert!(start.unwrap() >= last);
                last = start.unwrap();
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 5000);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

const HEADER: &str = "bill_payer_account_id,line_item_product_code,line_item_unblended_cost,line_item_usage_start_date,line_item_usage_end_date\n";
const LINE: &str = "222222222222,AmazonEC2,0.1,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z\n";

#[tokio::test]
async fn attack_32_what_unpacks_to_absurd_sizes_is_refused_in_time() {
    let bomb = [HEADER.as_bytes(), LINE.repeat(60_000).as_bytes()].concat();
    for packed in [gzip(&bomb), zip(&bomb)] {
        for limits in [
            Limits { unpacked_bytes: 1 << 20, ..Limits::default() },
            Limits { unpacked_bytes: 3 << 20, unpack_factor: 1, ..Limits::default() },
        ] {
            let bench = Bench::with("222222222222", Arc::new(InMemory::new()), limits, Payers::default()).await;
            bench.put("cur/a.csv.gz", packed.clone()).await;
            let reports = bench.ingest().await.unwrap();
            assert!(refusal(&reports[0]).contains("unpacks to more than"), "{}", refusal(&reports[0]));
            assert!(bench.data_files().await.is_empty());
        }
        let bench = Bench::new("222222222222").await;
        bench.put("cur/a.csv.gz", packed).await;
        assert_eq!(ingested(&bench.ingest().await.unwrap()[0]), (60_000, decimal("6000.0")));
    }
}

#[tokio::test]
async fn attack_32_forged_csv_is_refused_whole() {
    let good = [HEADER.as_bytes(), LINE.as_bytes()].concat();
    let (gz, zipped) = (gzip(&good), zip(&good));
    let mut forged = zipped.clone();
    let at = forged.windows(4).position(|bytes| bytes == b"PK\x07\x08").unwrap() + 4;
    forged[at] ^= 1;
    let two = [&zipped[..zipped.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap()], &zipped[..]].concat();
    let with = |line: &str| [HEADER, LINE, line].concat().into_bytes();
    let cases = [
        (gz[..gz.len() - 9].to_vec(), "cut off"),
        (zipped[..60].to_vec(), "cut off"),
        (forged, "checksum does not fit"),
        (two, "more than one file"),
        (with("222222222222,AmazonEC2\n"), "line 3 has 2 fields, and the header has 5"),
        (with(&format!("\"{}\",a,1,b,c\n", "x".repeat(2 << 20))), "line 3 is longer than 1 MiB"),
        (
            with(&format!("{},a,1,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z\n", "x".repeat(100_000))),
            "more than 65536 bytes",
        ),
        (with("222222222222,AmazonEC2,a lot,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z\n"), "no amount"),
        (with("222222222222,AmazonEC2,1,someday,2025-01-01T01:00:00Z\n"), "cannot be read as an instant"),
        (
            with("333333333333,AmazonEC2,1,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z\n"),
            "payer is not the connection's account",
        ),
        (with("222222222222,AmazonEC2,1,2025-02-01T00:00:00Z,2025-02-01T01:00:00Z\n"), "another billing period"),
        (
            [HEADER.as_bytes(), b"222222222222,\xff\xfe,1,2025-01-01T00:00:00Z,2025-01-01T01:00:00Z\n"].concat(),
            "not UTF-8",
        ),
        (HEADER.as_bytes().to_vec(), "no rows"),
        (b"a,b,c\n1,2,3\n".to_vec(), "fit no known cost export"),
    ];
    for (bytes, why) in cases {
        let bench = Bench::new("222222222222").await;
        bench.put("cur/a.csv", bytes).await;
        let reports = bench.ingest().await.unwrap();
        assert!(refusal(&reports[0]).contains(why), "{why}: {}", refusal(&reports[0]));
        assert!(bench.data_files().await.is_empty(), "nothing half-written");
    }
}

#[tokio::test]
async fn one_file_with_two_periods_is_two_slices() {
    use support::report::{self, DECEMBER_2018, item, with};
    let december = with(item("AmazonS3", "7"), &[("bill_billing_period_start_date", &DECEMBER_2018.to_string())]);
    let bench = Bench::new("222222222222").await;
    bench.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1"), december])).await;
    let reports = bench.ingest().await.unwrap();
    assert_eq!(reports.iter().map(ingested).collect::<Vec<_>>(), [(1, decimal("1")), (1, decimal("7"))]);
    assert!(bench.ingest().await.unwrap().iter().all(|report| matches!(report.outcome, Outcome::Unchanged)));
}

/// CSV of one line for each cost, in this month.
fn costs_of(month: &str, costs: &[&str]) -> Vec<u8> {
    let line = |cost: &&str| format!("222222222222,AmazonEC2,{cost},{month}-01T00:00:00Z,{month}-01T01:00:00Z\n");
    (HEADER.to_owned() + &costs.iter().map(line).collect::<String>()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_period_takes_nothing_away() {
    let desk = Desk::new();
    let first = desk.put("in/a.csv", &costs_of("2025-01", &["1", "2"]));
    let second = desk.put("in/b.csv", &costs_of("2025-01", &["4"]));
    let held = async || {
        let (rows, billed, _) = desk.held().await;
        (rows, billed)
    };
    desk.import(std::slice::from_ref(&first)).await;
    assert_eq!(held().await, (2, "3".to_owned()));
    // The second part of the same period: both are there.
    let report = desk.import(std::slice::from_ref(&second)).await;
    assert_eq!((report.rows, report.refused.len(), held().await), (3, 0, (3, "7".to_owned())));
    // Either of them again, and both of them, are what is there.
    for files in [vec![first.clone()], vec![second.clone()], vec![desk.path("in")]] {
        assert_eq!(desk.import(&files).await.periods[0].outcome, "unchanged", "{files:?}");
    }
    // Delivered anew, a part replaces itself alone; one that now has rows of another month, in both.
    desk.put("in/b.csv", &costs_of("2025-01", &["8"]));
    desk.import(std::slice::from_ref(&second)).await;
    assert_eq!(held().await, (3, "11".to_owned()));
    let both = [costs_of("2025-01", &["16"]), costs_of("2025-02", &["32"])[HEADER.len()..].to_vec()].concat();
    desk.put("in/b.csv", &both);
    let report = desk.import(std::slice::from_ref(&second)).await;
    assert_eq!((report.periods.len(), held().await), (2, (4, "51".to_owned())));
    desk.put("in/b.csv", &costs_of("2025-02", &["64"]));
    let report = desk.import(std::slice::from_ref(&first)).await;
    assert_eq!(
        (report.periods[0].rows, held().await),
        (Some(2), (3, "35".to_owned())),
        "what b.csv no longer has of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_rest_is_gone_is_refused_until_somebody_says_that_it_is_the_whole() {
    let desk = Desk::new();
    let first = desk.put("in/a.csv", &costs_of("2025-01", &["1"]));
    desk.import(&[first.clone(), desk.put("in/b.csv", &costs_of("2025-01", &["2"]))]).await;
    std::fs::remove_file(desk.path("in/b.csv")).unwrap();
    desk.put("in/a.csv", &costs_of("2025-01", &["4"]));
    for files in [vec![first.clone()], vec![desk.path("in")]] {
        let report = desk.import(&files).await;
        let refused = &report.refused[0];
        assert!(refused.contains("2025-01: ") && refused.contains("in/b.csv is no longer there"), "{refused}");
        assert!(refused.contains("came from 2 files") && refused.contains("--whole"), "{refused}");
        assert_eq!((report.rows, desk.held().await.1.as_str()), (0, "3"));
    }
    assert_eq!(desk.import_as(std::slice::from_ref(&first), true, None).await.refused, Vec::<String>::new());
    assert_eq!(desk.held().await.1, "4");
    assert_eq!(desk.import(&[first]).await.periods[0].outcome, "unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_does_not_count_twice_under_two_names() {
    let desk = Desk::new();
    let file = desk.put("x/data/BILLING_PERIOD=2025-01/a.csv", &costs_of("2025-01", &["1"]));
    let manifest = serde_json::json!({"dataFiles": ["s3://a-bucket/x/data/BILLING_PERIOD=2025-01/a.csv"]});
    desk.put("x/metadata/BILLING_PERIOD=2025-01/x-Manifest.json", manifest.to_string().as_bytes());
    let export = desk.import(&[desk.path("x")]).await.periods[0].export.clone();
    let report = desk.import(std::slice::from_ref(&file)).await;
    assert!(report.refused[0].contains("would count twice") && report.refused[0].contains(&export), "{report:?}");
    let report = desk.import_as(std::slice::from_ref(&file), false, Some(&export)).await;
    assert_eq!((report.periods[0].outcome, desk.held().await.1.as_str()), ("unchanged", "1"));
    // Without the manifest, a file and the folder around its period are one export.
    let desk = Desk::new();
    let file = desk.put("y/BILLING_PERIOD=2025-01/a.csv", &costs_of("2025-01", &["1"]));
    desk.put("y/BILLING_PERIOD=2025-02/a.csv", &costs_of("2025-02", &["2"]));
    desk.import(&[desk.path("y")]).await;
    assert_eq!(desk.import(&[file]).await.periods[0].outcome, "unchanged");
    assert_eq!(desk.held().await.1, "3");
}
