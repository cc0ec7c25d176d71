//! Enrollments: offers to connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CallbackToken, EnrollmentId, ExternalId, Page, PageRequest, Region, TenantId, Timestamp,
    costs::ExportLocation,
    message::{endpoint, message},
    tenant::{Empty, WithReason},
};

/// How many accounts an offer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnrollmentKind {
    /// One account; the token works once.
    Account,
    /// Every account of an organization (StackSet); the token works while the enrollment is open.
    Organization,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnrollmentState {
    Open,
    /// An account enrollment whose token has been used.
    Used,
    Cancelled,
    Expired,
}

/// An offer to connect, as the registry keeps it: without token and external ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrollment {
    pub enrollment: EnrollmentId,
    pub tenant: TenantId,
    pub kind: EnrollmentKind,
    pub state: EnrollmentState,
    /// The region in which the stack must be launched.
    pub region: Region,
    /// When set, only this account may use the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// How far the change of its external ID is; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationState>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// How far the change of an external ID is. Nothing is interrupted by it: what is verified goes on with the old one until the new one is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RotationState {
    /// There is a new one; the trust policy does not demand it yet.
    Offered,
    /// The new one is verified and in use; the trust policy may still name the old one.
    Overlapping,
    /// The old one was seen to be refused.
    Finished,
}

/// The new external ID as it is shown to the customer, with the two updates of the stack that change it without an interruption.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct RotationOffer {
    #[serde(flatten)]
    pub enrollment: Enrollment,
    /// The new one.
    pub external_id: ExternalId,
    /// First: the trust policy names both. One `aws cloudformation` command a line.
    pub begin: Vec<String>,
    /// Second, once the connections are `overlapping`: the trust policy names the new one alone.
    pub finish: Vec<String>,
}

/// The commands hold external IDs.
impl std::fmt::Debug for RotationOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotationOffer").field("enrollment", &self.enrollment).finish_non_exhaustive()
    }
}

/// There is no field for an external ID: it is the registry's to choose, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollmentRequest {
    pub kind: EnrollmentKind,
    /// One of the regions in which the provider has a topic; the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Restricts the offer to one account. Not for organizations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Where the customer's cost export lies, if that is known; it becomes the stack's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_export: Option<ExportLocation>,
    /// Seconds that the offer stands, 60 to 2,592,000 (30 days); 86,400 (a day) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
}

/// The offer as it is shown to the customer, once: the token is not kept in clear anywhere.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct EnrollmentOffer {
    #[serde(flatten)]
    pub enrollment: Enrollment,
    pub external_id: ExternalId,
    pub callback_token: CallbackToken,
    /// Opens the CloudFormation console with everything filled in but the callback token, which its page asks for: CloudFormation ignores `NoEcho` parameters in links.
    pub quick_create_url: String,
    /// The same as one `aws cloudformation create-stack` command; for an organization the StackSet commands, one a line.
    pub commands: Vec<String>,
    /// The stack's parameters by name, for those who launch it by their own means.
    pub parameters: std::collections::BTreeMap<String, String>,
}

/// Link, commands and parameters all hold the token and the external ID.
impl std::fmt::Debug for EnrollmentOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollmentOffer").field("enrollment", &self.enrollment).finish_non_exhaustive()
    }
}

endpoint!(CreateEnrollment { service: "tenant-registry", name: "enrollments-create", subject: "rolebridge.rpc.v1.enrollments.create.*", keys: (tenant: TenantId),
    request: CreateEnrollmentRequest, response: EnrollmentOffer, summary: "Makes an offer to connect. The callback token is shown in this reply alone." });
endpoint!(GetEnrollment { service: "tenant-registry", name: "enrollments-get", subject: "rolebridge.rpc.v1.enrollments.get.*.*", keys: (tenant: TenantId, enrollment: EnrollmentId),
    request: Empty, response: Enrollment, summary: "Gives one enrollment." });
endpoint!(ListEnrollments { service: "tenant-registry", name: "enrollments-list", subject: "rolebridge.rpc.v1.enrollments.list.*", keys: (tenant: TenantId),
    request: PageRequest, response: Page<Enrollment>, summary: "Lists a tenant's enrollments, oldest first." });
endpoint!(CancelEnrollment { service: "tenant-registry", name: "enrollments-cancel", subject: "rolebridge.rpc.v1.enrollments.cancel.*.*", keys: (tenant: TenantId, enrollment: EnrollmentId),
    request: WithReason, response: Enrollment, summary: "Withdraws an open offer; a used one stays as it is. Repeatable." });
endpoint!(RotateExternalId { service: "tenant-registry", name: "enrollments-rotate", subject: "rolebridge.rpc.v1.enrollments.rotate.*.*", keys: (tenant: TenantId, enrollment: EnrollmentId),
    request: WithReason, response: RotationOffer, summary: "Makes a new external ID for the stacks of an enrollment. Repeatable: while it is offered the reply is the same." });
endpoint!(CancelRotation { service: "tenant-registry", name: "enrollments-rotate-cancel", subject: "rolebridge.rpc.v1.enrollments.rotate-cancel.*.*", keys: (tenant: TenantId, enrollment: EnrollmentId),
    request: WithReason, response: Enrollment, summary: "Takes a new external ID back that no connection has taken over yet." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrollmentCreated {
    pub tenant: TenantId,
    pub enrollment: EnrollmentId,
    pub kind: EnrollmentKind,
    pub expires_at: Timestamp,
}

message!(EnrollmentCreated { type: "rolebridge.enrollment.created.v1", subject: "rolebridge.events.v1.enrollment.created.*", stream: EnrollmentEvents,
    producer: "tenant-registry", keys: [tenant], summary: "An offer to connect was made to a tenant." });

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrollmentCancelled {
    pub tenant: TenantId,
    pub enrollment: EnrollmentId,
    pub reason: String,
}

message!(EnrollmentCancelled { type: "rolebridge.enrollment.cancelled.v1", subject: "rolebridge.events.v1.enrollment.cancelled.*", stream: EnrollmentEvents,
    producer: "tenant-registry", keys: [tenant], summary: "An offer was withdrawn before it was used." });
