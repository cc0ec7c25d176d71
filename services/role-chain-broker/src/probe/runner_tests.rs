use contracts::verification::Fault;

use super::*;
use crate::{
    chain::tests::{Fixture, fixture},
    sts::fake::{FakeSts, Trust, throttled},
};

const LIMITS: Limits = Limits { settle: Duration::from_secs(10), deadline: Duration::from_secs(120) };

async fn verdict(sts: FakeSts, trust: fn(ExternalId) -> Trust) -> (Outcome, Fixture) {
    let fixture = fixture(sts).await;
    fixture.sts.set(&fixture.suspect.role, trust(fixture.suspect.external_id.clone()));
    let prober = fixture.prober();
    (prober.run(&fixture.suspect, LIMITS).await.unwrap(), fixture)
}

#[tokio::test(start_paused = true)]
async fn the_right_trust_holds_with_evidence_of_four() {
    let (outcome, fixture) = verdict(FakeSts::default(), Trust::Id).await;
    assert_eq!(outcome.verdict, Verdict::Held);
    let seen: Vec<_> = outcome.evidence.iter().map(|e| (e.probe, e.outcome)).collect();
    assert_eq!(
        seen,
        [
            (Probe::RightId, ProbeOutcome::Succeeded),
            (Probe::CallerIdentity, ProbeOutcome::Succeeded),
            (Probe::NoId, ProbeOutcome::Refused),
            (Probe::RandomId, ProbeOutcome::Refused)
        ]
    );
    // The session that probes carries no condition on the external ID: a refusal must be the customer's.
    let calls = fixture.sts.calls();
    let first_hop: Vec<_> = calls.iter().filter(|call| call.role == fixture.principal_role).collect();
    assert_eq!(first_hop.len(), 1);
    assert!(first_hop[0].session_policy.as_ref().is_none_or(|policy| !policy.contains("ExternalId")));
    assert_ne!(calls.last().unwrap().external_id.as_ref(), Some(&fixture.suspect.external_id));
}

#[tokio::test(start_paused = true)]
async fn loose_trusts_are_caught() {
    for (trust, fault) in [
        ((|_| Trust::Anyone) as fn(ExternalId) -> Trust, Fault::OpenWithoutId),
        (|_| Trust::AnyId, Fault::OpenWithRandomId),
        (Trust::IdIfGiven, Fault::OpenWithoutId),
        (|_| Trust::Nobody, Fault::Refused),
    ] {
        let (outcome, _) = verdict(FakeSts::default(), trust).await;
        assert_eq!(outcome.verdict, Verdict::Failed { fault });
    }
}

#[tokio::test(start_paused = true)]
async fn another_account_is_caught() {
    let sts = FakeSts { account: Some(AccountId::parse("999999999999").unwrap()), ..FakeSts::default() };
    let (outcome, _) = verdict(sts, Trust::Id).await;
    assert_eq!(outcome.verdict, Verdict::Failed { fault: Fault::WrongAccount });
}

