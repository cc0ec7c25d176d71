//! Rows of the permission matrix of deploy/nats, held against a real server: what a user may do works, what it may not is refused.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod watched;

use std::collections::BTreeSet;

use async_nats::jetstream;
use futures::StreamExt as _;
use permissions::User;
use sandbox::NatsUser;
use watched::{SECOND, Watched, server};

/// A subject that the pattern stands for.
fn example(pattern: &str) -> String {
    pattern.replace(['*', '>'], "x")
}

/// Every line of the matrix, tried by every user: it works for those who have it, and is refused to all others.
#[tokio::test]
async fn every_line_of_the_matrix_is_allowed_to_its_users_and_denied_to_all_others() {
    let server = server().await;
    let users = permissions::matrix::users();
    let all = |lines: fn(&User) -> Vec<String>| -> BTreeSet<String> { users.iter().flat_map(lines).collect() };
    let publish: Vec<String> = all(User::publish).iter().chain(&all(User::deny)).map(|line| example(line)).collect();
    let subscribe: Vec<String> = all(User::subscribe).into_iter().collect();
    assert!(publish.len() > 150 && subscribe.len() > 30, "{} and {}", publish.len(), subscribe.len());
    for user in &users {
        let mut client = Watched::connect(&server, &user.name).await;
        let expected: BTreeSet<&str> =
            publish.iter().map(String::as_str).filter(|subject| !user.may_publish(subject)).collect();
        let refused = client.refused_publishes(&publish).await;
        assert_eq!(refused.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{} publishes", user.name);
        let expected: BTreeSet<&str> =
            subscribe.iter().map(String::as_str).filter(|subject| !user.may_subscribe(subject)).collect();
        let refused = client.refused_subscriptions(&subscribe).await;
        assert_eq!(refused.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{} subscribes", user.name);
        assert!(!expected.is_empty() && user.publish().iter().all(|line| user.may_publish(&example(line))));
    }
}

#[tokio::test]
async fn each_user_publishes_only_what_is_its_own() {
    let server = server().await;
    let rows: [(NatsUser, &[&str], &[&str]); 7] = [
        (
            NatsUser::TenantRegistry,
            &[
                "rolebridge.internal.v1.jobs.verify.t.c",
                "rolebridge.internal.v1.grants.t.c",
                "rolebridge.internal.v1.callbacks.outcome",
                "rolebridge.events.v1.connection.verified.t.c",
                "rolebridge.internal.v1.dead-letters.tenant-registry",
            ],
            &[
                "rolebridge.internal.v1.callbacks.received",
                "rolebridge.internal.v1.reports.verification.t.c",
                "rolebridge.events.v1.principal.ready.t",
                "rolebridge.rpc.v1.credentials.issue.cost-read.t.c",
                "rolebridge.internal.v1.dead-letters.callback-ingest",
                "$KV.rolebridge-principals.t",
                "$JS.API.STREAM.DELETE.ROLEBRIDGE_JOBS",
            ],
        ),
        (
            NatsUser::CallbackIngest,
            &["rolebridge.internal.v1.callbacks.received", "$KV.rolebridge-answers.x"],
            &[
                "rolebridge.internal.v1.callbacks.outcome",
                "rolebridge.internal.v1.grants.t.c",
                "rolebridge.internal.v1.jobs.verify.t.c",
                "rolebridge.events.v1.connection.verified.t.c",
                "rolebridge.rpc.v1.tenants.create",
                "$KV.rolebridge-principals.t",
            ],
        ),
        (
            NatsUser::RoleChainBroker,
            &[
                "rolebridge.internal.v1.reports.verification.t.c",
                "rolebridge.events.v1.principal.ready.t",
                "$KV.rolebridge-principals.t",
            ],
            &[
                "rolebridge.internal.v1.grants.t.c",
                "rolebridge.events.v1.connection.verified.t.c",
                "rolebridge.internal.v1.callbacks.outcome",
                "$KV.rolebridge-answers.x",
                "$JS.API.STREAM.MSG.GET.ROLEBRIDGE_CALLBACKS",
                "$JS.API.CONSUMER.CREATE.ROLEBRIDGE_JOBS.cost-ingestion-jobs",
                "$JS.API.CONSUMER.MSG.NEXT.ROLEBRIDGE_JOBS.cost-ingestion-jobs",
                "$JS.ACK.ROLEBRIDGE_JOBS.cost-ingestion-jobs.1.1.1.1.0",
            ],
        ),
        (
            NatsUser::CostIngestion,
            &[
                "rolebridge.events.v1.costs.ingested.t.c",
                "rolebridge.internal.v1.jobs.cost.discover.t.c",
                "rolebridge.internal.v1.jobs.cost.period.t.c",
                "rolebridge.rpc.v1.credentials.issue.cost-read.t.c",
            ],
            &[
                "rolebridge.internal.v1.jobs.verify.t.c",
                "rolebridge.rpc.v1.credentials.issue.admin.t.c",
                "rolebridge.rpc.v1.tenants.create",
                "$JS.API.CONSUMER.CREATE.KV_rolebridge-principals.x",
                "$JS.API.CONSUMER.CREATE.ROLEBRIDGE_GRANTS.x",
            ],
        ),
        (
            NatsUser::Operator,
            &[
                "rolebridge.rpc.v1.tenants.create",
                "rolebridge.rpc.v1.costs.query.t",
                "$SRV.PING",
                "$JS.API.STREAM.LIST",
            ],
            &[
                "rolebridge.internal.v1.grants.t.c",
                "$KV.rolebridge-principals.t",
                "$JS.API.CONSUMER.CREATE.ROLEBRIDGE_CALLBACKS.x",
                "$JS.API.STREAM.DELETE.ROLEBRIDGE_DEAD_LETTERS",
                "$JS.API.STREAM.MSG.GET.KV_rolebridge-principals",
            ],
        ),
        (
            NatsUser::Job,
            &["rolebridge.rpc.v1.credentials.issue.cost-read.t.c"],
            &[
                "rolebridge.rpc.v1.credentials.issue.inventory-read.t.c",
                "rolebridge.rpc.v1.connections.list.t",
                "rolebridge.events.v1.costs.ingested.t.c",
                "$JS.API.STREAM.INFO.ROLEBRIDGE_EVENTS_COSTS",
            ],
        ),
        (
            NatsUser::Events,
            &["$JS.API.STREAM.INFO.ROLEBRIDGE_EVENTS_CONNECTION"],
            &[
                "rolebridge.events.v1.connection.verified.t.c",
                "rolebridge.rpc.v1.connections.list.t",
                "$JS.API.STREAM.INFO.ROLEBRIDGE_CALLBACKS",
                "$JS.API.CONSUMER.CREATE.ROLEBRIDGE_CALLBACKS.x",
            ],
        ),
    ];
    for (user, allowed, denied) in rows {
        let mut client = Watched::connect(&server, user.name()).await;
        for subject in allowed {
            client.may_publish(subject).await;
        }
        for subject in denied {
            client.may_not_publish(subject).await;
        }
    }
}

#[tokio::test]
async fn each_user_hears_its_own_inbox_and_what_it_serves() {
    let server = server().await;
    for user in NatsUser::ALL {
        let mut client = Watched::connect(&server, user.name()).await;
        client.may_subscribe(&format!("{}.x.*", user.inbox_prefix())).await;
        for subject in [
            "_INBOX.>",
            ">",
            "rolebridge.>",
            "rolebridge.internal.v1.callbacks.received",
            "rolebridge.internal.v1.grants.>",
            "$JS.>",
        ] {
            client.may_not_subscribe(subject).await;
        }
        for other in NatsUser::ALL {
            if other != user {
                client.may_not_subscribe(&format!("{}.>", other.inbox_prefix())).await;
            }
        }
        let serves = |subject: &str| match user {
            NatsUser::TenantRegistry => {
                ["tenants", "enrollments", "connections", "audit"].iter().any(|name| subject.contains(name))
            }
            NatsUser::RoleChainBroker => subject.contains("credentials"),
            NatsUser::CostIngestion => subject.contains("costs"),
            _ => false,
        };
        for subject in [
            "rolebridge.rpc.v1.tenants.create",
            "rolebridge.rpc.v1.enrollments.get.*.*",
            "rolebridge.rpc.v1.connections.list.*",
            "rolebridge.rpc.v1.audit.list.*",
            "rolebridge.rpc.v1.credentials.issue.*.*.*",
            "rolebridge.rpc.v1.costs.query.*",
        ] {
            if serves(subject) {
                client.may_subscribe(subject).await;
            } else {
                client.may_not_subscribe(subject).await;
            }
        }
    }
}

/// The matrix and the contracts are two texts of one truth: each message has one service that may publish it, each endpoint one that may serve it.
#[tokio::test]
async fn the_matrix_agrees_with_the_contracts() {
    let server = server().await;
    let services =
        [NatsUser::TenantRegistry, NatsUser::CallbackIngest, NatsUser::RoleChainBroker, NatsUser::CostIngestion];
    for user in services {
        let mut client = Watched::connect(&server, user.name()).await;
        for message in contracts::catalog::messages() {
            let allowed = client.publish(&message.subject.replace('*', "x")).await.is_none();
            assert_eq!(allowed, message.producer == user.name(), "{} publishes {}", user.name(), message.subject);
        }
        for endpoint in contracts::catalog::endpoints() {
            let allowed = client.subscribe(endpoint.subject).await.is_none();
            assert_eq!(allowed, endpoint.service == user.name(), "{} serves {}", user.name(), endpoint.subject);
        }
    }
    let mut events = Watched::connect(&server, "events").await;
    for stream in contracts::Stream::ALL {
        let reads = events.publish(&format!("$JS.API.CONSUMER.CREATE.{}.x", stream.name())).await.is_none();
        assert_eq!(reads, stream.name().contains("_EVENTS_"), "a reader of events reads {}", stream.name());
    }
}

#[tokio::test]
async fn a_job_asks_and_only_the_broker_answers() {
    let server = server().await;
    let broker = server.connect(NatsUser::RoleChainBroker).await.expect("connects");
    let mut requests =
        broker.queue_subscribe("rolebridge.rpc.v1.credentials.issue.*.*.*", "broker".into()).await.expect("subscribes");
    // Its own message comes back after the server has taken the subscription.
    let itself = broker.new_inbox();
    let mut back = broker.subscribe(itself.clone()).await.expect("subscribes");
    broker.publish(itself, "".into()).await.expect("sent");
    back.next().await.expect("the message to itself");
    let replies = broker.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let reply = request.reply.expect("a request");
            replies.publish(reply, "sealed".into()).await.expect("replies");
        }
    });
    let job = server.connect(NatsUser::Job).await.expect("connects");
    let subject = "rolebridge.rpc.v1.credentials.issue.cost-read.t.c";
    let answer = tokio::time::timeout(10 * SECOND, async {
        loop {
            // The broker's subscription may reach the server after the first request.
            if let Ok(answer) = job.request(subject, "".into()).await {
                return answer;
            }
        }
    });
    assert_eq!(answer.await.expect("in time").payload, "sealed");
}

