//! Verification: the registry's jobs for the broker, and the broker's reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, ConnectionId, ExternalId, JobId, Region, RoleArn, TenantId, Timestamp, costs::ExportLocation,
    credentials::Purpose, message::message,
};

/// Which of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// With the right external ID: must succeed.
    RightId,
    /// `GetCallerIdentity` with the session so got: must name the expected account.
    CallerIdentity,
    /// Without an external ID: must be refused.
    NoId,
    /// With a random external ID: must be refused.
    RandomId,
    /// With the external ID that was replaced: must be refused once the stack says that it is gone from the trust policy.
    RetiredId,
    /// With the right external ID, by a principal of ours that is not the tenant's: should be refused.
    OtherPrincipal,
    /// With the right external ID and session tags: succeeds where the trust policy admits them, and decides nothing.
    SessionTags,
}

/// What a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeOutcome {
    Succeeded,
    /// `AccessDenied`, and nothing else.
    Refused,
    /// Throttled, timed out, 5xx, garbage: proves nothing.
    Indeterminate,
}

/// One probe, kept for those who ask why. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeEvidence {
    pub probe: Probe,
    pub outcome: ProbeOutcome,
    pub at: Timestamp,
    /// AWS's request ID, for a question to AWS or a look into CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_request_id: Option<String>,
    /// AWS's error code, such as `AccessDenied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// What is wrong with a customer's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The role refuses our principal with the right external ID.
    Refused,
    /// The role lets us in without an external ID.
    OpenWithoutId,
    /// The role lets us in with a random external ID.
    OpenWithRandomId,
    /// The session belongs to another account than the callback says.
    WrongAccount,
    /// The role still lets us in with the external ID that was replaced.
    OpenWithRetiredId,
    /// The role lets in another principal than the tenant's. Only where the registry's configuration makes it fatal.
    OpenToOtherPrincipal,
    /// The role gives sessions of more than an hour. Only where the registry's configuration makes it fatal.
    LongSessions,
    /// A purpose's permissions are missing. Only where the registry's configuration makes it fatal.
    PermissionsMissing,
}

/// How the permissions of a purpose were looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PermissionCheck {
    /// `iam:SimulatePrincipalPolicy`, asked by the role about itself: every action.
    Simulation,
    /// A harmless read with the purpose's own session policy: what that read needs, and no more.
    Read,
}

/// Whether a purpose can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PurposeOutcome {
    Complete,
    /// At least one action is denied.
    Missing,
    /// AWS did not answer clearly: proves nothing.
    Indeterminate,
}

/// What was found of one purpose's permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PurposeEvidence {
    pub purpose: Purpose,
    pub outcome: PurposeOutcome,
    pub check: PermissionCheck,
    /// IAM actions that are denied, such as `s3:GetObject`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// The sum of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Right ID let in, none refused, random refused, account as expected.
    Held,
    Failed {
        fault: Fault,
    },
    /// The deadline came before a clear answer.
    Indeterminate,
}

/// Why a connection is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyCause {
    /// A stack called back with Create or Update and waits for the answer.
    Callback,
    /// Its time has come.
    Schedule,
    /// Somebody asked.
    Request,
}

/// Probe this role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyConnection {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub cause: VerifyCause,
    pub role_arn: RoleArn,
    pub external_id: ExternalId,
    pub account: AccountId,
    pub region: Region,
    /// The external ID that this one has replaced, once the stack says that its trust policy no longer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_external_id: Option<ExternalId>,
    /// The cost export that the stack names: purposes need permissions for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_export: Option<ExportLocation>,
    /// Whether the stack's template should admit session tags: then it is seen whether the role does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session_tags: bool,
    /// When to give up and report what is known.
    pub deadline: Timestamp,
}

message!(VerifyConnection { type: "rolebridge.internal.verify-connection.v1", subject: "rolebridge.internal.v1.jobs.verify.*.*", stream: Jobs,
    producer: "tenant-registry", keys: [tenant, connection], summary: "Job: probe this role three ways and report." });

/// A stack is being deleted: watch whether its role is really gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmDeletion {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub role_arn: RoleArn,
    pub external_id: ExternalId,
    pub region: Region,
    pub deadline: Timestamp,
}

message!(ConfirmDeletion { type: "rolebridge.internal.confirm-deletion.v1", subject: "rolebridge.internal.v1.jobs.confirm-deletion.*.*", stream: Jobs,
    producer: "tenant-registry", keys: [tenant, connection], summary: "Job: watch until the role refuses us, or the deadline passes." });

/// The broker's answer to [`VerifyConnection`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerificationReported {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// The role that was probed.
    pub role_arn: RoleArn,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub evidence: Vec<ProbeEvidence>,
    /// One for each purpose, where the probes held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<PurposeEvidence>,
    /// The longest session that the role gives, in seconds, where the role lets itself be read. Chained sessions end at 3,600 whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_s: Option<u32>,
    /// Milliseconds that were spent in calls to AWS.
    pub aws_ms: u64,
}

message!(VerificationReported { type: "rolebridge.internal.verification-reported.v1", subject: "rolebridge.internal.v1.reports.verification.*.*", stream: Reports,
    producer: "role-chain-broker", keys: [tenant, connection], summary: "Evidence: what the probes saw. The registry decides what follows." });

/// The broker's answer to [`ConfirmDeletion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionReported {
    pub job: JobId,
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// True when the role refused us; false when it still let us in at the deadline.
    pub gone: bool,
    pub evidence: Vec<ProbeEvidence>,
}

message!(DeletionReported { type: "rolebridge.internal.deletion-reported.v1", subject: "rolebridge.internal.v1.reports.deletion.*.*", stream: Reports,
    producer: "role-chain-broker", keys: [tenant, connection], summary: "Evidence: whether a deleted stack's role still lets us in." });

/// One connection, and when credentials for it were given out last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub at: Timestamp,
}

/// Which connections a broker's instance has given out credentials for since its last word: those are probed first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionsUsed {
    /// At most 1,000.
    pub used: Vec<Used>,
}

message!(ConnectionsUsed { type: "rolebridge.internal.connections-used.v1", subject: "rolebridge.internal.v1.reports.connections-used", stream: Reports,
    producer: "role-chain-broker", keys: [], summary: "Which connections credentials were given out for lately." });
