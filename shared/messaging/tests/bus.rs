//! The bus against a real nats-server, under the permissions that operators use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests, where a panic is the verdict"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::{
    CloudEvent, ErrorCode, ErrorReply, Stream, TenantId, Timestamp,
    tenant::{CreateTenant, CreateTenantRequest, Empty, GetTenant, Tenant, TenantCreated, TenantState},
};
use messaging::{
    Backoff, Bus, ConsumerSpec, Disposition, EndpointServer, RequestError, Router, consume, event, header,
};
use sandbox::{NatsServer, NatsUser, Toolbox};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

async fn server() -> NatsServer {
    NatsServer::start(&Toolbox::fetch(|line| eprintln!("{line}")).unwrap()).await.unwrap()
}

async fn bus(server: &NatsServer, user: NatsUser) -> Bus {
    server.bus(user).await.unwrap()
}

fn created(name: &str) -> CloudEvent<TenantCreated> {
    event(TenantCreated { tenant: TenantId::new(), name: name.to_owned() })
}

/// The broker's own consumer of tenants, with a short patience.
fn spec(max_deliver: i64) -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::TenantEvents,
        durable: "role-chain-broker-tenants",
        filters: vec!["rolebridge.events.v1.tenant.created.*".to_owned()],
        in_flight: 4,
        ack_wait: Duration::from_secs(2),
        max_deliver,
        backoff: Backoff { first: Duration::from_millis(20), most: Duration::from_millis(100) },
    }
}

/// Runs `router` as the broker until the token is cancelled.
async fn consuming(
    server: &NatsServer,
    max_deliver: i64,
    router: Router,
) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let (bus, token) = (bus(server, NatsUser::RoleChainBroker).await, CancellationToken::new());
    bus.ensure_stream(Stream::DeadLetters).await.unwrap();
    let stop = token.clone();
    let task = tokio::spawn(async move { consume(bus, spec(max_deliver), router, stop).await.unwrap() });
    (token, task)
}

async fn receive<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(SOON, from.recv()).await.expect("nothing came in time").expect("the sender is gone")
}

