//! Wiring only: see the library.

use clap::Parser as _;
use cost_ingestion::{Config, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    let shutdown = runtime::shutdown_on_signals();
    runtime::main_exit("cost-ingestion", run(config, shutdown).await)
}
