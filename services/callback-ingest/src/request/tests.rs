use contracts::CallbackToken;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing;

fn parse_bytes(bytes: &[u8]) -> Result<Parsed, Unreadable> {
    let topic = testing::topic();
    let seal = |bytes: &[u8]| Some(SealedBox::from_bytes(bytes));
    let rules = AddressRules::default();
    parse(bytes, &Context { rules: &rules, seal: &seal, topic: &topic, received_at: Timestamp::now() })
}

fn parse_value(value: &Value) -> Result<Parsed, Unreadable> {
    parse_bytes(value.to_string().as_bytes())
}

fn callback(value: &Value) -> CallbackReceived {
    match parse_value(value) {
        Ok(Parsed::Callback(received)) => *received,
        other => panic!("no callback: {other:?}"),
    }
}

fn refused(value: &Value) -> (CallbackOutcome, String) {
    match parse_value(value) {
        Ok(Parsed::Refused { outcome, reason }) => (*outcome, reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_the_template_sends() {
    let token = CallbackToken::generate();
    let received = callback(&testing::request("Create", &token));
    assert_eq!((received.request_type, received.physical_resource_id.as_deref()), (RequestType::Create, None));
    let claims = received.claims.unwrap();
    assert!(claims.token_hash.matches(&token.hash()));
    assert_eq!(claims.account.as_str(), "222222222222");
    assert_eq!(claims.template_version, Some(1));
    assert_eq!(claims.cost_export.unwrap().prefix, "exports/daily");
    assert_eq!(received.return_address.sealed_url.to_bytes().unwrap(), testing::RESPONSE_URL.as_bytes());
}

#[test]
fn no_cost_export_when_the_bucket_is_empty() {
    let mut request = testing::request("Create", &CallbackToken::generate());
    request["ResourceProperties"]["CostBucket"] = json!("");
    request["ResourceProperties"]["CostPrefix"] = json!("");
    assert_eq!(callback(&request).claims.unwrap().cost_export, None);
}

#[test]
fn a_version_that_is_none_of_ours_is_no_version() {
    for (text, expected) in [("3", Some(3)), ("2-acme", None), ("-1", None), ("4294967296", None)] {
        let mut request = testing::request("Update", &CallbackToken::generate());
        request["ResourceProperties"]["TemplateVersion"] = json!(text);
        assert_eq!(callback(&request).claims.unwrap().template_version, expected, "{text}");
    }
}

#[test]
fn attack_16_unknown_extra_fields_are_passed_over() {
    let mut request = testing::request("Create", &CallbackToken::generate());
    request["Extra"] = json!({ "deep": [1, { "x": null }] });
    request["ResourceProperties"]["Extra"] = json!(7);
    assert!(callback(&request).claims.is_some());
}

#[test]
fn attack_16_unusable_properties_fail_the_stack_with_a_sentence() {
    for (field, value, why) in [
        ("ExternalId", json!("no spaces allowed"), "ExternalId"),
        ("ExternalId", json!(null), "ExternalId"),
        ("CallbackToken", json!("rbt_short"), "CallbackToken"),
        ("CallbackToken", json!({ "a": 1 }), "CallbackToken"),
        ("RoleArn", json!("arn:aws:iam::222222222222:user/x"), "RoleArn"),
        ("AccountId", json!(222_222_222_222_u64), "AccountId"),
        ("Region", json!("mars"), "Region"),
        ("Partition", json!("aws-cn"), "Partition"),
        ("CostBucket", json!("../etc"), "CostBucket"),
        ("CostPrefix", json!(["a"]), "CostPrefix"),
        ("TemplateVersion", json!(""), "TemplateVersion"),
    ] {
        for kind in ["Create", "Update"] {
            let mut request = testing::request(kind, &CallbackToken::generate());
            request["ResourceProperties"][field] = value.clone();
            let (outcome, reason) = refused(&request);
            assert!(reason.contains(why), "{reason}");
            let Answer::Failed { reason } = &outcome.answer else { panic!("answered with success") };
            assert!(reason.contains(why) && reason.contains("Launch the stack again"), "{reason}");
            if kind == "Update" {
                assert_eq!(outcome.physical_resource_id, "physical-1");
            }
        }
        let mut request = testing::request("Delete", &CallbackToken::generate());
        request["ResourceProperties"][field] = value;
        let received = callback(&request);
        assert_eq!((received.claims, received.request_type), (None, RequestType::Delete));
    }
}

#[test]
fn attack_16_an_unknown_request_type_is_answered_the_same_for_duplicates() {
    let request = testing::request("Destroy", &CallbackToken::generate());
    let ((first, reason), (second, _)) = (refused(&request), refused(&request));
    assert!(reason.contains("RequestType"), "{reason}");
    assert_eq!(first.physical_resource_id, second.physical_resource_id);
}

#[test]
fn attack_16_without_a_safe_address_there_is_no_answer() {
    for (field, value) in [
        ("ResponseURL", json!("http://169.254.169.254/")),
        ("ResponseURL", json!(null)),
        ("StackId", json!("arn:aws:cloudformation:nowhere:1:stack/x")),
        ("RequestId", json!("")),
        ("RequestId", json!("x".repeat(129))),
        ("LogicalResourceId", json!("a\u{0}b")),
        ("LogicalResourceId", json!(["a"])),
    ] {
        let mut request = testing::request("Create", &CallbackToken::generate());
        request[field] = value.clone();
        let error = parse_value(&request).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(field), "{field}={value}: {error}");
    }
}

#[test]
fn attack_16_bounds_hold_before_anything_is_parsed() {
    assert!(matches!(parse_bytes(&vec![b' '; 1024 * 1024]), Err(Unreadable::TooLong)));
    assert!(matches!(parse_bytes("[".repeat(10_000).as_bytes()), Err(Unreadable::TooDeep)));
    assert!(matches!(parse_bytes(b"{\"a\":\"\xff\"}"), Err(Unreadable::NotUtf8)));
    assert!(matches!(parse_bytes(b"garbage"), Err(Unreadable::NotJson)));
    assert!(matches!(parse_bytes(b"[1]"), Err(Unreadable::NotJson)));
    assert!(matches!(parse_bytes(b"{}"), Err(Unreadable::Field { field: "StackId" })));
}

#[test]
fn attack_11_nothing_secret_in_what_is_kept_of_a_request() {
    let token = CallbackToken::generate();
    let mut request = testing::request("Create", &token);
    request["ResourceProperties"]["RoleArn"] = json!("not an arn");
    let kept = format!("{:?}", parse_value(&request));
    assert!(!kept.contains(token.expose()) && !kept.contains("X-Amz-Signature"), "{kept}");
    let kept = format!("{:?}", parse_value(&testing::request("Create", &token)));
    assert!(!kept.contains(token.expose()) && !kept.contains("X-Amz-Signature"), "{kept}");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(parse_bytes(&bytes).is_err());
    }

    #[test]
    fn a_request_cut_anywhere_is_survived(at in 0_usize..900) {
        let text = testing::request("Create", &CallbackToken::generate()).to_string();
        let cut = &text.as_bytes()[..at.min(text.len() - 1)];
        prop_assert!(parse_bytes(cut).is_err());
    }
}
