//! Callbacks of customers' stacks, and the answers to them. Internal: an answer is a signed write capability.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, ConnectionId, ExternalId, Region, RoleArn, SealedBox, StackId, Timestamp, TokenHash, TopicArn,
    costs::ExportLocation, message::message,
};

/// What CloudFormation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RequestType {
    Create,
    Update,
    Delete,
}

/// Names one request of one stack, so that its duplicates are known as such.
///
/// The [request ID](https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html) alone is only unique within a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CallbackKey {
    pub stack_id: StackId,
    /// 1 to 128 characters, as CloudFormation sent it.
    pub request_id: String,
}

/// How to answer: what must be echoed, and where to, sealed to callback-ingest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnAddress {
    pub logical_resource_id: String,
    /// The `ResponseURL`. Only callback-ingest can open it.
    pub sealed_url: SealedBox,
}

/// What the custom resource's properties claim, each well-formed and none believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claims {
    pub external_id: ExternalId,
    /// The one that the trust policy still names beside it, while it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_external_id: Option<ExternalId>,
    pub token_hash: TokenHash,
    pub role_arn: RoleArn,
    pub account: AccountId,
    pub region: Region,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_export: Option<ExportLocation>,
    /// Of `deploy/aws/customer.yaml`, as the stack says; absent when it is no number. What the role is like is seen by probing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_version: Option<u32>,
}

/// A well-formed CloudFormation request that came by SNS and SQS with a valid envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallbackReceived {
    #[serde(flatten)]
    pub key: CallbackKey,
    pub request_type: RequestType,
    /// Absent on Create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_resource_id: Option<String>,
    /// Absent when a Delete's properties are not what our template sends (a Create that failed early): it is answered all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    pub return_address: ReturnAddress,
    /// The topic whose signature the envelope bore.
    pub topic: TopicArn,
    pub received_at: Timestamp,
}

message!(CallbackReceived { type: "rolebridge.internal.callback-received.v1", subject: "rolebridge.internal.v1.callbacks.received", stream: Callbacks,
    producer: "callback-ingest", keys: [], summary: "A customer's stack called back; nothing in it is believed." });

/// The answer's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Answer {
    Success {
        /// Given to the template as the resource's attribute `ConnectionId`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<ConnectionId>,
    },
    Failed {
        /// A sentence that tells a person what to fix.
        reason: String,
    },
}

/// What CloudFormation is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallbackOutcome {
    #[serde(flatten)]
    pub key: CallbackKey,
    pub answer: Answer,
    /// Never changes over a connection's life: a change would make CloudFormation delete the old one.
    pub physical_resource_id: String,
    pub return_address: ReturnAddress,
    /// When SQS gave the callback to us; for measuring.
    pub received_at: Timestamp,
}

message!(CallbackOutcome { type: "rolebridge.internal.callback-outcome.v1", subject: "rolebridge.internal.v1.callbacks.outcome", stream: Callbacks,
    producer: "tenant-registry", keys: [], summary: "What callback-ingest is to answer to CloudFormation." });
