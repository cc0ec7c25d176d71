//! `credentials get`: what is issued, for a person to look at; and the credentials themselves, in forms that other programs read.

use std::{io::IsTerminal as _, time::Duration};

use clap::{Args, ValueEnum};
use contracts::{
    Timestamp,
    credentials::{IssuedCredentials, SealedCredentials},
};
use messaging::Bus;
use serde_json::json;

use super::{Asked, environment};
use crate::{error::CliError, show::Output};

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    asked: Asked,
    /// Print the credentials themselves, in this form.
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Format>,
    /// Print them to a terminal too.
    #[arg(long, requires = "format")]
    show: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// NAME=VALUE lines, as `docker run --env-file` reads them.
    Env,
    /// One JSON object.
    Json,
    /// `export NAME='VALUE'` lines, for `eval "$(...)"`.
    ShellExport,
}

pub(super) async fn run(bus: &Bus, args: &Get, output: Output) -> Result<(), CliError> {
    if args.format.is_some() && !args.show && std::io::stdout().is_terminal() {
        return Err(CliError::TerminalWithoutShow);
    }
    let asked = &args.asked;
    let (about, credentials) = asked.client(bus)?.issue(asked.tenant, asked.connection, asked.wanted()).await?;
    match args.format {
        None => show(&about, &credentials, output),
        Some(Format::Json) => {
            println!("{}", as_json(&about, &credentials));
            Ok(())
        }
        Some(Format::Env) => {
            for (name, value) in environment::with_keys(&credentials, &about.region) {
                println!("{name}={value}");
            }
            Ok(())
        }
        Some(Format::ShellExport) => {
            for (name, value) in environment::with_keys(&credentials, &about.region) {
                println!("export {name}={}", quoted(&value));
            }
            Ok(())
        }
    }
}

/// Everything but the credentials.
fn show(about: &IssuedCredentials, credentials: &SealedCredentials, output: Output) -> Result<(), CliError> {
    let left = Duration::from_secs(Timestamp::now().until(credentials.expires_at).as_secs());
    let thing = json!({
        "tenant": credentials.tenant,
        "connection": credentials.connection,
        "purpose": credentials.purpose,
        "account": about.account,
        "role_arn": about.role_arn,
        "region": about.region,
        "access_key_id": credentials.access_key_id,
        "expires_at": credentials.expires_at,
        "remaining_s": left.as_secs(),
        "broker_key": about.broker_key,
    });
    let lines = [
        ("connection", credentials.connection.to_string()),
        ("purpose", credentials.purpose.to_string()),
        ("account", about.account.to_string()),
        ("role", about.role_arn.to_string()),
        ("region", about.region.to_string()),
        ("access key", credentials.access_key_id.clone()),
        ("expires", format!("{} (in {left:?})", credentials.expires_at)),
        ("sealed by", about.broker_key.to_string()),
    ];
    output.one(&thing, &lines)
}

fn as_json(about: &IssuedCredentials, credentials: &SealedCredentials) -> serde_json::Value {
    json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.expose(),
        "SessionToken": credentials.session_token.expose(),
        "Expiration": credentials.expires_at,
        "AccountId": about.account,
        "RoleArn": about.role_arn,
        "Region": about.region,
        "Purpose": credentials.purpose,
    })
}

/// For a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let value = r#"a'b"c $HOME `x` \ +/="#;
        let said = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(value))]).output();
        assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap(), value);
    }
}
