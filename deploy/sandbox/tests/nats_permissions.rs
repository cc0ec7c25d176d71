//! Rows of the permission matrix of deploy/nats, held against a real server: what a user may do works, what it may not is refused.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use async_nats::{Client, Event, jetstream};
use futures::StreamExt as _;
use sandbox::{NatsServer, NatsUser, Toolbox};
use tokio::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);

async fn server() -> NatsServer {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|line| eprintln!("{line}")))
        .await
        .expect("joins")
        .expect("tools");
    NatsServer::start(&tools).await.expect("nats-server starts")
}

/// A client whose refusals by the server can be read.
struct Watched {
    client: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Watched {
    async fn connect(server: &NatsServer, user: NatsUser) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let seed = std::fs::read_to_string(server.seed_file(user)).expect("seed");
        let client = async_nats::ConnectOptions::with_nkey(seed)
            .custom_inbox_prefix(user.inbox_prefix())
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        let _ = sender.send(error.to_string());
                    }
                }
            })
            .connect(server.url())
            .await
            .expect("connects");
        Self { client, refusals }
    }

    /// Publishes; the server's refusal, if it refused. A flush is answered after everything before it was judged.
    async fn publish(&mut self, subject: &str) -> Option<String> {
        self.client.publish(subject.to_owned(), "x".into()).await.expect("sent");
        self.settled().await
    }

    async fn subscribe(&mut self, subject: &str) -> Option<String> {
        let _subscription = self.client.subscribe(subject.to_owned()).await.expect("sent");
        self.settled().await
    }

    /// Waits for a round trip through the server: an unknown subject of our own inbox, to ourselves.
    async fn settled(&mut self) -> Option<String> {
        self.client.flush().await.expect("flushed");
        // Flush writes, and does not wait for the server: a refused marker is judged after what went before it.
        self.client.publish("marker.that.nobody.may.publish", "x".into()).await.expect("sent");
        let first = self.next_refusal().await;
        if first.contains("marker.that.nobody") {
            return None;
        }
        let marker = self.next_refusal().await;
        assert!(marker.contains("marker.that.nobody"), "{marker}");
        Some(first)
    }

    async fn next_refusal(&mut self) -> String {
        tokio::time::timeout(10 * SECOND, self.refusals.recv())
            .await
            .expect("the marker is refused")
            .expect("connected")
    }

    async fn may_publish(&mut self, subject: &str) {
        assert_eq!(self.publish(subject).await, None, "{subject} should be allowed");
    }

    async fn may_not_publish(&mut self, subject: &str) {
        assert!(self.publish(subject).await.is_some(), "{subject} should be refused");
    }

    async fn may_not_subscribe(&mut self, subject: &str) {
        assert!(self.subscribe(subject).await.is_some(), "{subject} should be refused");
    }

    async fn may_subscribe(&mut self, subject: &str) {
        assert_eq!(self.subscribe(subject).await, None, "{subject} should be allowed");
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
                "rolebridge.internal.v1.jobs.cost.t.c",
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
        let mut client = Watched::connect(&server, user).await;
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
        let mut client = Watched::connect(&server, user).await;
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
        let mut client = Watched::connect(&server, user).await;
        for message in contracts::catalog::messages() {
            let allowed = client.publish(&message.subject.replace('*', "x")).await.is_none();
            assert_eq!(allowed, message.producer == user.name(), "{} publishes {}", user.name(), message.subject);
        }
        for endpoint in contracts::catalog::endpoints() {
            let allowed = client.subscribe(endpoint.subject).await.is_none();
            assert_eq!(allowed, endpoint.service == user.name(), "{} serves {}", user.name(), endpoint.subject);
        }
    }
    let mut events = Watched::connect(&server, NatsUser::Events).await;
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
    broker.flush().await.expect("flushed");
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

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_store() {
    let mut server = server().await;
    let url = server.url();
    let context = jetstream::new(server.connect(NatsUser::CallbackIngest).await.expect("connects"));
    context
        .create_or_update_stream(jetstream::stream::Config {
            name: "ROLEBRIDGE_CALLBACKS".to_owned(),
            subjects: vec!["rolebridge.internal.v1.callbacks.>".to_owned()],
            ..Default::default()
        })
        .await
        .expect("the stream");
    context
        .publish("rolebridge.internal.v1.callbacks.received", "x".into())
        .await
        .expect("sent")
        .await
        .expect("stored");
    server.kill();
    assert!(server.connect(NatsUser::CallbackIngest).await.is_err());
    server.restart().await.expect("starts again");
    assert_eq!(server.url(), url);
    let context = jetstream::new(server.connect(NatsUser::CallbackIngest).await.expect("connects"));
    let mut stream = context.get_stream("ROLEBRIDGE_CALLBACKS").await.expect("still there");
    assert_eq!(stream.info().await.expect("info").state.messages, 1);
    server.stop().await.expect("stops");
}

#[tokio::test]
async fn a_key_of_another_server_is_refused() {
    let (one, other) = tokio::join!(server(), server());
    let stranger = std::fs::read_to_string(one.seed_file(NatsUser::Operator)).expect("seed");
    assert!(async_nats::ConnectOptions::with_nkey(stranger).connect(other.url()).await.is_err());
    assert!(async_nats::connect(other.url()).await.is_err(), "nobody enters without a key");
}
