//! The program: reads its configuration, sets up logging, runs.

use std::process::ExitCode;

use tenant_registry::{Config, SERVICE};

#[tokio::main]
async fn main() -> ExitCode {
    runtime::main_exit(SERVICE, serve(runtime::usage::parse::<Config>()).await)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init(SERVICE, &config.log)?;
    let ended = tenant_registry::run(config, telemetry.clone(), runtime::shutdown_on_signals()).await;
    telemetry.shutdown().await;
    Ok(ended?)
}
