use std::sync::atomic::Ordering;

use contracts::UserArn;
use secrecy::ExposeSecret as _;

use super::*;
use crate::principal::{
    fake::{Bench, Cut, World},
    iam::FoundUser,
};

fn world(bench: &Bench) -> std::sync::MutexGuard<'_, World> {
    bench.world()
}

/// The principal can be used with a key that IAM has, and IAM has no other.
async fn check_whole(bench: &Bench, tenant: TenantId) {
    let principal = bench.principals().of(tenant).await.unwrap();
    let world = world(bench);
    assert_eq!(world.ids(), [principal.keys.access_key_id.expose_secret()]);
    assert!(world.most_keys <= 2);
    assert_eq!((world.users.len(), world.roles.len()), (1, 1));
    let name = world.users.keys().next().unwrap();
    for half in Half::ALL {
        assert_eq!(world.inline[&(half, name.clone())].len(), 1);
    }
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
    for orphan in ["AKIAORPHAN1", "AKIAORPHAN2"] {
        world(&bench).keys.push((orphan.to_owned(), true));
    }
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
    let plan = bench.maker.plan(tenant).await.unwrap();
    for role in world(&bench).roles.values_mut() {
        role.trust = Some(serde_json::json!({ "Statement": "open to all" }));
    }
    let role = (Half::Role, plan.name.clone());
    world(&bench).inline.get_mut(&role).unwrap().clear();
    world(&bench).inline.get_mut(&role).unwrap().insert("more".to_owned(), serde_json::json!({}));
    world(&bench).attached.insert(role.clone(), vec!["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]);
    bench.maker.make(tenant).await.unwrap();
    let world = world(&bench);
    assert_eq!(world.roles[&plan.name].trust.as_ref(), Some(&plan.trust()));
    assert_eq!(world.inline[&role].values().collect::<Vec<_>>(), [&plan.role_policy()]);
    assert!(world.attached[&role].is_empty());
}

#[tokio::test]
async fn a_name_that_is_somebody_elses_is_left_alone() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    let plan = bench.maker.plan(tenant).await.unwrap();
    let foreign = UserArn::parse(&format!("arn:aws:iam::111111111111:user/people/{}", plan.name)).unwrap();
    world(&bench).users.insert(plan.name.clone(), FoundUser { arn: foreign, boundary: None });
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::Foreign { kind: "user", .. })));
    assert_eq!(world(&bench).keys_made, 0);
}
