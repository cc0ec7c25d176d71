use aws::Unclear;

use super::{fake::FakeInside, *};
use crate::{
    chain::tests::{Fixture, fixture},
    sts::fake::{FakeSts, Trust, refused, throttled},
};

async fn look(inside: FakeInside, prepare: impl FnOnce(&Fixture)) -> (Sight, Arc<FakeInside>, Fixture) {
    let fixture = fixture(FakeSts::default()).await;
    prepare(&fixture);
    let inside = Arc::new(inside);
    let looker = Looker {
        chain: fixture.chain.clone(),
        own_role: inside.clone(),
        reads: inside.clone(),
        metrics: fixture.metrics.clone(),
    };
    let export = ExportLocation { bucket: "acme-costs".to_owned(), prefix: "cur".to_owned() };
    let by = Instant::now() + Duration::from_secs(4);
    let sight = looker.look(&fixture.suspect, Some(&export), by).await;
    (sight, inside, fixture)
}

fn seen(sight: &Sight) -> (PurposeOutcome, PermissionCheck, Vec<&str>) {
    let [only] = sight.purposes.as_slice() else { panic!("one purpose") };
    (only.outcome, only.check, only.missing.iter().map(String::as_str).collect())
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_be_asked_is_complete_or_says_what_it_lacks() {
    let (sight, _, fixture) = look(FakeInside::default(), |_| {}).await;
    assert_eq!(seen(&sight), (PurposeOutcome::Complete, PermissionCheck::Simulation, vec![]));
    assert_eq!(sight.longest_session_s, Some(43_200));
    let policies: Vec<_> = fixture.sts.calls().into_iter().filter_map(|call| call.session_policy).collect();
    assert_eq!(policies, [purpose::look_at_itself(&fixture.suspect.role)], "the session can do nothing else");

    let lacks = vec!["s3:GetObject", "ce:GetCostAndUsage"];
    let (sight, ..) = look(FakeInside { lacks, ..FakeInside::default() }, |_| {}).await;
    let missing = vec!["ce:GetCostAndUsage", "s3:GetObject"];
    assert_eq!(seen(&sight), (PurposeOutcome::Missing, PermissionCheck::Simulation, missing));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_be_asked_is_read_with_the_purposes_own_policy() {
    let (sight, inside, fixture) = look(FakeInside { iam: Some(refused()), ..FakeInside::default() }, |_| {}).await;
    assert_eq!(seen(&sight), (PurposeOutcome::Complete, PermissionCheck::Read, vec![]));
    assert_eq!(sight.longest_session_s, None);
    let asked = inside.asked.lock().unwrap().clone();
    assert_eq!(asked.last().unwrap(), "s3:ListBucket");
    let last = fixture.sts.calls().pop().unwrap().session_policy.unwrap();
    assert_eq!(last, purpose::session_policy(Purpose::CostRead, &fixture.suspect.region));

    let closed = FakeInside { iam: Some(refused()), reads: Some(refused()), ..FakeInside::default() };
    let (sight, ..) = look(closed, |_| {}).await;
    assert_eq!(seen(&sight), (PurposeOutcome::Missing, PermissionCheck::Read, vec!["s3:ListBucket"]));
}

#[tokio::test(start_paused = true)]
async fn attack_05_trouble_is_never_a_missing_permission() {
    let garbage = Failure::new(FailureKind::Indeterminate(Unclear::Garbage), None);
    let no_bucket = Failure::new(FailureKind::Other, Some("NoSuchBucket"));
    for (iam, reads) in [
        (throttled(), None),
        (garbage.clone(), None),
        (Failure::new(FailureKind::Other, Some("ExpiredToken")), None),
        (refused(), Some(throttled())),
        (refused(), Some(garbage)),
        (refused(), Some(no_bucket)),
    ] {
        let (sight, ..) = look(FakeInside { iam: Some(iam), reads, ..FakeInside::default() }, |_| {}).await;
        assert_eq!(seen(&sight).0, PurposeOutcome::Indeterminate);
    }
    // Nor is a session that cannot be had.
    let (sight, ..) =
        look(FakeInside::default(), |fixture| fixture.sts.set(&fixture.suspect.role, Trust::Nobody)).await;
    assert_eq!(seen(&sight).0, PurposeOutcome::Indeterminate);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_tried_again() {
    let inside = FakeInside::default();
    inside.trouble.lock().unwrap().extend([Some(throttled()), Some(throttled())]);
    let (sight, ..) = look(inside, |_| {}).await;
    assert_eq!(seen(&sight).0, PurposeOutcome::Complete);
    assert_eq!(sight.longest_session_s, Some(43_200));
}
