//! The emulator behaves as the rest of the tests assume, and the templates work in it: canaries for its quirks included.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use aws_credential_types::Credentials;
use sandbox::{
    Account, AwsEmulator, CUSTOMER_TEMPLATE, PROVIDER_TEMPLATE, Provider, StackRequest, StackState, Toolbox,
};
use serde_json::{Value, json};

const PROVIDER: &str = "111111111111";
const CUSTOMER: &str = "222222222222";
const REGION: &str = "eu-central-1";
const MINUTE: Duration = Duration::from_secs(60);

async fn emulator() -> AwsEmulator {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|line| eprintln!("{line}")))
        .await
        .expect("joins")
        .expect("tools");
    AwsEmulator::start(&tools).await.expect("the emulator starts")
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// One call of SQS as the provider's root, whose signature is not checked. By hand: the SDK for SQS belongs to callback-ingest alone.
async fn sqs(emulator: &AwsEmulator, action: &str, body: Value) -> Value {
    let scope = format!("{PROVIDER}/20260101/{REGION}/sqs/aws4_request");
    let response = http()
        .post(emulator.endpoint())
        .header(
            "Authorization",
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked"),
        )
        .header("X-Amz-Date", "20260101T000000Z")
        .header("X-Amz-Target", format!("AmazonSQS.{action}"))
        .header("Content-Type", "application/x-amz-json-1.0")
        .body(body.to_string())
        .send()
        .await
        .expect("SQS answers");
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

/// The next callback: the SNS envelope, and the CloudFormation request in it.
async fn next_callback(emulator: &AwsEmulator, provider: &Provider) -> (Value, Value) {
    let start = std::time::Instant::now();
    while start.elapsed() < MINUTE {
        let answer =
            sqs(emulator, "ReceiveMessage", json!({"QueueUrl": provider.queue_url, "WaitTimeSeconds": 5})).await;
        let Some(message) = answer["Messages"].get(0) else { continue };
        let receipt = json!({"QueueUrl": provider.queue_url, "ReceiptHandle": message["ReceiptHandle"]});
        sqs(emulator, "DeleteMessage", receipt).await;
        let envelope: Value = serde_json::from_str(message["Body"].as_str().expect("text")).expect("an envelope");
        let request = serde_json::from_str(envelope["Message"].as_str().expect("text")).expect("a request");
        return (envelope, request);
    }
    panic!("no callback came; the emulator says:\n{}", emulator.log_text());
}

async fn answer(request: &Value, status: &str, reason: &str) {
    let body = json!({
        "Status": status, "Reason": reason, "PhysicalResourceId": "connection-1", "StackId": request["StackId"],
        "RequestId": request["RequestId"], "LogicalResourceId": request["LogicalResourceId"],
    });
    let url = request["ResponseURL"].as_str().expect("an address");
    let response = http().put(url).body(body.to_string()).send().await.expect("answered");
    assert!(response.status().is_success());
}

fn customer_stack(provider: &Provider) -> StackRequest {
    StackRequest::new("rolebridge", CUSTOMER_TEMPLATE)
        .parameter("ExternalId", "external-id-0123456789")
        .parameter("CallbackToken", "token-0123456789abcdef")
        .parameter("CallbackTopicArn", &provider.topic_arn)
        .parameter("PrincipalRoleArn", format!("arn:aws:iam::{PROVIDER}:role/rolebridge/tenant"))
        .parameter("CostBucket", "acme-costs")
        .parameter("CostPrefix", "exports/cur")
}

async fn provider_and_customer(emulator: &AwsEmulator) -> (Provider, Account) {
    let provider = Provider::deploy(emulator, PROVIDER, REGION).await.expect("the provider's template");
    let customer = emulator.account(CUSTOMER, REGION);
    customer.install_callback_bridge(&provider.topic_arn).await.expect("the bridge");
    (provider, customer)
}

#[tokio::test]
async fn iam_is_on() {
    let emulator = emulator().await;
    emulator.assert_iam_is_on().await.expect("IAM is on");
}

#[tokio::test]
async fn accounts_are_apart() {
    let emulator = emulator().await;
    let one = emulator.account(PROVIDER, REGION);
    let other = emulator.account(CUSTOMER, REGION);
    one.create_bucket("one-bucket").await.expect("a bucket");
    one.put_object("one-bucket", "folder/key", b"x".to_vec()).await.expect("an object");
    assert!(other.put_object("one-bucket", "folder/key", b"y".to_vec()).await.is_err(), "a stranger may not write");
    let root = Credentials::new(CUSTOMER, "x", None, None, "test");
    let identity = emulator.caller_identity(REGION, root).await.expect("an identity");
    assert_eq!((identity.account.as_str(), identity.arn.as_str()), (CUSTOMER, "arn:aws:iam::222222222222:root"));
    let unknown = Credentials::new("AKIAIOSFODNN7EXAMPLE", "x", None, None, "test");
    assert!(emulator.caller_identity(REGION, unknown).await.is_err(), "an unknown key is refused");
}

#[tokio::test]
async fn the_provider_has_all_it_needs_and_its_services_no_more() {
    let emulator = emulator().await;
    let provider = Provider::deploy(&emulator, PROVIDER, REGION).await.expect("the provider's template");
    assert_eq!(provider.topic_arn, "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks");
    assert!(provider.queue_url.starts_with(&emulator.endpoint()), "{}", provider.queue_url);
    assert!(provider.wrapping_key_arn.starts_with("arn:aws:kms:"), "{}", provider.wrapping_key_arn);
    for (credentials, user) in
        [(&provider.callback_ingest, "callback-ingest"), (&provider.role_chain_broker, "role-chain-broker")]
    {
        let identity = emulator.caller_identity(REGION, credentials.clone()).await.expect("an identity");
        assert_eq!(identity.arn, format!("arn:aws:iam::{PROVIDER}:user/{user}"));
        let client = aws_sdk_cloudformation::Client::new(&emulator.sdk_config(REGION, credentials.clone()));
        assert!(client.describe_stacks().send().await.is_err(), "{user} has no business with stacks");
    }
}

#[tokio::test]
async fn a_customers_stack_calls_back_and_completes_when_answered() {
    let emulator = emulator().await;
    let (provider, customer) = provider_and_customer(&emulator).await;
    let stack = customer.create_stack(&customer_stack(&provider).tag("made-by", "test")).await.expect("launched");

    let (envelope, request) = next_callback(&emulator, &provider).await;
    assert_eq!(envelope["TopicArn"], provider.topic_arn.as_str());
    assert_eq!(envelope["Type"], "Notification");
    assert_eq!(request["RequestType"], "Create");
    assert_eq!(request["ResourceType"], "Custom::RolebridgeConnection");
    assert!(
        request["ResponseURL"]
            .as_str()
            .expect("text")
            .starts_with(&format!("{}/_ministack/cfn-response/", emulator.endpoint()))
    );
    let properties = &request["ResourceProperties"];
    let suffix = stack.rsplit('/').next().expect("a suffix");
    assert_eq!(properties["RoleArn"], format!("arn:aws:iam::{CUSTOMER}:role/rolebridge/rolebridge-{suffix}"));
    assert_eq!(properties["AccountId"], CUSTOMER);
    assert_eq!(properties["Region"], REGION);
    assert_eq!(properties["Partition"], "aws");
    assert_eq!(properties["ExternalId"], "external-id-0123456789");
    assert_eq!(properties["CallbackToken"], "token-0123456789abcdef");
    assert_eq!((&properties["CostBucket"], &properties["CostPrefix"]), (&json!("acme-costs"), &json!("exports/cur")));
    assert_eq!(customer.stack(&stack).await.expect("a state").expect("there").status, "CREATE_IN_PROGRESS");

    answer(&request, "SUCCESS", "").await;
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "CREATE_COMPLETE");
    assert_eq!(state.outputs["ConnectionId"], "connection-1");
    assert_eq!(state.outputs["RoleArn"], properties["RoleArn"].as_str().expect("text"));

    customer.delete_stack(&stack).await.expect("deleting");
    let (_, request) = next_callback(&emulator, &provider).await;
    assert_eq!((&request["RequestType"], &request["PhysicalResourceId"]), (&json!("Delete"), &json!("connection-1")));
    answer(&request, "SUCCESS", "").await;
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "DELETE_COMPLETE");
}

