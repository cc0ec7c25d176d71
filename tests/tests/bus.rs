//! The bus under attack, with the real services on it: users that ask for what is not theirs, listen where they should not, and answer for others.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use client::{Client, IssueError};
use common::{
    World,
    looks::{job, refusal},
};
use contracts::{
    ConnectionId, Endpoint as _, ErrorCode, SealingKey, Stream, TenantId, Timestamp,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials, SecretText},
};
use futures::StreamExt as _;
use messaging::{Bus, Call, EndpointServer, NatsConfig, RequestError, seal::SealSeed};
use permissions::{UserName, limited};
use sandbox::{NatsServer, NatsUser, System, Toolbox};
use tokio::process::Command;

/// Far below the 15 s that a job would wait for an answer.
const AT_ONCE: Duration = Duration::from_secs(5);

struct Said {
    good: bool,
    out: String,
    err: String,
}

async fn rolebridge(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    // target/<profile>/deps/<this test>
    let here = std::env::current_exe().expect("this test's path");
    let program = here.parent().and_then(Path::parent).expect("target/debug").join("rolebridge");
    let run =
        Command::new(program).args(arguments).env_clear().envs(variables.iter().copied()).kill_on_drop(true).output();
    let output = tokio::time::timeout(common::PATIENCE, run).await.expect("it ends").expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { good: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A job of this tenant alone, made as an operator makes one: with the command line.
async fn make_job(system: &mut System, folder: &Path, tenant: TenantId) -> Bus {
    let (out, tenant) = (folder.to_str().expect("a path"), tenant.to_string());
    let made = rolebridge(
        &["nats", "user", "job", "--name", "nightly", "--purpose", "cost-read", "--tenant", &tenant, "--out", out],
        &[],
    )
    .await;
    assert!(made.good, "{}", made.err);
    let accounts = rolebridge(&["nats", "permissions", "--users", out], &[]).await;
    assert!(accounts.good, "{}", accounts.err);
    system.nats.set_accounts(&accounts.out).await.expect("the server is told");
    let config = NatsConfig {
        nats_seed_file: Some(folder.join("nightly.nk")),
        ..system.nats.config(NatsUser::Job).expect("a configuration")
    };
    let start = Instant::now();
    loop {
        match Bus::connect(&config, "nightly").await {
            Ok(bus) => return bus,
            Err(error) => assert!(start.elapsed() < common::PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_26_a_job_of_one_tenant_gets_that_ones_credentials_and_no_others() {
    let mut world = World::start().await;
    let ((acme, hers), (bravo, his)) = (world.connect("Acme").await, world.connect("Bravo").await);
    let folder = tempfile::tempdir().expect("a folder");
    let bus = make_job(&mut world.system, folder.path(), acme.tenant).await;
    let nightly = Client::new(bus.clone(), world.system.sealing_key().clone(), "nightly").expect("a client");

    let (_, credentials) = nightly.issue(acme.tenant, hers.connection, Purpose::CostRead).await.expect("its own");
    assert_eq!(credentials.tenant, acme.tenant);

    // Another tenant's: NATS refuses, and says so at once.
    let start = Instant::now();
    let denied = nightly.issue(bravo.tenant, his.connection, Purpose::CostRead).await;
    let Err(IssueError::Request(RequestError::Denied { subject, user })) = denied else { panic!("{denied:?}") };
    assert!(subject.contains(&bravo.tenant.to_string()) && user == "nightly");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    // Another tenant's under its own name gets past NATS, and the broker refuses.
    let mixed = nightly.issue(acme.tenant, his.connection, Purpose::CostRead).await;
    assert_eq!(refusal(mixed), ErrorCode::NotFound);

    // The command line says who may not do what.
    let (seed, key) = (folder.path().join("nightly.nk"), world.system.sealing_key().to_string());
    let (url, tenant, connection) = (world.system.nats.url(), bravo.tenant.to_string(), his.connection.to_string());
    let asked = rolebridge(
        &["credentials", "process", &tenant, &connection, "--sealing-key", &key],
        &[
            ("ROLEBRIDGE_NATS_URL", &url),
            ("ROLEBRIDGE_NATS_SEED_FILE", seed.to_str().expect("a path")),
            ("ROLEBRIDGE_NATS_USER", "nightly"),
        ],
    )
    .await;
    let expected =
        format!("user nightly may not publish on rolebridge.rpc.v1.credentials.issue.cost-read.{}", bravo.tenant);
    assert!(!asked.good && asked.out.is_empty() && asked.err.contains(&expected), "{}", asked.err);

    // Who may ask for everything is refused by the broker: another's connection, a purpose that there is not.
    let wide = job(&world).await;
    assert_eq!(refusal(wide.issue(bravo.tenant, hers.connection, Purpose::CostRead).await), ErrorCode::NotFound);
    let subject = format!("rolebridge.rpc.v1.credentials.issue.root.{}.{}", acme.tenant, hers.connection);
    let body = serde_json::to_vec(&request(&SealSeed::generate().expect("a seed"))).expect("JSON");
    let reply = world.bus.client().request(subject, body.into()).await.expect("a reply");
    assert_eq!(reply.headers.expect("headers").get("Nats-Service-Error-Code").expect("a code").as_str(), "403");
}

fn request(seed: &SealSeed) -> IssueRequest {
    IssueRequest {
        requester_key: seed.public().clone(),
        requester: "a-job".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_27_an_eavesdropper_hears_nothing_and_a_captured_reply_is_ciphertext() {
    let mut world = World::start().await;
    let (acme, connection) = world.connect("Acme").await;
    let name: UserName = "eavesdropper".parse().expect("a name");
    let streams = [Stream::ConnectionEvents];
    let reader = |key| limited::reader(&name, key, &streams, &[]).expect("a reader of everything");
    world.system.nats.add_user("eavesdropper", reader).await.expect("the server takes the user");
    let eavesdropper = world.system.nats.connect_as("eavesdropper").await.expect("connects");
    let mut heard = Vec::new();
    for subject in [
        ">",
        "_INBOX.>",
        "_INBOX_job.>",
        "_INBOX_*.>",
        "_INBOX_role-chain-broker.>",
        "rolebridge.rpc.>",
        "rolebridge.>",
        "$JS.>",
    ] {
        heard.push(eavesdropper.subscribe(subject).await.expect("sent"));
    }
    eavesdropper.flush().await.expect("sent");

    let bus = world.system.bus(NatsUser::Job).await.expect("a job connects");
    let seed = SealSeed::generate().expect("a seed");
    let subject = IssueCredentials::subject(Purpose::CostRead, acme.tenant, connection.connection);
    let body = serde_json::to_vec(&request(&seed)).expect("JSON");
    let reply = bus.client().request(subject.as_str().to_owned(), body.into()).await.expect("a reply");
    for mut subscription in heard {
        // What the server has not delivered by now was never on its way: it refused the subscription and closes it, or has nothing for it.
        let next = tokio::time::timeout(Duration::from_millis(100), subscription.next()).await;
        assert!(!matches!(next, Ok(Some(_))), "{next:?}");
    }

    // The reply itself, in the hands of somebody who got hold of it.
    let issued: IssuedCredentials = serde_json::from_slice(&reply.payload).expect("the contract");
    let plain = seed.open(&issued.broker_key, &issued.sealed).expect("its requester opens it");
    let inside: SealedCredentials = serde_json::from_slice(&plain).expect("the contract");
    let wire = String::from_utf8_lossy(&reply.payload).into_owned();
    for secret in [inside.secret_access_key.expose(), inside.session_token.expose(), inside.access_key_id.as_str()] {
        assert!(!wire.contains(secret), "a secret is in the reply in clear");
    }
    let other = SealSeed::generate().expect("a seed");
    assert!(other.open(&issued.broker_key, &issued.sealed).is_err(), "another key opens nothing");
}

/// Answers on the broker's subject with a key of its own; `claimed` is the key that it says it has.
async fn answer_for_the_broker(bus: &Bus, claimed: Option<SealingKey>) {
    let seed = Arc::new(SealSeed::generate().expect("a seed"));
    let claimed = claimed.unwrap_or_else(|| seed.public().clone());
    let answer = move |call: Call<IssueCredentials>| {
        let (seed, claimed) = (seed.clone(), claimed.clone());
        async move {
            let (tenant, connection): (TenantId, ConnectionId) = (call.token(1)?, call.token(2)?);
            let expires_at = Timestamp::now();
            let inside = SealedCredentials {
                tenant,
                connection,
                purpose: Purpose::CostRead,
                access_key_id: "ASIAROGUE".to_owned(),
                secret_access_key: SecretText::new("rogue".to_owned()),
                session_token: SecretText::new("rogue".to_owned()),
                expires_at,
                account: None,
                role_arn: None,
                region: None,
            };
            let plain = serde_json::to_vec(&inside).expect("JSON");
            Ok(IssuedCredentials {
                tenant,
                connection,
                purpose: Purpose::CostRead,
                account: "222222222222".parse().expect("an account"),
                role_arn: "arn:aws:iam::222222222222:role/rolebridge/rolebridge-a".parse().expect("a role"),
                region: "eu-central-1".parse().expect("a region"),
                expires_at,
                broker_key: claimed,
                sealed: seed.seal(&call.request.requester_key, &plain).expect("sealed"),
            })
        }
    };
    let server = EndpointServer::start(bus, "role-chain-broker", "A rogue").await.expect("starts");
    let server = server.serve::<IssueCredentials, _, _>(answer).await.expect("serves");
    tokio::spawn(server.run(tokio_util::sync::CancellationToken::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_28_a_rogue_cannot_subscribe_where_the_broker_answers() {
    let mut world = World::start().await;
    let (acme, connection) = world.connect("Acme").await;
    let name: UserName = "rogue".parse().expect("a name");
    let tenant = acme.tenant;
    let rogue = |key| limited::job(&name, key, &[Purpose::CostRead], &[tenant]);
    world.system.nats.add_user("rogue", rogue).await.expect("the server takes the user");
    let rogue = world.system.nats.connect_as("rogue").await.expect("connects");
    let mut taken = Vec::new();
    for subject in [IssueCredentials::SUBJECT, "rolebridge.rpc.v1.credentials.>", "rolebridge.rpc.>"] {
        taken.push(rogue.subscribe(subject).await.expect("sent"));
        taken.push(rogue.queue_subscribe(subject, "role-chain-broker".to_owned()).await.expect("sent"));
    }
    rogue.flush().await.expect("sent");
    // With a rogue in the broker's queue group half of the requests would go to it.
    let job = job(&world).await;
    for _ in 0..10 {
        job.issue(tenant, connection.connection, Purpose::CostRead).await.expect("the broker's answer");
    }
    for mut subscription in taken {
        let next = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await;
        assert!(!matches!(next, Ok(Some(_))), "{next:?}");
    }
}

/// What is left when an operator has written no permissions at all: the pinned key.
#[tokio::test(flavor = "multi_thread")]
async fn attack_28_without_permissions_the_pinned_key_still_refuses_a_rogue() {
    const OPEN: &str = "
        accounts { ROLEBRIDGE { jetstream: enabled, users: [ { nkey: $NATS_JOB_NKEY }, { nkey: $NATS_EVENTS_NKEY } ] } }
    ";
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|line| eprintln!("{line}")))
        .await
        .expect("joins")
        .expect("tools");
    let pinned = SealSeed::generate().expect("a seed").public().clone();
    for claimed in [None, Some(pinned.clone())] {
        let server = NatsServer::start_with(&tools, OPEN).await.expect("a server without permissions");
        let rogue = server.bus(NatsUser::Events).await.expect("connects");
        answer_for_the_broker(&rogue, claimed.clone()).await;
        let bus = server.bus(NatsUser::Job).await.expect("connects");
        let client = Client::new(bus, pinned.clone(), "a-job").expect("a client");
        let answer = client.issue(TenantId::new(), ConnectionId::new(), Purpose::CostRead).await;
        match claimed {
            None => assert!(matches!(answer, Err(IssueError::OtherBroker { .. })), "it says who it is"),
            Some(_) => assert!(matches!(answer, Err(IssueError::Open(_))), "it says that it is the broker"),
        }
    }
}
