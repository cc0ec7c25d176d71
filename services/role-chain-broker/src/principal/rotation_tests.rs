use std::sync::atomic::Ordering;

use contracts::Message as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::*;
use crate::principal::fake::{Bench, Cut};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The record's key opens, is active in IAM, and there are at most two.
async fn check_usable(bench: &Bench, tenant: TenantId, at: impl std::fmt::Debug) -> String {
    bench.knife.set(None);
    let principal = bench.principals().of(tenant).await.unwrap();
    let id = principal.keys.access_key_id.expose_secret().to_owned();
    let world = bench.world();
    assert!(world.keys.contains(&(id.clone(), true)), "{at:?}: no working key");
    assert!(world.most_keys <= 2, "{at:?}");
    assert_eq!(world.over_the_limit, 0, "{at:?}: a third key was asked for");
    id
}

async fn due() -> (Bench, TenantId, String) {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    bench.store.age(tenant, 40 * DAY);
    let old = check_usable(&bench, tenant, "made").await;
    (bench, tenant, old)
}

/// Runs to the end, with time passing while a run wants to wait. Gives how many rotations ended.
async fn run_out(bench: &Bench, tenant: TenantId) -> Result<usize, MakeError> {
    let (rotator, mut rotated) = (bench.rotator(), 0);
    for _ in 0..50 {
        match rotator.advance(tenant, false).await? {
            Progress::Idle => return Ok(rotated),
            Progress::Later(after) => bench.store.age(tenant, after + Duration::from_millis(1)),
            Progress::Rotated => rotated += 1,
        }
    }
    panic!("it goes on for ever: {:?}", bench.store.record(tenant));
}

async fn check_rotated(bench: &Bench, tenant: TenantId, old: &str, at: impl std::fmt::Debug + Copy) {
    let new = check_usable(bench, tenant, at).await;
    assert_ne!(new, old, "{at:?}");
    let world = bench.world();
    assert_eq!(world.keys, [(new, true)], "{at:?}: something is left over");
    let told: Vec<_> = world.told.iter().map(|message| message.subject.as_str()).collect();
    let subject = CredentialsRotated::SUBJECT.replace('*', &tenant.to_string());
    assert_eq!(told, [subject], "{at:?}: told once");
}

#[tokio::test]
async fn a_key_that_is_due_is_changed_once() {
    let (bench, tenant, old) = due().await;
    assert_eq!(run_out(&bench, tenant).await.unwrap(), 1);
    check_rotated(&bench, tenant, &old, "done").await;
    assert_eq!(run_out(&bench, tenant).await.unwrap(), 0, "the new one is not due");
    assert_eq!(bench.world().keys_made, 2);
}

#[tokio::test]
async fn a_young_key_is_left_alone_unless_it_is_wanted() {
    let (bench, tenant) = (Bench::default(), TenantId::new());
    bench.maker.make(tenant).await.unwrap();
    assert_eq!(bench.rotator().advance(tenant, false).await.unwrap(), Progress::Idle);
    assert!(matches!(bench.rotator().advance(tenant, true).await.unwrap(), Progress::Later(_)));
    assert_eq!(run_out(&bench, tenant).await.unwrap(), 1);
}

#[tokio::test]
async fn keys_that_were_made_together_are_due_apart_and_never_late() {
    let bench = Bench::default();
    let pace = bench.rotator().pace;
    let mut dues = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let tenant = TenantId::from_uuid(Uuid::new_v4());
        let record = bench.maker.make(tenant).await.unwrap();
        let age = record.key_made_at().unwrap().until(pace.due(&record).unwrap());
        assert!(age <= pace.period && age >= pace.period.mul_f32(0.9));
        dues.insert(age.as_secs());
        bench.world().keys.clear();
    }
    assert!(dues.len() > 25, "{dues:?}");
}

/// The program dies at each step of the rotation; the next one goes on.
#[tokio::test]
async fn attack_30_a_crash_at_every_step_of_a_rotation() {
    let steps = {
        let (bench, tenant, _) = due().await;
        bench.knife.set(None);
        run_out(&bench, tenant).await.unwrap();
        bench.knife.steps.load(Ordering::SeqCst)
    };
    assert!(steps > 20, "{steps} steps are too few to be all");
    for step in 0..steps {
        for cut in [Cut::Before(step), Cut::After(step), Cut::DeadBefore(step), Cut::DeadAfter(step)] {
            let (bench, tenant, old) = due().await;
            bench.knife.set(Some(cut));
            let first = run_out(&bench, tenant).await;
            // One lost answer of STS is asked for again at once.
            assert!(
                first.is_err() || matches!(cut, Cut::Before(_) | Cut::After(_)),
                "{cut:?} breaks the first run off"
            );
            check_usable(&bench, tenant, cut).await;
            run_out(&bench, tenant).await.unwrap_or_else(|error| panic!("after {cut:?}: {error:?}"));
            check_rotated(&bench, tenant, &old, cut).await;
        }
    }
}

/// The program dies at each step, and so does the one that follows, one step further on.
#[tokio::test]
async fn attack_30_crash_upon_crash() {
    for step in 0..60 {
        let (bench, tenant, old) = due().await;
        for later in 0..6 {
            bench.knife.set(Some(Cut::DeadAfter(step + later)));
            drop(run_out(&bench, tenant).await);
            check_usable(&bench, tenant, (step, later)).await;
        }
        run_out(&bench, tenant).await.unwrap();
        check_rotated(&bench, tenant, &old, step).await;
    }
}

