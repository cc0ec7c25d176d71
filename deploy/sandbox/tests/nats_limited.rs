//! Users that are limited to some tenants, added to a running server: what they may do works, and the ways around it are refused.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod watched;

use std::collections::BTreeMap;

use async_nats::jetstream::{self, consumer::pull};
use contracts::{ConnectionId, Stream, TenantId, credentials::Purpose};
use futures::StreamExt as _;
use permissions::{UserName, limited};
use sandbox::{NatsServer, NatsUser};
use watched::{SECOND, Watched, server};

fn name(text: &str) -> UserName {
    text.parse().expect("a name")
}

#[tokio::test]
async fn a_job_asks_for_its_tenants_and_purpose_alone() {
    let mut server = server().await;
    let before = server.connect(NatsUser::Operator).await.expect("connects");
    let (one, two, other) = (TenantId::new(), TenantId::new(), TenantId::new());
    let job = name("nightly");
    server
        .add_user("nightly", |key| limited::job(&job, key, &[Purpose::CostRead], &[one, two]))
        .await
        .expect("the server takes the user");
    let mut client = Watched::connect(&server, "nightly").await;
    for tenant in [one, two] {
        client.may_publish(&format!("rolebridge.rpc.v1.credentials.issue.cost-read.{tenant}.c")).await;
    }
    for subject in [
        format!("rolebridge.rpc.v1.credentials.issue.cost-read.{other}.c"),
        format!("rolebridge.rpc.v1.credentials.issue.admin.{one}.c"),
        "rolebridge.rpc.v1.credentials.issue.cost-read.*.c".to_owned(),
        format!("rolebridge.rpc.v1.connections.list.{one}"),
        "$JS.API.INFO".to_owned(),
        "$SRV.PING".to_owned(),
    ] {
        client.may_not_publish(&subject).await;
    }
    client.may_subscribe("_INBOX_nightly.x.*").await;
    for subject in ["_INBOX_job.>", "_INBOX_role-chain-broker.>", "_INBOX.>", ">", "_INBOX_*.>"] {
        client.may_not_subscribe(subject).await;
    }
    // Everybody else is as before, also who was connected.
    before.flush().await.expect("still connected");
    let mut wide = Watched::connect(&server, "job").await;
    wide.may_publish(&format!("rolebridge.rpc.v1.credentials.issue.cost-read.{other}.c")).await;
    wide.may_not_subscribe("_INBOX_nightly.>").await;
}

/// A stream of events with one event of each tenant, and a durable consumer of a service.
async fn events(server: &NatsServer, tenants: &[TenantId]) {
    let registry = jetstream::new(server.connect(NatsUser::TenantRegistry).await.expect("connects"));
    let config = jetstream::stream::Config {
        name: Stream::ConnectionEvents.name().to_owned(),
        subjects: vec![Stream::ConnectionEvents.subjects().to_owned()],
        ..Default::default()
    };
    registry.create_or_update_stream(config).await.expect("the stream");
    for tenant in tenants {
        let subject = format!("rolebridge.events.v1.connection.verified.{tenant}.{}", ConnectionId::new());
        registry.publish(subject, tenant.to_string().into()).await.expect("sent").await.expect("stored");
    }
    let costs = jetstream::new(server.connect(NatsUser::CostIngestion).await.expect("connects"));
    costs
        .create_consumer_on_stream(durable(COSTS, ""), Stream::ConnectionEvents.name())
        .await
        .expect("the service's consumer");
}

const COSTS: &str = "cost-ingestion-connections";
const STREAM: &str = "ROLEBRIDGE_EVENTS_CONNECTION";

fn durable(name: &str, filter: &str) -> pull::Config {
    pull::Config { durable_name: Some(name.to_owned()), filter_subject: filter.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_reader_of_one_tenants_events_sees_no_others() {
    let mut server = server().await;
    let (mine, other) = (TenantId::new(), TenantId::new());
    events(&server, &[other, mine, other]).await;
    let team = name("team-a");
    server
        .add_user("team-a", |key| limited::reader(&team, key, &[Stream::ConnectionEvents], &[mine]).expect("by tenant"))
        .await
        .expect("the server takes the user");

    let context = jetstream::new(server.connect_as("team-a").await.expect("connects"));
    let consumer = limited::consumer(&team, mine);
    let filter = limited::filter(Stream::ConnectionEvents, mine).expect("by tenant");
    let reading = context.create_consumer_on_stream(durable(&consumer, &filter), STREAM).await.expect("its consumer");
    let mut messages = reading.messages().await.expect("reads");
    let event = messages.next().await.expect("one").expect("an event");
    assert_eq!(event.payload, mine.to_string());
    event.double_ack().await.expect("acknowledged");
    assert!(tokio::time::timeout(SECOND / 2, messages.next()).await.is_err(), "and nothing else");

    let mut client = Watched::connect(&server, "team-a").await;
    for subject in [
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}"),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{consumer}"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}.rolebridge.events.v1.connection.>"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}.rolebridge.events.v1.connection.*.*.*"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}.rolebridge.events.v1.connection.*.{other}.*"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.{COSTS}.{filter}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{COSTS}"),
        // The stream's subjects would name all tenants and connections.
        format!("$JS.API.STREAM.INFO.{STREAM}"),
        format!("$JS.API.STREAM.MSG.GET.{STREAM}"),
        format!("$JS.API.DIRECT.GET.{STREAM}"),
        format!("rolebridge.events.v1.connection.verified.{mine}.c"),
    ] {
        client.may_not_publish(&subject).await;
    }
}

