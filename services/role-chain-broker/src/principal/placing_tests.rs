use std::sync::atomic::Ordering;

use futures::future::join_all;
use secrecy::ExposeSecret as _;

use super::*;
use crate::principal::{
    fake::{Bench, Cut},
    iam::Half,
    keeper::Why,
    rotation::Progress,
    store::PrincipalStore as _,
};

const OWN: &str = "111111111111";
const SECOND: &str = "333333333333";
const THIRD: &str = "444444444444";

fn lives(record: &Record) -> &str {
    record.role_arn.account().as_str()
}

/// Users and roles of each account.
fn there(bench: &Bench) -> Vec<(usize, usize)> {
    let count = |at| {
        let world = bench.world_of(at);
        (world.users.len(), world.roles.len())
    };
    (0..bench.iams.len()).map(count).collect()
}

#[tokio::test]
async fn new_ones_go_where_there_is_most_room_until_there_is_none() {
    let bench = Bench::over(None, &[(OWN, 2), (SECOND, 3), (THIRD, 0)]);
    let mut homes = Vec::new();
    for _ in 0..5 {
        homes.push(lives(&bench.maker.make(TenantId::new()).await.unwrap()).to_owned());
    }
    assert_eq!(homes, [SECOND, OWN, SECOND, OWN, SECOND], "of two with the same room the one that is named first");
    let tenant = TenantId::new();
    let full = bench.maker.make(tenant).await.unwrap_err();
    assert!(matches!(&full, MakeError::Full { accounts } if accounts.contains("333333333333 has 3 of 3")), "{full}");
    assert!(bench.store.get(tenant).await.unwrap().is_none(), "nothing is written down of one that has no place");
    assert_eq!(there(&bench), [(2, 2), (3, 3), (0, 0)]);
}

#[tokio::test]
async fn an_account_that_does_not_answer_is_passed_over() {
    let bench = Bench::over(None, &[(OWN, 10), (SECOND, 20)]);
    bench.world_of(1).silent = true;
    let record = bench.maker.make(TenantId::new()).await.unwrap();
    assert_eq!(lives(&record), OWN);
    bench.world_of(0).silent = true;
    let tenant = TenantId::new();
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::Iam { .. })));
    bench.world_of(1).silent = false;
    assert_eq!(lives(&bench.maker.make(tenant).await.unwrap()), SECOND);
}

#[tokio::test]
async fn everything_of_a_principal_happens_in_its_own_account() {
    let bench = Bench::over(None, &[(OWN, 0), (SECOND, 10)]);
    let tenant = TenantId::new();
    let record = bench.maker.make(tenant).await.unwrap();
    assert_eq!(lives(&record), SECOND);
    assert!(record.user_arn.as_str().starts_with("arn:aws:iam::333333333333:user/"));
    assert_eq!(there(&bench), [(0, 0), (1, 1)]);
    // Mended there.
    bench.store.age(tenant, Duration::from_secs(3600));
    bench.world_of(1).attached.insert((Half::User, format!("rolebridge-{tenant}")), vec!["wide".to_owned()]);
    bench.keeper().visit(tenant, Why::Round).await.unwrap();
    assert!(bench.world_of(1).attached.values().all(Vec::is_empty));
    // Its key is changed there.
    let mut rotator = bench.rotator();
    rotator.sts = bench.iams[1].clone();
    rotator.advance(tenant, true).await.unwrap();
    for _ in 0..3 {
        bench.store.age(tenant, Duration::from_secs(200));
        if rotator.advance(tenant, false).await.unwrap() == Progress::Rotated {
            break;
        }
    }
    assert_eq!(bench.world_of(0).keys_made, 0);
    let made = bench.world_of(1).keys_made;
    assert_eq!((made, bench.world_of(1).ids().len()), (2, 1));
    // Denied and removed there.
    bench.revoker.deny(tenant, Timestamp::now()).await.unwrap();
    assert_eq!(bench.world_of(1).inline.values().map(std::collections::HashMap::len).sum::<usize>(), 3);
    bench.revoker.remove(tenant).await.unwrap();
    assert_eq!(there(&bench), [(0, 0), (0, 0)]);
    assert!(bench.store.census().await.unwrap().is_empty(), "what is gone takes no room");
}

#[tokio::test]
async fn iams_own_limit_sends_it_on_and_leaves_nothing_behind() {
    for users in [true, false] {
        let bench = Bench::over(None, &[(OWN, 900), (SECOND, 800)]);
        match users {
            true => bench.world_of(0).most_users = Some(0),
            false => bench.world_of(0).most_roles = Some(0),
        }
        let tenant = TenantId::new();
        let record = bench.maker.make(tenant).await.unwrap();
        assert_eq!((lives(&record), there(&bench)), (SECOND, vec![(0, 0), (1, 1)]));
        assert_eq!(record.left, [AccountId::parse(OWN).unwrap()]);
        // Somebody stood still while it was moved: what he made is found, and then nobody looks any more.
        bench.store.age(tenant, Duration::from_secs(3600));
        let plan = bench.maker.accounts.place(tenant, &AccountId::parse(OWN).unwrap()).unwrap();
        bench.world_of(0).most_users = None;
        plan.iam.create_user(&plan.path, &plan.name, tenant, None).await.unwrap();
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        assert_eq!(there(&bench)[0], (0, 0));
        assert!(bench.store.record(tenant).left.is_empty());
        // The account is known to be full: the next one goes elsewhere at once.
        assert!(bench.maker.make(TenantId::new()).await.unwrap().left.is_empty());
    }
}