#[tokio::test]
async fn a_failed_answer_rolls_the_stack_back_with_the_reason() {
    let emulator = emulator().await;
    let (provider, customer) = provider_and_customer(&emulator).await;
    let stack = customer.create_stack(&customer_stack(&provider)).await.expect("launched");
    let (_, request) = next_callback(&emulator, &provider).await;
    answer(&request, "FAILED", "the role can be assumed without the external ID").await;
    // AWS would now send a Delete for the failed custom resource; the emulator does not.
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "ROLLBACK_COMPLETE");
    let failure = state.failure.expect("a reason");
    assert_eq!(failure.logical_id, "Connection");
    assert!(failure.reason.contains("without the external ID"), "{}", failure.reason);
}

#[tokio::test]
async fn a_stack_without_costs_can_be_given_a_bucket_later() {
    let emulator = emulator().await;
    let (provider, customer) = provider_and_customer(&emulator).await;
    let mut plain = customer_stack(&provider);
    plain.parameters.retain(|name, _| !name.starts_with("Cost"));
    let stack = customer.create_stack(&plain).await.expect("launched");
    let (_, request) = next_callback(&emulator, &provider).await;
    assert_eq!(request["ResourceProperties"]["CostBucket"], "");
    answer(&request, "SUCCESS", "").await;
    customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");

    customer.update_stack(&customer_stack(&provider)).await.expect("updating");
    let (_, request) = next_callback(&emulator, &provider).await;
    assert_eq!(request["RequestType"], "Update");
    assert_eq!(request["OldResourceProperties"]["CostBucket"], "");
    assert_eq!(request["ResourceProperties"]["CostBucket"], "acme-costs");
    assert_eq!(request["ResourceProperties"]["RoleArn"], request["OldResourceProperties"]["RoleArn"]);
    answer(&request, "SUCCESS", "").await;
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "UPDATE_COMPLETE");
}