#[tokio::test(start_paused = true)]
async fn attack_05_trouble_is_tried_again_and_never_decides() {
    let sts = FakeSts::default();
    // First hop, right ID, identity, no ID, random ID: each meets trouble once or more.
    sts.trouble([Some(throttled()), None, Some(throttled()), None, Some(throttled()), None, Some(throttled())]);
    let (outcome, _) = verdict(sts, Trust::Id).await;
    assert_eq!(outcome.verdict, Verdict::Held);
    assert!(outcome.evidence.iter().any(|e| e.outcome == ProbeOutcome::Indeterminate));

    let sts = FakeSts::default();
    sts.trouble(std::iter::repeat_n(Some(throttled()), 10_000));
    let (outcome, _) = verdict(sts, Trust::Id).await;
    assert_eq!(outcome.verdict, Verdict::Indeterminate);
    assert!(outcome.evidence.len() <= MOST_EVIDENCE);
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_hop_is_never_the_customers_fault() {
    let fixture = fixture(FakeSts::default()).await;
    fixture.sts.set(&fixture.principal_role, Trust::Nobody);
    let prober = fixture.prober();
    let outcome = prober.run(&fixture.suspect, LIMITS).await.unwrap();
    assert_eq!(outcome.verdict, Verdict::Indeterminate);
}

/// A policy of our own side that lets out only what it likes: what it refuses says nothing about the customer's role.
#[tokio::test(start_paused = true)]
async fn attack_04_a_refusal_by_our_own_side_never_makes_an_open_role_held() {
    let only_with_an_id = |_| Trust::AnyId;
    let only_ours: fn(ExternalId) -> Trust = Trust::Id;
    for ours in [only_with_an_id as fn(ExternalId) -> Trust, only_ours] {
        for theirs in [Trust::IdIfGiven as fn(ExternalId) -> Trust, Trust::Id, |_| Trust::AnyId] {
            let fixture = fixture(FakeSts::default()).await;
            let id = &fixture.suspect.external_id;
            fixture.sts.set(&fixture.suspect.role, theirs(id.clone()));
            *fixture.sts.lets_out.lock().unwrap() = Some(ours(id.clone()));
            let outcome = fixture.prober().run(&fixture.suspect, LIMITS).await.unwrap();
            assert_eq!(outcome.verdict, Verdict::Indeterminate);
            let believed = outcome.evidence.iter().filter(|seen| seen.outcome == ProbeOutcome::Refused).count();
            assert_eq!(believed, 0, "{:?}", outcome.evidence);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attack_04_the_canary_is_sent_the_very_call_that_was_refused() {
    let (outcome, fixture) = verdict(FakeSts::default(), Trust::Id).await;
    assert_eq!(outcome.verdict, Verdict::Held);
    let calls = fixture.sts.calls();
    let asked: Vec<_> = calls.windows(2).filter(|two| two[1].role == fixture.canary).collect();
    assert_eq!(asked.len(), 2, "one for each refusal");
    for two in asked {
        assert_eq!(two[0].role, fixture.suspect.role);
        let same = |call: &crate::sts::fake::Seen| {
            (call.external_id.clone(), call.session_policy.clone(), call.seconds, call.by.clone())
        };
        assert_eq!(same(&two[0]), same(&two[1]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_our_own_side_refuses_is_not_the_customers_fault() {
    let fixture = fixture(FakeSts::default()).await;
    let prober = fixture.prober();
    *fixture.sts.lets_out.lock().unwrap() = Some(Trust::Nobody);
    assert_eq!(prober.run(&fixture.suspect, LIMITS).await.unwrap().verdict, Verdict::Indeterminate);
    assert_eq!(prober.still_lets_in(&fixture.suspect).await.unwrap().0, Seen::Unclear);
    *fixture.sts.lets_out.lock().unwrap() = None;
    fixture.sts.set(&fixture.suspect.role, Trust::Nobody);
    assert_eq!(prober.run(&fixture.suspect, LIMITS).await.unwrap().verdict, Verdict::Failed { fault: Fault::Refused });
}

/// The canary's word is kept for less than a role is given to settle: trouble on our side that comes just after it spoils no verdict.
#[tokio::test(start_paused = true)]
async fn a_yes_of_the_canary_is_kept_and_does_not_outlast_a_change_of_our_side() {
    let fixture = fixture(FakeSts::default()).await;
    let prober = fixture.prober();
    let asked = || fixture.sts.calls().iter().filter(|call| call.role == fixture.canary).count();
    fixture.sts.set(&fixture.suspect.role, Trust::Nobody);
    for (later, expected) in [(0, 1), (9, 1), (2, 2)] {
        tokio::time::advance(Duration::from_secs(later)).await;
        assert_eq!(prober.still_lets_in(&fixture.suspect).await.unwrap().0, Seen::Refused);
        assert_eq!(asked(), expected);
    }
    fixture.sts.set(&fixture.suspect.role, Trust::Id(fixture.suspect.external_id.clone()));
    *fixture.sts.lets_out.lock().unwrap() = Some(Trust::Nobody);
    let limits = Limits { settle: Duration::from_secs(45), ..LIMITS };
    assert_eq!(prober.run(&fixture.suspect, limits).await.unwrap().verdict, Verdict::Indeterminate);
}

/// Nor does a warm canary make a refusal of the first hop the customer's.
#[tokio::test(start_paused = true)]
async fn a_warm_canary_does_not_vouch_for_the_first_hop() {
    // Each call makes a first hop of its own.
    let fixture = fixture(FakeSts { lasts: Some(0), ..FakeSts::default() }).await;
    let prober = fixture.prober();
    fixture.sts.set(&fixture.suspect.role, Trust::Nobody);
    assert_eq!(prober.still_lets_in(&fixture.suspect).await.unwrap().0, Seen::Refused);
    fixture.sts.set(&fixture.principal_role, Trust::Nobody);
    assert_eq!(prober.still_lets_in(&fixture.suspect).await.unwrap().0, Seen::Unclear);
}

#[test]
fn evidence_stays_small_and_keeps_first_and_last() {
    let mut kept = Vec::new();
    for n in 0..1000 {
        keep(&mut kept, evidence(Probe::RightId, ProbeOutcome::Refused, Some(n.to_string()), None));
    }
    let ids: Vec<_> = kept.iter().map(|e| e.aws_request_id.clone().unwrap()).collect();
    assert_eq!(ids, ["0", "999"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_takes_neither_the_deadline_nor_the_verdict() {
    let fixture = fixture(FakeSts { delay: Duration::from_secs(3600), ..FakeSts::default() }).await;
    let prober = fixture.prober();
    let began = Instant::now();
    let limits = Limits { deadline: Duration::from_secs(20), ..LIMITS };
    let outcome = prober.run(&fixture.suspect, limits).await.unwrap();
    assert_eq!(outcome.verdict, Verdict::Indeterminate);
    assert!(began.elapsed() <= limits.deadline + Duration::from_millis(10), "{:?}", began.elapsed());
    assert!(outcome.evidence.len() >= 2, "it was asked more than once");
}

#[tokio::test(start_paused = true)]
async fn a_principal_that_does_not_stand_is_no_evidence() {
    let fixture = fixture(FakeSts::default()).await;
    let prober = fixture.prober();
    assert_eq!(prober.other_principal(&fixture.suspect).await, None);
    assert!(fixture.sts.calls().is_empty());
}
