//! Attacks by whoever may publish to the topic or write into the queue, on the whole system: nothing connects, nothing changes, nobody is asked
//! who should not be, and good customers are served meanwhile.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, response::Redirect, routing::any};
use common::{
    Launched, PATIENCE, World,
    crafted::{self, Crafted},
    looks::{audit, dead_letters, job},
    metric, sqs, until,
};
use contracts::{
    ConnectionId, Stream,
    connection::{Connection, ConnectionState},
    credentials::Purpose,
};
use sandbox::{Account, Service, SystemOptions};
use serde_json::json;
use tokio::net::TcpListener;

/// A server that nobody should ever speak to, and how often somebody did.
struct Tripwire {
    port: u16,
    touched: Arc<AtomicUsize>,
}

impl Tripwire {
    async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let touched = Arc::new(AtomicUsize::new(0));
        let count = touched.clone();
        // A connection counts, whatever is said on it.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { port, touched }
    }

    /// Nobody came; and had somebody come, it would have been seen.
    async fn untouched(self) {
        assert_eq!(self.touched.load(Ordering::SeqCst), 0, "somebody was asked who should not be");
        drop(tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens"));
        assert!(until(PATIENCE, async || self.touched.load(Ordering::SeqCst) == 1).await, "the wire is not live");
    }
}

