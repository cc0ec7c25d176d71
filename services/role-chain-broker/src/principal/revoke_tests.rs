use std::{sync::atomic::Ordering, time::Duration};

use super::*;
use crate::principal::{
    PrincipalError,
    fake::{Bench, Cut, World, ready_bench},
};

fn denied_in_iam(bench: &Bench) -> Option<String> {
    let world = bench.world();
    let mut policies = world.inline.iter().filter(|((half, _), _)| *half == Half::Role);
    let (_, policies) = policies.next()?;
    let document = policies.get("rolebridge-revoked-sessions")?;
    let instant = document["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"].as_str()?;
    assert_eq!(document["Statement"][0]["Effect"], "Deny");
    Some(instant.to_owned())
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from(whole_second(Timestamp::now()).inner() - time::Duration::seconds(seconds))
}

#[tokio::test]
async fn attack_31_a_later_instant_replaces_an_earlier_one_and_never_the_other_way() {
    let tenant = TenantId::new();
    let (bench, principals, _) = ready_bench(tenant).await;
    let (earliest, later, latest) = (ago(100), ago(80), ago(50));
    for (asked, expected) in [(earliest, earliest), (latest, latest), (later, latest)] {
        assert_eq!(bench.revoker.deny(tenant, asked).await.unwrap(), expected);
        assert_eq!(denied_in_iam(&bench).unwrap(), expected.to_string());
        assert_eq!(principals.denied_before(tenant).await.unwrap(), Some(expected));
    }
    // Whoever mends the principal keeps it.
    bench.world().inline.clear();
    bench.maker.make(tenant).await.unwrap();
    assert_eq!(denied_in_iam(&bench).unwrap(), latest.to_string());
}

#[tokio::test]
async fn what_is_still_to_come_cannot_be_denied() {
    let tenant = TenantId::new();
    let (bench, ..) = ready_bench(tenant).await;
    let denied = bench.revoker.deny(tenant, Timestamp::now().plus(Duration::from_secs(1_000_000))).await.unwrap();
    assert!(Timestamp::now().until(denied) <= Duration::from_secs(1));
}

#[tokio::test]
async fn what_awss_clock_is_ahead_by_is_denied_too() {
    let tenant = TenantId::new();
    let (bench, ..) = ready_bench(tenant).await;
    bench.revoker.clock.set_ahead(Duration::from_secs(240));
    let ordered = bench.revoker.clock.at_least(Timestamp::now());
    let denied = bench.revoker.deny(tenant, ordered).await.unwrap();
    assert!(denied >= ordered, "{denied} is before {ordered}");
}

#[tokio::test]
async fn at_once_the_latest_is_the_last_word_in_iam() {
    let tenant = TenantId::new();
    let (bench, ..) = ready_bench(tenant).await;
    let asked = [10, 90, 40, 20, 60, 30].map(ago);
    let latest = asked[0];
    for denied in futures::future::join_all(asked.map(|before| bench.revoker.deny(tenant, before))).await {
        denied.unwrap();
    }
    assert_eq!(denied_in_iam(&bench).unwrap(), latest.to_string());
}

#[test]
fn seconds_are_rounded_up() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(whole_second(at("2026-11-22T12:00:05.001Z")), at("2026-11-22T12:00:06Z"));
    assert_eq!(whole_second(at("2026-11-22T12:00:05Z")), at("2026-11-22T12:00:05Z"));
}

async fn check_gone(bench: &Bench, tenant: TenantId) {
    let left = |world: &World| (world.users.len(), world.roles.len(), world.keys.len());
    assert_eq!(left(&bench.world()), (0, 0, 0));
    assert!(matches!(bench.principals().of(tenant).await, Err(PrincipalError::Removed)));
    // tenant.created comes once more.
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::Removed)));
    assert!(bench.world().users.is_empty());
}

#[tokio::test]
async fn attack_31_a_removal_is_gone_on_with_wherever_it_broke_off() {
    let steps = {
        let tenant = TenantId::new();
        let (bench, ..) = ready_bench(tenant).await;
        bench.knife.set(None);
        bench.revoker.remove(tenant).await.unwrap();
        check_gone(&bench, tenant).await;
        bench.revoker.remove(tenant).await.unwrap();
        bench.knife.set(None);
        let (bench, ..) = ready_bench(tenant).await;
        bench.knife.set(None);
        bench.revoker.remove(tenant).await.unwrap();
        bench.knife.steps.load(Ordering::SeqCst)
    };
    for step in 0..steps {
        for cut in [Cut::DeadBefore(step), Cut::DeadAfter(step)] {
            let tenant = TenantId::new();
            let (bench, ..) = ready_bench(tenant).await;
            bench.revoker.deny(tenant, Timestamp::now()).await.unwrap();
            bench.knife.set(Some(cut));
            drop(bench.revoker.remove(tenant).await);
            bench.knife.set(None);
            bench.revoker.remove(tenant).await.unwrap_or_else(|error| panic!("{cut:?}: {error:?}"));
            check_gone(&bench, tenant).await;
        }
    }
}

#[tokio::test]
async fn a_tenant_that_never_had_a_principal_gets_none_later() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.revoker.remove(tenant).await.unwrap();
    check_gone(&bench, tenant).await;
}

#[tokio::test]
async fn what_bears_the_name_at_another_path_is_left() {
    let tenant = TenantId::new();
    let (bench, ..) = ready_bench(tenant).await;
    let name = bench.maker.plan(tenant).await.unwrap().name.clone();
    let foreign = contracts::UserArn::parse(&format!("arn:aws:iam::111111111111:user/people/{name}")).unwrap();
    bench.world().users.get_mut(&name).unwrap().arn = foreign;
    assert!(matches!(bench.revoker.remove(tenant).await, Err(MakeError::Foreign { .. })));
    let world = bench.world();
    assert_eq!((world.users.len(), world.keys.len()), (1, 1));
}

