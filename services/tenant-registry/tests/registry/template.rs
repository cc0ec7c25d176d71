//! The version of the customer's template: kept when a request has held, and with it whether the role was seen to admit session tags.

use std::time::Duration;

use contracts::{
    Timestamp,
    callback::{CallbackReceived, RequestType},
    connection::{Connection, Grant},
    verification::{Probe, ProbeEvidence, ProbeOutcome, Verdict, VerificationReported, VerifyConnection},
};
use rstest::rstest;
use tenant_registry::flow::callbacks::Handled;

use crate::{
    lifecycle::{connected, later, now},
    world::*,
};

fn of_version(mut callback: CallbackReceived, version: Option<u32>) -> CallbackReceived {
    callback.claims.as_mut().unwrap().template_version = version;
    callback
}

/// A report of a role that held, with what was seen of session tags.
fn held(job: &VerifyConnection, tags: ProbeOutcome) -> VerificationReported {
    let seen = ProbeEvidence {
        probe: Probe::SessionTags,
        outcome: tags,
        at: Timestamp::now(),
        aws_request_id: None,
        error_code: None,
    };
    VerificationReported { evidence: vec![seen], ..report(job, Verdict::Held) }
}

fn tagged(connection: &Connection) -> (Option<u32>, bool) {
    (connection.template_version, connection.session_tags)
}

async fn granted(world: &World) -> Vec<(u64, bool)> {
    world.flush().await;
    world.bus.of::<Grant>().into_iter().map(|grant| (grant.revision, grant.session_tags)).collect()
}

/// Probes ahead of the time, and reports.
async fn probed(world: &World, connection: &Connection, tags: ProbeOutcome) -> Connection {
    world.registry.verify_connection(connection.tenant, connection.connection).await.unwrap();
    let job = world.job(&connection.role_arn).await;
    assert!(job.session_tags);
    world.report(&held(&job, tags)).await;
    now(world, connection).await
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_new_stack_of_version_3_is_granted_with_tags_if_its_role_admits_them(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let create = of_version(callback(&offer, RequestType::Create, CUSTOMER, "0a"), Some(3));
    assert_eq!(world.send(&create).await, Handled::Verifying);
    let job = world.job(&role(CUSTOMER, "0a")).await;
    assert!(job.session_tags);
    world.report(&held(&job, ProbeOutcome::Succeeded)).await;
    let connection = world.connection(&job).await;
    assert_eq!(tagged(&connection), (Some(3), true));
    assert_eq!(granted(&world).await, [(1, true)]);

    // The customer's trust changes behind the stack's back, and back again; what is not clear changes nothing.
    for (seen, expected) in
        [(ProbeOutcome::Refused, false), (ProbeOutcome::Indeterminate, false), (ProbeOutcome::Succeeded, true)]
    {
        assert_eq!(tagged(&probed(&world, &connection, seen).await), (Some(3), expected), "{seen:?}");
    }
    assert_eq!(granted(&world).await, [(1, true), (2, false), (3, true)]);
    assert_eq!(now(&world, &connection).await.state, connection.state, "no word about the connection");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_claim_alone_turns_nothing_on(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let create = of_version(callback(&offer, RequestType::Create, CUSTOMER, "0a"), Some(3));
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    // A broker of before does not look.
    world.report(&report(&job, Verdict::Held)).await;
    let connection = world.connection(&job).await;
    assert_eq!(tagged(&connection), (Some(3), false));
    assert_eq!(tagged(&probed(&world, &connection, ProbeOutcome::Refused).await), (Some(3), false));
    assert_eq!(granted(&world).await, [(1, false)]);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_brings_the_version_when_it_has_held_and_not_before(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    assert_eq!(tagged(&connection), (Some(2), false));
    assert!(!world.job(&connection.role_arn).await.session_tags, "of version 2 nothing is expected");

    let update = async |version: Option<u32>, verdict: Verdict| {
        let callback = of_version(later(&offer, &connection, RequestType::Update, "0a"), version);
        assert_eq!(world.send(&callback).await, Handled::Verifying);
        let job = world.job(&connection.role_arn).await;
        let seen = held(&job, ProbeOutcome::Succeeded);
        world.report(&VerificationReported { verdict, ..seen }).await;
        tagged(&now(&world, &connection).await)
    };
    assert_eq!(update(Some(3), Verdict::Indeterminate).await, (Some(2), false), "it was not taken over");
    assert_eq!(update(Some(3), Verdict::Held).await, (Some(3), true));
    assert_eq!(granted(&world).await, [(1, false), (2, true)]);
    assert!(world.audited(connection.tenant).await.contains(&"connection.template".to_owned()));
    // IAM may not have settled: a refusal is looked at again soon.
    let callback = of_version(later(&offer, &connection, RequestType::Update, "0a"), Some(3));
    world.send(&callback).await;
    let job = world.job(&connection.role_arn).await;
    world.report(&held(&job, ProbeOutcome::Refused)).await;
    let soon = Timestamp::now().plus(rules().watch.cadence.again + Duration::from_secs(1));
    assert!(now(&world, &connection).await.next_probe_at.unwrap() <= soon);
    assert_eq!(granted(&world).await.last(), Some(&(3, false)));
    // CloudFormation rolls back, or the customer does.
    assert_eq!(update(Some(2), Verdict::Held).await, (Some(2), false));
    assert_eq!(update(None, Verdict::Held).await, (None, false));
    assert_eq!(granted(&world).await, [(1, false), (2, true), (3, false)], "it carries none already");
}