/// Every bad address that can lead to `port` of this machine, or elsewhere.
fn bad_addresses(port: u16, emulator: &str) -> Vec<String> {
    let bucket = "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com";
    let emulator = emulator.trim_start_matches("http://");
    vec![
        format!("http://127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("https://localhost:{port}/x"),
        format!("http://2130706433:{port}/x"),
        format!("http://0x7f.1:{port}/x"),
        format!("http://127.1:{port}/x"),
        format!("http://[::ffff:127.0.0.1]:{port}/x"),
        format!("http://0.0.0.0:{port}/x"),
        format!("http://{emulator}@127.0.0.1:{port}/x"),
        format!("http://{emulator}\\@127.0.0.1:{port}/x"),
        format!("https://{bucket}@127.0.0.1:{port}/x"),
        format!("https://{bucket}:443@127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/{bucket}/x"),
        format!("https://127.0.0.1:{port}#{bucket}/x"),
        format!("https://127.0.0.1:{port}?{bucket}/x"),
        format!("//127.0.0.1:{port}/x"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://10.0.0.1/x".to_owned(),
        format!("https://{bucket}.evil.example/x"),
        format!("https://{bucket}:8443/x"),
        format!("http://{bucket}/x"),
        format!("https://user:password@{bucket}/x"),
        "https://cloudformation-custom-resource-response-euwest1.s3.eu-west-1.amazonaws.com/x".to_owned(),
        "file:///etc/passwd".to_owned(),
    ]
}

/// The customer is connected as before, and its credentials work.
async fn untouched(world: &World, customer: &(Launched, Connection)) {
    let now = world.only_connection(customer.0.tenant).await;
    assert_eq!(now, customer.1);
    let client = job(world).await;
    client.issue(customer.0.tenant, now.connection, Purpose::CostRead).await.expect("credentials as before");
}

/// A victim's open offer, and an attacker's account with a role that trusts whom it should, for a forged Create.
async fn forged(world: &mut World) -> (Launched, Crafted, Account) {
    let tenant = world.tenant("Victim").await;
    let principal = tenant.principal_role.expect("a principal").to_string();
    let (offer, own) = (world.offer(tenant.tenant, None).await, world.offer(tenant.tenant, None).await);
    let attacker = world.customer().await;
    let role = crafted::role(&attacker, &offer, &principal).await;
    // The token of another offer of the same tenant: well-formed, real, and not this one's.
    let token = own.callback_token.expose().to_owned();
    let create = Crafted::create(&world.system, &attacker, &offer, &role).property("CallbackToken", token);
    let account = world.customer().await;
    let victim = Launched { tenant: tenant.tenant, offer, account, stack: String::new() };
    (victim, create, attacker)
}

async fn all_answered(world: &World, requests: &[&Crafted]) {
    let done = async || requests.iter().all(|request| !request.answers(&world.system).is_empty());
    assert!(until(PATIENCE, done).await, "each was answered\n{}", world.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_07_a_forged_callback_is_refused_and_the_victims_stack_connects_afterwards() {
    let mut world = World::start().await;
    let (victim, wrong_token, attacker) = forged(&mut world).await;
    let mut no_token = Crafted::create(&world.system, &attacker, &victim.offer, "arn:aws:iam::200000000001:role/x");
    no_token.request["ResourceProperties"].as_object_mut().expect("properties").remove("CallbackToken");
    for forged in [&wrong_token, &no_token] {
        sqs::publish(&world.system, &attacker, &forged.request).await;
    }
    all_answered(&world, &[&wrong_token, &no_token]).await;
    world.quiet().await;
    assert!(world.operator.connections(victim.tenant).await.expect("a list").is_empty());
    let success = r#"rolebridge_ingest_answers_total{result="success""#;
    assert_eq!(metric(&mut world.system, Service::CallbackIngest, success).await, 0.0);
    let probes = metric(&mut world.system, Service::RoleChainBroker, "rolebridge_probes_total").await;
    assert_eq!(probes, 0.0, "no role of the attacker's was probed");

    let launched = world.launch(&victim.account, victim.offer.clone()).await;
    world.completed(&launched).await;
    assert_eq!(world.only_connection(victim.tenant).await.account.as_str(), victim.account.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_08_a_forged_delete_with_the_victims_stack_changes_nothing() {
    let mut world = World::start().await;
    let victim = world.connect("Acme").await;
    let stranger = world.customer().await;
    let role = victim.1.role_arn.to_string();
    let physical = format!("rolebridge-{}", victim.1.connection);
    let stack = victim.0.account.stack(&victim.0.stack).await.expect("it is there").expect("a stack").id;
    let delete = |id: &str| {
        let mut delete = Crafted::delete(&world.system, &stranger, &victim.0.offer, &role, id);
        delete.request["StackId"] = stack.as_str().into();
        delete
    };
    // The victim's stack and our physical ID, with a wrong token; without any; with an ID of another; and with everything right, though the role stands.
    let wrong = delete(&physical).property("CallbackToken", "rbt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let none = delete(&physical).property("CallbackToken", json!(null));
    let other = delete(&format!("rolebridge-{}", ConnectionId::new()));
    let all_right = delete(&physical);
    for forged in [&wrong, &none, &other, &all_right] {
        sqs::publish(&world.system, &stranger, &forged.request).await;
    }
    all_answered(&world, &[&wrong, &none, &other, &all_right]).await;
    // The role lets us in still: that is what a deletion is not.
    let asked = until(PATIENCE, async || {
        metric(
            &mut world.system,
            Service::RoleChainBroker,
            r#"rolebridge_probes_total{outcome="succeeded",probe="right-id""#,
        )
        .await
            >= 2.0
    });
    assert!(asked.await, "the one that bore everything was looked into\n{}", world.complaints());
    let now = world.only_connection(victim.0.tenant).await;
    assert_eq!(now.state, ConnectionState::Verified);
    let client = job(&world).await;
    client.issue(victim.0.tenant, now.connection, Purpose::CostRead).await.expect("credentials as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_10_no_bad_address_is_ever_asked() {
    let mut world = World::start().await;
    let (_, create, attacker) = forged(&mut world).await;
    let tripwire = Tripwire::set().await;
    let addresses = bad_addresses(tripwire.port, &world.system.emulator.endpoint());
    for address in &addresses {
        let mut bad = create.request.clone();
        bad["ResponseURL"] = address.as_str().into();
        sqs::publish(&world.system, &attacker, &bad).await;
    }
    let enough = u64::try_from(addresses.len()).expect("few");
    let buried = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await >= enough).await;
    assert!(buried, "each is a dead letter\n{}", world.complaints());
    world.quiet().await;
    let reasons = dead_letters(&world).await;
    assert_eq!(reasons.len(), addresses.len(), "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("ResponseURL")), "{reasons:?}");
    tripwire.untouched().await;
}

/// The one origin that is allowed redirects; nobody follows.
#[tokio::test(flavor = "multi_thread")]
async fn attack_10_a_redirect_is_not_followed_by_the_whole_system() {
    let mut world = World::start().await;
    let (_, create, attacker) = forged(&mut world).await;
    let tripwire = Tripwire::set().await;
    let target = format!("http://127.0.0.1:{}/latest/meta-data/", tripwire.port);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let redirect = any(async move || {
        count.fetch_add(1, Ordering::SeqCst);
        Redirect::temporary(&target)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(redirect)).await });
    world.restart_with(Service::CallbackIngest, "ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN", &origin).await;
    let create = create.at(&format!("{origin}/answer"));
    sqs::publish(&world.system, &attacker, &create.request).await;
    let known = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await > 0).await;
    assert!(known, "what is redirected is a dead letter\n{}", world.complaints());
    assert!(dead_letters(&world).await[0].contains("redirected"));
    assert!(asked.load(Ordering::SeqCst) >= 1, "the allowed origin was asked");
    tripwire.untouched().await;
}

/// The emulator signs with a word; an ingest that checks signatures takes none of its messages.
#[tokio::test(flavor = "multi_thread")]
async fn attack_12_with_signatures_checked_nothing_unsigned_comes_in() {
    let mut options = SystemOptions::default();
    options.environment.insert("ROLEBRIDGE_SNS_SIGNATURE".to_owned(), "verify".to_owned());
    let mut world = World::with(options).await;
    let tenant = world.tenant("Acme").await;
    let offer = world.offer(tenant.tenant, None).await;
    let account = world.customer().await;
    let role = crafted::role(&account, &offer, &tenant.principal_role.expect("a principal").to_string()).await;
    for _ in 0..5 {
        let create = Crafted::create(&world.system, &account, &offer, &role);
        sqs::publish(&world.system, &account, &create.request).await;
    }
    let buried = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await >= 5).await;
    assert!(buried, "each is a dead letter\n{}", world.complaints());
    world.quiet().await;
    let reasons = dead_letters(&world).await;
    let named = |reason: &String| reason.contains("signature version") || reason.contains("SigningCertURL");
    assert!(reasons.len() == 5 && reasons.iter().all(named), "{reasons:?}");
    assert_eq!(world.stored(Stream::Callbacks.name()).await, 0, "nothing reached the registry");
    assert!(world.operator.connections(tenant.tenant).await.expect("a list").is_empty());
}

/// A valid envelope proves the topic: whoever publishes is believed no more for it.
#[tokio::test(flavor = "multi_thread")]
async fn attack_13_a_hostile_publisher_with_valid_envelopes_gains_nothing() {
    let mut world = World::start().await;
    let customer = world.connect("Acme").await;
    let (victim, wrong_token, attacker) = forged(&mut world).await;
    let tripwire = Tripwire::set().await;
    let role = customer.1.role_arn.to_string();
    let offer = &victim.offer;
    // 8: a Delete of a connection of somebody else's. 15: a role of another account; another account in the body; another partition.
    let physical = format!("rolebridge-{}", customer.1.connection);
    let delete = Crafted::delete(&world.system, &attacker, offer, &role, &physical);
    let foreign_role = Crafted::create(&world.system, &attacker, offer, &role);
    let foreign_account = Crafted::create(&world.system, &attacker, offer, &role).property("AccountId", "299999999999");
    let partition = Crafted::create(&world.system, &attacker, offer, &role).property("Partition", "aws-cn");
    let region = Crafted::create(&world.system, &attacker, offer, &role).property("Region", "eu-west-1");
    // 16: a kind that is none, types that are wrong.
    let mut kind = Crafted::create(&world.system, &attacker, offer, &role);
    kind.request["RequestType"] = "Drop".into();
    let types = Crafted::create(&world.system, &attacker, offer, &role).property("AccountId", json!([{"a": 1}]));
    let answered = [&wrong_token, &delete, &foreign_role, &foreign_account, &partition, &region, &kind, &types];
    // 10: an address of this machine.
    let bad =
        Crafted::create(&world.system, &attacker, offer, &role).at(&format!("http://127.0.0.1:{}/", tripwire.port));
    let success = r#"rolebridge_ingest_answers_total{result="success""#;
    let before = metric(&mut world.system, Service::CallbackIngest, success).await;
    for request in answered.iter().chain([&&bad]) {
        sqs::publish(&world.system, &attacker, &request.request).await;
    }
    all_answered(&world, &answered).await;
    world.quiet().await;
    let after = metric(&mut world.system, Service::CallbackIngest, success).await;
    assert_eq!(after - before, 1.0, "a Delete is always answered SUCCESS, and nothing else");
    assert!(world.operator.connections(victim.tenant).await.expect("a list").is_empty());
    assert_eq!(dead_letters(&world).await.len(), 1, "the one that could not be answered");
    let lines = audit(&world, victim.tenant).await;
    assert!(lines.iter().any(|(_, action)| action == "callback.refused"), "{lines:?}");
    untouched(&world, &customer).await;
    tripwire.untouched().await;
    // The victim's offer is as good as before.
    let launched = world.launch(&victim.account, victim.offer.clone()).await;
    world.completed(&launched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_a_message_that_did_not_come_by_the_topic_is_refused() {
    let mut world = World::start().await;
    let (victim, create, attacker) = forged(&mut world).await;
    let before = sqs::waiting(&world.system).await;
    assert!(!sqs::put_in(&world.system, attacker.id(), &create.request.to_string()).await, "the queue's policy");
    assert_eq!(sqs::waiting(&world.system).await, before);

    // Whoever may write into it all the same: the provider's own administrator.
    let provider = world.system.provider.account.id().to_owned();
    let foreign = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-central-1:299999999999:rolebridge-callbacks",
        "Message": create.request.to_string(), "Timestamp": "2026-11-01T00:00:00.000Z", "SignatureVersion": "2", "Signature": "", "SigningCertURL": ""});
    for body in [create.request.to_string(), "junk".to_owned(), foreign.to_string()] {
        assert!(sqs::put_in(&world.system, &provider, &body).await, "the owner may");
    }
    let buried = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await >= 3).await;
    assert!(buried, "each is a dead letter\n{}", world.complaints());
    let reasons = dead_letters(&world).await;
    let counted = |text: &str| reasons.iter().filter(|reason| reason.contains(text)).count();
    assert_eq!((counted("no SNS envelope"), counted("names a topic")), (2, 1), "{reasons:?}");
    world.quiet().await;
    assert_eq!(world.stored(Stream::Callbacks.name()).await, 0, "nothing reached the registry");
    assert!(world.operator.connections(victim.tenant).await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_16_monstrous_messages_are_dead_letters_and_the_next_customer_connects() {
    let mut world = World::start().await;
    let (_, create, attacker) = forged(&mut world).await;
    let id = world.system.service(Service::CallbackIngest).expect("a service").id();
    let provider = world.system.provider.account.id().to_owned();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut long = create.request.clone();
    long["Padding"] = "x".repeat(200 * 1024).into();
    for message in [deep.as_str(), "{\"a\":", "null", "\u{0}\u{fffd}", &deep.replace('[', "{\"a\":").replace(']', "}")]
    {
        sqs::publish_text(&world.system, &attacker, message).await;
    }
    // Nearly all that SQS takes, and what SNS would not have passed on.
    let straight = ["x".repeat(1_000_000), deep.clone(), format!("{{\"Type\":{deep}}}"), "\u{7f}".repeat(1000)];
    for body in &straight {
        assert!(sqs::put_in(&world.system, &provider, body).await, "the owner may");
    }
    // These can be answered, and are: unknown fields are passed over, 200 KiB of them too.
    sqs::publish(&world.system, &attacker, &long).await;
    all_answered(&world, &[&create]).await;
    let buried = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await >= 9).await;
    assert!(buried, "each is a dead letter\n{}", world.complaints());
    world.connect("Acme").await;
    assert_eq!(world.system.service(Service::CallbackIngest).expect("a service").id(), id, "the same process lives");
    assert_eq!(sqs::given_up(&world.system).await, 0);
}
