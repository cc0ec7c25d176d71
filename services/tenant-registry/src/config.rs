//! What an operator sets. Parsed once, here; the rest of the program takes the types.

mod watch;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use contracts::{AccountId, PrincipalAccounts, Region, TopicArn};
use messaging::NatsConfig;
use runtime::{
    HttpConfig,
    quota::{PerMinute, StrangersConfig},
};
use secrecy::{ExposeSecret, SecretString};
use telemetry::LogConfig;
use url::Url;

pub use watch::{WatchConfig, Watching};

/// Owns tenants, enrollments and connections: who may connect what, and what is true of it.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "tenant-registry", version)]
pub struct Config {
    /// Where tenants and connections are kept: sqlite://FILE?mode=rwc or postgres://USER:PASSWORD@HOST/DATABASE.
    #[arg(
        long,
        env = "ROLEBRIDGE_DATABASE_URL",
        default_value = "sqlite://rolebridge.db?mode=rwc",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: DatabaseUrl,

    /// The provider's own AWS account.
    #[arg(long, env = "ROLEBRIDGE_PROVIDER_ACCOUNT", value_name = "ACCOUNT")]
    pub provider_account: AccountId,

    /// Accounts in which tenants' principals may stand: the same list as role-chain-broker's. The provider's own account alone when absent.
    #[arg(long, env = "ROLEBRIDGE_PRINCIPAL_ACCOUNTS", value_name = "ACCOUNTS")]
    pub principal_accounts: Option<PrincipalAccounts>,

    /// The topics that stacks call back to, one a region, separated by commas; the first region is the default of new enrollments.
    #[arg(long, env = "ROLEBRIDGE_TOPIC_ARNS", value_name = "ARNS")]
    pub topic_arns: Topics,

    /// Where customers' CloudFormation finds the template (an S3 address).
    #[arg(long, env = "ROLEBRIDGE_TEMPLATE_URL", value_name = "URL")]
    pub template_url: Url,

    /// Seconds that a verification may take before the stack is told that it could not be done.
    #[arg(long, env = "ROLEBRIDGE_VERIFY_DEADLINE", default_value_t = 240, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=480))]
    pub verify_deadline: u64,

    #[command(flatten)]
    pub strangers: StrangersConfig,

    /// Days for which answers to refused requests, and to the stacks of ended connections, are kept.
    #[arg(long, env = "ROLEBRIDGE_CALLBACK_RETENTION", default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(31..=3650))]
    pub callback_retention: u64,

    #[command(flatten)]
    pub watch: WatchConfig,

    #[command(flatten)]
    pub nats: NatsConfig,

    #[command(flatten)]
    pub http: HttpConfig,

    #[command(flatten)]
    pub log: LogConfig,
}

impl Config {
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            principal_accounts: self
                .principal_accounts
                .clone()
                .unwrap_or_else(|| PrincipalAccounts::only(self.provider_account.clone())),
            topics: self.topic_arns.clone(),
            template: self.template_url.clone(),
            verify_within: Duration::from_secs(self.verify_deadline),
            watch: self.watch.watching(),
            strangers: self.strangers.limits(),
        }
    }

    #[must_use]
    pub fn retention(&self) -> Duration {
        Duration::from_secs(self.callback_retention * 24 * 3600)
    }
}

/// The part of the configuration that decisions depend on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where principals may stand: a role of another account is not offered to customers.
    pub principal_accounts: PrincipalAccounts,
    pub topics: Topics,
    pub template: Url,
    pub verify_within: Duration,
    pub watch: Watching,
    pub strangers: PerMinute,
}

/// One topic for each region; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    first: TopicArn,
    by_region: BTreeMap<Region, TopicArn>,
}

impl Topics {
    /// The topic of `region`, or of the default region.
    #[must_use]
    pub fn of(&self, region: Option<&Region>) -> Option<&TopicArn> {
        region.map_or(Some(&self.first), |region| self.by_region.get(region))
    }

    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.by_region.keys().cloned().collect()
    }
}

/// Why a text is no list of topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    #[error("`{text}` is not the ARN of an SNS topic")]
    NotATopic { text: String },
    #[error("region {region} has two topics: name one")]
    TwoInOneRegion { region: Region },
}

impl FromStr for Topics {
    type Err = TopicsError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |text: &str| TopicArn::parse(text).map_err(|_| TopicsError::NotATopic { text: text.to_owned() });
        let (first, rest) = text.split_once(',').unwrap_or((text, ""));
        let first = parse(first.trim())?;
        let mut by_region = BTreeMap::from([(first.region().clone(), first.clone())]);
        for other in rest.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let topic = parse(other)?;
            if let Some(taken) = by_region.insert(topic.region().clone(), topic) {
                return Err(TopicsError::TwoInOneRegion { region: taken.region().clone() });
            }
        }
        Ok(Self { first, by_region })
    }
}

/// Where the database is. Printed without user and password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: SecretString,
    shown: String,
    sqlite: bool,
}

impl DatabaseUrl {
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.sqlite
    }

    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

/// The text names no database that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a database is sqlite://FILE?mode=rwc or postgres://USER:PASSWORD@HOST/DATABASE")]
pub struct DatabaseUrlError;

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sqlite = text.starts_with("sqlite:");
        let shown = if sqlite {
            text.to_owned()
        } else {
            let mut url = Url::parse(text).map_err(|_| DatabaseUrlError)?;
            if !matches!(url.scheme(), "postgres" | "postgresql") || url.host().is_none() {
                return Err(DatabaseUrlError);
            }
            url.set_query(None);
            url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| DatabaseUrlError)?;
            url.to_string()
        };
        Ok(Self { text: text.to_owned().into(), shown, sqlite })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: DatabaseUrl = "postgres://user:hunter2@db.example/rolebridge?password=hunter2".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://db.example/rolebridge");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert!(!url.is_sqlite());
    }

    #[test]
    fn other_databases_are_refused() {
        for text in ["", "mysql://a/b", "rolebridge.db", "postgres:", "http://x"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
        assert!("sqlite://x.db?mode=rwc".parse::<DatabaseUrl>().unwrap().is_sqlite());
    }

    #[test]
    fn one_topic_a_region() {
        let (a, b) = ("arn:aws:sns:eu-central-1:111111111111:t", "arn:aws:sns:us-east-1:111111111111:t");
        let topics: Topics = format!("{a}, {b}").parse().unwrap();
        assert_eq!(topics.of(None).unwrap().as_str(), a);
        assert_eq!(topics.of(Region::parse("us-east-1").ok().as_ref()).unwrap().as_str(), b);
        assert_eq!(topics.of(Region::parse("eu-west-1").ok().as_ref()), None);
        assert!(matches!(format!("{a},{a}").parse::<Topics>(), Err(TopicsError::TwoInOneRegion { .. })));
        assert!(matches!("".parse::<Topics>(), Err(TopicsError::NotATopic { .. })));
    }
}
