//! Wiring only: see the library.

use cost_ingestion::import::{ImportArgs, ImportError, describe, import};
use cost_ingestion::table::TableError;
use cost_ingestion::upkeep::{self, CompactArgs, VacuumArgs};
use cost_ingestion::{Command, Invocation, command, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Invocation::parse(&command()) {
        Invocation::Command(Command::Import(args)) => runtime::main_exit("cost-ingestion", import_here(&args).await),
        Invocation::Command(Command::Compact(args)) => runtime::main_exit("cost-ingestion", compact_here(&args).await),
        Invocation::Command(Command::Vacuum(args)) => runtime::main_exit("cost-ingestion", vacuum_here(&args).await),
        Invocation::Serve(config) => {
            let shutdown = runtime::shutdown_on_signals();
            runtime::main_exit("cost-ingestion", run(*config, shutdown).await)
        }
    }
}

/// What was refused makes the command fail, after everything else was read and told.
#[allow(clippy::print_stdout, reason = "import is a command for a person")]
async fn import_here(args: &ImportArgs) -> Result<(), ImportError> {
    let report = import(args, &runtime::shutdown_on_signals()).await?;
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        print!("{}", describe(&report));
    }
    if report.refused.is_empty() { Ok(()) } else { Err(ImportError::Refused(report.refused.len())) }
}

#[allow(clippy::print_stdout, reason = "a command for a person")]
async fn compact_here(args: &CompactArgs) -> Result<(), TableError> {
    print!("{}", upkeep::compact(args, &runtime::shutdown_on_signals()).await?);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a command for a person")]
async fn vacuum_here(args: &VacuumArgs) -> Result<(), TableError> {
    print!("{}", upkeep::vacuum(args).await?);
    Ok(())
}
