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
    let prober = Prober::new(fixture.chain.clone(), fixture.metrics.clone());
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
    let prober = Prober::new(fixture.chain.clone(), fixture.metrics.clone());
    let outcome = prober.run(&fixture.suspect, LIMITS).await.unwrap();
    assert_eq!(outcome.verdict, Verdict::Indeterminate);
}

/// A policy above the account that denies calls without an external ID: what it refuses says nothing about the customer's role.
#[tokio::test(start_paused = true)]
async fn attack_04_a_refusal_by_our_own_side_never_makes_an_open_role_held() {
    for trust in [Trust::IdIfGiven as fn(ExternalId) -> Trust, Trust::Id] {
        let (outcome, fixture) = verdict(FakeSts { denies_without_id: true, ..FakeSts::default() }, trust).await;
        assert_eq!(outcome.verdict, Verdict::Indeterminate);
        assert!(outcome.evidence.iter().all(|seen| seen.outcome != ProbeOutcome::Refused), "{:?}", outcome.evidence);
        assert!(fixture.sts.calls().iter().any(|call| call.role == fixture.canary && call.external_id.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_our_own_side_refuses_is_not_the_customers_fault() {
    let fixture = fixture(FakeSts::default()).await;
    let prober = Prober::new(fixture.chain.clone(), fixture.metrics.clone());
    for role in [&fixture.canary, &fixture.suspect.role] {
        fixture.sts.set(role, Trust::Nobody);
    }
    assert_eq!(prober.run(&fixture.suspect, LIMITS).await.unwrap().verdict, Verdict::Indeterminate);
    assert_eq!(prober.still_lets_in(&fixture.suspect).await.unwrap().0, Seen::Unclear);
    fixture.sts.set(&fixture.canary, Trust::Anyone);
    assert_eq!(prober.run(&fixture.suspect, LIMITS).await.unwrap().verdict, Verdict::Failed { fault: Fault::Refused });
    let asked = fixture.sts.calls().iter().rev().take_while(|call| call.role != fixture.canary).count();
    assert!(asked > 1, "a warm canary is not asked again");
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
    let prober = Prober::new(fixture.chain.clone(), fixture.metrics.clone());
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
    let prober = Prober::new(fixture.chain.clone(), fixture.metrics.clone());
    assert_eq!(prober.other_principal(&fixture.suspect).await, None);
    assert!(fixture.sts.calls().is_empty());
}
