//! Asks STS what the inquiry wants to know, and keeps the evidence.

use std::{sync::Arc, time::Duration};

use aws::{Failure, FailureKind};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use contracts::{
    AccountId, ExternalId, Region, RoleArn, TenantId, Timestamp,
    verification::{Probe, ProbeEvidence, ProbeOutcome, Verdict},
};
use tokio::time::Instant;
use tracing::{Instrument as _, field};

use super::{Inquiry, Limits, Next, Seen};
use crate::{
    chain::{Chain, ChainError, Hop},
    metrics::Metrics,
    principal::PrincipalError,
    sts::{Answer, Keys, Session},
};

/// Pauses between two tries of one probe.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// More would not tell more: repeated answers are kept as their first and their last.
const MOST_EVIDENCE: usize = 32;

/// The role to be probed.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub tenant: TenantId,
    pub role: RoleArn,
    pub external_id: ExternalId,
    pub account: AccountId,
    pub region: Region,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: Verdict,
    pub evidence: Vec<ProbeEvidence>,
    /// Time spent in calls to AWS.
    pub in_aws: Duration,
}

/// Probes roles with sessions that are never used for anything else.
#[derive(Clone)]
pub struct Prober {
    chain: Arc<Chain>,
    metrics: Metrics,
}

/// One probe's answer, with the session it gave.
struct Reply {
    seen: Seen,
    session: Option<Session>,
    evidence: ProbeEvidence,
}

impl Prober {
    #[must_use]
    pub fn new(chain: Arc<Chain>, metrics: Metrics) -> Self {
        Self { chain, metrics }
    }

