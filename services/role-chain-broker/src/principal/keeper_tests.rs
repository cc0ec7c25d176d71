use std::sync::atomic::Ordering;

use contracts::Message as _;
use serde_json::json;

use super::*;
use crate::principal::{
    fake::{Bench, Cut, World},
    iam::Half,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A principal that was looked at once, long ago.
async fn known(bench: &Bench) -> TenantId {
    let tenant = TenantId::new();
    bench.maker.make(tenant).await.unwrap();
    bench.store.age(tenant, HOUR);
    bench.keeper().visit(tenant, Why::Round).await.unwrap();
    assert!(bench.world().told.is_empty(), "all is well");
    assert!(bench.store.record(tenant).role_id.is_some());
    bench.store.age(tenant, HOUR);
    tenant
}

fn alarms(bench: &Bench) -> Vec<PrincipalDrift> {
    let world = bench.world();
    let drifts = world.told.iter().filter(|message| message.subject.contains(".principal.drift."));
    drifts.map(|message| CloudEvent::<PrincipalDrift>::decode(&message.payload).unwrap().data).collect()
}

type Change = fn(&mut World, &str);

fn every_kind() -> Vec<(Drift, Change)> {
    fn policies<'w>(
        world: &'w mut World,
        half: Half,
        name: &str,
    ) -> &'w mut std::collections::HashMap<String, serde_json::Value> {
        world.inline.get_mut(&(half, name.to_owned())).unwrap()
    }
    vec![
        (Drift::UserMissing, |world, name| {
            world.users.remove(name);
            world.keys.clear();
            world.inline.remove(&(Half::User, name.to_owned()));
        }),
        (Drift::UserPolicy, |world, name| drop(policies(world, Half::User, name).insert("more".to_owned(), json!({})))),
        (Drift::UserPolicy, |world, name| policies(world, Half::User, name).clear()),
        (Drift::RoleMissing, |world, name| {
            world.roles.remove(name);
            world.inline.remove(&(Half::Role, name.to_owned()));
        }),
        (Drift::RoleReplaced, |world, name| world.roles.get_mut(name).unwrap().id = "AROAANOTHER".to_owned()),
        (Drift::RoleTrust, |world, name| world.roles.get_mut(name).unwrap().trust = Some(json!({ "open": true }))),
        (Drift::RolePolicy, |world, name| {
            for policy in policies(world, Half::Role, name).values_mut() {
                *policy = json!({ "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] });
            }
        }),
        (Drift::RolePolicy, |world, name| {
            world
                .attached
                .insert((Half::Role, name.to_owned()), vec!["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]);
        }),
        (Drift::Boundary, |world, name| world.roles.get_mut(name).unwrap().boundary = None),
        (Drift::AccessKeyMissing, |world, _| world.keys.clear()),
        (Drift::AccessKeyMissing, |world, _| world.keys[0].1 = false),
        (Drift::AccessKeyForeign, |world, _| world.keys.push(("AKIAFOREIGN".to_owned(), true))),
    ]
}

const BOUNDARY: Option<&str> = Some("arn:aws:iam::111111111111:policy/rolebridge-principal-boundary");

#[tokio::test]
async fn attack_23_each_kind_of_change_is_told_once_and_mended() {
    for (expected, change) in every_kind() {
        let bench = Bench::bounded(BOUNDARY);
        let tenant = known(&bench).await;
        let name = bench.maker.plan(tenant).await.unwrap().name.clone();
        change(&mut bench.world(), &name);
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        let told = alarms(&bench);
        assert_eq!(told.len(), 1, "{expected:?}");
        assert_eq!(told[0].found, [expected]);
        let lost = matches!(expected, Drift::RoleMissing | Drift::RoleReplaced);
        assert_eq!(told[0].mended, !lost, "{expected:?}: {}", told[0].reason);
        assert_eq!(told[0].reason.contains("updating its stack"), lost);
        // And now all is well.
        bench.store.age(tenant, HOUR);
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        assert_eq!(alarms(&bench).len(), 1, "{expected:?} is told again");
        assert_eq!(bench.world().keys.len(), 1);
        assert!(bench.principals().of(tenant).await.is_ok());
    }
}

/// Else the first round after an upgrade would be an alarm for every tenant.
#[tokio::test]
async fn attack_23_policies_of_an_earlier_version_are_renewed_and_anything_else_is_told() {
    for (more, alarms_told) in [(false, 0), (true, 1)] {
        let bench = Bench::bounded(BOUNDARY);
        let tenant = known(&bench).await;
        let plan = bench.maker.plan(tenant).await.unwrap();
        let role = (Half::Role, plan.name.clone());
        let earlier: std::collections::HashMap<_, _> =
            plan.earlier_policies(Half::Role, None).remove(0).into_iter().collect();
        {
            let mut world = bench.world();
            let inline = world.inline.get_mut(&role).unwrap();
            assert_ne!(inline["rolebridge-chain"], earlier["rolebridge-chain"]);
            inline.extend(earlier.into_iter().map(|(name, text)| (name.to_owned(), text)));
            if more {
                inline.insert("more".to_owned(), json!({}));
            }
        }
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        assert_eq!(alarms(&bench).len(), alarms_told);
        assert_eq!(bench.world().inline[&role].values().collect::<Vec<_>>(), [&plan.role_policy()]);
    }
}

/// An earlier text that allowed more than today's would let whoever puts it back go unseen.
#[tokio::test]
async fn attack_23_earlier_policies_allow_less_than_todays() {
    let bench = Bench::default();
    let plan = bench.maker.plan(TenantId::new()).await.unwrap();
    let statements = |policy: &serde_json::Value| policy["Statement"].as_array().unwrap().clone();
    for half in Half::ALL {
        let [(name, today)] = &plan.policies(half, None)[..] else { panic!("one policy") };
        for earlier in plan.earlier_policies(half, None) {
            let [(earlier_name, text)] = &earlier[..] else { panic!("one policy") };
            assert_eq!(earlier_name, name);
            assert!(statements(text).iter().all(|statement| statements(today).contains(statement)), "{text}");
        }
    }
}

/// Whatever breaks off, it is told in the end: once, with everything that was found.
#[tokio::test]
async fn attack_23_a_crash_at_any_step_does_not_silence_the_alarm() {
    let (no_role, no_key): (Change, Change) = (|world, _| world.roles.clear(), |world, _| world.keys.clear());
    for (drift, change) in [(Drift::RoleMissing, no_role), (Drift::AccessKeyMissing, no_key)] {
        crashes_at_every_step(drift, change).await;
    }
}

async fn crashes_at_every_step(drift: Drift, change: Change) {
    let steps = {
        let bench = Bench::default();
        let tenant = known(&bench).await;
        change(&mut bench.world(), "");
        bench.knife.set(None);
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        bench.knife.steps.load(Ordering::SeqCst)
    };
    for step in 0..steps {
        for cut in [Cut::DeadBefore(step), Cut::DeadAfter(step)] {
            let bench = Bench::default();
            let tenant = known(&bench).await;
            change(&mut bench.world(), "");
            bench.knife.set(Some(cut));
            drop(bench.keeper().visit(tenant, Why::Round).await);
            bench.knife.set(None);
            for _ in 0..2 {
                bench.store.age(tenant, HOUR);
                bench.keeper().visit(tenant, Why::Round).await.unwrap();
            }
            let told = alarms(&bench);
            assert!(told.iter().any(|alarm| alarm.found.contains(&drift)), "{cut:?}: silent");
            assert!(told.iter().all(|alarm| alarm.mended == (drift == Drift::AccessKeyMissing)), "{cut:?}");
            assert!(bench.store.record(tenant).alarm.is_none(), "{cut:?}");
            assert!(bench.principals().of(tenant).await.is_ok(), "{cut:?}");
            assert_eq!(bench.world().keys.len(), 1, "{cut:?}");
        }
    }
}

#[tokio::test]
async fn attack_23_what_cannot_be_mended_is_an_alarm_at_each_look() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let name = bench.maker.plan(tenant).await.unwrap().name.clone();
    let foreign = contracts::UserArn::parse(&format!("arn:aws:iam::111111111111:user/people/{name}")).unwrap();
    bench.world().users.get_mut(&name).unwrap().arn = foreign;
    for looks in 1..3 {
        bench.keeper().visit(tenant, Why::Round).await.unwrap();
        let told = alarms(&bench);
        assert_eq!((told.len(), told[looks - 1].mended), (looks, false));
        assert!(told[looks - 1].reason.contains("at another path"), "{}", told[looks - 1].reason);
        bench.store.age(tenant, HOUR);
    }
}

#[tokio::test]
async fn what_was_just_made_is_not_suspected() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    // As IAM may show it for seconds.
    bench.world().keys.clear();
    bench.keeper().visit(tenant, Why::Round).await.unwrap();
    assert!(alarms(&bench).is_empty());
}

#[tokio::test]
async fn instances_share_the_work_and_take_turns() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (keeper, one, other) = (bench.keeper(), Uuid::now_v7(), Uuid::now_v7());
    let enter = async |why, who| keeper.enter(tenant, why, who).await.unwrap();
    assert_eq!(enter(Why::Round, one).await, None);
    assert!(matches!(enter(Why::Rotate, other).await, Some(Idle::Taken { .. })), "the one is at work");
    assert!(matches!(enter(Why::Asked, one).await, Some(Idle::Taken { .. })), "nor is a lease shared");
    keeper.leave(tenant, other, true).await.unwrap();
    assert!(matches!(enter(Why::Asked, other).await, Some(Idle::Taken { .. })), "nobody gives back another's");
    bench.store.age(tenant, LEASE * 2);
    assert_eq!(enter(Why::Round, other).await, None, "the one has died");
    keeper.leave(tenant, other, true).await.unwrap();
    for why in [Why::Round, Why::Doubt, Why::Asked] {
        assert!(matches!(enter(why, one).await, Some(Idle::Looked { .. })), "it was just looked at");
    }
    assert_eq!(enter(Why::Step, one).await, None, "a rotation goes on all the same");
}

