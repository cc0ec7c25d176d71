//! Roles that do not demand what they must, AWS in trouble, roles that come late, and what is issued: the whole system, with real stacks.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use client::Wanted;
use common::{
    Launched, PATIENCE, World,
    crafted::{self, Crafted},
    looks::{job, never_issued},
    metric, until,
};
use contracts::{
    Stream, Timestamp,
    connection::ConnectionState,
    credentials::Purpose,
    verification::{Probe, ProbeOutcome},
};
use futures::{StreamExt as _, future::join_all};
use rolebridge_tests::faults::{Fault, FaultyAws};
use sandbox::{CUSTOMER_TEMPLATE, Service, StackRequest, SystemOptions};

/// The condition of the customer's template.
const CONDITION: &str = "            Condition:
              StringEquals:
                sts:ExternalId:
                  - !Ref ExternalId
                  - !If [ExternalIdChanges, !Ref PreviousExternalId, !Ref AWS::NoValue]
";

/// The customer's template with another condition on the role's trust.
fn template(condition: &str) -> String {
    assert_eq!(CUSTOMER_TEMPLATE.matches(CONDITION).count(), 1, "the template's condition has moved");
    CUSTOMER_TEMPLATE.replace(CONDITION, condition)
}

/// Launches one faulty stack for each condition, all at once; each fails with `says`, and is never issued for.
async fn all_are_refused(conditions: &[&str], says: &str) {
    let mut world = World::start().await;
    let mut launched = Vec::new();
    for condition in conditions {
        let tenant = world.tenant("Acme").await.tenant;
        let offer = world.offer(tenant, None).await;
        let account = world.customer().await;
        let mut request = StackRequest::new("faulty", &template(condition));
        request.parameters.clone_from(&offer.parameters);
        let stack = account.create_stack(&request).await.expect("launched");
        launched.push(Launched { tenant, offer, account, stack });
    }
    let ends = join_all(launched.iter().map(|stack| world.ended(stack))).await;
    for ((launched, end), condition) in launched.iter().zip(ends).zip(conditions) {
        let failure = end.failure.expect("a reason");
        assert_eq!(
            (end.status.as_str(), failure.logical_id.as_str()),
            ("ROLLBACK_COMPLETE", "Connection"),
            "{condition}"
        );
        assert!(failure.reason.contains(says), "{condition}: {}", failure.reason);
        let connection = world.only_connection(launched.tenant).await;
        assert_eq!(connection.state, ConnectionState::Rejected, "{condition}");
        assert!(connection.reason.expect("a reason").contains(says), "{condition}");
        never_issued(&world, launched.tenant, connection.connection).await;
    }
    let ours = until(PATIENCE, async || world.held(Stream::DeadLetters.name()).await == 0).await;
    assert!(ours, "a faulty role is no error of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_03_a_trust_without_the_condition_fails_the_stack_with_what_mends_it() {
    let other_key =
        "            Condition:\n              StringEquals:\n                aws:RequestedRegion: eu-central-1\n";
    all_are_refused(
        &["", other_key],
        "Add the condition StringEquals sts:ExternalId with your external ID to every statement",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_04_conditions_that_only_look_like_one_fail_the_stack() {
    let optional = CONDITION.replace("StringEquals:", "StringEqualsIfExists:");
    all_are_refused(&[&optional], "can be assumed without an external ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_04_conditions_that_any_external_id_meets_fail_the_stack() {
    let like = |value: &str| {
        format!("            Condition:\n              StringLike:\n                sts:ExternalId: {value}\n")
    };
    let (any, listed, pattern) = (like("'*'"), like("[!Ref ExternalId, '*']"), like("'????????-*'"));
    all_are_refused(&[&any, &listed, &pattern], "The role can be assumed with any external ID").await;
}

/// A system whose broker reaches AWS through `spoiled` calls that fail.
async fn in_trouble(spoiled: usize, deadline_s: &str) -> (World, FaultyAws) {
    let mut options = SystemOptions::default();
    options.environment.insert("ROLEBRIDGE_VERIFY_DEADLINE".to_owned(), deadline_s.to_owned());
    let mut world = World::with(options).await;
    let aws = FaultyAws::start(&world.system.emulator.endpoint(), spoiled).await.expect("a proxy");
    world.restart_with(Service::RoleChainBroker, "AWS_ENDPOINT_URL", &aws.endpoint()).await;
    (world, aws)
}

async fn launch(world: &mut World) -> Launched {
    let tenant = world.tenant("Acme").await.tenant;
    let offer = world.offer(tenant, None).await;
    let account = world.customer().await;
    world.launch(&account, offer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_05_sts_in_trouble_for_a_while_is_waited_for_and_the_stack_completes() {
    let (mut world, aws) = in_trouble(7, "120").await;
    let launched = launch(&mut world).await;
    world.completed(&launched).await;
    let spoiled = aws.spoiled();
    assert!(Fault::ALL.iter().all(|fault| spoiled.contains_key(fault)), "every kind of trouble was met: {spoiled:?}");
    let connection = world.only_connection(launched.tenant).await;
    assert_eq!(connection.state, ConnectionState::Verified);
    let outcomes: Vec<_> = connection.evidence.iter().map(|evidence| (evidence.probe, evidence.outcome)).collect();
    assert!(outcomes.contains(&(Probe::NoId, ProbeOutcome::Refused)), "{outcomes:?}");
    assert!(outcomes.contains(&(Probe::RandomId, ProbeOutcome::Refused)), "{outcomes:?}");
    assert!(outcomes.iter().any(|(_, outcome)| *outcome == ProbeOutcome::Indeterminate), "{outcomes:?}");
    job(&world).await.issue(launched.tenant, connection.connection, Purpose::CostRead).await.expect("credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_05_sts_in_trouble_for_good_verifies_nobody_and_blames_nobody() {
    let (mut world, aws) = in_trouble(usize::MAX, "8").await;
    let launched = launch(&mut world).await;
    let failure = world.ended(&launched).await.failure.expect("a reason");
    assert!(failure.reason.contains("AWS did not answer clearly in time"), "{}", failure.reason);
    assert!(failure.reason.contains("Nothing is known to be wrong with the role"), "{}", failure.reason);
    assert!(aws.spoiled().values().sum::<usize>() >= 3, "it was tried again: {:?}", aws.spoiled());
    let connection = world.only_connection(launched.tenant).await;
    assert_eq!(connection.state, ConnectionState::Rejected);
    let unclear = |evidence: &contracts::verification::ProbeEvidence| evidence.outcome == ProbeOutcome::Indeterminate;
    assert!(connection.evidence.iter().all(unclear), "{:?}", connection.evidence);
    never_issued(&world, launched.tenant, connection.connection).await;
    let subject = format!("rolebridge.events.v1.connection.rejected.{}.*", launched.tenant);
    assert_eq!(world.held_on(Stream::ConnectionEvents, &subject).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_22_a_role_that_is_made_after_its_callback_is_waited_for() {
    let mut options = SystemOptions::default();
    options.environment.insert("ROLEBRIDGE_SETTLE_SECONDS".to_owned(), "60".to_owned());
    let mut world = World::with(options).await;
    let tenant = world.tenant("Acme").await;
    let offer = world.offer(tenant.tenant, None).await;
    let account = world.customer().await;
    let role = format!("arn:aws:iam::{}:role/rolebridge/rolebridge-crafted", account.id());
    let create = Crafted::create(&world.system, &account, &offer, &role);
    common::sqs::publish(&world.system, &account, &create.request).await;
    let refused = r#"rolebridge_probes_total{outcome="refused",probe="right-id""#;
    let asked =
        until(PATIENCE, async || metric(&mut world.system, Service::RoleChainBroker, refused).await >= 2.0).await;
    assert!(asked, "a role that is not there refuses\n{}", world.complaints());
    assert_eq!(world.only_connection(tenant.tenant).await.state, ConnectionState::Verifying, "not believed yet");
    let made = crafted::role(&account, &offer, &tenant.principal_role.expect("a principal").to_string()).await;
    assert_eq!(made, role);
    let connection = world.only_connection(tenant.tenant).await.connection;
    let verified = world.operator.in_state(tenant.tenant, connection, ConnectionState::Verified, PATIENCE).await;
    verified.unwrap_or_else(|error| panic!("{error}\n{}", world.complaints()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_24_and_25_a_thousand_at_once_are_one_chain_and_none_lasts_longer_than_an_hour() {
    let mut world = World::start().await;
    let (launched, connection) = world.connect("Acme").await;
    let (tenant, id) = (launched.tenant, connection.connection);
    let calls = r#"rolebridge_sts_calls_total{action="AssumeRole""#;
    let before = metric(&mut world.system, Service::RoleChainBroker, calls).await;
    let client = job(&world).await;
    let wanted = Wanted { purpose: Purpose::CostRead, duration_s: Some(43_200), min_remaining_s: None };
    let answers: Vec<_> =
        futures::stream::iter(0..1000).map(|_| client.issue(tenant, id, wanted)).buffer_unordered(1000).collect().await;
    let mut keys = std::collections::BTreeSet::new();
    for answer in answers {
        let (issued, credentials) = answer.expect("credentials");
        assert_eq!((issued.tenant, issued.connection), (tenant, id));
        assert!(Timestamp::now().until(credentials.expires_at).as_secs() <= 3600, "{}", credentials.expires_at);
        keys.insert(credentials.access_key_id.clone());
    }
    assert_eq!(keys.len(), 1, "one session for all");
    let after = metric(&mut world.system, Service::RoleChainBroker, calls).await;
    assert_eq!(after - before, 2.0, "two calls to STS");
}