/// provider-region.yaml: a topic in another region feeds the one queue, once provider.yaml names it.
#[tokio::test]
async fn a_topic_of_another_region_feeds_the_queue() {
    const ELSEWHERE: &str = "us-west-2";
    let emulator = emulator().await;
    let provider = Provider::deploy(&emulator, PROVIDER, REGION).await.expect("the provider's template");
    let template = include_str!("../../aws/provider-region.yaml");
    let regional = StackRequest::new("rolebridge-region", template).parameter("CallbackQueueArn", &provider.queue_arn);
    let outputs = emulator.account(PROVIDER, ELSEWHERE).deploy(&regional).await.expect("the regional template").outputs;
    let topic = &outputs["CallbackTopicArn"];
    let widened = StackRequest::new("rolebridge", PROVIDER_TEMPLATE).parameter("ExtraTopicArns", topic);
    provider.account.update_stack(&widened).await.expect("updating");
    let state = provider.account.wait_stack("rolebridge", MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "UPDATE_COMPLETE");

    let customer = emulator.account(CUSTOMER, ELSEWHERE);
    customer.install_callback_bridge(topic).await.expect("the bridge");
    let stack =
        customer.create_stack(&customer_stack(&provider).parameter("CallbackTopicArn", topic)).await.expect("launched");
    let (envelope, request) = next_callback(&emulator, &provider).await;
    assert_eq!(envelope["TopicArn"], topic.as_str());
    assert_eq!(request["StackId"], stack);
    answer(&request, "SUCCESS", "").await;
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "CREATE_COMPLETE");
}

/// Canary: without the bridge a topic is no service token. If this fails, the emulator has learned to publish, and the bridge can go.
#[tokio::test]
async fn without_the_bridge_a_topic_is_no_service_token() {
    let emulator = emulator().await;
    let provider = Provider::deploy(&emulator, PROVIDER, REGION).await.expect("the provider's template");
    let customer = emulator.account(CUSTOMER, REGION);
    let stack = customer.create_stack(&customer_stack(&provider)).await.expect("launched");
    let state = customer.wait_stack(&stack, MINUTE, StackState::is_final).await.expect("ends");
    assert_eq!(state.status, "ROLLBACK_COMPLETE");
    assert!(state.failure.expect("a reason").reason.contains("not found"));
}

