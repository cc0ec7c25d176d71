use contracts::{Message as _, tenant::Drift};

use super::*;
use crate::principal::{
    fake::Bench,
    record::{Lease, State},
    rounds::orders,
    store::amend,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn known(bench: &Bench) -> TenantId {
    let tenant = TenantId::new();
    bench.maker.make(tenant).await.unwrap();
    bench.store.age(tenant, HOUR);
    tenant
}

/// As of an instance; what it orders comes out of the other end.
fn instance(bench: &Bench) -> (Asked, tokio::sync::mpsc::Receiver<(TenantId, Why)>) {
    let (orders, ordered) = orders();
    let (keeper, herald) = (Arc::new(bench.keeper()), bench.iam.clone());
    (Asked { keeper, orders, herald, slots: Semaphore::new(AT_ONCE) }, ordered)
}

fn told(bench: &Bench) -> Vec<PrincipalReconciled> {
    let world = bench.world();
    let of = |message: &&RawMessage| message.subject.contains(".principal.reconciled.");
    let decode = |message: &RawMessage| contracts::CloudEvent::decode(&message.payload).unwrap().data;
    world.told.iter().filter(of).map(decode).collect()
}

#[tokio::test]
async fn what_is_found_is_answered_mended_and_told_with_who_asked() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (asked, mut ordered) = instance(&bench);
    bench.world().roles.values_mut().for_each(|role| role.trust = None);
    let found = asked.answer(tenant, Some("operator")).await.unwrap();
    assert_eq!((found.outcome, found.found), (LookOutcome::Mended, vec![Drift::RoleTrust]));
    assert!(found.reason.contains("All is set again"), "{}", found.reason);
    let again = asked.answer(tenant, Some("operator")).await.unwrap();
    assert_eq!(again.outcome, LookOutcome::JustLookedAt, "one who asks again and again costs no more");
    assert!(again.looked_at.is_some() && again.again_after_ms.is_some());
    bench.store.age(tenant, HOUR);
    let later = asked.answer(tenant, None).await.unwrap();
    assert_eq!((later.outcome, later.found.len(), later.key_rotation), (LookOutcome::InOrder, 0, None));
    let told = told(&bench);
    let outcomes: Vec<_> = told.iter().map(|told| (told.outcome, told.user.as_deref())).collect();
    let expected = [
        (LookOutcome::Mended, Some("operator")),
        (LookOutcome::JustLookedAt, Some("operator")),
        (LookOutcome::InOrder, None),
    ];
    assert_eq!(outcomes, expected);
    assert!(ordered.try_recv().is_err(), "nothing is left to be done");
    assert!(bench.store.record(tenant).lease.is_none());
    assert!(PrincipalReconciled::SUBJECT.ends_with(".*"));
}

#[tokio::test]
async fn what_cannot_be_mended_says_what_to_do() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (asked, _ordered) = instance(&bench);
    bench.world().roles.clear();
    let found = asked.answer(tenant, None).await.unwrap();
    assert_eq!((found.outcome, found.found), (LookOutcome::NotMended, vec![Drift::RoleMissing]));
    assert!(found.reason.contains("updating its stack"), "{}", found.reason);
}

#[tokio::test]
async fn a_change_of_its_key_that_is_due_is_begun_and_goes_on() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    bench.store.age(tenant, HOUR * 24 * 40);
    let (asked, mut ordered) = instance(&bench);
    let found = asked.answer(tenant, None).await.unwrap();
    assert_eq!((found.outcome, found.key_rotation), (LookOutcome::InOrder, Some(KeyRotation::Begun)));
    assert_eq!(ordered.try_recv().unwrap(), (tenant, Why::Step));
    bench.store.age(tenant, HOUR);
    let under_way = asked.answer(tenant, None).await.unwrap();
    assert_eq!(under_way.key_rotation, Some(KeyRotation::UnderWay));
    while bench.world().keys.len() > 1 {
        bench.store.age(tenant, HOUR);
        let last = asked.answer(tenant, None).await.unwrap();
        assert!(last.key_rotation.is_some());
    }
    assert_eq!(told(&bench).last().unwrap().key_rotation, Some(KeyRotation::Finished));
}

#[tokio::test(start_paused = true)]
async fn one_who_is_at_it_is_waited_for_and_not_for_ever() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (asked, _ordered) = instance(&bench);
    let lease = Lease { holder: Uuid::now_v7(), until: Timestamp::now().plus(HOUR) };
    let taken = amend(bench.store.as_ref(), tenant, |record| {
        record.lease = Some(lease.clone());
        true
    });
    taken.await.unwrap();
    let began = Instant::now();
    assert_eq!(asked.answer(tenant, None).await.unwrap().outcome, LookOutcome::Busy);
    assert!(began.elapsed() >= FOR_ANOTHER && began.elapsed() < WITHIN);
    // And when it gives the lease back meanwhile, we look.
    let (answer, _) = tokio::join!(asked.answer(tenant, None), async {
        tokio::time::sleep(BETWEEN * 3).await;
        asked.keeper.leave(tenant, lease.holder, false).await.unwrap();
    });
    assert_eq!(answer.unwrap().outcome, LookOutcome::InOrder);
}

#[tokio::test(start_paused = true)]
async fn iam_that_never_answers_keeps_nobody_waiting_beyond_his_time() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (asked, mut ordered) = instance(&bench);
    bench.world().hangs = true;
    let began = Instant::now();
    let refused = asked.answer(tenant, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(began.elapsed() <= WITHIN + LAST_WORDS);
    assert!(bench.store.record(tenant).lease.is_none(), "nobody has to wait for a lease of ours");
    assert_eq!(ordered.try_recv().unwrap(), (tenant, Why::Doubt), "the rounds go on with it");
}

#[tokio::test]
async fn one_that_is_being_made_is_left_alone_and_one_that_is_none_is_not_found() {
    let bench = Bench::default();
    let tenant = known(&bench).await;
    let (asked, _ordered) = instance(&bench);
    let making = amend(bench.store.as_ref(), tenant, |record| {
        record.state = State::Making { claim: Uuid::now_v7() };
        true
    });
    making.await.unwrap();
    assert_eq!(asked.answer(tenant, None).await.unwrap().outcome, LookOutcome::Making);
    let young = TenantId::new();
    assert_eq!(asked.answer(young, None).await.unwrap_err().code, ErrorCode::NotFound);
    bench.maker.make(young).await.unwrap();
    let settling = asked.answer(young, None).await.unwrap();
    assert_eq!(settling.outcome, LookOutcome::Settling);
    assert!(settling.again_after_ms.is_some());
    let own = asked.answer(stranger::STRANGER, None).await.unwrap_err();
    assert_eq!(own.code, ErrorCode::NotFound);
}
