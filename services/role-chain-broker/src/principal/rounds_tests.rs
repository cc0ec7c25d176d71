use super::*;
use crate::principal::fake::{Bench, World};

const MINUTES: Duration = Duration::from_secs(600);

async fn known(bench: &Bench) -> TenantId {
    let tenant = TenantId::new();
    bench.maker.make(tenant).await.unwrap();
    bench.store.age(tenant, Duration::from_secs(3600));
    tenant
}

fn asked(world: &World, name: &str) -> usize {
    world.asked.get(name).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn attack_23_ten_thousand_doubts_of_one_principal_keep_no_other_from_its_turn() {
    let bench = Bench::default();
    let (tenant, other) = (known(&bench).await, known(&bench).await);
    let name = bench.maker.plan(tenant).await.unwrap().name.clone();
    let others = bench.maker.plan(other).await.unwrap().name.clone();
    {
        let mut world = bench.world();
        world.down = Some(name.clone());
        world.asked.clear();
        world.roles.get_mut(&others).unwrap().trust = None;
    }
    let (orders, ordered) = orders();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(keep(Arc::new(bench.keeper()), ordered, stop.clone()));
    for _ in 0..100 {
        for _ in 0..100 {
            orders.doubt(tenant);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(MINUTES).await;
    stop.cancel();
    upkeep.await.unwrap().unwrap();
    let world = bench.world();
    // In eleven minutes: one a minute for the doubt, and as many for the failed rounds.
    let calls = asked(&world, &name);
    assert!((2..=30).contains(&calls), "{calls} calls for the one");
    assert!(world.roles[&others].trust.is_some(), "the other had its turn");
}

#[tokio::test(start_paused = true)]
async fn one_visit_at_a_time_is_at_a_principal_and_one_of_each_reason_waits() {
    let bench = Bench::default();
    let (tenant, other) = (known(&bench).await, known(&bench).await);
    let mut rounds = Rounds::new(Arc::new(bench.keeper()));
    rounds.begin().await;
    rounds.planned.forget_rounds();
    for _ in 0..10_000 {
        rounds.planned.add(Instant::now(), tenant, Why::Doubt);
        rounds.planned.add(Instant::now(), tenant, Why::Rotate);
    }
    assert_eq!((rounds.planned.by_time.len(), rounds.planned.by_tenant.len()), (2, 2));
    for _ in 0..10 {
        rounds.begin().await;
    }
    assert_eq!(rounds.in_hand.values().collect::<Vec<_>>(), [&tenant]);
    rounds.planned.add(Instant::now(), other, Why::Doubt);
    rounds.begin().await;
    assert_eq!(rounds.in_hand.len(), 2);
    while let Some(ended) = rounds.visits.join_next_with_id().await {
        rounds.ended(ended);
    }
    assert!(rounds.in_hand.is_empty());
    rounds.begin().await;
    assert_eq!(rounds.in_hand.values().collect::<Vec<_>>(), [&tenant], "the other reason comes after");
}
