//! STS itself, through the AWS SDK.

use std::time::Duration;

use async_trait::async_trait;
use aws::{Failure, FailureKind, Patience, SdkConfig, Unclear, classify, traced};
use aws_sdk_sts::{
    Client,
    config::{Builder, IdentityCache},
    operation::RequestId as _,
    types::Tag,
};
use contracts::{AccountId, Region, Timestamp};
use time::OffsetDateTime;

use super::{Answer, AssumeRole, AwsClock, Keys, Session, SessionDuration, Sts, clock::ReadDate};
use crate::{metrics::Metrics, tags::SessionTags};

/// Percent of the longest token of a session.
const NEARLY_FULL: i32 = 80;

/// STS at the endpoint of the region that is asked for, or where `AWS_ENDPOINT_URL[_STS]` says.
#[derive(Debug, Clone)]
pub struct RealSts {
    sdk: SdkConfig,
    patience: Patience,
    metrics: Metrics,
    clock: AwsClock,
}

impl RealSts {
    #[must_use]
    pub fn new(sdk: SdkConfig, patience: Patience, metrics: Metrics, clock: AwsClock) -> Self {
        Self { sdk, patience, metrics, clock }
    }

    /// A client that has never seen other keys and never will.
    fn client(&self, keys: &Keys, region: Option<&Region>) -> Client {
        let config = Builder::from(&self.sdk)
            .credentials_provider(keys.for_sdk())
            // The shared cache would keep the keys of every client that ever was.
            .identity_cache(IdentityCache::no_cache())
            .interceptor(ReadDate { clock: self.clock.clone(), metrics: self.metrics.clone() })
            .timeout_config(self.patience.timeouts())
            .retry_config(self.patience.retries());
        let config = match region {
            Some(region) => config.region(aws_sdk_sts::config::Region::new(region.as_str().to_owned())),
            None => config,
        };
        Client::from_conf(config.build())
    }

    async fn counted<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let result = traced("STS", action, call).await;
        self.metrics.sts_call(action, result.as_ref().err());
        result
    }
}

#[async_trait]
impl Sts for RealSts {
    async fn assume_role(&self, keys: &Keys, call: &AssumeRole<'_>) -> Result<Answer<Session>, Failure> {
        let request = self
            .client(keys, call.region)
            .assume_role()
            .role_arn(call.role.as_str())
            .role_session_name(call.session_name)
            .set_external_id(call.external_id.map(|id| id.as_str().to_owned()))
            .set_policy(call.session_policy.map(str::to_owned))
            .duration_seconds(i32::try_from(call.duration.seconds()).unwrap_or(900))
            .set_tags(call.tags.map(session_tags));
        let sent = async {
            let output = request.send().await.map_err(|error| classify(&error))?;
            let request_id = output.request_id().map(str::to_owned);
            note_room(output.session_token_utilization);
            let session = output.credentials.and_then(|given| session(given, call.duration)).ok_or_else(garbage)?;
            Ok(Answer { value: session, request_id })
        };
        self.counted("AssumeRole", sent).await
    }

    async fn caller_account(&self, keys: &Keys, region: Option<&Region>) -> Result<Answer<AccountId>, Failure> {
        let request = self.client(keys, region).get_caller_identity();
        let sent = async {
            let output = request.send().await.map_err(|error| classify(&error))?;
            let request_id = output.request_id().map(str::to_owned);
            let account = output.account().and_then(|text| AccountId::parse(text).ok()).ok_or_else(garbage)?;
            Ok(Answer { value: account, request_id })
        };
        self.counted("GetCallerIdentity", sent).await
    }
}

