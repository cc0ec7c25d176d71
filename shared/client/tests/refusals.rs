//! What a job's client refuses, on a real bus: answers of another broker, and answers to something else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests, where a panic is the verdict"
)]

use client::{Client, IssueError, Pinned};
use contracts::{
    ConnectionId, ErrorCode, ErrorReply, SealingKey, TenantId, Timestamp,
    credentials::{IssueCredentials, IssuedCredentials, Purpose, SealedCredentials, SecretText},
};
use messaging::{Bus, Call, EndpointServer, seal::SealSeed};
use sandbox::{NatsServer, NatsUser, Toolbox};
use tokio_util::sync::CancellationToken;

async fn bus(server: &NatsServer, user: NatsUser) -> Bus {
    server.bus(user).await.unwrap()
}

const ROLE: &str = "arn:aws:iam::222222222222:role/rolebridge/rolebridge-a";

/// Who answers, and how.
#[derive(Clone, Copy, PartialEq)]
enum Broker {
    Honest,
    /// Says that it has the pinned key, and seals with another.
    Liar,
    /// Gives credentials of another connection than was asked for.
    Mixed,
    /// An honest one behind somebody who changes what he can on the way: this field beside the box.
    Altered(&'static str),
    /// One of before account, role and region stood in the box.
    Early,
    Refusing,
}

/// As a later version may: with fields that the contract of today does not know, outside the box and in it.
fn of_a_later_version(contents: &impl serde::Serialize) -> serde_json::Value {
    let mut value = serde_json::to_value(contents).unwrap();
    value.as_object_mut().unwrap().insert("field_of_later".to_owned(), serde_json::json!({ "a": [1] }));
    value
}

fn answer(
    call: &Call<IssueCredentials>,
    broker: Broker,
    seed: &SealSeed,
    claimed: &SealingKey,
) -> Result<IssuedCredentials, ErrorReply> {
    if broker == Broker::Refusing {
        return Err(ErrorReply::new(ErrorCode::NotVerified, "the connection is rejected"));
    }
    let (tenant, asked): (TenantId, ConnectionId) = (call.token(1)?, call.token(2)?);
    let connection = if broker == Broker::Mixed { ConnectionId::new() } else { asked };
    let expires_at = Timestamp::now();
    let inside = SealedCredentials {
        tenant,
        connection,
        purpose: Purpose::CostRead,
        access_key_id: "ASIAEXAMPLE".to_owned(),
        secret_access_key: SecretText::new("secret".to_owned()),
        session_token: SecretText::new("token".to_owned()),
        expires_at,
        account: (broker != Broker::Early).then(|| "222222222222".parse().unwrap()),
        role_arn: (broker != Broker::Early).then(|| ROLE.parse().unwrap()),
        region: (broker != Broker::Early).then(|| "eu-central-1".parse().unwrap()),
    };
    let unless = |field, honest: &'static str, altered: &'static str| {
        if broker == Broker::Altered(field) { altered } else { honest }
    };
    let later = Timestamp::now().plus(std::time::Duration::from_secs(3_600));
    Ok(IssuedCredentials {
        tenant,
        connection: asked,
        purpose: Purpose::CostRead,
        account: unless("account", "222222222222", "333333333333").parse().unwrap(),
        role_arn: unless("role_arn", ROLE, "arn:aws:iam::222222222222:role/rolebridge/another").parse().unwrap(),
        region: unless("region", "eu-central-1", "us-east-1").parse().unwrap(),
        expires_at: if broker == Broker::Altered("expires_at") { later } else { expires_at },
        broker_key: claimed.clone(),
        sealed: seed
            .seal(&call.request.requester_key, &serde_json::to_vec(&of_a_later_version(&inside)).unwrap())
            .unwrap(),
    })
}

/// Serves as `broker` with `seed`, which says of itself that its public key is `claimed`.
async fn serve(server: &NatsServer, broker: Broker, seed: SealSeed, claimed: SealingKey) -> CancellationToken {
    let served = bus(server, NatsUser::RoleChainBroker).await;
    let endpoints = EndpointServer::start(&served, "role-chain-broker", "credentials").await.unwrap();
    let seed = std::sync::Arc::new(seed);
    let endpoints = endpoints
        .serve::<IssueCredentials, _, _>(move |call| {
            let (seed, claimed) = (seed.clone(), claimed.clone());
            async move { answer(&call, broker, &seed, &claimed) }
        })
        .await
        .unwrap();
    let token = CancellationToken::new();
    tokio::spawn(endpoints.run(token.clone()));
    token
}

async fn ask(server: &NatsServer, pinned: impl Into<Pinned>) -> Result<SealedCredentials, IssueError> {
    let client = Client::new(bus(server, NatsUser::Job).await, pinned, "a-job").unwrap();
    client.issue(TenantId::new(), ConnectionId::new(), Purpose::CostRead).await.map(|(_, credentials)| credentials)
}

async fn server() -> NatsServer {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|line| eprintln!("{line}"))).await.unwrap().unwrap();
    NatsServer::start(&tools).await.unwrap()
}

