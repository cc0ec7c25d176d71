//! Everything at once: what two transactions do to the same rows must be what one after the other would have done.

use contracts::{
    callback::{Answer, CallbackOutcome, RequestType},
    connection::{ConnectionState, Grant, ListConnectionsRequest},
    enrollment::EnrollmentKind,
    verification::{ConfirmDeletion, DeletionReported, Verdict},
};
use rstest::rstest;
use tokio::task::JoinSet;

use crate::world::*;

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn the_last_grant_of_a_suspended_tenant_says_so_whatever_came_first(#[case] kind: Kind) {
    let world = World::new(kind).await;
    for round in 0..6 {
        let (tenant, offer) = world.new_offer(&format!("t{round}")).await;
        let name = format!("a{round}");
        world.send(&callback(&offer, RequestType::Create, CUSTOMER, &name)).await;
        let job = world.job(&role(CUSTOMER, &name)).await;
        let (verifying, suspending) = (world.registry.clone(), world.registry.clone());
        let held = report(&job, Verdict::Held);
        let (verified, suspended) = tokio::join!(
            tokio::spawn(async move { verifying.verification_reported(&held).await.unwrap() }),
            tokio::spawn(async move { suspending.suspend_tenant(tenant, "unpaid").await.unwrap() }),
        );
        verified.unwrap();
        suspended.unwrap();
        world.flush().await;
        let grants: Vec<_> = world.bus.of::<Grant>().into_iter().filter(|grant| grant.tenant == tenant).collect();
        assert!(!grants.last().unwrap().tenant_active, "{grants:?}");
        assert!(grants.is_sorted_by_key(|grant| grant.revision));
    }
}

/// Creates, reports, Deletes, suspensions and revocations of one organization, all at the same time.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_ends_with_every_stack_answered_and_no_fault(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let creates: Vec<_> = (0..16u64)
        .map(|number| callback(&offer, RequestType::Create, &format!("{}", 300_000_000_000 + number), "0a"))
        .collect();
    let mut storm = JoinSet::new();
    for create in creates.clone() {
        let registry = world.registry.clone();
        storm.spawn(async move {
            registry.callback(&create).await.unwrap();
        });
    }
    storm.join_all().await;

    let mut storm = JoinSet::new();
    for create in &creates {
        let job = world.job(&create.claims.as_ref().unwrap().role_arn).await;
        let (registry, held) = (world.registry.clone(), report(&job, Verdict::Held));
        storm.spawn(async move {
            registry.verification_reported(&held).await.unwrap();
        });
        let (registry, mut delete) = (world.registry.clone(), create.clone());
        delete.request_type = RequestType::Delete;
        delete.key.request_id = format!("delete-{}", create.key.request_id);
        delete.physical_resource_id = Some(format!("rolebridge-{}", job.connection));
        storm.spawn(async move {
            registry.callback(&delete).await.unwrap();
        });
    }
    for _ in 0..2 {
        let registry = world.registry.clone();
        storm.spawn(async move {
            registry.suspend_tenant(tenant, "off").await.unwrap();
            registry.resume_tenant(tenant, "on").await.unwrap();
        });
    }
    storm.join_all().await;
    world.flush().await;

    let mut storm = JoinSet::new();
    for job in world.bus.of::<ConfirmDeletion>() {
        let registry = world.registry.clone();
        let gone =
            DeletionReported { job: job.job, tenant, connection: job.connection, gone: true, evidence: Vec::new() };
        storm.spawn(async move {
            registry.deletion_reported(&gone).await.unwrap();
        });
        let registry = world.registry.clone();
        storm.spawn(async move {
            registry.revoke_connection(tenant, job.connection, "end").await.unwrap();
        });
    }
    storm.join_all().await;
    world.flush().await;

    let connections = world.registry.list_connections(tenant, &ListConnectionsRequest::default()).await.unwrap().items;
    assert_eq!(connections.len(), creates.len());
    assert!(connections.iter().all(|connection| connection.state == ConnectionState::Revoked));
    let outcomes = world.bus.of::<CallbackOutcome>();
    assert_eq!(outcomes.len(), creates.len() * 2, "each request is answered once");
    assert!(outcomes.iter().all(|outcome| matches!(outcome.answer, Answer::Success { .. })));
    for connection in connections {
        let of_this: Vec<_> =
            world.bus.of::<Grant>().into_iter().filter(|grant| grant.connection == connection.connection).collect();
        assert!(of_this.is_sorted_by_key(|grant| grant.revision));
        assert_eq!(of_this.last().unwrap().state, ConnectionState::Revoked);
    }
}
