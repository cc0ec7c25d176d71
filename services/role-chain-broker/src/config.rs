//! What the broker is told: flags, or variables of the same name.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use contracts::{AccountId, IamPath, MOST_PRINCIPALS, PrincipalAccounts, PrincipalAccountsError};
use messaging::NatsConfig;
use runtime::HttpConfig;
use telemetry::LogConfig;

use crate::principal::{Boundary, Pace};

/// What the program is asked to do.
pub type Invocation = runtime::usage::Invocation<ServeArgs, Command>;

/// All flags, variables and commands.
#[must_use]
pub fn command() -> clap::Command {
    let about = "Keeps one IAM user and role for each tenant, proves that customers' roles demand our external ID, and issues short-lived credentials";
    Invocation::command("role-chain-broker", env!("CARGO_PKG_VERSION"), about)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the key files that the broker needs, readable by their owner alone; what exists is left as it is.
    Keygen(KeygenArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct KeygenArgs {
    /// Where the key that wraps access keys shall be.
    #[arg(long, env = "ROLEBRIDGE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Where the X25519 seed that seals credentials shall be; its public key is printed, for requesters to pin.
    #[arg(long, env = "ROLEBRIDGE_SEAL_SEED_FILE", value_name = "FILE")]
    pub seal_seed_file: Option<PathBuf>,
}

/// The configuration of the service.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub broker: BrokerConfig,
    #[command(flatten)]
    pub nats: NatsConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub log: LogConfig,
}

/// What is the broker's own. AWS region, credentials and endpoints come from the standard AWS_* variables.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("wrapping").required(true).multiple(true).args(["key_file", "kms_key"]))]
pub struct BrokerConfig {
    /// The provider's AWS account, which the broker's own credentials are of.
    #[arg(long, env = "ROLEBRIDGE_PROVIDER_ACCOUNT", value_name = "ACCOUNT")]
    pub provider_account: AccountId,

    /// Accounts in which principals are made, separated by commas: the provider's own by its ID, others by the ARN of the role that keeps principals
    /// there; `:NUMBER` after one is its own capacity, and with `:0` it gets no new ones. The provider's own account alone when absent.
    #[arg(long, env = "ROLEBRIDGE_PRINCIPAL_ACCOUNTS", value_name = "ACCOUNTS")]
    pub principal_accounts: Option<PrincipalAccounts>,

    /// Principals that one account takes; IAM's own quota is 1,000 roles, and 5,000 at most.
    #[arg(long, env = "ROLEBRIDGE_PRINCIPALS_PER_ACCOUNT", default_value_t = 900, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_PRINCIPALS)))]
    pub principals_per_account: u32,

    /// IAM path of the principals; nothing else may live under it.
    #[arg(long, env = "ROLEBRIDGE_PRINCIPAL_PATH", default_value = "/rolebridge/", value_name = "PATH")]
    pub principal_path: IamPath,

    /// File with the key that wraps access keys, made by `role-chain-broker keygen`: for one machine. Beside a KMS key it only opens what it has wrapped.
    #[arg(long, env = "ROLEBRIDGE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// AWS KMS key that wraps access keys: its ID, ARN or alias.
    #[arg(long, env = "ROLEBRIDGE_KMS_KEY", value_name = "KEY")]
    pub kms_key: Option<String>,

    /// File with the X25519 seed (SX...) that seals credentials, made by `role-chain-broker keygen`.
    #[arg(long, env = "ROLEBRIDGE_SEAL_SEED_FILE", value_name = "FILE")]
    pub seal_seed_file: PathBuf,

    /// Folder on a disk of this instance alone, where every answer is written down before it goes out, until the stream of events has it.
    #[arg(long, env = "ROLEBRIDGE_AUDIT_JOURNAL", value_name = "FOLDER")]
    pub audit_journal: PathBuf,

    /// MiB that the folder may grow to while the stream of events is away; when it is full, nothing is issued.
    #[arg(long, env = "ROLEBRIDGE_AUDIT_JOURNAL_MIB", default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub audit_journal_mib: u64,

    /// Seconds for which a role that refuses us may just not have settled in IAM.
    #[arg(long, env = "ROLEBRIDGE_SETTLE_SECONDS", default_value_t = 45, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=300))]
    pub settle_seconds: u64,

    /// Days after which a principal's access key has been changed.
    #[arg(long, env = "ROLEBRIDGE_KEY_ROTATION", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=365))]
    pub key_rotation: u64,

    /// Seconds for which an old access key stays, disabled, before it is deleted.
    #[arg(long, env = "ROLEBRIDGE_KEY_GRACE", default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub key_grace: u64,

    /// Seconds after which each principal is compared with what it must be.
    #[arg(long, env = "ROLEBRIDGE_RECONCILE_INTERVAL", default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub reconcile_interval: u64,

    /// Calls of STS in a second, for each provider account and all instances together. AWS takes 600 of an account in a region; whatever else uses the
    /// account needs some of them.
    #[arg(long, env = "ROLEBRIDGE_STS_PER_SECOND", default_value_t = 500, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sts_per_second: u32,

    /// ARN of the managed policy that bounds principals: an output of the provider's template. In other accounts it is the policy of the same name.
    #[arg(long, env = "ROLEBRIDGE_PERMISSIONS_BOUNDARY", value_name = "ARN")]
    pub permissions_boundary: Option<Boundary>,
}

impl BrokerConfig {
    /// # Errors
    /// When an account that is not the provider's own has no role to keep principals with.
    pub fn accounts(&self) -> Result<PrincipalAccounts, PrincipalAccountsError> {
        match &self.principal_accounts {
            Some(accounts) => accounts.clone().reachable_from(&self.provider_account),
            None => Ok(PrincipalAccounts::only(self.provider_account.clone())),
        }
    }

    #[must_use]
    pub fn settle(&self) -> Duration {
        Duration::from_secs(self.settle_seconds)
    }

    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace {
            period: Duration::from_secs(self.key_rotation * 24 * 3600),
            settle: self.settle(),
            grace: Duration::from_secs(self.key_grace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