/// The subject is allowed; the server holds what the request says to it.
#[tokio::test]
async fn a_reader_cannot_say_another_filter_than_its_subject_has() {
    let mut server = server().await;
    let (mine, other) = (TenantId::new(), TenantId::new());
    events(&server, &[other]).await;
    let team = name("team-a");
    server
        .add_user("team-a", |key| limited::reader(&team, key, &[Stream::ConnectionEvents], &[mine]).expect("by tenant"))
        .await
        .expect("the server takes the user");
    let client = server.connect_as("team-a").await.expect("connects");
    let consumer = limited::consumer(&team, mine);
    let filter = limited::filter(Stream::ConnectionEvents, mine).expect("by tenant");
    let create = |subject_filter: String, config: serde_json::Value| {
        let subject = format!("$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}.{subject_filter}");
        let body = serde_json::json!({ "stream_name": STREAM, "config": config, "action": "" }).to_string();
        let client = client.clone();
        async move {
            let reply = client.request(subject, body.into()).await.expect("a reply");
            serde_json::from_slice::<serde_json::Value>(&reply.payload).expect("JSON")
        }
    };
    let all = "rolebridge.events.v1.connection.>";
    let base = serde_json::json!({ "name": consumer, "durable_name": consumer, "ack_policy": "explicit" });
    let with = |more: serde_json::Value| -> serde_json::Value {
        let both = [&base, &more].into_iter().flat_map(|part| part.as_object().expect("an object").clone());
        serde_json::to_value(both.collect::<BTreeMap<_, _>>()).expect("JSON")
    };
    for config in [
        with(serde_json::json!({ "filter_subject": all })),
        with(serde_json::json!({})),
        with(serde_json::json!({ "filter_subjects": [all] })),
        with(serde_json::json!({ "filter_subject": filter, "filter_subjects": [all] })),
        with(serde_json::json!({ "filter_subject": filter, "name": COSTS, "durable_name": COSTS })),
    ] {
        let reply = create(filter.clone(), config.clone()).await;
        assert!(reply["error"].is_object(), "{config}: {reply}");
    }
    // A wildcard may stand where the permission has one: it goes no further than the tenant.
    let wider = filter.strip_suffix('*').map(|start| format!("{start}>")).expect("a star");
    let reply = create(wider.clone(), with(serde_json::json!({ "filter_subject": wider }))).await;
    let pending = reply["num_pending"].as_u64();
    assert!(reply["error"].is_object() || pending == Some(0), "{reply}");
}

/// A reader by any name may not touch the consumers of services on the same stream: taking their messages would be taking their work.
#[tokio::test]
async fn a_reader_by_any_name_leaves_the_services_consumers_alone() {
    let server = server().await;
    let tenant = TenantId::new();
    events(&server, &[tenant]).await;
    for user in ["events", "operator"] {
        let mut client = Watched::connect(&server, user).await;
        client.may_publish(&format!("$JS.API.CONSUMER.CREATE.{STREAM}.mine")).await;
        for subject in [
            format!("$JS.API.CONSUMER.CREATE.{STREAM}.{COSTS}"),
            format!("$JS.API.CONSUMER.CREATE.{STREAM}.{COSTS}.rolebridge.events.v1.connection.>"),
            format!("$JS.API.CONSUMER.DELETE.{STREAM}.{COSTS}"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{COSTS}"),
            format!("$JS.ACK.{STREAM}.{COSTS}.1.1.1.1.0"),
        ] {
            client.may_not_publish(&subject).await;
        }
        // Without a name in the subject the server would take a service's from the request, and change that consumer.
        client.may_not_publish(&format!("$JS.API.CONSUMER.CREATE.{STREAM}")).await;
        client.may_not_publish(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{COSTS}")).await;
    }
    let costs = jetstream::new(server.connect(NatsUser::CostIngestion).await.expect("connects"));
    let info = costs.create_consumer_on_stream(durable(COSTS, ""), STREAM).await.expect("the service's consumer");
    assert_eq!(info.cached_info().num_pending, 1, "its event is still its own");
}
