//! What credentials cost: cached ones beside a bare echo and beside OpenBao, cold ones beside two bare calls of `AssumeRole`, a thousand at once for one
//! cold key, and ten thousand connections while STS throttles.
//!
//! ```text
//! cargo build --release --bins && cargo run --release -p rolebridge-tests --bin bench-credentials
//! ```
//!
//! The first command builds the services, which the benchmark starts from its own folder. `bench-credentials cached cold` runs these parts alone; the parts
//! are `cached`, `cold`, `stampede` and `throttled`, and `soak SECONDS`, which runs only when it is named. Python 3 fetches OpenBao into the build folder.
//!
//! It prints one JSON object on standard output: for each part what was measured of us, of the peer in the same run (interleaved), the ratio, and the aim.
//! Status 0 when it could measure, whatever it measured. Other work on the machine shows in all numbers, and less in the ratios.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

mod bao;
mod cached;
mod cold;
mod echo;
mod load;
mod soak;
mod stage;
mod throttled;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::stage::Stage;

const USUAL: [&str; 4] = ["cached", "cold", "stampede", "throttled"];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == echo::ARGUMENT
    {
        return echo::serve(rest).await;
    }
    let parts: Vec<&str> =
        if arguments.is_empty() { USUAL.to_vec() } else { arguments.iter().map(String::as_str).collect() };
    let mut report = serde_json::Map::new();
    report.insert("profile".to_owned(), json!(if cfg!(debug_assertions) { "debug" } else { "release" }));
    let mut parts = parts.into_iter();
    while let Some(part) = parts.next() {
        eprintln!("== {part}");
        let mut stage = Stage::set().await?;
        let result: Result<Value> = match part {
            "cached" => cached::measure(&mut stage).await,
            "cold" => cold::measure(&mut stage).await,
            "stampede" => cold::stampede(&mut stage).await,
            "throttled" => throttled::measure(&mut stage).await,
            "soak" => {
                let seconds = parts.next().context("soak needs its length in seconds")?.parse()?;
                soak::measure(&mut stage, seconds).await
            }
            other => bail!("there is no part {other}; there are: {}, soak", USUAL.join(", ")),
        };
        let logs = stage.system.logs();
        stage.strike().await?;
        let result =
            result.inspect_err(|_| eprintln!("{}", logs.lines().rev().take(20).collect::<Vec<_>>().join("\n")));
        let result = result?;
        eprintln!("{result}");
        report.insert(part.to_owned(), result);
    }
    println!("{}", Value::Object(report));
    Ok(())
}