#[tokio::test]
async fn a_rotation_is_driven_by_visits_and_told() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let keeper = bench.keeper();
    let mut why = Why::Rotate;
    while let Some(after) = keeper.visit(tenant, why).await.unwrap() {
        why = Why::Step;
        bench.store.age(tenant, after + Duration::from_millis(1));
    }
    let told = bench.world().told.iter().map(|message| message.subject.clone()).collect::<Vec<_>>();
    let rotated = contracts::credentials::CredentialsRotated::SUBJECT.replace('*', &tenant.to_string());
    assert_eq!(told, [rotated]);
}

#[tokio::test]
async fn the_principal_of_nobody_is_mended_without_an_event() {
    let (bench, tenant) = (Bench::default(), crate::principal::STRANGER);
    bench.maker.make(tenant).await.unwrap();
    bench.store.age(tenant, HOUR);
    bench.world().keys.push(("AKIAFOREIGN".to_owned(), true));
    bench.keeper().visit(tenant, Why::Round).await.unwrap();
    assert!(bench.world().told.is_empty());
    assert_eq!(bench.world().keys.len(), 1);
    assert!(bench.store.record(tenant).alarm.is_none());
}

#[tokio::test]
async fn attack_23_a_role_that_is_replaced_before_the_first_look_is_an_alarm() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    for role in bench.world().roles.values_mut() {
        role.id = "AROAANOTHER".to_owned();
    }
    bench.store.age(tenant, HOUR);
    bench.keeper().visit(tenant, Why::Round).await.unwrap();
    assert_eq!(alarms(&bench)[0].found, [Drift::RoleReplaced]);
}