/// The topic takes callbacks from principals of any account, and from nobody without one; the queue takes them from the topic alone.
#[tokio::test]
async fn only_authenticated_principals_publish_and_only_the_topic_sends() {
    let emulator = emulator().await;
    let provider = Provider::deploy(&emulator, PROVIDER, REGION).await.expect("the provider's template");
    let publish =
        format!("Action=Publish&Version=2010-03-31&TopicArn={}&Message=x", provider.topic_arn.replace(':', "%3A"));
    let send = format!(
        "Action=SendMessage&Version=2012-11-05&QueueUrl={}&MessageBody=x",
        provider.queue_url.replace(':', "%3A").replace('/', "%2F")
    );
    let call = async |service: &str, body: &str, signed: bool| {
        let mut request = http()
            .post(emulator.endpoint())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body.to_owned());
        if signed {
            let scope = format!("{CUSTOMER}/20260101/{REGION}/{service}/aws4_request");
            request = request
                .header(
                    "Authorization",
                    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked"),
                )
                .header("X-Amz-Date", "20260101T000000Z");
        }
        request.send().await.expect("an answer").status()
    };
    assert!(call("sns", &publish, true).await.is_success(), "a stranger's stack may publish");
    assert!(call("sns", &publish, false).await.is_client_error(), "nobody may not");
    assert!(call("sqs", &send, true).await.is_client_error(), "a stranger may not send to the queue");
}

/// What the launcher mends (`emulator.rs`), and that it is still needed: a role with a path looks at itself, and at nothing else.
#[tokio::test]
async fn a_role_may_look_at_itself_by_its_whole_name() {
    let emulator = emulator().await;
    let account = emulator.account(CUSTOMER, REGION);
    let root = aws_sdk_iam::Client::new(account.sdk_config());
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{CUSTOMER}:root")}, "Action": "sts:AssumeRole"}]});
    for name in ["rolebridge-one", "rolebridge-other"] {
        let create =
            root.create_role().role_name(name).path("/rolebridge/").assume_role_policy_document(trust.to_string());
        create.send().await.expect("a role");
    }
    let arn = |name: &str| format!("arn:aws:iam::{CUSTOMER}:role/rolebridge/{name}");
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"], "Resource": arn("rolebridge-one")},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::acme-costs",
            "Condition": {"StringLike": {"s3:prefix": "cur/*"}}}]});
    let put =
        root.put_role_policy().role_name("rolebridge-one").policy_name("look").policy_document(policy.to_string());
    put.send().await.expect("a policy");

    let sts = aws_sdk_sts::Client::new(account.sdk_config());
    let assumed = sts.assume_role().role_arn(arn("rolebridge-one")).role_session_name("look").send().await;
    let assumed = assumed.expect("a session").credentials.expect("credentials");
    let keys =
        Credentials::new(assumed.access_key_id, assumed.secret_access_key, Some(assumed.session_token), None, "test");
    let itself = aws_sdk_iam::Client::new(&emulator.sdk_config(REGION, keys));
    assert!(itself.get_role().role_name("rolebridge-one").send().await.is_ok(), "its whole ARN is allowed");
    assert!(itself.get_role().role_name("rolebridge-other").send().await.is_err(), "another's is not");

    let list = |prefix: &'static str, role: &'static str| {
        let context =
            aws_sdk_iam::types::ContextEntry::builder().context_key_name("s3:prefix").context_key_values(prefix);
        let context = context.context_key_type(aws_sdk_iam::types::ContextKeyTypeEnum::String).build();
        let simulate = itself.simulate_principal_policy().policy_source_arn(arn(role)).action_names("s3:ListBucket");
        simulate.resource_arns("arn:aws:s3:::acme-costs").context_entries(context).send()
    };
    for (prefix, decision) in [("cur/", "allowed"), ("others/", "implicitDeny")] {
        let simulated = list(prefix, "rolebridge-one").await.expect("it may ask about itself");
        assert_eq!(simulated.evaluation_results()[0].eval_decision().as_str(), decision, "{prefix}");
    }
    assert!(list("cur/", "rolebridge-other").await.is_err(), "and about no other");
}
