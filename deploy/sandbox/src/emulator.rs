//! The AWS emulator (ministack) with IAM on, on loopback, with nothing left behind.

use std::{process::Command, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};

use crate::{
    account::Account,
    error::{Result, SandboxError},
    port::PortLease,
    process::Process,
    reaper::Scratch,
    toolbox::Toolbox,
};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// `python -m ministack`, with four things mended, and one that may be asked for (sessions of seconds):
/// - it knows `sts:ExternalId` when it evaluates the trust policy of a role, and not, as AWS does, when it evaluates the policies of the caller:
///   without it, a session that is bound to external IDs could assume nothing;
/// - it asks for `sts:TagSession` in the trust policy of a role, and not, as AWS does, in the policies of the caller: a session whose own side does not
///   allow tags would bear them;
/// - it leaves the path out of a role's ARN when IAM itself is asked about the role, and knows no resource of a simulation: a role that may look at
///   itself, and names itself as AWS wants it, could not;
/// - it simulates the policies of roles without a path alone, and without the context that the caller gives.
/// - `LONGEST_SESSION`: sessions of roles that are assumed with an external ID last at most so many seconds, whatever is asked for.
const LAUNCH: &str = r#"
import contextvars
import os
import ministack.core.iam_actions as actions
import ministack.core.iam_evaluator as evaluator
import ministack.services.iam as iam

tags = actions.request_tag_context

def context(service, action, body, params):
    keys = tags(service, action, body, params)
    external_id = actions._query_param(params, "ExternalId") if action == "sts:AssumeRole" else ""
    return {**keys, "sts:ExternalId": external_id} if external_id else keys

actions.request_tag_context = context

allowed = evaluator.enforce

def enforce(key, action, service, region, resource_arn="*", service_context=None):
    denied = allowed(key, action, service, region, resource_arn, service_context)
    if denied is None and action == "sts:AssumeRole" and (service_context or {}).get("aws:TagKeys"):
        return allowed(key, "sts:TagSession", service, region, resource_arn, service_context)
    return denied

evaluator.enforce = enforce

extract = actions.extract_resource_arn

def resource(service, method, path, headers, body, params, region, account_id):
    if service == "iam":
        if source := actions._query_param(params, "PolicySourceArn"):
            return source
        if name := actions._query_param(params, "RoleName"):
            role = iam._roles.get_scoped(account_id, None, name)
            if role:
                return role["Arn"]
    return extract(service, method, path, headers, body, params, region, account_id)

actions.extract_resource_arn = resource

of_role = evaluator._gather_role_policies
evaluator._gather_role_policies = lambda role, account: of_role(role.rsplit("/", 1)[-1], account)

given = contextvars.ContextVar("given", default={})
simulate_params, evaluate = iam._extract_simulate_params, evaluator.evaluate

def with_context(params):
    entries, n = {}, 1
    while key := iam._p(params, f"ContextEntries.member.{n}.ContextKeyName"):
        entries[key.lower()] = iam._p(params, f"ContextEntries.member.{n}.ContextKeyValues.member.1")
        n += 1
    given.set(entries)
    return simulate_params(params)

def in_context(ctx, *policies):
    ctx.service_context = {**ctx.service_context, **given.get()}
    return evaluate(ctx, *policies)

build = iam._build_simulate_results_real

def results(*what):
    try:
        return build(*what)
    finally:
        given.set({})

iam._extract_simulate_params = with_context
iam._build_simulate_results_real = results
evaluator.evaluate = in_context

if longest := os.environ.get("LONGEST_SESSION"):
    import ministack.services.sts as sts
    asked = sts._p

    def shortened(params, name, default=""):
        if name == "DurationSeconds" and asked(params, "ExternalId"):
            return min(asked(params, name) or longest, longest, key=int)
        return asked(params, name, default)

    sts._p = shortened

from ministack.app import main
main()
"#;

