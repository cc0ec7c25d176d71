//! Measures questions: a month of many rows, from the rows and from daily summaries, in process and over NATS, beside DuckDB on the same data files.
//!
//! Every answer is compared with DuckDB's, to the last digit. The rounds are interleaved, so that what else the machine does falls on all alike; medians and
//! ratios are printed as JSON. `docs/costs.md` says how to run it.

#![allow(clippy::print_stdout, reason = "the figures go to standard output")]

mod peers;

use clap::Parser;
use contracts::TenantId;
use contracts::costs::{CostKey, Granularity, QueriedCosts, QueryCosts, QueryCostsRequest, TagFilter};
use cost_ingestion::import::{ImportArgs, import};
use cost_ingestion::table::{CostTable, From};
use cost_ingestion::work::query;
use messaging::{Bus, EndpointServer, NatsConfig};
use peers::{Fault, Peer, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Measures questions about costs beside DuckDB.
#[derive(Debug, Parser)]
struct Args {
    /// Rows of the month.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Rounds; of each figure the median is taken.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Folder for rows, table and peers, which stay there for the next run.
    #[arg(long, default_value = "target/bench-query")]
    work: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().map_err(Fault::from);
    runtime::main_exit("bench-query", runtime.and_then(|runtime| runtime.block_on(measure(&args))).map_err(Shown))
}

/// A boxed error is no error itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shown(Fault);

/// One question in both languages. The columns of the SQL are the keys, the currency, billed, effective and rows.
struct Question {
    name: &'static str,
    request: QueryCostsRequest,
    keys: &'static str,
    filter: &'static str,
}

fn questions() -> Vec<Question> {
    let by = |by: Vec<CostKey>| QueryCostsRequest { by, limit: Some(500), ..QueryCostsRequest::default() };
    let service = "ServiceName";
    vec![
        Question { name: "by-service", request: by(vec![CostKey::Service]), keys: service, filter: "true" },
        Question {
            name: "by-account-and-region",
            request: by(vec![CostKey::Account, CostKey::Region]),
            keys: "SubAccountId, RegionId",
            filter: "true",
        },
        Question {
            name: "by-service-daily",
            request: QueryCostsRequest { granularity: Granularity::Daily, ..by(vec![CostKey::Service]) },
            keys: "strftime(ChargePeriodStart at time zone 'UTC', '%Y-%m-%d'), ServiceName",
            filter: "true",
        },
        Question {
            name: "by-service-of-one-region",
            request: QueryCostsRequest { regions: vec!["eu-central-1".to_owned()], ..by(vec![CostKey::Service]) },
            keys: service,
            filter: "RegionId = 'eu-central-1'",
        },
        Question {
            name: "by-service-of-one-tag",
            request: QueryCostsRequest {
                tags: vec![TagFilter { key: "team".to_owned(), values: vec!["red".to_owned()] }],
                ..by(vec![CostKey::Service])
            },
            keys: service,
            filter: "Tags['team'] = 'red'",
        },
    ]
}

async fn measure(args: &Args) -> Result<(), Fault> {
    std::fs::create_dir_all(&args.work)?;
    let programs = peers::fetch(&args.work)?;
    let (tenant, location) = table(args).await?;
    let table = Arc::new(CostTable::open(&location).await?);
    let start = Instant::now();
    let made = table.summarise(&CancellationToken::new()).await?;
    let summing = (made > 0).then(|| start.elapsed().as_secs_f64());

    let (mut peer, server) = (Peer::start(&programs)?, Server::start(&programs)?);
    let bus = connect(&server.url).await?;
    let served = Arc::clone(&table);
    let endpoint = EndpointServer::start(&bus, "cost-ingestion", "Measured").await?;
    let endpoint = endpoint
        .serve::<QueryCosts, _, _>(move |call| {
            let table = Arc::clone(&served);
            async move { query::answer(&table, call).await }
        })
        .await?;
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(endpoint.run(shutdown.clone()));

    let files = format!("read_parquet('{location}/**/part-*.parquet', hive_partitioning = false)");
    let mut figures = Vec::new();
    for question in questions() {
        figures.push(rounds(args, &table, tenant, &bus, &mut peer, &question, &files).await?);
    }
    shutdown.cancel();
    serving.await??;
    let report = json!({"rows": args.rows, "rounds": args.rounds, "summarySeconds": summing, "questions": figures});
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// The table with its rows, made once; every other tenant's question would find nothing in it.
async fn table(args: &Args) -> Result<(TenantId, String), Fault> {
    let place = std::fs::canonicalize(&args.work)?.join(args.rows.to_string());
    let (location, known) = (place.join("table").display().to_string(), place.join("tenant"));
    if let Ok(tenant) = std::fs::read_to_string(&known) {
        return Ok((tenant.parse()?, location));
    }
    let (tenant, set) = (TenantId::new(), place.join("set"));
    let generator = std::env::current_exe()?.with_file_name("generate-costs");
    let rows = args.rows.to_string();
    peers::done(
        Command::new(generator).args(["--format", "cur-2.0", "--rows", &rows, "--files", "8", "--out"]).arg(&set),
    )?;
    let _ = std::fs::remove_dir_all(&location);
    let import_args = ImportArgs {
        files: vec![set.clone()],
        tenant,
        table: location.clone(),
        connection: None,
        export: None,
        whole: false,
        json: false,
    };
    import(&import_args, &CancellationToken::new()).await?;
    std::fs::remove_dir_all(set)?;
    std::fs::write(known, tenant.to_string())?;
    Ok((tenant, location))
}

async fn connect(url: &str) -> Result<Bus, Fault> {
    let config = NatsConfig {
        nats_url: url.parse()?,
        nats_seed_file: None,
        nats_ca_file: None,
        nats_cert_file: None,
        nats_key_file: None,
        nats_replicas: 1,
    };
    Ok(Bus::connect(&config, "bench-query").await?)
}

async fn rounds(
    args: &Args,
    table: &CostTable,
    tenant: TenantId,
    bus: &Bus,
    peer: &mut Peer,
    question: &Question,
    files: &str,
) -> Result<Value, Fault> {
    let Question { name, request, keys, filter } = question;
    let sql = format!(
        "select {keys}, BillingCurrency, sum(BilledCost), sum(EffectiveCost), count(*) from {files} where {filter} group by all"
    );
    let (mut scan, mut scan_cpu, mut theirs, mut theirs_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut summary, mut nats) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=args.rounds {
        let (start, cpu) = (Instant::now(), own_cpu()?);
        let ours = table.query_from(tenant, request, From::Rows).await?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), own_cpu()? - cpu);
        let answered = peer.ask(&sql)?;
        same(&ours, &answered.rows, name)?;
        let start = Instant::now();
        let summed = table.query(tenant, request).await?;
        let summed_wall = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let sent = bus.request::<QueryCosts>(QueryCosts::subject(tenant), request, Duration::from_secs(60)).await?;
        let sent_wall = start.elapsed().as_secs_f64();
        for other in [&summed, &sent] {
            same(other, &answered.rows, name)?;
            if other.from_summary != request.tags.is_empty() {
                return Err(format!("{name}: answered from the wrong place").into());
            }
        }
        if round > 0 {
            scan.push(wall);
            scan_cpu.push(cpu);
            theirs.push(answered.wall);
            theirs_cpu.push(answered.cpu);
            summary.push(summed_wall);
            nats.push(sent_wall);
        }
    }
    let ratios = scan.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    let cpu_ratio = scan_cpu.iter().sum::<f64>() / theirs_cpu.iter().sum::<f64>();
    let is_summed = request.tags.is_empty();
    let (summary, nats) = (median(summary), median(nats));
    Ok(json!({
        "question": name, "scanSeconds": median(scan), "scanCpuSeconds": median(scan_cpu), "duckdbSeconds": median(theirs),
        "duckdbCpuSeconds": median(theirs_cpu), "scanToDuckdb": median(ratios), "scanToDuckdbCpu": cpu_ratio,
        "summaryMilliseconds": is_summed.then_some(summary * 1e3), "summaryOverNatsMilliseconds": is_summed.then_some(nats * 1e3),
    }))
}

