//! The SDK's set-up: standard environment, explicit timeouts, explicit retries.

use std::time::Duration;

use arn::{Region, RoleArn};
use aws_config::{BehaviorVersion, SdkConfig, identity::IdentityCache, sts::AssumeRoleProvider};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};

/// How long one call may take, and how often it is tried. The SDK's own defaults set no limit on an answer, and a hung call is a hung service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the connection stands.
    pub connect: Duration,
    /// One try, from the request to the end of the answer.
    pub attempt: Duration,
    /// All tries with the waits between them.
    pub whole: Duration,
    /// Tries, the first included; at least 1.
    pub attempts: u32,
}

impl Patience {
    /// Long enough for an SQS long poll (20 s), which is the slowest call that we make.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(3),
        attempt: Duration::from_secs(30),
        whole: Duration::from_secs(70),
        attempts: 3,
    };

    /// One try, no waiting: for callers that read the answer themselves and decide whether to ask again.
    pub const ONE_TRY: Self = Self {
        connect: Duration::from_secs(3),
        attempt: Duration::from_secs(10),
        whole: Duration::from_secs(10),
        attempts: 1,
    };

    #[must_use]
    pub fn timeouts(self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .read_timeout(self.attempt)
            .operation_attempt_timeout(self.attempt)
            .operation_timeout(self.whole)
            .build()
    }

    #[must_use]
    pub fn retries(self) -> RetryConfig {
        RetryConfig::standard().with_max_attempts(self.attempts.max(1))
    }
}

/// The SDK's configuration from the standard environment (`AWS_REGION`, credentials, `AWS_ENDPOINT_URL[_<SERVICE>]`, profiles), with
/// [`Patience::DEFAULT`]. A given region wins over the environment's.
///
/// Nothing is sent yet; credentials are looked for when the first call needs them.
pub async fn sdk_config(region: Option<&Region>) -> SdkConfig {
    sdk_config_with(region, Patience::DEFAULT).await
}

/// As [`sdk_config`], with another patience.
pub async fn sdk_config_with(region: Option<&Region>, patience: Patience) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .timeout_config(patience.timeouts())
        .retry_config(patience.retries());
    let loader = match region {
        Some(region) => loader.region(aws_config::Region::new(region.as_str().to_owned())),
        None => loader,
    };
    loader.load().await
}

/// Connections for every client that is made of one configuration. Without it each client reads the machine's certificates and opens connections of its
/// own, and some clients here live for one call. Nothing of whoever calls is in a connection: each request bears its own signature.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

/// The same configuration with the rights of `role`, which is assumed with the configuration's own credentials and anew before a session ends.
///
/// Nothing is sent yet. That the role cannot be assumed shows as a failure of the first call.
pub async fn assuming(sdk: &SdkConfig, role: &RoleArn, session_name: &str) -> SdkConfig {
    let provider = AssumeRoleProvider::builder(role.as_str()).session_name(session_name).configure(sdk).build().await;
    // The provider keeps nothing: its sessions are cached here, apart from those of other roles.
    sdk.to_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .identity_cache(IdentityCache::lazy().build())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqs_long_poll_fits() {
        assert!(Patience::DEFAULT.attempt > Duration::from_secs(20));
        assert!(Patience::DEFAULT.whole > Patience::DEFAULT.attempt * 2);
    }

    #[test]
    fn timeouts_and_retries_are_set() {
        let timeouts = Patience::ONE_TRY.timeouts();
        assert!(timeouts.has_timeouts());
        assert_eq!(timeouts.operation_timeout(), Some(Duration::from_secs(10)));
        assert_eq!(Patience::ONE_TRY.retries().max_attempts(), 1);
        assert_eq!(Patience { attempts: 0, ..Patience::ONE_TRY }.retries().max_attempts(), 1);
    }
}