#[tokio::test]
async fn the_same_event_twice_is_stored_once_and_handled_once() {
    let server = server().await;
    let registry = bus(&server, NatsUser::TenantRegistry).await;
    registry.ensure_stream(Stream::TenantEvents).await.unwrap();
    let (sent, mut seen) = mpsc::unbounded_channel();
    let router = Router::new().on::<TenantCreated, _, _>(move |event, _| {
        sent.send(event.data.name).unwrap();
        std::future::ready(Disposition::Done)
    });
    let (token, task) = consuming(&server, 3, router).await;
    let (first, last) = (created("first"), created("last"));
    registry.publish(&first).await.unwrap();
    registry.publish(&first).await.unwrap();
    registry.publish(&last).await.unwrap();
    let mut names = vec![receive(&mut seen).await, receive(&mut seen).await];
    names.sort();
    assert_eq!(names, ["first", "last"]);
    token.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn what_fails_is_tried_again_and_then_becomes_a_dead_letter_with_its_reason() {
    let server = server().await;
    let registry = bus(&server, NatsUser::TenantRegistry).await;
    registry.ensure_stream(Stream::TenantEvents).await.unwrap();
    let (sent, mut attempts) = mpsc::unbounded_channel();
    let router = Router::new().on::<TenantCreated, _, _>(move |_, delivery| {
        sent.send((delivery.attempt, delivery.last)).unwrap();
        std::future::ready(Disposition::Retry { reason: "IAM is throttled".to_owned(), after: None })
    });
    let (token, task) = consuming(&server, 3, router).await;
    let operator = bus(&server, NatsUser::Operator).await;
    let poison = created("poison");
    registry.publish(&poison).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(receive(&mut attempts).await, (attempt, attempt == 3));
    }
    let letters = operator.jetstream().get_stream(Stream::DeadLetters.name()).await.unwrap();
    let letter = tokio::time::timeout(SOON, async {
        loop {
            match letters.get_raw_message(1).await {
                Ok(letter) => return letter,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let letter = letter.await.expect("no dead letter was written");
    assert_eq!(letter.headers.get(header::REASON).unwrap().as_str(), "IAM is throttled");
    assert_eq!(letter.headers.get(header::CONSUMER).unwrap().as_str(), "role-chain-broker-tenants");
    assert_eq!(CloudEvent::<TenantCreated>::decode(&letter.payload).unwrap(), poison);
    token.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn long_work_is_not_given_to_another_while_it_lasts() {
    let server = server().await;
    let registry = bus(&server, NatsUser::TenantRegistry).await;
    registry.ensure_stream(Stream::TenantEvents).await.unwrap();
    let (sent, mut done) = mpsc::unbounded_channel();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = starts.clone();
    let router = Router::new().on::<TenantCreated, _, _>(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let sent = sent.clone();
        async move {
            // Longer than ack_wait: the work itself, not a wait for a condition.
            tokio::time::sleep(Duration::from_secs(5)).await;
            sent.send(()).unwrap();
            Disposition::Done
        }
    });
    let (token, task) = consuming(&server, 5, router).await;
    registry.publish(&created("long")).await.unwrap();
    receive(&mut done).await;
    token.cancel();
    task.await.unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_hand() {
    let server = server().await;
    let registry = bus(&server, NatsUser::TenantRegistry).await;
    registry.ensure_stream(Stream::TenantEvents).await.unwrap();
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let router = Router::new().on::<TenantCreated, _, _>(move |_, _| {
        started.send(()).unwrap();
        let gate = opened.clone();
        async move {
            gate.notified().await;
            Disposition::Done
        }
    });
    let (token, task) = consuming(&server, 5, router).await;
    registry.publish(&created("in hand")).await.unwrap();
    receive(&mut starts).await;
    token.cancel();
    gate.notify_one();
    tokio::time::timeout(SOON, task).await.expect("the consumer did not end").unwrap();
    let operator = bus(&server, NatsUser::Operator).await;
    let mut stream = operator.jetstream().get_stream(Stream::TenantEvents.name()).await.unwrap();
    let consumer = stream
        .get_consumer::<messaging::async_nats::jetstream::consumer::pull::Config>("role-chain-broker-tenants")
        .await;
    let pending = tokio::time::timeout(SOON, async {
        let mut consumer = consumer.unwrap();
        while consumer.info().await.unwrap().num_ack_pending > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    pending.await.expect("the message was not acknowledged");
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn a_consumer_outlives_a_restart_of_the_server() {
    let mut server = server().await;
    let registry = bus(&server, NatsUser::TenantRegistry).await;
    registry.ensure_stream(Stream::TenantEvents).await.unwrap();
    let (sent, mut seen) = mpsc::unbounded_channel();
    let router = Router::new().on::<TenantCreated, _, _>(move |event, _| {
        sent.send(event.data.name).unwrap();
        std::future::ready(Disposition::Done)
    });
    let (token, task) = consuming(&server, 10, router).await;
    registry.publish(&created("before")).await.unwrap();
    assert_eq!(receive(&mut seen).await, "before");
    server.kill();
    server.restart().await.unwrap();
    let after = created("after");
    let published = tokio::time::timeout(SOON, async {
        while registry.publish(&after).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    published.await.expect("the publisher did not come back");
    // A message whose acknowledgement went down with the server may come again.
    while receive(&mut seen).await != "after" {}
    token.cancel();
    task.await.unwrap();
}

fn tenant(name: String) -> Tenant {
    Tenant {
        tenant: TenantId::new(),
        name,
        state: TenantState::Active,
        principal_role: None,
        revocation: Vec::new(),
        created_at: Timestamp::now(),
    }
}

/// The registry's two endpoints, one of which goes wrong in every way.
async fn serving(server: &NatsServer) -> CancellationToken {
    let registry = bus(server, NatsUser::TenantRegistry).await;
    let endpoints = EndpointServer::start(&registry, "tenant-registry", "tenants").await.unwrap();
    let endpoints = endpoints
        .serve::<CreateTenant, _, _>(|call| async move {
            match call.request.name.as_str() {
                "busy" => Err(ErrorReply::new(ErrorCode::Throttled, "too many tenants at once").retry_after(250)),
                "bug" => panic!("on purpose"),
                _ => Ok(tenant(call.request.name)),
            }
        })
        .await
        .unwrap();
    let endpoints = endpoints
        .serve::<GetTenant, _, _>(
            |call| async move { Ok(Tenant { tenant: call.token(0)?, ..tenant("found".to_owned()) }) },
        )
        .await
        .unwrap();
    let token = CancellationToken::new();
    tokio::spawn(endpoints.run(token.clone()));
    token
}

#[tokio::test]
async fn a_requester_always_gets_a_reply() {
    let server = server().await;
    let operator = bus(&server, NatsUser::Operator).await;
    let ask = |name: &str| {
        let request = CreateTenantRequest { name: name.to_owned(), idempotency_key: None };
        let operator = operator.clone();
        async move { operator.request::<CreateTenant>(CreateTenant::subject(), &request, SOON).await }
    };
    assert!(matches!(ask("nobody serves").await, Err(RequestError::NoResponders { .. })));
    let token = serving(&server).await;

    assert_eq!(ask("acme").await.unwrap().name, "acme");
    let busy = ask("busy").await.unwrap_err();
    let expected = ErrorReply::new(ErrorCode::Throttled, "too many tenants at once").retry_after(250);
    assert_eq!(busy.refusal(), Some(&expected));
    assert_eq!(ask("bug").await.unwrap_err().refusal().unwrap().code, ErrorCode::Internal);
    assert_eq!(ask("after the bug").await.unwrap().name, "after the bug");

    let id = TenantId::new();
    assert_eq!(operator.request::<GetTenant>(GetTenant::subject(id), &Empty {}, SOON).await.unwrap().tenant, id);
    for (subject, body) in [
        ("rolebridge.rpc.v1.tenants.create", r#"{"name":"a","external_id":"mine"}"#),
        ("rolebridge.rpc.v1.tenants.create", "not json"),
        ("rolebridge.rpc.v1.tenants.get.not-an-id", "{}"),
    ] {
        let reply = operator.client().request(subject, body.into()).await.unwrap();
        let headers = reply.headers.expect("an error reply has headers");
        assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "400", "{subject} {body}");
        assert_eq!(headers.get(ErrorReply::CODE_HEADER).unwrap().as_str(), "invalid-request");
    }
    token.cancel();
}

#[tokio::test]
async fn discovery_shows_the_endpoints_with_their_schemas() {
    let server = server().await;
    let token = serving(&server).await;
    let operator = bus(&server, NatsUser::Operator).await;
    let info = tokio::time::timeout(SOON, async {
        loop {
            match operator.client().request("$SRV.INFO.tenant-registry", "".into()).await {
                Ok(reply) => return reply,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let info: serde_json::Value =
        serde_json::from_slice(&info.await.expect("nobody answers discovery").payload).unwrap();
    let endpoint = info["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["name"] == "tenants-create");
    let endpoint = endpoint.expect("the endpoint is not announced");
    assert_eq!(endpoint["subject"], "rolebridge.rpc.v1.tenants.create");
    let schema: serde_json::Value =
        serde_json::from_str(endpoint["metadata"]["request_schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    token.cancel();
}

#[tokio::test]
async fn a_request_that_is_not_allowed_fails_at_once_and_says_who_may_not_what() {
    let server = server().await;
    let job = bus(&server, NatsUser::Job).await;
    let request = CreateTenantRequest { name: "acme".to_owned(), idempotency_key: None };
    let ask = || job.request::<CreateTenant>(CreateTenant::subject(), &request, Duration::from_secs(60));
    let start = std::time::Instant::now();
    // Many at once are each told.
    for asked in futures::future::join_all((0..20).map(|_| ask())).await {
        let error = asked.unwrap_err();
        assert!(matches!(error, RequestError::Denied { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("user job may not publish on rolebridge.rpc.v1.tenants.create"), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "at once, and not at the timeout");
}
