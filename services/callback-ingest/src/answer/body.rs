//! The JSON that CloudFormation reads, within its 4,096 bytes.
//!
//! [Response object](https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html).

use contracts::callback::{Answer, CallbackOutcome};
use serde::Serialize;

/// "The total size of the response body can't exceed 4096 bytes."
pub const MOST_BYTES: usize = 4096;

const CUT: &str = "...";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    status: &'static str,
    reason: &'a str,
    physical_resource_id: &'a str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    connection_id: String,
}

/// Why there is no answer to send.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the answer's identifiers alone are over {MOST_BYTES} bytes: CloudFormation would not read it")]
    TooLong,
    #[error("the answer cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// The answer to `outcome`; its reason cut where it does not fit.
///
/// # Errors
/// When even without a reason it is over [`MOST_BYTES`]: an outcome that callback-ingest never accepted the request of.
pub fn write(outcome: &CallbackOutcome) -> Result<Vec<u8>, BodyError> {
    let (status, reason, data) = match &outcome.answer {
        Answer::Success { connection } => {
            ("SUCCESS", "", connection.map(|connection| Data { connection_id: connection.to_string() }))
        }
        Answer::Failed { reason } => ("FAILED", reason.as_str(), None),
    };
    let body = |reason: &str| {
        serde_json::to_vec(&Body {
            status,
            reason,
            physical_resource_id: &outcome.physical_resource_id,
            stack_id: outcome.key.stack_id.as_str(),
            request_id: &outcome.key.request_id,
            logical_resource_id: &outcome.return_address.logical_resource_id,
            data: data.clone(),
        })
        .map_err(BodyError::Json)
    };
    let whole = body(reason)?;
    if whole.len() <= MOST_BYTES {
        return Ok(whole);
    }
    let room = MOST_BYTES.checked_sub(body("")?.len()).ok_or(BodyError::TooLong)?;
    body(&cut(reason, room))
}

/// As much of the start of `reason` as takes at most `room` bytes inside a JSON string, the mark of the cut included.
fn cut(reason: &str, room: usize) -> String {
    let Some(room) = room.checked_sub(CUT.len()) else { return String::new() };
    let mut used = 0;
    let kept = reason.chars().take_while(|c| {
        used += bytes_in_json(*c);
        used <= room
    });
    kept.chain(CUT.chars()).collect()
}

/// How many bytes `serde_json` writes for `c`.
fn bytes_in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use contracts::ConnectionId;
    use proptest::prelude::*;

    fn failed(reason: &str) -> CallbackOutcome {
        testing::outcome(Answer::Failed { reason: reason.to_owned() })
    }

    #[test]
    fn what_cloudformation_reads() {
        let connection = ConnectionId::new();
        let outcome = testing::outcome(Answer::Success { connection: Some(connection) });
        let body: serde_json::Value = serde_json::from_slice(&write(&outcome).unwrap()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "Status": "SUCCESS", "Reason": "", "PhysicalResourceId": outcome.physical_resource_id,
                "StackId": outcome.key.stack_id.as_str(), "RequestId": outcome.key.request_id, "LogicalResourceId": "Connection",
                "Data": { "ConnectionId": connection.to_string() },
            })
        );
    }

    #[test]
    fn identifiers_that_leave_no_room() {
        let mut outcome = failed("because");
        outcome.physical_resource_id = "p".repeat(MOST_BYTES);
        assert!(matches!(write(&outcome), Err(BodyError::TooLong)));
    }

    proptest! {
        #[test]
        fn attack_20_always_valid_json_within_the_bound(reason in proptest::string::string_regex("(\\PC|[\\x00-\\x1f\"\\\\é€😀]){0,6000}").unwrap()) {
            let bytes = write(&failed(&reason)).unwrap();
            prop_assert!(bytes.len() <= MOST_BYTES);
            let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let told = body["Reason"].as_str().unwrap();
            prop_assert!(told == reason || reason.starts_with(told.strip_suffix(CUT).unwrap()));
            // Nothing is cut that would have fitted: four bytes of the longest character and the mark may stay unused.
            prop_assert!(told == reason || bytes.len() > MOST_BYTES - 10);
        }
    }
}