#[tokio::test]
async fn with_no_other_room_it_waits_where_it_was_begun() {
    let bench = Bench::over(None, &[(OWN, 900)]);
    bench.world_of(0).most_roles = Some(0);
    let tenant = TenantId::new();
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::Full { .. })));
    bench.world_of(0).most_roles = None;
    assert_eq!(lives(&bench.maker.make(tenant).await.unwrap()), OWN);
}

#[tokio::test]
async fn one_that_has_stood_is_never_moved() {
    let bench = Bench::over(None, &[(OWN, 900), (SECOND, 800)]);
    let tenant = TenantId::new();
    bench.maker.make(tenant).await.unwrap();
    bench.world_of(0).roles.clear();
    bench.world_of(0).most_roles = Some(0);
    assert!(matches!(bench.maker.make(tenant).await, Err(MakeError::AtLimit { .. })));
    assert_eq!(lives(&bench.store.record(tenant)), OWN);
}

/// Wherever it breaks off, the tenant ends with one principal in one account.
#[tokio::test]
async fn broken_off_at_every_step_there_is_never_one_in_each_account() {
    let bench = || {
        let bench = Bench::over(None, &[(OWN, 900), (SECOND, 800)]);
        bench.world_of(0).most_roles = Some(0);
        bench
    };
    let steps = {
        let bench = bench();
        bench.maker.make(TenantId::new()).await.unwrap();
        bench.knife.steps.load(Ordering::SeqCst)
    };
    assert!(steps > 20, "{steps} steps are too few to be all");
    for step in 0..steps {
        for cut in [Cut::DeadBefore(step), Cut::DeadAfter(step), Cut::Before(step), Cut::After(step)] {
            let (bench, tenant) = (bench(), TenantId::new());
            bench.knife.set(Some(cut));
            drop(bench.maker.make(tenant).await);
            bench.knife.set(None);
            for _ in 0..2 {
                bench.maker.make(tenant).await.unwrap_or_else(|error| panic!("after {cut:?}: {error:?}"));
            }
            bench.store.age(tenant, Duration::from_secs(3600));
            bench.keeper().visit(tenant, Why::Round).await.unwrap();
            assert_eq!(there(&bench), [(0, 0), (1, 1)], "after {cut:?}");
            let principal = bench.principals().of(tenant).await.unwrap();
            assert_eq!(principal.role_arn.account().as_str(), SECOND);
            assert_eq!(bench.world_of(1).ids(), [principal.keys.access_key_id.expose_secret()], "after {cut:?}");
        }
    }
}

#[tokio::test]
async fn instances_at_the_same_time_choose_one_account() {
    for limited in [false, true] {
        let bench = Bench::over(None, &[(OWN, 900), (SECOND, 800)]);
        bench.world_of(0).most_roles = limited.then_some(0);
        let tenant = TenantId::new();
        join_all((0..8).map(|_| bench.maker.make(tenant))).await;
        let record = bench.maker.make(tenant).await.unwrap();
        bench.store.age(tenant, Duration::from_secs(3600));
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        let expected = if limited { [(0, 0), (1, 1)] } else { [(1, 1), (0, 0)] };
        assert_eq!((there(&bench), lives(&record)), (expected.to_vec(), if limited { SECOND } else { OWN }));
    }
}

#[tokio::test]
async fn an_account_that_is_taken_off_the_list_is_missed() {
    let bench = Bench::over(None, &[(OWN, 0), (SECOND, 10)]);
    let tenant = TenantId::new();
    bench.maker.make(tenant).await.unwrap();
    assert!(bench.maker.unlisted().await.unwrap().is_empty());
    let shorter = Bench::over(None, &[(OWN, 10)]);
    let maker = Maker {
        accounts: shorter.maker.accounts.clone(),
        store: bench.store.clone(),
        wrapper: bench.wrapper.clone(),
        settle: bench.maker.settle,
        metrics: bench.maker.metrics.clone(),
    };
    assert_eq!(maker.unlisted().await.unwrap(), [(AccountId::parse(SECOND).unwrap(), 1)]);
    assert!(matches!(maker.make(tenant).await, Err(MakeError::NotListed { account }) if account.as_str() == SECOND));
    assert_eq!(there(&shorter), [(0, 0)], "and not made once more where it is not");
    assert!(bench.principals().of(tenant).await.is_ok(), "credentials are issued all the same");
}

#[tokio::test]
async fn each_account_has_a_stranger_beside_its_tenants() {
    let bench = Bench::over(None, &[(OWN, 1), (SECOND, 1)]);
    let (first, second) = (TenantId::new(), TenantId::new());
    for tenant in [first, second] {
        bench.maker.make(tenant).await.unwrap();
    }
    let own = bench.maker.accounts.own().clone();
    for account in bench.maker.accounts.ids() {
        bench.maker.make(stranger::of(account, &own)).await.expect("it has a place whether there is room or not");
    }
    assert_eq!(there(&bench), [(2, 2), (2, 2)]);
    let principals = bench.principals();
    for tenant in [first, second] {
        let stranger = principals.stranger_beside(tenant).await.unwrap();
        assert!(stranger::is_one(stranger));
        assert_eq!(principals.account(stranger).await.unwrap(), principals.account(tenant).await.unwrap());
    }
}
