//! A CloudFormation custom-resource request, from bytes that a stranger wrote to a message of ours.
//!
//! Bounds come first (size, depth, lengths), then form; nothing here believes or compares claims, which is the registry's work. A request that
//! breaks a rule but says where to answer safely becomes a [`Parsed::Refused`], so that the stack fails at once with a sentence and not after
//! its timeout with none. One that does not is [`Unreadable`]: its reason is all that is kept of it.
//!
//! [Request fields](https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requesttypes.html).

mod depth;
mod properties;

use contracts::{
    SealedBox, StackId, Timestamp, TopicArn,
    callback::{Answer, CallbackKey, CallbackOutcome, CallbackReceived, RequestType, ReturnAddress},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::answer::{AddressError, AddressRules, AnswerAddress};

pub(crate) use depth::is_within as depth_is_within;

/// Longest request, in bytes: SNS's own limit for a message.
pub const MOST_BYTES: usize = 256 * 1024;
/// Deepest nesting of arrays and objects. A real request has two levels.
pub const MOST_DEPTH: usize = 16;

const LONGEST_REQUEST_ID: usize = 128;
const LONGEST_LOGICAL_ID: usize = 255;
/// "can be up to 1 Kb in size"
const LONGEST_PHYSICAL_ID: usize = 1024;

/// Why a request can neither be handed on nor answered. Holds nothing of the request.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the request is over {MOST_BYTES} bytes")]
    TooLong,
    #[error("the request is not UTF-8")]
    NotUtf8,
    #[error("the request nests JSON more than {MOST_DEPTH} deep")]
    TooDeep,
    #[error("the request is not a JSON object")]
    NotJson,
    #[error("the request's {field} is missing or malformed, and without it nobody can be answered")]
    Field { field: &'static str },
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the ResponseURL could not be sealed")]
    Seal,
}

/// A request that somebody can be answered about.
#[derive(Debug)]
pub enum Parsed {
    /// For the registry to decide.
    Callback(Box<CallbackReceived>),
    /// Not what our template sends; the answer says so.
    Refused { outcome: Box<CallbackOutcome>, reason: String },
}

/// What parsing needs from outside.
pub struct Context<'a> {
    pub rules: &'a AddressRules,
    /// Seals to callback-ingest's own key; `None` when that fails.
    pub seal: &'a (dyn Fn(&[u8]) -> Option<SealedBox> + Sync),
    /// Whose signature the envelope bore.
    pub topic: &'a TopicArn,
    pub received_at: Timestamp,
}

/// Parses the `Message` of an SNS envelope.
///
/// # Errors
/// When nobody can be answered: out of bounds, not JSON, or without the fields that an answer needs.
pub fn parse(bytes: &[u8], context: &Context<'_>) -> Result<Parsed, Unreadable> {
    if bytes.len() > MOST_BYTES {
        return Err(Unreadable::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)?;
    if !depth::is_within(bytes, MOST_DEPTH) {
        return Err(Unreadable::TooDeep);
    }
    let mut fields: Map<String, Value> = serde_json::from_str(text).map_err(|_| Unreadable::NotJson)?;
    let reply = Reply::take(&fields, context)?;
    let wrong = match reply.understand(&mut fields, context) {
        Ok(received) => return Ok(Parsed::Callback(Box::new(received))),
        Err(wrong) => wrong,
    };
    let reason = format!(
        "rolebridge cannot use this request: {wrong}. Launch the stack again with the link or command that you were given, unchanged."
    );
    let outcome = reply.failed(&fields, reason, context.received_at);
    Ok(Parsed::Refused { outcome: Box::new(outcome), reason: wrong.to_string() })
}

/// What must be there for anybody to be answered.
struct Reply {
    key: CallbackKey,
    return_address: ReturnAddress,
}

impl Reply {
    fn take(fields: &Map<String, Value>, context: &Context<'_>) -> Result<Self, Unreadable> {
        let field = |name| text(fields, name).ok_or(Unreadable::Field { field: name });
        let stack_id = StackId::parse(field("StackId")?).map_err(|_| Unreadable::Field { field: "StackId" })?;
        let request_id =
            bounded(field("RequestId")?, LONGEST_REQUEST_ID).ok_or(Unreadable::Field { field: "RequestId" })?;
        let logical = bounded(field("LogicalResourceId")?, LONGEST_LOGICAL_ID)
            .ok_or(Unreadable::Field { field: "LogicalResourceId" })?;
        let address: AnswerAddress = context.rules.check(field("ResponseURL")?, &stack_id)?;
        let sealed_url = (context.seal)(address.expose().as_bytes()).ok_or(Unreadable::Seal)?;
        Ok(Self {
            key: CallbackKey { stack_id, request_id },
            return_address: ReturnAddress { logical_resource_id: logical, sealed_url },
        })
    }

    fn understand(
        &self,
        fields: &mut Map<String, Value>,
        context: &Context<'_>,
    ) -> Result<CallbackReceived, Malformed> {
        let request_type = match text(fields, "RequestType") {
            Some("Create") => RequestType::Create,
            Some("Update") => RequestType::Update,
            Some("Delete") => RequestType::Delete,
            _ => return Err(Malformed("RequestType", "is none of Create, Update and Delete")),
        };
        let physical_resource_id = physical_id(fields);
        if request_type == RequestType::Update && physical_resource_id.is_none() {
            return Err(Malformed("PhysicalResourceId", "is missing or malformed"));
        }
        let claims = match (properties::take(fields, &self.key.stack_id), request_type) {
            (Ok(claims), _) => Some(claims),
            // Whatever is deleted, its stack must not hang on us.
            (Err(_), RequestType::Delete) => None,
            (Err(wrong), _) => return Err(wrong),
        };
        Ok(CallbackReceived {
            key: self.key.clone(),
            request_type,
            physical_resource_id: physical_resource_id.filter(|_| request_type != RequestType::Create),
            claims,
            return_address: self.return_address.clone(),
            topic: context.topic.clone(),
            received_at: context.received_at,
        })
    }

    fn failed(&self, fields: &Map<String, Value>, reason: String, received_at: Timestamp) -> CallbackOutcome {
        CallbackOutcome {
            key: self.key.clone(),
            answer: Answer::Failed { reason },
            // An Update that is answered with another ID would have CloudFormation delete the resource that is there.
            physical_resource_id: physical_id(fields).unwrap_or_else(|| refused_id(&self.key)),
            return_address: self.return_address.clone(),
            received_at,
        }
    }
}

/// A part of the request that is not as our template sends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {0} {1}")]
struct Malformed(&'static str, &'static str);

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// `text` when it has 1 to `most` bytes and no control characters.
fn bounded(text: &str, most: usize) -> Option<String> {
    let fine = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    fine.then(|| text.to_owned())
}

fn physical_id(fields: &Map<String, Value>) -> Option<String> {
    text(fields, "PhysicalResourceId").and_then(|id| bounded(id, LONGEST_PHYSICAL_ID))
}

/// The physical ID of a resource that never came to be; the same for every duplicate of the request.
fn refused_id(key: &CallbackKey) -> String {
    let hash =
        Sha256::new().chain_update(key.stack_id.as_str()).chain_update([0]).chain_update(&key.request_id).finalize();
    format!("rolebridge-refused-{}", hex::encode(hash.get(..16).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
