//! Credentials for the AWS SDKs.

use std::io::IsTerminal;

use client::{Client, Wanted};
use messaging::Bus;

use crate::{
    args::{Credentials, Process},
    error::CliError,
};

pub(crate) async fn run(bus: &Bus, command: Credentials) -> Result<(), CliError> {
    match command {
        Credentials::Process(args) => process(bus, args).await,
    }
}

/// Prints the JSON of [credential_process](https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html).
async fn process(bus: &Bus, args: Process) -> Result<(), CliError> {
    if std::io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let client = Client::new(bus.clone(), args.sealing_key, args.requester)?;
    let wanted = Wanted { purpose: args.purpose, duration_s: args.duration, min_remaining_s: None };
    let (_, credentials) = client.issue(args.tenant, args.connection, wanted).await?;
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
