//! Attacks on the API, on the offers, and by customers' files; and services that are away around a callback: the whole system.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::process::Command;

use common::{Launched, PATIENCE, PREFIX, World, looks::messages, sqs, until};
use contracts::{
    CloudEvent, Stream,
    connection::ConnectionState,
    costs::{CostsFailed, ExportLocation},
    enrollment::{EnrollmentOffer, ListEnrollments},
};
use sandbox::{NatsUser, Service, Toolbox};
use serde_json::{Value, json};

/// A cost export that AWS itself wrote (see the licences beside it).
const NOVEMBER: &[u8] = include_bytes!("../../deploy/sandbox/data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet");

/// Sends JSON as it is, and gives the code of the error in the reply, if it is one.
async fn ask(world: &World, subject: String, request: &Value) -> Option<String> {
    let client = world.system.nats.connect(NatsUser::Operator).await.expect("the operator connects");
    let reply = client.request(subject, request.to_string().into()).await.expect("a reply");
    reply.headers.and_then(|headers| headers.get("Rolebridge-Error").map(ToString::to_string))
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_02_no_request_may_bring_an_external_id() {
    let mut world = World::start().await;
    let tenant = world.tenant("Acme").await.tenant;
    let create = format!("rolebridge.rpc.v1.enrollments.create.{tenant}");
    let list = async || {
        let subject = ListEnrollments::subject(tenant);
        let page = world
            .bus
            .request::<ListEnrollments>(subject, &serde_json::from_value(json!({})).expect("a request"), PATIENCE)
            .await;
        page.expect("a list").items.len()
    };
    for field in ["external_id", "externalId", "ExternalId", "previous_external_id", "callback_token"] {
        let refused =
            ask(&world, create.clone(), &json!({"kind": "account", field: "6f9619ff-8b86-4011-b42d-00c04fc964ff"}))
                .await;
        assert_eq!(refused.as_deref(), Some("invalid-request"), "{field}");
        let refused =
            ask(&world, "rolebridge.rpc.v1.tenants.create".to_owned(), &json!({"name": "Mallory", field: "chosen"}))
                .await;
        assert_eq!(refused.as_deref(), Some("invalid-request"), "{field}");
    }
    assert_eq!(list().await, 0, "nothing was offered");
    // The same request without the field is good, so that it was the field.
    assert_eq!(ask(&world, create, &json!({"kind": "account"})).await, None);
    assert_eq!(list().await, 1);
    world.customer().await;
}

/// Each service is away while a customer's stack calls back, and comes back: nothing is lost, nothing is answered twice.
#[tokio::test(flavor = "multi_thread")]
async fn attack_21_each_service_may_be_away_around_a_callback() {
    let mut world = World::start().await;
    for service in [Service::CallbackIngest, Service::TenantRegistry, Service::RoleChainBroker] {
        let tenant = world.tenant("Acme").await.tenant;
        let offer = world.offer(tenant, None).await;
        let account = world.customer().await;
        world.kill(service);
        let launched = world.launch(&account, offer).await;
        let arrived = until(PATIENCE, async || waits_for(&world, service).await).await;
        assert!(arrived, "the callback waits for {}\n{}", service.name(), world.complaints());
        assert_eq!(account.stack(&launched.stack).await.expect("asked").expect("a stack").status, "CREATE_IN_PROGRESS");
        world.start_again(service).await;
        world.completed(&launched).await;
        let connection = world.only_connection(tenant).await;
        assert_eq!(connection.state, ConnectionState::Verified);
        world.quiet().await;
        assert_eq!(world.verified_events(tenant, connection.connection).await, 1);
    }
    assert_eq!(world.held(Stream::DeadLetters.name()).await, 0, "{}", world.complaints());
    assert_eq!(sqs::given_up(&world.system).await, 0);
}

/// Whether what only `service` can take lies where it takes it from.
async fn waits_for(world: &World, service: Service) -> bool {
    let pending = async |stream: &str, durable: &str| {
        let stream = world.bus.jetstream().get_stream(stream).await.expect("the stream");
        let info = stream.consumer_info(durable).await.expect("the consumer");
        info.num_pending + u64::try_from(info.num_ack_pending).expect("a count") > 0
    };
    match service {
        Service::CallbackIngest => sqs::waiting(&world.system).await > 0,
        Service::TenantRegistry => pending("ROLEBRIDGE_CALLBACKS", "tenant-registry-callbacks").await,
        Service::RoleChainBroker => pending("ROLEBRIDGE_JOBS", "role-chain-broker-jobs").await,
        Service::CostIngestion => false,
    }
}

/// Objects of a bucket, by key.
type Files = Vec<(&'static str, Vec<u8>)>;

/// Connects a customer whose export holds these files.
async fn with_files(world: &mut World, files: &[(&str, Vec<u8>)]) -> Launched {
    let tenant = world.tenant("Acme").await.tenant;
    let account = world.customer().await;
    let bucket = format!("costs-of-{}", account.id());
    account.create_bucket(&bucket).await.expect("a bucket");
    for (key, bytes) in files {
        account.put_object(&bucket, key, bytes.clone()).await.expect("an object");
    }
    let export = ExportLocation { bucket, prefix: PREFIX.to_owned() };
    let offer: EnrollmentOffer = world.offer(tenant, Some(export)).await;
    let launched = world.launch(&account, offer).await;
    world.completed(&launched).await;
    launched
}

/// The manifest of a report in the bucket of `owner`, of the account `account`.
fn manifest(owner: &str, account: &str, keys: &[&str]) -> Vec<u8> {
    json!({"assemblyId": "a1", "account": account, "bucket": format!("costs-of-{owner}"), "compression": "Parquet", "contentType": "Parquet",
        "billingPeriod": {"start": "20181101T000000.000Z", "end": "20181201T000000.000Z"}, "reportName": "daily", "reportKeys": keys})
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_hostile_exports_in_customers_buckets_are_refused_whole_with_the_reason() {
    const MANIFEST: &str = "cur/daily/20181101-20181201/daily-Manifest.json";
    let mut world = World::start().await;
    let own = |customer: u64| format!("2{customer:011}");
    let good = "cur/daily/a.snappy.parquet";
    let cases: [(Files, &str); 5] = [
        (vec![("cur/a.snappy.parquet", NOVEMBER[..NOVEMBER.len() / 2].to_vec())], "is not a complete Parquet file"),
        (
            vec![
                (good, NOVEMBER.to_vec()),
                ("other/a.parquet", NOVEMBER.to_vec()),
                (MANIFEST, manifest(&own(2), &own(2), &["cur/../other/a.parquet"])),
            ],
            "leaves the export's prefix",
        ),
        (
            vec![(good, NOVEMBER.to_vec()), (MANIFEST, manifest(&own(3), "836060457635", &[good]))],
            "account is not the connection's",
        ),
        (
            vec![
                (good, NOVEMBER.to_vec()),
                (MANIFEST, manifest(&own(4), &own(4), &[good, "cur/daily/missing.parquet"])),
            ],
            "not in the bucket",
        ),
        (vec![(MANIFEST, vec![b'['; 5 << 20])], "more than the limit"),
    ];
    for (files, why) in &cases {
        let launched = with_files(&mut world, files).await;
        let subject = format!("rolebridge.events.v1.costs.failed.{}.*", launched.tenant);
        let told = until(PATIENCE, async || world.held_on(Stream::CostsEvents, &subject).await > 0).await;
        assert!(told, "the failure is told: {why}\n{}", world.complaints());
        let message = messages(&world, Stream::CostsEvents).await.pop().expect("a message");
        let event = CloudEvent::<CostsFailed>::decode(&message.payload).expect("the event").data;
        assert_eq!(event.tenant, launched.tenant);
        assert!(event.reason.contains(why), "{why}: {}", event.reason);
        let costs = world.operator.costs(launched.tenant).await.expect("costs");
        assert_eq!((costs.rows, costs.periods.len()), (0, 0), "{why}: nothing half-written");
    }
    assert_eq!(world.held(Stream::DeadLetters.name()).await, 0, "an export at fault is no error of ours");
}

/// The offer's time is over: the clock is not waited for, the offer is made older where it is stored.
#[tokio::test(flavor = "multi_thread")]
async fn attack_34_an_expired_offer_fails_the_stack_with_the_reason() {
    const AGE: &str = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=30); \
        n = db.execute('UPDATE enrollments SET expires_at = created_at').rowcount; db.commit(); print(n)";
    let mut world = World::start().await;
    let tenant = world.tenant("Acme").await.tenant;
    let (expired, account) = (world.offer(tenant, None).await, world.customer().await);
    let database = world.system.folder().join("registry.db");
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|_| ())).await.expect("joins").expect("tools");
    let aged = Command::new(tools.python()).args(["-c", AGE]).arg(database).output().expect("Python starts");
    assert_eq!(String::from_utf8_lossy(&aged.stdout).trim(), "1", "{}", String::from_utf8_lossy(&aged.stderr));
    let fresh = world.offer(tenant, None).await;

    let failure = {
        let launched = world.launch(&account, expired).await;
        let end = world.ended(&launched).await;
        assert_eq!(end.status, "ROLLBACK_COMPLETE");
        end.failure.expect("a reason")
    };
    assert!(failure.reason.contains("The offer has expired. Ask the provider for a new one"), "{}", failure.reason);
    assert!(world.operator.connections(tenant).await.expect("a list").is_empty());
    let account = world.customer().await;
    let launched = world.launch(&account, fresh).await;
    world.completed(&launched).await;
}
