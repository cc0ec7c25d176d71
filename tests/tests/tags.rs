//! Session tags in the whole system: stacks of template versions 2 and 3, one that claims more than its role does, and an update from one to the other.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{
    Launched, PATIENCE, World,
    looks::{audit, job},
    metric, until,
};
use contracts::{
    connection::{Connection, ConnectionState, VerifyConnectionNow},
    credentials::Purpose,
    tenant::Empty,
    verification::{Probe, ProbeOutcome},
};
use sandbox::{Service, StackRequest, StackState, System};

/// As it was released: customers run it, and it must go on working.
const VERSION_2: &str = include_str!("../templates/customer-2.yaml");

const FIRST: &str = "          - Sid: TagsOfTheProvider\n";
const AFTER: &str = "\n  CostReadPolicy:\n";

/// The template of today with a trust policy of before: it claims what its role does not do.
fn boasting(launched: &Launched) -> StackRequest {
    let mut request = System::customer_stack("rolebridge", &launched.offer.parameters);
    let (before, rest) = request.template.split_once(FIRST).expect("the statement");
    let (_, after) = rest.split_once(AFTER).expect("what follows it");
    request.template = format!("{before}{AFTER}{after}");
    assert!(!request.template.contains("TagSession") && request.template.contains("TemplateVersion: \"3\""));
    request
}

/// Launches with a new tenant's offer and waits until it is connected.
async fn connected(world: &mut World, template: impl Fn(&Launched) -> StackRequest) -> (Launched, Connection) {
    let tenant = world.tenant("Acme").await.tenant;
    let offer = world.offer(tenant, None).await;
    let account = world.customer().await;
    let mut launched = Launched { tenant, offer, account, stack: String::new() };
    launched.stack = launched.account.create_stack(&template(&launched)).await.expect("the stack is launched");
    world.completed(&launched).await;
    let connection = world.only_connection(tenant).await;
    assert_eq!(connection.state, ConnectionState::Verified, "{:?}", connection.reason);
    (launched, connection)
}

fn version_2(launched: &Launched) -> StackRequest {
    let mut request = System::customer_stack("rolebridge", &launched.offer.parameters);
    request.template = VERSION_2.to_owned();
    request
}

fn version_3(launched: &Launched) -> StackRequest {
    System::customer_stack("rolebridge", &launched.offer.parameters)
}

async fn updated(world: &World, launched: &Launched, request: StackRequest) -> Connection {
    launched.account.update_stack(&request).await.expect("an update begins");
    let end = |state: &StackState| state.status.starts_with("UPDATE_") && state.is_final();
    let ended = launched.account.wait_stack(&launched.stack, PATIENCE, end).await;
    let state = ended.unwrap_or_else(|error| panic!("{error}\n{}", world.complaints()));
    assert_eq!(state.status, "UPDATE_COMPLETE", "{:?}\n{}", state.failure, world.complaints());
    world.only_connection(launched.tenant).await
}

fn tagged(connection: &Connection) -> (Option<u32>, bool, Option<ProbeOutcome>) {
    let seen = connection.evidence.iter().find(|seen| seen.probe == Probe::SessionTags).map(|seen| seen.outcome);
    (connection.template_version, connection.session_tags, seen)
}

/// New sessions that carried tags, and those that were begun without because the role refused them.
async fn sessions(world: &mut World) -> (f64, f64) {
    let of = |result: &str| format!(r#"rolebridge_session_tags_total{{result="{result}""#);
    let (carried, refused) = (of("carried"), of("refused"));
    let broker = Service::RoleChainBroker;
    (metric(&mut world.system, broker, &carried).await, metric(&mut world.system, broker, &refused).await)
}

async fn issue(world: &World, connection: &Connection) {
    let client = job(world).await;
    let issued = client.issue(connection.tenant, connection.connection, Purpose::CostRead).await;
    issued.unwrap_or_else(|error| panic!("{error}\n{}", world.complaints()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_of_the_template_serves_and_an_update_turns_the_tags_on_and_off() {
    let mut world = World::start().await;
    let (launched, before) = connected(&mut world, version_2).await;
    assert_eq!(tagged(&before), (Some(2), false, None), "nothing is expected of it, and nothing asked");
    issue(&world, &before).await;
    assert_eq!(sessions(&mut world).await, (0.0, 0.0));

    let after = updated(&world, &launched, version_3(&launched)).await;
    assert_eq!(tagged(&after), (Some(3), true, Some(ProbeOutcome::Succeeded)));
    assert_eq!((after.connection, &after.role_arn), (before.connection, &before.role_arn));
    let told = audit(&world, launched.tenant).await;
    assert!(told.contains(&("broker".to_owned(), "connection.template".to_owned())), "{told:?}");
    // Sessions of before go on as they are; the broker's memory of them ends with it.
    world.strike(Service::RoleChainBroker).await;
    assert!(
        until(PATIENCE, async || {
            issue(&world, &after).await;
            sessions(&mut world).await.0 > 0.0
        })
        .await,
        "{}",
        world.complaints()
    );
    assert_eq!(sessions(&mut world).await, (1.0, 0.0));

    let back = updated(&world, &launched, version_2(&launched)).await;
    assert_eq!(tagged(&back), (Some(2), false, None));
    issue(&world, &back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_stack_that_claims_version_3_over_a_trust_of_before_serves_without_tags() {
    let mut world = World::start().await;
    let (launched, connection) = connected(&mut world, boasting).await;
    assert_eq!(tagged(&connection), (Some(3), false, Some(ProbeOutcome::Refused)));
    issue(&world, &connection).await;
    assert_eq!(sessions(&mut world).await, (0.0, 0.0), "the grant promises nothing");

    // The role is mended. CloudFormation does not tell of it, for no property of the resource has changed: the next probe sees it.
    updated(&world, &launched, version_3(&launched)).await;
    let subject = VerifyConnectionNow::subject(connection.tenant, connection.connection);
    let mut now = connection;
    let mended = until(PATIENCE, async || {
        // One that is throttled is asked for again.
        drop(world.bus.request::<VerifyConnectionNow>(subject.clone(), &Empty {}, PATIENCE).await);
        now = world.only_connection(launched.tenant).await;
        now.session_tags
    });
    assert!(mended.await, "{:?}\n{}", tagged(&now), world.complaints());
    assert_eq!(tagged(&now), (Some(3), true, Some(ProbeOutcome::Succeeded)));
}
