//! `rolebridge`: the command line of operators and jobs. Everything it does, it asks of the services over NATS.

// Speaking on standard output is what this program is for.
#![allow(clippy::print_stdout, reason = "the command line's answers go to standard output")]

mod args;
mod audit;
mod connection;
mod costs;
mod credentials;
mod dead_letters;
mod error;
mod keys;
mod nats;
mod principal;
mod registry;
mod show;

use std::process::ExitCode;

use crate::{
    args::{Args, Audit, Command, VerifyAudit},
    error::CliError,
    show::Output,
};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = runtime::usage::parse();
    let runs_a_program = matches!(args.command, Command::Credentials(credentials::Credentials::Exec(_)));
    match run(args).await {
        Ok(status) => status,
        Err(error) => {
            let status = if runs_a_program { error.status_of_exec() } else { ExitCode::FAILURE };
            // Says what is wrong.
            let _ = runtime::main_exit("rolebridge", Err::<(), _>(error));
            status
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, CliError> {
    let output = Output::new(args.json);
    let done = |()| ExitCode::SUCCESS;
    match &args.command {
        Command::Keys(command) => return keys::run(command, output).map(done),
        Command::Nats(command) => return nats::run(command, output).map(done),
        _ => {}
    }
    if let Command::Audit(Audit::Verify(VerifyAudit { head, file: Some(copy) })) = args.command {
        return audit::verify_file(&copy, head, output).map(done);
    }
    let bus = args.connect().await?;
    let result = match args.command {
        // Ends with the status of the program that it runs, if it runs one.
        Command::Credentials(command) => {
            let result = credentials::run(&bus, command, output).await;
            bus.close().await;
            return result;
        }
        Command::Tenants(command) => registry::tenants(&bus, command, output).await,
        Command::Enrollments(command) => registry::enrollments(&bus, command, output).await,
        Command::Connections(command) => registry::connections(&bus, command, output).await,
        Command::Principals(command) => principal::run(&bus, command, output).await,
        Command::Audit(command) => audit::run(&bus, command, output).await,
        Command::Costs(command) => costs::run(&bus, command, output).await,
        Command::DeadLetters(command) => dead_letters::run(&bus, command, output).await,
        // Done above, without a bus.
        Command::Keys(_) | Command::Nats(_) => Ok(()),
    };
    bus.close().await;
    result.map(done)
}