#[tokio::test]
async fn attack_30_many_instances_at_once_leave_one_working_key() {
    for instances in 2..6 {
        let (bench, tenant, old) = due().await;
        for _ in 0..30 {
            let runs = (0..instances).map(|_| async { bench.rotator().advance(tenant, false).await });
            let ended = futures::future::join_all(runs).await;
            {
                let principal = bench.principals().of(tenant).await.unwrap();
                let id = principal.keys.access_key_id.expose_secret().to_owned();
                assert!(bench.world().keys.contains(&(id, true)), "{instances}: no working key");
                assert!(bench.world().most_keys <= 2);
            }
            if ended.iter().any(|end| matches!(end, Ok(Progress::Idle))) {
                break;
            }
            bench.store.age(tenant, Duration::from_secs(101));
        }
        run_out(&bench, tenant).await.unwrap();
        bench.world().over_the_limit = 0; // refused by IAM itself, which is why there are never three
        check_rotated(&bench, tenant, &old, instances).await;
    }
}

#[tokio::test]
async fn a_key_that_iam_does_not_know_yet_is_not_handed_out() {
    let (bench, tenant, old) = due().await;
    bench.world().unsettled = true;
    let rotator = bench.rotator();
    for _ in 0..20 {
        assert!(matches!(rotator.advance(tenant, false).await.unwrap(), Progress::Later(_)));
        bench.store.age(tenant, Duration::from_secs(11));
        assert_eq!(check_usable(&bench, tenant, "unsettled").await, old);
    }
    bench.world().unsettled = false;
    assert_eq!(run_out(&bench, tenant).await.unwrap(), 1);
}

#[tokio::test]
async fn a_new_key_that_never_works_is_given_up_for_another() {
    let (bench, tenant, old) = due().await;
    let rotator = bench.rotator();
    rotator.advance(tenant, false).await.unwrap();
    // Somebody deletes it before it is proven.
    bench.world().keys.retain(|(id, _)| *id == old);
    bench.store.age(tenant, Duration::from_secs(11));
    assert!(matches!(rotator.advance(tenant, false).await.unwrap(), Progress::Later(_)));
    bench.store.age(tenant, Duration::from_secs(600));
    assert_eq!(run_out(&bench, tenant).await.unwrap(), 1);
    assert_eq!(bench.world().keys_made, 3);
    check_rotated(&bench, tenant, &old, "given up").await;
}

#[tokio::test]
async fn when_the_new_key_is_taken_away_the_old_one_comes_back() {
    let (bench, tenant, old) = due().await;
    let rotator = bench.rotator();
    rotator.advance(tenant, false).await.unwrap();
    bench.store.age(tenant, Duration::from_secs(11));
    rotator.advance(tenant, false).await.unwrap();
    bench.store.age(tenant, Duration::from_secs(20));
    rotator.advance(tenant, false).await.unwrap();
    assert!(bench.world().keys.contains(&(old.clone(), false)), "the old one is disabled: {:?}", bench.world().keys);
    bench.world().keys.retain(|(id, _)| *id == old);
    rotator.advance(tenant, false).await.unwrap();
    assert_eq!(check_usable(&bench, tenant, "back").await, old);
}

#[tokio::test]
async fn while_it_is_under_way_the_maker_leaves_both_keys() {
    let (bench, tenant, _) = due().await;
    let rotator = bench.rotator();
    rotator.advance(tenant, false).await.unwrap();
    bench.maker.make(tenant).await.unwrap();
    assert_eq!(bench.world().keys.len(), 2, "proving");
    bench.store.age(tenant, Duration::from_secs(11));
    rotator.advance(tenant, false).await.unwrap();
    bench.maker.make(tenant).await.unwrap();
    assert_eq!(bench.world().keys.len(), 2, "retiring");
}

/// One instance claims and then stands still, at every step; another changes the key meanwhile. What the first deletes is never the key in use.
#[tokio::test]
async fn attack_30_a_rotation_that_stood_still_does_not_delete_the_key_in_use() {
    for stop in 0..60 {
        let tenant = TenantId::new();
        let (bench, principals, _) = crate::principal::fake::ready_bench(tenant).await;
        let stalled = bench.rotator();
        let mut ended = false;
        let mut run = std::pin::pin!(stalled.advance(tenant, true));
        for _ in 0..stop {
            if !ended {
                ended = futures::poll!(&mut run).is_ready();
            }
        }
        let other = bench.rotator();
        let mut wanted = true;
        while let Ok(Progress::Later(after)) = other.advance(tenant, wanted).await {
            wanted = false;
            bench.store.age(tenant, after + Duration::from_millis(1));
        }
        let in_use = principals.of(tenant).await.unwrap().keys.access_key_id;
        if !ended {
            drop(run.await);
        }
        let works =
            |id: &SecretString| bench.world().keys.iter().any(|(key, active)| *active && key == id.expose_secret());
        assert!(works(&in_use), "at step {stop}: the key in use is gone");
        assert!(works(&principals.of(tenant).await.unwrap().keys.access_key_id), "at step {stop}");
        if ended {
            assert!(stop > 5, "{stop} steps are too few to be all");
            return;
        }
    }
    panic!("the rotation never stopped");
}