    /// Probes until there is a verdict or the deadline has passed.
    ///
    /// Cancel: may be dropped at any time; nothing is left behind but sessions that end by themselves.
    ///
    /// # Errors
    /// When the tenant has no principal yet, or its key cannot be read. Trouble with AWS is no error but evidence.
    pub async fn run(&self, suspect: &Suspect, limits: Limits) -> Result<Outcome, PrincipalError> {
        let began = Instant::now();
        let (mut inquiry, mut pauses) = (Inquiry::new(limits), pauses());
        let mut outcome = Outcome { verdict: Verdict::Indeterminate, evidence: Vec::new(), in_aws: Duration::ZERO };
        let mut session: Option<Session> = None;
        loop {
            let probe = match inquiry.next(began.elapsed()) {
                Next::Ask(probe) => probe,
                Next::Done(verdict) => return Ok(Outcome { verdict, ..outcome }),
            };
            let asked = Instant::now();
            let reply = self.ask(suspect, probe, session.as_ref().map(|session| &session.keys)).await?;
            outcome.in_aws += asked.elapsed();
            keep(&mut outcome.evidence, reply.evidence);
            inquiry.note(reply.seen, began.elapsed());
            session = reply.session.or(session);
            match inquiry.next(began.elapsed()) {
                // The same question again: give AWS, or the customer's IAM, some time.
                Next::Ask(again) if again == probe => {
                    let left = limits.deadline.saturating_sub(began.elapsed());
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE).min(left)).await;
                }
                _ => pauses = self::pauses(),
            }
        }
    }

    /// Sends one right-ID probe: whether the role still lets us in.
    ///
    /// # Errors
    /// As [`Prober::run`].
    pub async fn still_lets_in(&self, suspect: &Suspect) -> Result<(Seen, ProbeEvidence), PrincipalError> {
        let reply = self.ask(suspect, Probe::RightId, None).await?;
        Ok((reply.seen, reply.evidence))
    }

    /// One probe, in a span that says which and what was seen.
    async fn ask(&self, suspect: &Suspect, probe: Probe, session: Option<&Keys>) -> Result<Reply, PrincipalError> {
        let span = tracing::info_span!("probe", probe = ?probe, outcome = field::Empty);
        let reply = self.put(suspect, probe, session).instrument(span.clone()).await?;
        span.record("outcome", field::debug(reply.evidence.outcome));
        self.metrics.probe(probe, reply.evidence.outcome);
        Ok(reply)
    }

    async fn put(&self, suspect: &Suspect, probe: Probe, session: Option<&Keys>) -> Result<Reply, PrincipalError> {
        let random = ExternalId::generate();
        let id = match probe {
            Probe::RightId => Some(&suspect.external_id),
            Probe::NoId => None,
            Probe::RandomId => Some(&random),
            Probe::RetiredId | Probe::OtherPrincipal => Some(&suspect.external_id),
            Probe::CallerIdentity => return Ok(self.ask_who(suspect, session).await),
        };
        match self.chain.probe(suspect.tenant, &suspect.role, id, &suspect.region).await {
            Ok(answer) => Ok(let_in(probe, answer)),
            Err(ChainError::Principal(error)) => Err(error),
            // Only the customer's role can refuse. A refusal of the first hop is ours: a principal that has not settled, or drifted.
            Err(ChainError::Sts { hop: Hop::Customer, failure }) if failure.kind == FailureKind::Refused => {
                Ok(said_no(probe, Seen::Refused, &failure))
            }
            Err(ChainError::Sts { failure, .. }) => Ok(said_no(probe, Seen::Unclear, &failure)),
        }
    }

    async fn ask_who(&self, suspect: &Suspect, session: Option<&Keys>) -> Reply {
        let probe = Probe::CallerIdentity;
        let Some(keys) = session else {
            return unclear(probe, None);
        };
        match self.chain.who(keys, &suspect.region).await {
            Ok(answer) => {
                let expected = answer.value == suspect.account && suspect.role.account() == &suspect.account;
                let seen = if expected { Seen::LetIn } else { Seen::OtherAccount };
                Reply {
                    seen,
                    session: None,
                    evidence: evidence(probe, ProbeOutcome::Succeeded, answer.request_id, None),
                }
            }
            Err(failure) => unclear(probe, Some(&failure)),
        }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

fn let_in(probe: Probe, answer: Answer<Session>) -> Reply {
    let evidence = evidence(probe, ProbeOutcome::Succeeded, answer.request_id, None);
    // A session of a probe that should have been refused is dropped, and so wiped, here.
    let session = (probe == Probe::RightId).then_some(answer.value);
    Reply { seen: Seen::LetIn, session, evidence }
}

fn said_no(probe: Probe, seen: Seen, failure: &Failure) -> Reply {
    let outcome = if seen == Seen::Refused { ProbeOutcome::Refused } else { ProbeOutcome::Indeterminate };
    let evidence = evidence(probe, outcome, failure.request_id.clone(), failure.code.clone());
    Reply { seen, session: None, evidence }
}

fn unclear(probe: Probe, failure: Option<&Failure>) -> Reply {
    let request_id = failure.and_then(|failure| failure.request_id.clone());
    let code = failure.and_then(|failure| failure.code.clone());
    let evidence = evidence(probe, ProbeOutcome::Indeterminate, request_id, code);
    Reply { seen: Seen::Unclear, session: None, evidence }
}

fn evidence(
    probe: Probe,
    outcome: ProbeOutcome,
    aws_request_id: Option<String>,
    error_code: Option<String>,
) -> ProbeEvidence {
    ProbeEvidence { probe, outcome, at: Timestamp::now(), aws_request_id, error_code }
}

/// Adds to the evidence; the third and later of equal answers in a row replace the one before.
fn keep(kept: &mut Vec<ProbeEvidence>, new: ProbeEvidence) {
    let alike =
        |old: &ProbeEvidence| old.probe == new.probe && old.outcome == new.outcome && old.error_code == new.error_code;
    let repeated = kept.len() >= 2 && kept.iter().rev().take(2).all(alike);
    if repeated || kept.len() >= MOST_EVIDENCE {
        kept.pop();
    }
    kept.push(new);
}

#[cfg(test)]
mod tests {
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
        let first_hop: Vec<_> = calls.iter().filter(|call| call.role != fixture.suspect.role).collect();
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

    #[test]
    fn evidence_stays_small_and_keeps_first_and_last() {
        let mut kept = Vec::new();
        for n in 0..1000 {
            keep(&mut kept, evidence(Probe::RightId, ProbeOutcome::Refused, Some(n.to_string()), None));
        }
        let ids: Vec<_> = kept.iter().map(|e| e.aws_request_id.clone().unwrap()).collect();
        assert_eq!(ids, ["0", "999"]);
    }
}
