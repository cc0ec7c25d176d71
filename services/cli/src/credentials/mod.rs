//! Credentials for programs that use an AWS SDK: printed, served on loopback, or given to a program that is run.
//!
//! `endpoint` answers SDKs, `serve` and `exec` use it, `environment` says what a program finds in its environment. What is kept and when it is renewed is the client's.

mod endpoint;
mod environment;
mod exec;
mod get;
mod serve;

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use client::{CachedCredentials, Client, Pinned, Renewal, Wanted};
use contracts::{ConnectionId, SealingKey, TenantId, credentials::Purpose};
use messaging::Bus;

use crate::{error::CliError, show::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Credentials {
    /// Show what is issued; with --format the credentials themselves.
    Get(get::Get),
    /// Run a program with credentials that are renewed while it runs, and end with its status.
    Exec(exec::Exec),
    /// Print credentials as the AWS SDKs' credential_process wants them. Not to a terminal.
    Process(Asked),
    /// Serve credentials on loopback to AWS SDKs, until SIGTERM or SIGINT; prints the variables for them.
    Serve(serve::Serve),
}

/// Whose credentials, and by whom they are asked for.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    tenant: TenantId,
    connection: ConnectionId,
    #[arg(long, default_value = "cost-read")]
    purpose: Purpose,
    /// The broker's public key (X...): answers sealed by another are refused. Two, with a comma between, while it is being changed.
    #[arg(long, env = "ROLEBRIDGE_SEALING_KEY", value_name = "KEY", value_delimiter = ',', required = true)]
    sealing_key: Vec<SealingKey>,
    /// Who asks, for the audit.
    #[arg(long, default_value = "rolebridge-cli")]
    requester: String,
    /// Seconds that the session should last, 900 to 3600.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u32>,
    /// Seconds that must be left at least, 0 to 3000; 300 when absent.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3000))]
    min_remaining: Option<u32>,
}

/// Long before SDKs begin to ask again (botocore: 15 minutes before the end), so that they are never kept waiting for a cold chain: some give up after a second.
const AHEAD: Duration = Duration::from_secs(15 * 60);

impl Asked {
    fn client(&self, bus: &Bus) -> Result<Client, CliError> {
        let pinned = Pinned::all(self.sealing_key.iter().cloned()).ok_or(CliError::NothingPinned)?;
        Ok(Client::new(bus.clone(), pinned, self.requester.clone())?)
    }

    fn wanted(&self) -> Wanted {
        Wanted { purpose: self.purpose, duration_s: self.duration, min_remaining_s: self.min_remaining }
    }

    /// Credentials that are renewed, for `serve` and `exec`.
    fn cached(&self, bus: &Bus) -> Result<CachedCredentials, CliError> {
        let usual = Renewal { ahead: AHEAD, ..Renewal::default() };
        let min_remaining = self.min_remaining.map(|seconds| Duration::from_secs(seconds.into()));
        let renewal = Renewal { min_remaining: min_remaining.unwrap_or(usual.min_remaining), ..usual };
        Ok(self.client(bus)?.cached_with(self.tenant, self.connection, self.wanted(), renewal))
    }
}

pub(crate) async fn run(bus: &Bus, command: Credentials, output: Output) -> Result<ExitCode, CliError> {
    match command {
        Credentials::Get(args) => get::run(bus, &args, output).await?,
        Credentials::Process(args) => process(bus, &args).await?,
        Credentials::Serve(args) => serve::run(bus, args, output).await?,
        Credentials::Exec(args) => return exec::run(bus, args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the JSON of [credential_process](https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html).
async fn process(bus: &Bus, args: &Asked) -> Result<(), CliError> {
    if std::io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let (_, credentials) = args.client(bus)?.issue(args.tenant, args.connection, args.wanted()).await?;
    let json = serde_json::json!({
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.expose(),
        "SessionToken": credentials.session_token.expose(),
        "Expiration": credentials.expires_at,
    });
    println!("{json}");
    Ok(())
}
