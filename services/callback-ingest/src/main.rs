//! The program: reads its configuration, sets up logging, runs.

use std::process::ExitCode;

use callback_ingest::{Command, Config, Invocation, SERVICE, command};
use messaging::seal::SealSeed;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Invocation::parse(&command()) {
        Invocation::Command(Command::Keygen { out }) => keygen(&out),
        Invocation::Serve(config) => serve(*config).await,
    };
    runtime::main_exit(SERVICE, result)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init(SERVICE, &config.log)?;
    let ended = callback_ingest::run(config, telemetry.clone(), runtime::shutdown_on_signals()).await;
    telemetry.shutdown().await;
    Ok(ended?)
}

#[allow(clippy::print_stdout, reason = "keygen is a command for a person")]
fn keygen(out: &std::path::Path) -> anyhow::Result<()> {
    let seed = SealSeed::generate()?;
    seed.save(out)?;
    println!("{} holds a new X25519 seed; its public key is {}", out.display(), seed.public());
    Ok(())
}