fn session_tags(tags: SessionTags) -> Vec<Tag> {
    // A tag without a key or a value cannot be built; ours have both.
    tags.pairs().into_iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

/// A session's token holds its policy and its tags, and AWS tells how much of what one may hold is taken; beyond it, sessions are refused.
fn note_room(percent: Option<i32>) {
    if let Some(percent) = percent.filter(|percent| *percent >= NEARLY_FULL) {
        tracing::warn!(percent, "a session's policy and tags nearly fill the token: shorten the purpose's policy");
    }
}

/// The SDK fills fields that were missing from the answer with nothing: such an answer is none.
fn session(given: aws_sdk_sts::types::Credentials, lasts: SessionDuration) -> Option<Session> {
    let expires_at = OffsetDateTime::from_unix_timestamp(given.expiration.secs()).ok()?;
    let complete =
        [&given.access_key_id, &given.secret_access_key, &given.session_token].iter().all(|text| !text.is_empty());
    // STS says only when it ends.
    let issued_at = expires_at - Duration::from_secs(lasts.seconds().into());
    complete.then(|| Session {
        keys: Keys {
            access_key_id: given.access_key_id.into(),
            secret_access_key: given.secret_access_key.into(),
            session_token: Some(given.session_token.into()),
        },
        issued_at: Timestamp::from(issued_at),
        expires_at: Timestamp::from(expires_at),
    })
}

fn garbage() -> Failure {
    Failure::new(FailureKind::Indeterminate(Unclear::Garbage), None)
}

#[cfg(test)]
mod tests {
    use contracts::RoleArn;
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

    use super::*;
    use crate::sts::SessionDuration;

    /// One value of us serves all tenants and all probes: nothing of one call may be left for the next.
    #[tokio::test]
    async fn each_call_is_a_client_of_its_own() {
        let server = MockServer::start().await;
        let throttled = "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>";
        Mock::given(any()).respond_with(ResponseTemplate::new(400).set_body_string(throttled)).mount(&server).await;
        let sdk = SdkConfig::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .endpoint_url(server.uri())
            .region(aws_sdk_sts::config::Region::new("eu-central-1"))
            // The broker's own, which no tenant's call may ever fall back to.
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
                aws_credential_types::Credentials::new("AKIABROKER", "own", None, None, "test"),
            ))
            .build();
        let sts = RealSts::new(
            sdk,
            Patience::ONE_TRY,
            Metrics::new(&opentelemetry::global::meter("test")),
            AwsClock::default(),
        );
        let role = RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/rolebridge-stack").unwrap();
        let call = AssumeRole {
            role: &role,
            external_id: None,
            session_policy: None,
            duration: SessionDuration::SHORTEST,
            session_name: "test",
            region: None,
            tags: None,
        };
        let (names, began) = (["ASIAONE", "ASIATWO", "ASIAONE", "ASIATHREE"], std::time::Instant::now());
        for name in names {
            let keys = Keys {
                access_key_id: name.into(),
                secret_access_key: "secret".into(),
                session_token: Some(format!("token-of-{name}").into()),
            };
            let failure = sts.assume_role(&keys, &call).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Indeterminate(aws::Unclear::Throttled));
        }
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests.len(), names.len(), "one try each, and no waiting: it took {:?}", began.elapsed());
        for (request, name) in requests.iter().zip(names) {
            assert!(request.headers["authorization"].to_str().unwrap().contains(&format!("Credential={name}/")));
            assert_eq!(request.headers["x-amz-security-token"].to_str().unwrap(), format!("token-of-{name}"));
        }
    }

    /// With a clock that is far off AWS refuses every signature, and its refusals are all that tells the time.
    #[tokio::test]
    async fn a_clock_that_is_minutes_off_is_seen_in_refusals() {
        let server = MockServer::start().await;
        let there = aws_smithy_types::DateTime::from_secs(time::OffsetDateTime::now_utc().unix_timestamp() + 600);
        let date = there.fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap();
        let refused = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>";
        let answer = ResponseTemplate::new(403).insert_header("date", date.as_str()).set_body_string(refused);
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let sdk = SdkConfig::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .endpoint_url(server.uri())
            .region(aws_sdk_sts::config::Region::new("eu-central-1"))
            .build();
        let (clock, metrics) = (AwsClock::default(), Metrics::new(&opentelemetry::global::meter("test")));
        let sts = RealSts::new(sdk, Patience::ONE_TRY, metrics, clock.clone());
        let keys = Keys { access_key_id: "AKIA".into(), secret_access_key: "s".into(), session_token: None };
        sts.caller_account(&keys, None).await.unwrap_err();
        let left = clock.left(Timestamp::now().plus(Duration::from_secs(900))).as_secs();
        assert!((200..=302).contains(&left), "{left}");
    }
}
