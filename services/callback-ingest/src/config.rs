//! What callback-ingest reads from flags and environment.

use std::{path::PathBuf, time::Duration};

use contracts::TopicArn;
use messaging::NatsConfig;
use runtime::{HttpConfig, quota::StrangersConfig};
use telemetry::LogConfig;
use url::{Host, Url};

use crate::answer::SandboxOrigin;

/// What the program is asked to do.
pub type Invocation = runtime::usage::Invocation<Config, Command>;

/// All flags, variables and commands.
#[must_use]
pub fn command() -> clap::Command {
    let about = "Receives callbacks of customers' stacks by SNS and SQS, and answers them";
    Invocation::command(crate::SERVICE, env!("CARGO_PKG_VERSION"), about)
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes the X25519 key that ResponseURLs are sealed to: one file for all instances.
    Keygen {
        /// The file to write; it must not exist yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Whether SNS signatures are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SnsSignature {
    /// Signature, certificate and its chain.
    Verify,
    /// Neither: for the emulator, and only when AWS_ENDPOINT_URL is a loopback address.
    SandboxSkip,
}

/// Settings of the service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// URL of the SQS queue that the topics feed.
    #[arg(long, env = "ROLEBRIDGE_CALLBACK_QUEUE_URL", value_name = "URL")]
    pub callback_queue_url: Url,

    /// ARNs of the SNS topics whose messages are taken, with commas between.
    #[arg(long, env = "ROLEBRIDGE_TOPIC_ARNS", value_name = "ARN,...", value_delimiter = ',', required = true)]
    pub topic_arns: Vec<TopicArn>,

    /// Loops that take from the queue side by side, up to ten messages each.
    #[arg(long, env = "ROLEBRIDGE_SQS_POLLERS", default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sqs_pollers: u16,

    /// Seconds for which a taken message is hidden from other pollers, whatever the queue's own setting; extended while it is worked on.
    /// A message whose instance was killed comes again after so long.
    #[arg(long, env = "ROLEBRIDGE_SQS_VISIBILITY", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=43_200))]
    pub sqs_visibility: u64,

    /// Whether SNS signatures are checked.
    #[arg(long, env = "ROLEBRIDGE_SNS_SIGNATURE", default_value = "verify", value_enum)]
    pub sns_signature: SnsSignature,

    /// An origin outside AWS that may be answered: the sandbox's emulator (http://127.0.0.1:PORT). Never set it in production.
    #[arg(long, env = "ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN", value_name = "ORIGIN")]
    pub response_sandbox_origin: Option<SandboxOrigin>,

    /// File with the X25519 seed (SX...) that ResponseURLs are sealed to; made by `callback-ingest keygen`.
    #[arg(long, env = "ROLEBRIDGE_INGEST_KEY_FILE", value_name = "FILE")]
    pub ingest_key_file: PathBuf,

    /// Seconds after a callback in which its answer is tried again: the template's ServiceTimeout.
    #[arg(long, env = "ROLEBRIDGE_ANSWER_DEADLINE", default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub answer_deadline: u64,

    #[command(flatten)]
    pub strangers: StrangersConfig,

    /// The SDK's own override of AWS's endpoints; here only to judge ROLEBRIDGE_SNS_SIGNATURE by.
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL", hide = true)]
    pub aws_endpoint_url: Option<Url>,

    #[command(flatten)]
    pub nats: NatsConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub log: LogConfig,
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "signatures may only be skipped in a sandbox: set AWS_ENDPOINT_URL to a loopback address, or ROLEBRIDGE_SNS_SIGNATURE to verify"
    )]
    SkipOutsideSandbox,
    #[error(
        "an origin outside AWS may only be answered in a sandbox: set AWS_ENDPOINT_URL to a loopback address, or leave ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN out"
    )]
    OriginOutsideSandbox,
}

impl Config {
    /// # Errors
    /// When signatures are to be skipped, or another origin than AWS's is to be answered, with real AWS.
    pub fn check(&self) -> Result<(), ConfigError> {
        let in_sandbox = self.aws_endpoint_url.as_ref().is_some_and(is_loopback);
        if self.sns_signature == SnsSignature::SandboxSkip && !in_sandbox {
            return Err(ConfigError::SkipOutsideSandbox);
        }
        if self.response_sandbox_origin.is_some() && !in_sandbox {
            return Err(ConfigError::OriginOutsideSandbox);
        }
        Ok(())
    }

    pub(crate) fn visibility(&self) -> Duration {
        Duration::from_secs(self.sqs_visibility)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.answer_deadline)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        config: Config,
    }

    fn config(extra: &[&str]) -> Config {
        let base = [
            "callback-ingest",
            "--callback-queue-url",
            "http://127.0.0.1:1/q",
            "--topic-arns",
            "arn:aws:sns:eu-central-1:111111111111:a,arn:aws:sns:us-east-1:111111111111:a",
            "--ingest-key-file",
            "key",
            "--nats-url",
            "nats://127.0.0.1:1",
        ];
        Whole::try_parse_from(base.iter().chain(extra)).map(|whole| whole.config).unwrap()
    }

    #[test]
    fn an_origin_outside_aws_is_answered_only_with_a_loopback_endpoint() {
        let origin = ["--response-sandbox-origin", "http://127.0.0.1:4566"];
        assert_eq!(config(&[&origin[..], &["--aws-endpoint-url", "http://127.0.0.1:4566"]].concat()).check(), Ok(()));
        assert_eq!(config(&origin).check(), Err(ConfigError::OriginOutsideSandbox));
        let elsewhere = [&origin[..], &["--aws-endpoint-url", "https://sqs.eu-central-1.amazonaws.com"]].concat();
        assert_eq!(config(&elsewhere).check(), Err(ConfigError::OriginOutsideSandbox));
    }

    #[test]
    fn signatures_are_skipped_only_with_a_loopback_endpoint() {
        assert_eq!(config(&[]).topic_arns.len(), 2);
        assert_eq!(config(&[]).check(), Ok(()));
        let skip = ["--sns-signature", "sandbox-skip"];
        for endpoint in ["http://127.0.0.1:4566", "http://[::1]:4566", "http://localhost:4566"] {
            assert_eq!(config(&[&skip[..], &["--aws-endpoint-url", endpoint]].concat()).check(), Ok(()), "{endpoint}");
        }
        for endpoint in [
            "https://sqs.eu-central-1.amazonaws.com",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
        ] {
            let refused = config(&[&skip[..], &["--aws-endpoint-url", endpoint]].concat()).check();
            assert_eq!(refused, Err(ConfigError::SkipOutsideSandbox), "{endpoint}");
        }
    }
}
