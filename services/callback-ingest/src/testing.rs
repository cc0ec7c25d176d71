//! What unit tests of several modules make.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use contracts::{
    CallbackToken, SealedBox, StackId, Timestamp, TopicArn,
    callback::{Answer, CallbackKey, CallbackOutcome, ReturnAddress},
};
use messaging::seal::SealSeed;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{AddressRules, AnswerAddress, Answerer, InHand, MemoryLedger, Put, PutError},
    metrics::Metrics,
};

pub(crate) const STACK: &str =
    "arn:aws:cloudformation:eu-central-1:222222222222:stack/rolebridge/0b9f3a10-6f3e-11f0-8c5d-0242ac120002";
pub(crate) const RESPONSE_URL: &str = "https://cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com/arn%3Aaws?X-Amz-Signature=c0ffee";

pub(crate) fn topic() -> TopicArn {
    TopicArn::parse("arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks").unwrap()
}

pub(crate) fn request(kind: &str, token: &CallbackToken) -> Value {
    json!({
        "RequestType": kind, "RequestId": "0f8b1c3e-1111-2222-3333-444455556666", "ResponseURL": RESPONSE_URL,
        "ResourceType": "Custom::RolebridgeConnection", "LogicalResourceId": "Connection", "StackId": STACK,
        "PhysicalResourceId": "physical-1",
        "ResourceProperties": {
            "ServiceToken": topic().as_str(), "ServiceTimeout": "600", "ExternalId": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
            "CallbackToken": token.expose(), "RoleArn": "arn:aws:iam::222222222222:role/rolebridge/rolebridge-0242ac120002",
            "AccountId": "222222222222", "Region": "eu-central-1", "Partition": "aws", "CostBucket": "cost-exports",
            "CostPrefix": "exports/daily", "TemplateVersion": "1",
        },
    })
}

pub(crate) fn outcome(answer: Answer) -> CallbackOutcome {
    CallbackOutcome {
        key: CallbackKey { stack_id: StackId::parse(STACK).unwrap(), request_id: "0f8b1c3e".to_owned() },
        answer,
        physical_resource_id: "rolebridge-connection-1".to_owned(),
        return_address: ReturnAddress {
            logical_resource_id: "Connection".to_owned(),
            sealed_url: SealedBox::from_bytes(b"sealed"),
        },
        received_at: Timestamp::now(),
    }
}

/// Takes answers as told (the last reply first, then all go well), and remembers what was taken.
pub(crate) struct Script {
    replies: Mutex<Vec<PutError>>,
    pub(crate) taken: Mutex<Vec<Vec<u8>>>,
}

#[async_trait::async_trait]
impl Put for Script {
    async fn put(&self, _: &AnswerAddress, body: Vec<u8>) -> Result<(), PutError> {
        match self.replies.lock().unwrap().pop() {
            Some(error) => Err(error),
            None => {
                self.taken.lock().unwrap().push(body);
                Ok(())
            }
        }
    }
}

pub(crate) fn script(replies: Vec<PutError>) -> Arc<Script> {
    Arc::new(Script { replies: Mutex::new(replies), taken: Mutex::default() })
}

pub(crate) fn answerer(put: Arc<dyn Put>, rules: AddressRules) -> Answerer {
    Answerer {
        seed: Arc::new(SealSeed::generate().unwrap()),
        rules,
        ledger: Arc::new(MemoryLedger::default()),
        put,
        in_hand: InHand::default(),
        deadline: Duration::from_secs(600),
        metrics: Metrics::default(),
        shutdown: CancellationToken::new(),
    }
}
