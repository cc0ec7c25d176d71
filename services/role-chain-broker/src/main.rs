//! The program: reads its configuration, sets up logging, runs.

use std::process::ExitCode;

use role_chain_broker::{Command, Invocation, KeygenArgs, ServeArgs, command};

/// Each answer out of the cache is some dozens of small allocations, and little else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: &str = "role-chain-broker";

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Invocation::parse(&command()) {
        Invocation::Command(Command::Keygen(args)) => keygen(&args),
        Invocation::Serve(config) => serve(*config).await,
    };
    runtime::main_exit(PROGRAM, result)
}

async fn serve(config: ServeArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init(PROGRAM, &config.log)?;
    let ended = role_chain_broker::run(config, telemetry.clone(), runtime::shutdown_on_signals()).await;
    telemetry.shutdown().await;
    Ok(ended?)
}

#[allow(clippy::print_stdout, reason = "keygen is a command for a person")]
fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    match role_chain_broker::keygen(args)? {
        Some(public) => println!("credentials are sealed by {public}: requesters pin it"),
        None => println!("the key file is there"),
    }
    Ok(())
}
