//! The service at work, with real parts on both sides.

#![cfg(test)]

mod common;

use common::{Registry, WITHIN, World, until};
use contracts::{CallbackToken, ConnectionId, callback::Answer};
use serde_json::json;
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_reaches_the_bus_and_its_outcome_is_answered_once_though_s3_falters() {
    let mut world = World::start().await;
    let mut registry = Registry::start(&world).await;
    let busy = ResponseTemplate::new(503);
    Mock::given(method("PUT")).respond_with(busy).up_to_n_times(2).with_priority(1).mount(&world.bucket).await;
    Mock::given(method("PUT")).respond_with(ResponseTemplate::new(200)).mount(&world.bucket).await;

    let token = CallbackToken::generate();
    world.publish(&world.request(&token, "request-1").to_string()).await;
    let event = registry.next().await;
    assert!(event.data.claims.as_ref().unwrap().token_hash.matches(&token.hash()));
    world.until_empty().await;

    let connection = ConnectionId::new();
    registry.decide(&event.data, Answer::Success { connection: Some(connection) }).await;
    until("two busy answers and a good one", async || world.bucket.received_requests().await.unwrap().len() == 3).await;
    // A duplicate, and another outcome behind it: when that one is answered, the duplicate has been looked at.
    until("the answer is remembered", async || world.ingest.log_text().contains("a stack was answered")).await;
    registry.decide(&event.data, Answer::Success { connection: Some(connection) }).await;
    let mut second = event.data.clone();
    second.key.request_id = "request-2".to_owned();
    registry.decide(&second, Answer::Failed { reason: "x".repeat(10_000) }).await;
    until("the second outcome", async || world.bucket.received_requests().await.unwrap().len() >= 4).await;
    let status = world.ingest.terminate(WITHIN).await.unwrap();
    assert!(status.success(), "{status}");

    let requests = world.bucket.received_requests().await.unwrap();
    let bodies: Vec<serde_json::Value> = requests.iter().map(|request| request.body_json().unwrap()).collect();
    assert_eq!(bodies.len(), 4, "{bodies:?}");
    assert_eq!(bodies[2]["Status"], "SUCCESS");
    assert_eq!(bodies[2]["RequestId"], "request-1");
    assert_eq!(bodies[2]["Data"]["ConnectionId"], connection.to_string());
    assert_eq!(bodies[3]["RequestId"], "request-2");
    assert!(requests[3].body.len() <= 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_21_while_nats_is_down_callbacks_wait_in_the_queue() {
    let mut world = World::start().await;
    world.nats.stop().await.unwrap();
    until("not ready", async || !is_ready(&world).await).await;
    let token = CallbackToken::generate();
    world.publish(&world.request(&token, "request-1").to_string()).await;
    assert_eq!(world.left().await, 1);
    world.nats.restart().await.unwrap();
    let mut registry = Registry::start(&world).await;
    assert_eq!(registry.next().await.data.key.request_id, "request-1");
    world.until_empty().await;
    until("ready", async || is_ready(&world).await).await;
}

async fn is_ready(world: &World) -> bool {
    let url = format!("http://{}/readyz", world.ingest.http_address());
    reqwest::get(url).await.is_ok_and(|reply| reply.status().is_success())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_and_16_junk_becomes_dead_letters_without_secrets_and_the_service_lives() {
    let mut world = World::start().await;
    let mut registry = Registry::start(&world).await;
    let token = CallbackToken::generate();
    let mut unsafe_address = world.request(&token, "unsafe");
    unsafe_address["ResponseURL"] = json!("https://169.254.169.254/canary-url");
    let mut wrong_form = world.request(&token, "wrong-form");
    wrong_form["ResourceProperties"]["RoleArn"] = json!(["no", "arn"]);
    let mut bad_stack = world.request(&token, "bad-stack");
    bad_stack["StackId"] = json!(7);

    Mock::given(method("PUT"))
        .and(path("/answers/wrong-form"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&world.bucket)
        .await;
    world.publish(&wrong_form.to_string()).await;
    world.publish("garbage").await;
    world.publish(&"[".repeat(10_000)).await;
    world.publish(&unsafe_address.to_string()).await;
    world.publish(&bad_stack.to_string()).await;
    world.put(world.request(&token, "past-sns").to_string()).await;
    world.put("x".repeat(1024 * 1024)).await;
    let letters = world.dead_letters(6).await.join("\n");
    for reason in ["not a JSON object", "16 deep", "IP address", "StackId", "no SNS envelope", "longer than any"] {
        assert!(letters.contains(reason), "{reason} is not in {letters}");
    }

    // And still it works.
    Mock::given(method("PUT")).respond_with(ResponseTemplate::new(403)).mount(&world.bucket).await;
    world.publish(&world.request(&token, "good").to_string()).await;
    let event = registry.next().await;
    assert_eq!(event.data.key.request_id, "good");
    registry.decide(&event.data, Answer::Failed { reason: "no".to_owned() }).await;
    let letters = world.dead_letters(7).await.join("\n");
    assert!(letters.contains("HTTP status 403"), "{letters}");
    world.until_empty().await;
    let answers = world.bucket.received_requests().await.unwrap();
    assert_eq!(answers.len(), 2, "one for the wrong form, one that S3 refused and that was not tried again");
    assert!(String::from_utf8_lossy(&answers[0].body).contains("RoleArn"));

    let on_the_bus = serde_json::to_string(&event).unwrap();
    world.ingest.terminate(WITHIN).await.unwrap();
    let log = world.ingest.log_text();
    assert!(log.contains("a callback was published"), "the log is not the service's: {log}");
    for secret in [token.expose(), "canary-url"] {
        for (place, text) in [("the log", &log), ("a dead letter", &letters), ("the stream", &on_the_bus)] {
            assert!(!text.contains(secret), "a secret is in {place}");
        }
    }
}
