//! What the program is told at its start.

use crate::ingest::Payers;
use crate::table::KEEP_DAYS;
use clap::Parser;
use contracts::{AccountId, SealingKey};
use messaging::NatsConfig;
use runtime::HttpConfig;
use std::collections::BTreeSet;
use std::time::Duration;
use telemetry::LogConfig;
use url::Url;

/// What the program is asked to do.
pub type Invocation = runtime::usage::Invocation<Config, Command>;

/// All flags, variables and commands.
#[must_use]
pub fn command() -> clap::Command {
    let about = "Reads customers' cost exports into one table in FOCUS columns, and answers what they add up to";
    Invocation::command("cost-ingestion", env!("CARGO_PKG_VERSION"), about)
}

/// Beside serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Reads cost files that lie here into a table, without a bus: for history that is older than the connection. A billing period of an export is
    /// replaced as a whole; the same files again change nothing.
    Import(crate::import::ImportArgs),
    /// Writes many small or overlapping data files of the table anew as few sorted ones. No row changes, and it may run beside everything else.
    Compact(crate::upkeep::CompactArgs),
    /// Deletes data files that no version of the last days needs, and those that crashed writers have left.
    Vacuum(crate::upkeep::VacuumArgs),
}

/// Reads customers' cost exports into one table in FOCUS columns, and answers what they add up to.
#[derive(Clone, Debug, Parser)]
#[command(name = "cost-ingestion", version)]
pub struct Config {
    #[command(flatten)]
    pub nats: NatsConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub log: LogConfig,

    /// Where the cost table lies: a folder, or s3://bucket/path (with the AWS_* variables).
    #[arg(long, env = "ROLEBRIDGE_COST_TABLE", value_name = "FOLDER|S3-URL")]
    pub cost_table: String,

    /// Public key (X...) of the broker: credentials that another key has sealed are refused. Several (comma list) while it is being changed.
    #[arg(long, env = "ROLEBRIDGE_SEALING_KEY", value_name = "KEY", value_delimiter = ',', required = true)]
    pub sealing_key: Vec<SealingKey>,

    /// S3 endpoint for customers' buckets, instead of AWS's own; for the sandbox.
    #[arg(long, env = "ROLEBRIDGE_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<Url>,

    /// Whether Cost Explorer is asked where there is no export of the current month: on or off. Requests cost the customer 0.01 USD each; two to four
    /// on a usual day.
    #[arg(long, env = "ROLEBRIDGE_COST_EXPLORER", default_value = "on", value_name = "on|off", value_parser = ["on", "off"])]
    pub cost_explorer: String,

    /// Endpoint of the account's APIs of costs, instead of AWS's own; for the sandbox. Beside an S3 endpoint of one's own they are not asked without it.
    #[arg(long, env = "ROLEBRIDGE_COST_API_ENDPOINT", value_name = "URL")]
    pub cost_api_endpoint: Option<Url>,

    /// Seconds after which each connection's exports are looked for again.
    #[arg(long, env = "ROLEBRIDGE_COST_INTERVAL", default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub cost_interval: u32,

    /// Billing periods that are read at the same time. No tenant takes more than half of them, or all.
    #[arg(long, env = "ROLEBRIDGE_COST_WORKERS", default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cost_workers: u8,

    /// Seconds after which the table is compacted and vacuumed again; 0 turns it off.
    #[arg(long, env = "ROLEBRIDGE_COST_UPKEEP", default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=604_800))]
    pub cost_upkeep: u32,

    /// Days that old versions of the table stay readable.
    #[arg(long, env = "ROLEBRIDGE_COST_KEEP", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(KEEP_DAYS))]
    pub cost_keep: i64,

    /// Whose bills are believed beside those of the connection's own account: payer accounts (comma list), or "any" where tenants connect member
    /// accounts of organizations.
    #[arg(long, env = "ROLEBRIDGE_COST_PAYERS", default_value = "", hide_default_value = true, value_name = "ACCOUNTS|any", value_parser = payers)]
    pub cost_payers: Payers,
}

impl Config {
    /// Whether the account's APIs are asked at all: credentials for an emulator of S3 are none of AWS's.
    #[must_use]
    pub const fn asks_apis(&self) -> bool {
        self.s3_endpoint.is_none() || self.cost_api_endpoint.is_some()
    }

    /// Whether Cost Explorer is asked.
    #[must_use]
    pub fn asks_cost_explorer(&self) -> bool {
        self.asks_apis() && self.cost_explorer == "on"
    }

    /// [`Self::cost_interval`] as a duration.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.cost_interval))
    }
}

fn payers(text: &str) -> Result<Payers, String> {
    if text == "any" {
        return Ok(Payers::Any);
    }
    let accounts = text.split(',').map(str::trim).filter(|account| !account.is_empty()).map(AccountId::parse);
    let accounts = accounts.collect::<Result<BTreeSet<_>, _>>();
    accounts
        .map(Payers::OwnAnd)
        .map_err(|_| "payers are twelve-digit account IDs joined by commas, or the word any".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Config, clap::Error> {
        let key = format!("X{}", "A".repeat(55));
        let base = [
            "cost-ingestion",
            "--nats-url",
            "nats://127.0.0.1:4222",
            "--cost-table",
            "/tmp/x",
            "--sealing-key",
            key.as_str(),
        ];
        Config::try_parse_from(base.iter().chain(more))
    }

    #[test]
    fn what_is_not_said_has_a_default_and_nonsense_is_refused() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.cost_interval, config.cost_workers, config.cost_payers), (3600, 2, Payers::default()));
        assert_eq!((config.cost_upkeep, config.cost_keep), (86_400, 7));
        assert_eq!(parse(&["--cost-payers", "any"]).unwrap().cost_payers, Payers::Any);
        let other = format!("X{}", "B".repeat(55));
        assert_eq!(parse(&["--sealing-key", &other]).unwrap().sealing_key.len(), 2);
        let two = BTreeSet::from(["222222222222".parse().unwrap(), "333333333333".parse().unwrap()]);
        assert_eq!(parse(&["--cost-payers", "222222222222, 333333333333"]).unwrap().cost_payers, Payers::OwnAnd(two));
        assert!(parse(&[]).unwrap().asks_cost_explorer());
        assert!(!parse(&["--cost-explorer", "off"]).unwrap().asks_cost_explorer());
        let emulated = ["--s3-endpoint", "http://127.0.0.1:1", "--cost-api-endpoint", "http://127.0.0.1:2"];
        assert!(parse(&emulated).unwrap().asks_cost_explorer() && !parse(&emulated[..2]).unwrap().asks_apis());
        for wrong in [
            ["--cost-explorer", "maybe"],
            ["--cost-payers", "all"],
            ["--cost-workers", "0"],
            ["--cost-interval", "0"],
            ["--cost-keep", "0"],
            ["--cost-keep", "31"],
            ["--s3-endpoint", "nowhere"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
