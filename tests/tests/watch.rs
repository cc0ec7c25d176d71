//! Connections that serve, watched by the whole system: what their customers change in IAM is found without a callback.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{
    PATIENCE, World, iam,
    looks::{job, refusal},
    until,
};
use contracts::{
    ErrorCode, Stream,
    connection::{Connection, ConnectionState, VerifyConnectionNow},
    credentials::Purpose,
    tenant::Empty,
};
use sandbox::SystemOptions;
use serde_json::json;

/// Seconds instead of the hour and the minute; two equal answers instead of three.
fn often() -> SystemOptions {
    let mut options = SystemOptions::default();
    for (variable, value) in
        [("ROLEBRIDGE_PROBE_INTERVAL", "2"), ("ROLEBRIDGE_PROBE_AGAIN", "1"), ("ROLEBRIDGE_EQUAL_ANSWERS", "2")]
    {
        options.environment.insert(variable.to_owned(), value.to_owned());
    }
    options
}

async fn in_state(world: &World, connection: &Connection, state: ConnectionState) -> Connection {
    let found = world.operator.in_state(connection.tenant, connection.connection, state, PATIENCE).await;
    found.unwrap_or_else(|error| panic!("{error}\n{}", world.complaints()))
}

/// Events of this kind about the connection.
async fn told(world: &World, kind: &str, connection: &Connection) -> usize {
    let subject = format!("rolebridge.events.v1.connection.{kind}.{}.{}", connection.tenant, connection.connection);
    let mut count = 0;
    // The relay is a moment behind the state.
    until(PATIENCE, async || {
        count = world.held_on(Stream::ConnectionEvents, &subject).await;
        count > 0
    })
    .await;
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_06_a_trust_that_is_loosened_after_verification_is_found_and_nothing_is_issued_any_more() {
    let mut world = World::with(often()).await;
    let (launched, connection) = world.connect("Acme").await;
    let (tenant, id, account) = (launched.tenant, connection.connection, &launched.account);
    let client = job(&world).await;
    let issue = async || client.issue(tenant, id, Purpose::CostRead).await;
    issue().await.expect("credentials");
    let principal = world.operator.principal_ready(tenant, PATIENCE).await.expect("a tenant").principal_role;
    let principal = principal.expect("a principal").to_string();
    let role = connection.role_arn.as_str().rsplit('/').next().expect("a name").to_owned();

    iam::set_trust(&world.system, account, &role, &iam::trust(&principal, None)).await;
    let insecure = in_state(&world, &connection, ConnectionState::Insecure).await;
    let reason = insecure.reason.expect("a reason");
    assert!(reason.contains("can be assumed without an external ID"), "{reason}");
    assert_eq!(told(&world, "insecure", &connection).await, 1);
    // The session is in the broker's cache, and is not given out any more.
    assert!(until(PATIENCE, async || issue().await.is_err()).await, "issued for an insecure role");
    for _ in 0..3 {
        assert_eq!(refusal(issue().await), ErrorCode::NotVerified);
    }

    let mended = json!({"StringEquals": {"sts:ExternalId": launched.offer.external_id.as_str()}});
    iam::set_trust(&world.system, account, &role, &iam::trust(&principal, Some(mended))).await;
    let verified = in_state(&world, &connection, ConnectionState::Verified).await;
    assert!(verified.probed_at > insecure.probed_at && verified.reason.is_none());
    assert!(until(PATIENCE, async || world.verified_events(tenant, id).await == 2).await);
    assert!(until(PATIENCE, async || issue().await.is_ok()).await, "mended, and nothing is issued");

    iam::delete_role(&world.system, account, &role, "rolebridge-cost-read").await;
    let asked = VerifyConnectionNow::subject(tenant, id);
    let shown =
        world.bus.request::<VerifyConnectionNow>(asked, &Empty {}, PATIENCE).await.expect("an operator may ask");
    assert_eq!(shown.connection, id);
    let disconnected = in_state(&world, &connection, ConnectionState::Disconnected).await;
    assert!(disconnected.reason.expect("a reason").contains("refuses the provider"));
    assert_eq!(told(&world, "disconnected", &connection).await, 1);
    assert!(until(PATIENCE, async || issue().await.is_err()).await, "issued for a role that is gone");
    assert_eq!(world.held(Stream::DeadLetters.name()).await, 0);
}
