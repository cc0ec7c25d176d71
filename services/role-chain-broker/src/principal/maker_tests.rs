use std::sync::{PoisonError, atomic::Ordering};

use contracts::UserArn;

use super::*;
use crate::principal::{
    Principals,
    fake::{Bench, Cut},
};

fn world(bench: &Bench) -> std::sync::MutexGuard<'_, crate::principal::fake::World> {
    bench.iam.world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The principal can be used with a key that IAM has, and IAM has no other.
async fn check_whole(bench: &Bench, tenant: TenantId) {
    let principals = Principals::new(bench.store.clone(), bench.wrapper.clone());
    let principal = principals.of(tenant).await.unwrap();
    let world = world(bench);
    assert_eq!(world.keys, [principal.keys.access_key_id.expose_secret()]);
    assert!(world.most_keys <= 2);
    assert_eq!((world.users.len(), world.roles.len()), (1, 1));
    assert!(world.users.values().all(|(_, policy)| policy.is_some()));
    assert!(world.roles.values().all(|(_, policy)| policy.is_some()));
}

#[tokio::test]
async fn made_once_it_stays() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    let first = bench.maker.make(tenant).await.unwrap();
    for _ in 0..3 {
        assert_eq!(bench.maker.make(tenant).await.unwrap(), first);
    }
    assert_eq!(world(&bench).keys_made, 1);
    check_whole(&bench, tenant).await;
}

#[tokio::test]
async fn broken_off_at_every_step_the_next_run_goes_on() {
    let steps = {
        let bench = Bench::default();
        bench.maker.make(TenantId::new()).await.unwrap();
        bench.knife.steps.load(Ordering::SeqCst)
    };
    assert!(steps > 12, "{steps} steps are too few to be all");
    for step in 0..steps {
        for cut in [Cut::Before(step), Cut::After(step)] {
            let (bench, tenant) = (Bench::default(), TenantId::new());
            *bench.knife.cut.lock().unwrap() = Some(cut);
            bench.maker.make(tenant).await.expect_err("the cut breaks the first run off");
            *bench.knife.cut.lock().unwrap() = None;
            bench.maker.make(tenant).await.unwrap_or_else(|error| panic!("after {cut:?}: {error:?}"));
            // The record may be a moment old when a key that was stored is listed late; once more brings the rest.
            bench.maker.make(tenant).await.unwrap();
            check_whole(&bench, tenant).await;
        }
    }
}

#[tokio::test]
async fn a_crash_between_making_and_storing_leaves_an_orphan_that_the_next_run_deletes() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    world(&bench).keys.push("AKIAORPHAN1".to_owned());
    world(&bench).keys.push("AKIAORPHAN2".to_owned());
    bench.maker.make(tenant).await.unwrap();
    check_whole(&bench, tenant).await;
}

#[tokio::test]
async fn instances_at_the_same_time_leave_one_working_key() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    let results = futures::future::join_all((0..8).map(|_| bench.maker.make(tenant))).await;
    assert!(results.iter().any(Result::is_ok));
    bench.maker.make(tenant).await.unwrap();
    check_whole(&bench, tenant).await;
}

#[tokio::test]
async fn a_key_deleted_behind_our_back_is_made_anew_but_not_hastily() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    world(&bench).keys.clear();
    // It may just not be listed yet.
    bench.maker.make(tenant).await.unwrap();
    assert_eq!(world(&bench).keys_made, 1);
    bench.store.age(tenant, Duration::from_secs(120));
    bench.maker.make(tenant).await.unwrap();
    check_whole(&bench, tenant).await;
}

#[tokio::test]
async fn a_changed_trust_or_policy_is_set_again() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    let plan = bench.maker.layout.plan(tenant).unwrap();
    for (role, policy) in world(&bench).roles.values_mut() {
        role.trust = Some(serde_json::json!({ "Statement": "open to all" }));
        *policy = None;
    }
    bench.maker.make(tenant).await.unwrap();
    let world = world(&bench);
    let (role, policy) = &world.roles[&plan.name];
    assert_eq!((role.trust.as_ref(), policy.as_ref()), (Some(&plan.trust()), Some(&plan.role_policy())));
}

#[tokio::test]
async fn a_name_that_is_somebody_elses_is_left_alone() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    let plan = bench.maker.layout.plan(tenant).unwrap();
    let foreign = UserArn::parse(&format!("arn:aws:iam::111111111111:user/people/{}", plan.name)).unwrap();
    world(&bench).users.insert(plan.name.clone(), (foreign, None));
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::Foreign { kind: "user", .. })));
    assert_eq!(world(&bench).keys_made, 0);
}
