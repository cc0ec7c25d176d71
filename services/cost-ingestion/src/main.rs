//! Wiring only: see the library.

use cost_ingestion::{Config, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = runtime::usage::parse();
    let shutdown = runtime::shutdown_on_signals();
    runtime::main_exit("cost-ingestion", run(config, shutdown).await)
}