/// A running emulator: several AWS accounts in one server, all state in memory.
#[derive(Debug)]
pub struct AwsEmulator {
    process: Process,
    port: PortLease,
    python: std::path::PathBuf,
    // After the process, which uses it.
    _scratch: Scratch,
}

/// Whom credentials speak for, in the words of STS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerIdentity {
    pub account: String,
    pub arn: String,
}

impl AwsEmulator {
    /// Starts an emulator and waits until it answers. Call [`AwsEmulator::assert_iam_is_on`] before believing any refusal of it.
    ///
    /// # Errors
    /// It does not start; the error holds the end of its log.
    pub async fn start(tools: &Toolbox) -> Result<Self> {
        Self::start_with(tools, None).await
    }

    /// As [`AwsEmulator::start`]; sessions in customers' roles last `longest_session_s` at most, where AWS would give 900 seconds and more: so that they can be seen to end.
    ///
    /// # Errors
    /// As [`AwsEmulator::start`].
    pub async fn start_with(tools: &Toolbox, longest_session_s: Option<u32>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = PortLease::take()?;
        let mut command = Command::new(tools.python());
        command
            .args(["-I", "-c", LAUNCH])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", scratch.make("home")?)
            .env("TMPDIR", scratch.make("tmp")?)
            .env("S3_DATA_DIR", scratch.make("s3")?)
            .env("STATE_DIR", scratch.make("state")?)
            // Its default is to let everybody do everything, and to listen on all addresses.
            .env("AUTH", "true")
            .env("BIND_HOST", "127.0.0.1")
            .env("MINISTACK_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.number().to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0")
            .env("LAMBDA_EXECUTOR", "local")
            // No container daemon of this machine is to be touched.
            .env("DOCKER_HOST", "unix:///nonexistent")
            .env("LOG_LEVEL", "INFO")
            .envs(longest_session_s.map(|seconds| ("LONGEST_SESSION", seconds.to_string())))
            .current_dir(scratch.path());
        let mut process = Process::spawn("the AWS emulator", command, &scratch.join("log"))?;
        let health = format!("http://{}/_ministack/health", port.address());
        let client = reqwest::Client::builder().no_proxy().build().map_err(SandboxError::aws("make an HTTP client"))?;
        process
            .wait_until(READY_WITHIN, async || {
                client.get(&health).send().await.is_ok_and(|response| response.status().is_success())
            })
            .await?;
        Ok(Self { process, port, python: tools.python(), _scratch: scratch })
    }

    /// `http://127.0.0.1:port`: the endpoint of every service (`AWS_ENDPOINT_URL`), and the origin of the `ResponseURL`s of its CloudFormation.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The account `id` (12 digits) in `region`, as its root. Accounts need not be made.
    #[must_use]
    pub fn account(&self, id: &str, region: &str) -> Account {
        Account::new(id, region, self.sdk_config(region, root_credentials(id)), self.python.clone())
    }

    /// Configuration of an SDK client that speaks to the emulator with `credentials`.
    #[must_use]
    pub fn sdk_config(&self, region: &str, credentials: Credentials) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(self.endpoint())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }

    /// Asks STS whom `credentials` speak for.
    ///
    /// # Errors
    /// STS refuses, or does not name an account.
    pub async fn caller_identity(&self, region: &str, credentials: Credentials) -> Result<CallerIdentity> {
        let client = aws_sdk_sts::Client::new(&self.sdk_config(region, credentials));
        let answer = client
            .get_caller_identity()
            .send()
            .await
            .map_err(SandboxError::aws("ask STS for the caller's identity"))?;
        let (account, arn) = (answer.account.unwrap_or_default(), answer.arn.unwrap_or_default());
        Ok(CallerIdentity { account, arn })
    }

    /// What the emulator has logged. It may hold what clients sent.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}

/// In the emulator the account ID is the access key of its root, and the secret is not checked.
pub(crate) fn root_credentials(account: &str) -> Credentials {
    Credentials::new(account, "unchecked", None, None, "sandbox-root")
}
