//! What a commit has promised reaches the bus: in order, whoever publishes it, whatever died in between.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use contracts::{TenantId, enrollment::EnrollmentKind};
use rstest::rstest;
use sea_orm::{ConnectionTrait, EntityTrait, QueryOrder};
use tenant_registry::{entity::outbox, relay::Relay};
use uuid::Uuid;

use crate::world::*;

async fn waiting(world: &World) -> Vec<outbox::Model> {
    outbox::Entity::find().order_by_asc(outbox::Column::Id).all(world.store.db()).await.unwrap()
}

/// Tenants with several messages each.
async fn promises(world: &World, tenants: usize) -> Vec<TenantId> {
    let mut made = Vec::new();
    for number in 0..tenants {
        let tenant = world.tenant(&format!("t{number}")).await;
        for _ in 0..3 {
            world.registry.suspend_tenant(tenant, "off").await.unwrap();
            world.registry.resume_tenant(tenant, "on").await.unwrap();
        }
        made.push(tenant);
    }
    made
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_published_waits_and_comes_once(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    world.bus.down.store(true, Ordering::SeqCst);
    let promised: Vec<_> = waiting(&world).await.iter().map(|row| row.event_id.0).collect();
    assert!(!promised.is_empty());
    assert!(world.relay().round().await.is_err());
    assert_eq!(waiting(&world).await.len(), promised.len());
    assert!(world.store.outbox_backlog().await.unwrap().rows > 0);

    world.bus.down.store(false, Ordering::SeqCst);
    world.flush().await;
    assert!(waiting(&world).await.is_empty());
    let mut published = world.bus.ids();
    published.sort_unstable();
    let mut expected = promised;
    expected.sort_unstable();
    assert_eq!(published, expected);
    world.connect(&offer, CUSTOMER, "0a").await;
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_died_with_keys_in_hand_loses_them_to_the_next(#[case] kind: Kind) {
    let world = World::new(kind).await;
    world.tenant("a").await;
    let claim = world.store.claim_outbox(Uuid::new_v4(), Duration::from_secs(3600)).await.unwrap();
    assert!(!claim.keys.is_empty());
    assert_eq!(world.relay().round().await.unwrap(), 0, "what another relay has in hand is not touched");
    // The hour passes.
    let past = "UPDATE outbox SET claimed_until = 1 WHERE claimed_until IS NOT NULL";
    world.store.db().execute_unprepared(past).await.unwrap();
    assert!(world.relay().round().await.unwrap() > 0);
    world.flush().await;
    assert!(waiting(&world).await.is_empty());
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn many_relays_publish_each_message_once_and_each_key_in_order(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenants = promises(&world, 12).await;
    let rows = waiting(&world).await;
    let mut relays = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let relay: Relay = world.relay();
        let store = world.store.clone();
        relays.spawn(async move {
            while store.outbox_backlog().await.unwrap().rows > 0 {
                relay.round().await.unwrap();
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), relays.join_all())
        .await
        .expect("the relays did not empty the outbox");
    let published = world.bus.ids();
    assert_eq!(published.len(), rows.len(), "each once");
    let position: BTreeMap<_, _> = published.iter().enumerate().map(|(position, id)| (*id, position)).collect();
    for tenant in tenants {
        let order: Vec<_> = rows
            .iter()
            .filter(|row| row.ordering_key == tenant.to_string())
            .map(|row| position[&row.event_id.0])
            .collect();
        assert!(order.len() >= 7 && order.is_sorted(), "{order:?}");
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn the_running_relay_is_woken_by_a_commit_and_empties_the_outbox_at_its_end(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let relay = tokio::spawn(world.relay().run(async { drop(stopped.await) }));
    let tenant = world.tenant("a").await;
    let published = async {
        while world.bus.all().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), published).await.expect("nothing was published");
    let offer = world.offer(tenant, EnrollmentKind::Account).await;
    stop.send(()).unwrap();
    relay.await.unwrap().unwrap();
    assert!(waiting(&world).await.is_empty());
    world.connect(&offer, CUSTOMER, "0a").await;
}
