//! CloudFormation's request, as it stands in the message of an envelope.

use std::sync::LazyLock;

use callback_ingest::{
    answer::AddressRules,
    request::{Context, MOST_BYTES, Parsed, parse},
};
use contracts::{CallbackToken, SealedBox, Timestamp, TopicArn, callback::ReturnAddress};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use crate::{
    fuzz,
    mutations::{edited, mangled},
    urls,
};

/// One token for all cases: making one costs more than a case.
static TOKEN: LazyLock<String> = LazyLock::new(|| CallbackToken::generate().expose().to_owned());
const FIELDS: [&str; 7] = [
    "RequestType",
    "RequestId",
    "ResponseURL",
    "LogicalResourceId",
    "StackId",
    "PhysicalResourceId",
    "ResourceProperties",
];
const PROPERTIES: [&str; 10] = [
    "ServiceToken",
    "ExternalId",
    "CallbackToken",
    "RoleArn",
    "AccountId",
    "Region",
    "Partition",
    "CostBucket",
    "CostPrefix",
    "TemplateVersion",
];

/// A request as the customer's template sends it, with any address.
pub(crate) fn request() -> BoxedStrategy<Value> {
    let url = prop_oneof![4 => urls::good(), 1 => urls::any_url()];
    (url, select(vec!["Create", "Update", "Delete", "Create ", "create", "Drop", ""])).prop_map(|((region, url), kind)| {
        let stack = urls::stack(region);
        json!({
            "RequestType": kind, "RequestId": "0f8b1c3e-1111-2222-3333-444455556666", "ResponseURL": url,
            "ResourceType": "Custom::RolebridgeConnection", "LogicalResourceId": "Connection", "StackId": stack.as_str(),
            "PhysicalResourceId": "physical-1",
            "ResourceProperties": {
                "ServiceToken": "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks", "ServiceTimeout": "600",
                "ExternalId": "6f9619ff-8b86-4011-b42d-00c04fc964ff", "CallbackToken": TOKEN.as_str(),
                "RoleArn": format!("arn:{}:iam::222222222222:role/rolebridge/rolebridge-0242ac120002", stack.partition()),
                "AccountId": "222222222222", "Region": stack.region().as_str(), "Partition": stack.partition().as_str(),
                "CostBucket": "cost-exports", "CostPrefix": "exports/daily", "TemplateVersion": "1",
            },
        })
    })
    .boxed()
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        "[a-z]{1,3}".prop_map(|part| Value::from(part.repeat(700))),
        select(vec!["\0", "\u{202e}", "\r\nSet: x", "arn:aws:iam::222222222222:role/../x", "${jndi:x}", "' OR 1=1"])
            .prop_map(Value::from),
    ]
}

/// Any JSON, now and then deeper than is allowed.
fn any_json() -> impl Strategy<Value = Value> {
    let nested = leaf().prop_recursive(20, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-zA-Z]{0,8}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let deep = (1..40_usize).prop_map(|depth| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner])));
    prop_oneof![4 => leaf(), 1 => nested, 1 => deep]
}

/// A good request in which one or two fields are replaced or removed.
fn altered() -> impl Strategy<Value = String> {
    let place = prop_oneof![
        select(&FIELDS[..]).prop_map(|field| format!("/{field}")),
        select(&PROPERTIES[..]).prop_map(|field| format!("/ResourceProperties/{field}")),
    ];
    let changes = prop::collection::vec((place, prop::option::of(any_json())), 1..3);
    (request(), changes).prop_map(|(mut request, changes)| {
        for (place, value) in changes {
            let (parent, field) = place.rsplit_once('/').unwrap_or_default();
            let Some(Value::Object(fields)) = request.pointer_mut(parent) else { continue };
            match value {
                Some(value) => fields.insert(field.to_owned(), value),
                None => fields.remove(field),
            };
        }
        request.to_string()
    })
}

/// One more than the longest, far deeper than the deepest.
fn extreme() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (request(), 0..3_usize).prop_map(|(mut request, over)| {
            request["Padding"] = "x".repeat(MOST_BYTES + over - 1500).into();
            request.to_string().into_bytes()
        }),
        select(vec!["[", "{\"a\":", "[{\"a\":", "[[],"]).prop_map(|open| open.repeat(10_000).into_bytes()),
    ]
}

pub(crate) fn any_bytes() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        2000 => request().prop_map(|request| request.to_string().into_bytes()),
        4000 => altered().prop_map(String::into_bytes),
        2000 => edited(request().prop_map(|request| request.to_string()), 3).prop_map(String::into_bytes),
        2000 => mangled(request().prop_map(|request| request.to_string())),
        500 => any_json().prop_map(|json| json.to_string().into_bytes()),
        500 => prop::collection::vec(any::<u8>(), 0..200),
        2 => extreme(),
    ]
    .boxed()
}

/// The address that would be answered at is one that may be, for the stack that the request names.
fn address_is_safe(bytes: &[u8], to: &ReturnAddress) -> Result<(), TestCaseError> {
    let fields: Value = serde_json::from_slice(bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let url = fields["ResponseURL"].as_str().unwrap_or_default();
    prop_assert_eq!(to.sealed_url.to_bytes().expect("sealed by this test"), url.as_bytes());
    let region = fields["StackId"].as_str().and_then(|stack| stack.split(':').nth(3)).unwrap_or_default().to_owned();
    let known = urls::REGIONS.iter().position(|(_, name, _)| *name == region);
    let known = known.ok_or_else(|| TestCaseError::fail(format!("answered for the region {region:?}")))?;
    urls::goes_to_the_bucket(known, url).map_err(TestCaseError::fail)
}

#[test]
fn attack_16_no_request_panics_or_is_answered_elsewhere() {
    let topic = TopicArn::parse("arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks").expect("a topic");
    let (rules, received_at) = (AddressRules::default(), Timestamp::now());
    // Seals nothing, so that the test can see what would be sealed.
    let seal = |bytes: &[u8]| Some(SealedBox::from_bytes(bytes));
    let expected = ["callback", "refused", "unreadable"];
    fuzz("callback", &any_bytes(), &expected, |bytes, tally| {
        let context = Context { rules: &rules, seal: &seal, topic: &topic, received_at };
        let without_url = |kept: &str| !kept.contains("X-Amz-Signature") && !kept.contains(TOKEN.as_str());
        match parse(&bytes, &context) {
            Ok(Parsed::Callback(received)) => {
                tally.count("callback");
                prop_assert!(bytes.len() <= MOST_BYTES);
                address_is_safe(&bytes, &received.return_address)?;
                let kept = serde_json::to_string(&received).expect("it is a message");
                prop_assert!(without_url(&kept), "a secret is in {}", kept);
            }
            Ok(Parsed::Refused { outcome, reason }) => {
                tally.count("refused");
                address_is_safe(&bytes, &outcome.return_address)?;
                prop_assert!(without_url(&reason), "a secret is in {}", reason);
            }
            Err(why) => {
                tally.count("unreadable");
                prop_assert!(without_url(&why.to_string()));
            }
        }
        Ok(())
    });
}