#[tokio::test]
async fn a_removal_waits_for_whoever_is_at_work() {
    let tenant = TenantId::new();
    let (bench, ..) = ready_bench(tenant).await;
    bench.store.age(tenant, Duration::from_secs(3600));
    let lease = crate::principal::record::Lease {
        holder: uuid::Uuid::now_v7(),
        until: Timestamp::now().plus(Duration::from_secs(60)),
    };
    amend(bench.store.as_ref(), tenant, |record| {
        record.lease = Some(lease.clone());
        true
    })
    .await
    .unwrap();
    assert!(matches!(bench.revoker.remove(tenant).await, Err(MakeError::Busy)));
    assert_eq!(bench.world().users.len(), 1);
    bench.store.age(tenant, Duration::from_secs(61));
    bench.revoker.remove(tenant).await.unwrap();
}

/// The knife falls on the maker's every step: there the tenant ends, and the maker goes on.
#[tokio::test]
async fn attack_31_a_principal_that_is_removed_while_it_is_made_does_not_come_back() {
    for stop in 0..60 {
        let (bench, tenant) = (Bench::default(), TenantId::new());
        let reached = {
            let mut making = std::pin::pin!(bench.maker.make(tenant));
            let mut reached = false;
            for _ in 0..stop {
                reached |= futures::poll!(&mut making).is_ready();
            }
            bench.revoker.remove(tenant).await.unwrap();
            if !reached {
                drop(making.await);
            }
            reached
        };
        check_gone(&bench, tenant).await;
        if reached {
            assert!(stop > 12, "{stop} steps are too few to be all");
            return;
        }
    }
    panic!("the maker never ended");
}

/// A mend that began before sessions were denied is over after it, at whatever step the denial comes.
#[tokio::test]
async fn attack_31_a_mend_in_hand_does_not_undo_a_denial() {
    for stop in 0..40 {
        let tenant = TenantId::new();
        let (bench, ..) = ready_bench(tenant).await;
        bench.store.age(tenant, Duration::from_secs(3600));
        bench.keeper().visit(tenant, crate::principal::keeper::Why::Round).await.unwrap();
        bench.store.age(tenant, Duration::from_secs(3600));
        let keeper = bench.keeper();
        let mut ended = false;
        let denied = {
            let mut visit = std::pin::pin!(keeper.visit(tenant, crate::principal::keeper::Why::Round));
            for _ in 0..stop {
                if !ended {
                    ended = futures::poll!(&mut visit).is_ready();
                }
            }
            let denied = bench.revoker.deny(tenant, ago(50)).await.unwrap();
            if !ended {
                drop(visit.await);
            }
            denied
        };
        assert_eq!(denied_in_iam(&bench), Some(denied.to_string()), "at step {stop}");
        assert!(bench.world().told.is_empty(), "a denial is no drift, at step {stop}");
        // The same while somebody makes it anew.
        {
            let mut making = std::pin::pin!(bench.maker.make(tenant));
            let mut made = false;
            for _ in 0..stop {
                if !made {
                    made = futures::poll!(&mut making).is_ready();
                }
            }
            let denied = bench.revoker.deny(tenant, ago(10)).await.unwrap();
            if !made {
                making.await.unwrap();
            }
            assert_eq!(denied_in_iam(&bench), Some(denied.to_string()), "while it is made, at step {stop}");
            ended &= made;
        }
        if ended {
            assert!(stop > 12, "{stop} steps are too few to be all");
            return;
        }
    }
    panic!("the visit never ended");
}

#[tokio::test]
async fn attack_31_sessions_of_a_role_without_its_boundary_are_denied() {
    const BOUNDARY: &str = "arn:aws:iam::111111111111:policy/rolebridge-principal-boundary";
    let (bench, tenant) = (Bench::bounded(Some(BOUNDARY)), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    for role in bench.world().roles.values_mut() {
        role.boundary = None;
    }
    let denied = bench.revoker.deny(tenant, Timestamp::now()).await.unwrap();
    assert_eq!(denied_in_iam(&bench).unwrap(), denied.to_string());
    assert!(bench.world().roles.values().all(|role| role.boundary.as_deref() == Some(BOUNDARY)));
}

#[tokio::test]
async fn attack_31_a_tenant_that_is_issued_for_keeps_its_principal() {
    let mut grant = crate::grants::tests::grant(1);
    let tenant = grant.tenant;
    let (bench, principals, _) = ready_bench(tenant).await;
    bench.book.accept(grant.clone());
    assert!(matches!(bench.revoker.remove(tenant).await, Err(MakeError::StillGranted { connections: 1 })));
    assert!(principals.of(tenant).await.is_ok());
    grant.revision += 1;
    grant.tenant_active = false;
    bench.book.accept(grant);
    bench.revoker.remove(tenant).await.unwrap();
    check_gone(&bench, tenant).await;
}

#[tokio::test]
async fn attack_31_the_principal_that_is_no_tenants_is_never_removed() {
    let (bench, principals, _) = ready_bench(crate::principal::STRANGER).await;
    assert!(matches!(bench.revoker.remove(crate::principal::STRANGER).await, Err(MakeError::NoTenants { .. })));
    assert!(principals.of(crate::principal::STRANGER).await.is_ok());
    assert_eq!(bench.world().users.len(), 1);
}