#[tokio::test]
async fn streams_consumers_and_buckets_work_within_the_permissions() {
    let server = server().await;
    let registry = jetstream::new(server.connect(NatsUser::TenantRegistry).await.expect("connects"));
    let broker = jetstream::new(server.connect(NatsUser::RoleChainBroker).await.expect("connects"));
    registry
        .create_or_update_stream(jetstream::stream::Config {
            name: "ROLEBRIDGE_JOBS".to_owned(),
            subjects: vec!["rolebridge.internal.v1.jobs.>".to_owned()],
            retention: jetstream::stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        })
        .await
        .expect("the registry keeps the jobs");
    registry
        .publish("rolebridge.internal.v1.jobs.verify.t.c", "job".into())
        .await
        .expect("sent")
        .await
        .expect("stored");

    let jobs = broker.get_stream("ROLEBRIDGE_JOBS").await.expect("the broker finds the jobs");
    let config = jetstream::consumer::pull::Config {
        durable_name: Some("role-chain-broker-jobs".to_owned()),
        filter_subject: "rolebridge.internal.v1.jobs.verify.>".to_owned(),
        ..Default::default()
    };
    let consumer = jobs.create_consumer(config).await.expect("the broker makes its consumer");
    let job = consumer.messages().await.expect("pulls").next().await.expect("one").expect("a job");
    assert_eq!(job.payload, "job");
    job.ack_with(jetstream::AckKind::Progress).await.expect("in progress");
    job.double_ack().await.expect("acknowledged");

    let bucket = broker
        .create_key_value(jetstream::kv::Config {
            bucket: "rolebridge-principals".to_owned(),
            history: 2,
            ..Default::default()
        })
        .await
        .expect("the broker keeps its bucket");
    let revision = bucket.create("tenant", "1".into()).await.expect("created");
    bucket.update("tenant", "2".into(), revision).await.expect("compare and set");
    assert_eq!(bucket.get("tenant").await.expect("read").expect("there"), "2");
    let keys: Vec<_> =
        bucket.keys().await.unwrap_or_else(|error| panic!("keys: {error}; {}", server.log_text())).collect().await;
    assert_eq!(keys.len(), 1);
    bucket.purge("tenant").await.expect("purged");
}