/// Whether both have the same lines, to the last digit.
fn same(ours: &QueriedCosts, theirs: &[Vec<String>], name: &str) -> Result<(), Fault> {
    let plain = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let line = |line: &contracts::costs::CostLine| -> Vec<String> {
        let sums = [line.sum.billed, line.sum.effective].map(|amount| plain(&amount.to_string()));
        let keys = line.time.iter().chain(&line.of).cloned().chain([line.sum.currency.to_string()]);
        keys.chain(sums).chain([line.sum.rows.to_string()]).collect()
    };
    let word = |cell: &String| match cell.as_str() {
        "None" => "(none)".to_owned(),
        // Decimal's zero of many digits.
        text if text.starts_with("0E") => "0".to_owned(),
        text => plain(text),
    };
    let mut ours: Vec<Vec<String>> = ours.lines.iter().map(line).collect();
    let mut theirs: Vec<Vec<String>> = theirs.iter().map(|row| row.iter().map(word).collect()).collect();
    ours.sort();
    theirs.sort();
    if ours == theirs { Ok(()) } else { Err(format!("{name}: ours {ours:?}, DuckDB's {theirs:?}").into()) }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// Seconds of processor time that this process has had, in steps of a hundredth.
fn own_cpu() -> Result<f64, Fault> {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / 100.0)
}
