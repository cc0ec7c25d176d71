//! How long our own share is from the message in SQS to the answer to CloudFormation, in the sandbox, over 50 connections one after the other.
//!
//! ```text
//! cargo build --bins && cargo run -p rolebridge-tests --bin bench-callback
//! cargo build --release --bins && cargo run --release -p rolebridge-tests --bin bench-callback
//! ```
//!
//! The first command of each line builds the four services, which the benchmark starts from its own folder. `bench-callback 200` makes 200
//! connections. It prints one JSON object on standard output:
//!
//! - `total_ms`: from the beginning of the SQS message's span to the beginning of the PUT's span;
//! - `aws_ms`: of that, the time in which a call to STS was under way, overlaps counted once. The SDK's own part of a call, such as signing, is in it.
//!   `SQS.DeleteMessage` is not: it runs beside our own work, and nothing waits for it;
//! - `own_ms`: the rest, which is ours: parsing, sealing, two decisions with their commits to disk, and four hops over NATS.
//!
//! With `BENCH_OUTLINE` set, every trace is shown on standard error: that is where to look for what takes long. Other work on the machine shows in all
//! three numbers.
//!
//! Status 0 when it could measure, whatever it measured; `within` says whether the median of `own_ms` is at most `limit_ms`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rolebridge_tests::{
    otlp::Collector,
    trace::{ANSWER, MESSAGE, Trace, covered},
    yard::{Customer, PATIENCE},
};
use sandbox::{System, SystemOptions};
use serde::Serialize;

const CONNECTIONS: usize = 50;
const LIMIT_MS: f64 = 50.0;
/// The account of the first customer; the others' follow.
const FIRST_ACCOUNT: u64 = 300_000_000_001;
/// Probes of a connection that holds: with fewer, the broker has not sent all of its spans yet.
const PROBES: usize = 4;

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    profile: &'static str,
    own_ms: Spread,
    aws_ms: Spread,
    total_ms: Spread,
    limit_ms: f64,
    within: bool,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Spread {
    median: f64,
    p90: f64,
    max: f64,
}

/// One connection.
struct Measured {
    total: Duration,
    aws: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let connections = match std::env::args().nth(1) {
        Some(count) => count.parse().context("the argument is the number of connections")?,
        None => CONNECTIONS,
    };
    ensure!(connections > 0, "the number of connections is at least 1");
    let collector = Collector::start().await?;
    let options = SystemOptions { environment: collector.environment(), ..SystemOptions::default() };
    let system = System::start(options, |line| eprintln!("{line}")).await?;
    let measured = measure(&system, &collector, connections).await;
    system.stop().await?;
    println!("{}", serde_json::to_string(&Report::of(&measured?))?);
    Ok(())
}

async fn measure(system: &System, collector: &Collector, connections: usize) -> Result<Vec<Measured>> {
    let mut all = Vec::with_capacity(connections);
    for account in (FIRST_ACCOUNT..).take(connections) {
        // No bucket: what cost-ingestion does after the answer would only disturb the next one.
        let customer = Customer::make(system, &account.to_string(), None).await?;
        collector.clear();
        customer.launch().await?;
        let trace = collector.wait_for(PATIENCE, |traces| traces.iter().find(|trace| is_there(trace)).cloned()).await?;
        let one = Measured::of(&trace).context("the trace has no beginning or no end")?;
        eprintln!("account {account}: {:.1} ms, of which {:.1} ms in AWS", ms(one.total), ms(one.aws));
        if std::env::var_os("BENCH_OUTLINE").is_some() {
            eprintln!("{}", trace.outline());
        }
        all.push(one);
    }
    Ok(all)
}

/// Whether everything between message and answer has come.
fn is_there(trace: &Trace) -> bool {
    let probes = trace.spans.iter().filter(|span| span.name == "probe").count();
    trace.find("callback-ingest", MESSAGE).is_some()
        && trace.find("callback-ingest", ANSWER).is_some()
        && probes >= PROBES
        && trace.roots().len() == 1
}

impl Measured {
    fn of(trace: &Trace) -> Option<Self> {
        let begin = trace.find("callback-ingest", MESSAGE)?.start;
        let end = trace.find("callback-ingest", ANSWER)?.start;
        let calls = trace.spans.iter().filter(|span| span.calls("STS")).map(|span| (span.start, span.end));
        Some(Self { total: end.saturating_sub(begin), aws: covered(calls, begin, end) })
    }
}

impl Report {
    fn of(all: &[Measured]) -> Self {
        let spread = |of: fn(&Measured) -> Duration| Spread::of(all.iter().map(of).collect());
        let own_ms = spread(|one| one.total.saturating_sub(one.aws));
        Self {
            connections: all.len(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            within: own_ms.median <= LIMIT_MS,
            own_ms,
            aws_ms: spread(|one| one.aws),
            total_ms: spread(|one| one.total),
            limit_ms: LIMIT_MS,
        }
    }
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        // Nearest rank.
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).copied().map(ms).unwrap_or_default()
        };
        Self { median: at(50), p90: at(90), max: at(100) }
    }
}

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 1e2
}
