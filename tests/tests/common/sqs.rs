//! SQS and SNS of the emulator, by hand: their SDKs belong to callback-ingest alone. The signature of an account's root is not checked there.

use sandbox::{Account, REGION, System};
use serde_json::{Value, json};

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn authorization(account: &str, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={account}/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=unchecked"
    )
}

async fn send(system: &System, account: &str, action: &str, body: &Value) -> reqwest::Response {
    http()
        .post(system.emulator.endpoint())
        .header("Authorization", authorization(account, "sqs"))
        .header("X-Amz-Date", "20260101T000000Z")
        .header("X-Amz-Target", format!("AmazonSQS.{action}"))
        .header("Content-Type", "application/x-amz-json-1.0")
        .body(body.to_string())
        .send()
        .await
        .expect("SQS answers")
}

async fn call(system: &System, action: &str, body: Value) -> Value {
    let response = send(system, system.provider.account.id(), action, &body).await;
    assert!(response.status().is_success(), "{action}: {}", response.status());
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

/// Callbacks in the queue, in hand or not.
pub(crate) async fn waiting(system: &System) -> u64 {
    counts(system, &system.provider.queue_url).await
}

/// Messages that SQS itself gave up on.
pub(crate) async fn given_up(system: &System) -> u64 {
    counts(system, &system.provider.dead_letter_queue_url).await
}

async fn counts(system: &System, url: &str) -> u64 {
    let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
    let answer = call(system, "GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": names})).await;
    let count =
        |name: &str| answer["Attributes"][name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a count");
    names.into_iter().map(count).sum()
}

/// Puts `body` into the callback queue, past the topic, as the root of `account`; whether SQS took it.
pub(crate) async fn put_in(system: &System, account: &str, body: &str) -> bool {
    let request = json!({"QueueUrl": system.provider.queue_url, "MessageBody": body});
    send(system, account, "SendMessage", &request).await.status().is_success()
}

/// Puts up to ten bodies into the callback queue with one call, as the provider's own root: what a topic does.
pub(crate) async fn put_in_all(system: &System, bodies: &[String]) {
    let entry = |(number, body): (usize, &String)| json!({"Id": number.to_string(), "MessageBody": body});
    let entries: Vec<Value> = bodies.iter().enumerate().map(entry).collect();
    let request = json!({"QueueUrl": system.provider.queue_url, "Entries": entries});
    let answer = call(system, "SendMessageBatch", request).await;
    assert_eq!(answer["Successful"].as_array().map(Vec::len), Some(bodies.len()), "{answer}");
}

/// Publishes a CloudFormation request to the callback topic, as the root of `account`.
pub(crate) async fn publish(system: &System, account: &Account, request: &Value) {
    publish_text(system, account, &request.to_string()).await;
}

/// Publishes any text to the callback topic, as the root of `account`.
pub(crate) async fn publish_text(system: &System, account: &Account, message: &str) {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("Action", "Publish"),
            ("Version", "2010-03-31"),
            ("TopicArn", &system.provider.topic_arn),
            ("Subject", "AWS CloudFormation custom resource request"),
            ("Message", message),
        ])
        .finish();
    let response = http()
        .post(system.emulator.endpoint())
        .header("Authorization", authorization(account.id(), "sns"))
        .header("X-Amz-Date", "20260101T000000Z")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .expect("SNS answers");
    assert!(response.status().is_success(), "{}", response.text().await.unwrap_or_default());
}