#[tokio::test]
async fn an_honest_broker_is_believed() {
    let (server, seed) = (server().await, SealSeed::generate().unwrap());
    let key = seed.public().clone();
    let _stop = serve(&server, Broker::Honest, seed, key.clone()).await;
    assert_eq!(ask(&server, key).await.unwrap().secret_access_key.expose(), "secret");
}

#[tokio::test]
async fn attack_28_a_broker_with_another_key_than_the_pinned_is_refused() {
    let (server, rogue) = (server().await, SealSeed::generate().unwrap());
    let pinned = SealSeed::generate().unwrap().public().clone();
    let key = rogue.public().clone();
    let _stop = serve(&server, Broker::Honest, rogue, key).await;
    assert!(matches!(ask(&server, pinned).await, Err(IssueError::OtherBroker { .. })));
}

#[tokio::test]
async fn attack_28_a_rogue_that_claims_the_pinned_key_cannot_seal_with_it() {
    let (server, rogue) = (server().await, SealSeed::generate().unwrap());
    let pinned = SealSeed::generate().unwrap().public().clone();
    let _stop = serve(&server, Broker::Liar, rogue, pinned.clone()).await;
    assert!(matches!(ask(&server, pinned).await, Err(IssueError::Open(_))));
}

#[tokio::test]
async fn an_answer_for_another_connection_is_refused() {
    let (server, seed) = (server().await, SealSeed::generate().unwrap());
    let key = seed.public().clone();
    let _stop = serve(&server, Broker::Mixed, seed, key.clone()).await;
    assert!(matches!(ask(&server, key).await, Err(IssueError::OtherAnswer)));
}

#[tokio::test]
async fn attack_28_what_is_changed_beside_the_box_on_the_way_is_refused() {
    let server = server().await;
    for field in ["account", "role_arn", "region", "expires_at"] {
        let seed = SealSeed::generate().unwrap();
        let key = seed.public().clone();
        let stop = serve(&server, Broker::Altered(field), seed, key.clone()).await;
        let refused = ask(&server, key).await;
        assert!(matches!(refused, Err(IssueError::Altered)), "{field}: {refused:?}");
        stop.cancel();
    }
}

#[tokio::test]
async fn a_box_of_before_account_role_and_region_stood_in_it_is_believed() {
    let (server, seed) = (server().await, SealSeed::generate().unwrap());
    let key = seed.public().clone();
    let _stop = serve(&server, Broker::Early, seed, key.clone()).await;
    assert!(ask(&server, key).await.unwrap().account.is_none());
}

#[tokio::test]
async fn the_brokers_own_refusal_comes_through() {
    let (server, seed) = (server().await, SealSeed::generate().unwrap());
    let key = seed.public().clone();
    let _stop = serve(&server, Broker::Refusing, seed, key.clone()).await;
    let Err(IssueError::Request(error)) = ask(&server, key).await else { unreachable!("it was not refused") };
    assert_eq!(error.refusal().unwrap().code, ErrorCode::NotVerified);
}

#[tokio::test]
async fn while_the_brokers_key_is_changed_both_are_believed() {
    let (server, seed) = (server().await, SealSeed::generate().unwrap());
    let (old, new) = (SealSeed::generate().unwrap().public().clone(), seed.public().clone());
    let _stop = serve(&server, Broker::Honest, seed, new.clone()).await;
    let both = Pinned::from(old.clone()).and(new);
    assert_eq!(ask(&server, both).await.unwrap().secret_access_key.expose(), "secret");
    let Err(error) = ask(&server, Pinned::all([old.clone()]).unwrap()).await else { unreachable!("it was believed") };
    assert!(matches!(error, IssueError::OtherBroker { .. }) && error.to_string().contains(old.as_str()), "{error}");
}

#[tokio::test]
async fn fields_of_a_later_version_are_passed_over() {
    let session = IssuedCredentials {
        tenant: TenantId::new(),
        connection: ConnectionId::new(),
        purpose: Purpose::CostRead,
        account: "222222222222".parse().unwrap(),
        role_arn: "arn:aws:iam::222222222222:role/rolebridge/rolebridge-a".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        expires_at: Timestamp::now(),
        broker_key: SealSeed::generate().unwrap().public().clone(),
        sealed: contracts::SealedBox::from_bytes(b"box"),
    };
    // In the box they are in every other test of this file.
    let read: IssuedCredentials = serde_json::from_value(of_a_later_version(&session)).unwrap();
    assert_eq!(read, session);
}
