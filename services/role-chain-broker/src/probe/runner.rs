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

use super::{Inquiry, Limits, Next, Seen, own_side::OwnSide};
use crate::{
    chain::{Chain, ChainError, Hop},
    metrics::Metrics,
    principal::PrincipalError,
    sts::{Answer, Keys, Session},
    tags::SessionTags,
};

/// Pauses between two tries of one probe.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A probe on its own, two calls with their turns.
const ALONE: Duration = Duration::from_secs(30);
/// Tries of a probe that decides nothing.
const SIDE_TRIES: usize = 3;

/// More would not tell more: repeated answers are kept as their first and their last.
const MOST_EVIDENCE: usize = 32;

/// The role to be probed.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub tenant: TenantId,
    pub role: RoleArn,
    pub external_id: ExternalId,
    /// The external ID that was replaced, if it must be refused by now.
    pub retired_external_id: Option<ExternalId>,
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
    own_side: Arc<OwnSide>,
    metrics: Metrics,
}

/// What a probe goes with: the session of the one before, session tags.
type With<'a> = (Option<&'a Keys>, Option<SessionTags>);

/// One probe's answer, with the session it gave.
struct Reply {
    seen: Seen,
    session: Option<Session>,
    evidence: ProbeEvidence,
}

impl Prober {
    /// `canary` is a role of our own that lets in every principal of ours.
    #[must_use]
    pub fn new(chain: Arc<Chain>, canary: RoleArn, metrics: Metrics) -> Self {
        let own_side = Arc::new(OwnSide::new(chain.clone(), canary));
        Self { chain, own_side, metrics }
    }

    /// Probes until there is a verdict or the deadline has passed.
    ///
    /// Cancel: may be dropped at any time; nothing is left behind but sessions that end by themselves.
    ///
    /// # Errors
    /// When the tenant has no principal yet, or its key cannot be read. Trouble with AWS is no error but evidence.
    pub async fn run(&self, suspect: &Suspect, limits: Limits) -> Result<Outcome, PrincipalError> {
        let began = Instant::now();
        let mut inquiry = Inquiry::new(limits, suspect.retired_external_id.is_some());
        let mut pauses = pauses();
        let mut outcome = Outcome { verdict: Verdict::Indeterminate, evidence: Vec::new(), in_aws: Duration::ZERO };
        let mut session: Option<Session> = None;
        loop {
            let probe = match inquiry.next(began.elapsed()) {
                Next::Ask(probe) => probe,
                Next::Done(verdict) => return Ok(Outcome { verdict, ..outcome }),
            };
            let asked = Instant::now();
            let left = limits.deadline.saturating_sub(began.elapsed());
            let reply = self.ask(suspect, probe, (session.as_ref().map(|session| &session.keys), None), left).await?;
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
        let reply = self.ask(suspect, Probe::RightId, (None, None), ALONE).await?;
        Ok((reply.seen, reply.evidence))
    }

    /// Whether another principal of ours is let in with the right ID: evidence that the trust names more than this tenant's role, and no more
    /// than that. Nothing when that principal does not stand yet.
    ///
    /// Cancel: as [`Prober::run`]. Failure: a few tries, then indeterminate.
    pub async fn other_principal(&self, suspect: &Suspect) -> Option<ProbeEvidence> {
        self.beside(suspect, Probe::OtherPrincipal, None).await
    }

    /// Whether the role admits session tags with the right ID: evidence of how its sessions may begin, and no more than that.
    ///
    /// Cancel: as [`Prober::run`]. Failure: a few tries, then indeterminate.
    pub async fn session_tags(&self, suspect: &Suspect, tags: SessionTags) -> Option<ProbeEvidence> {
        self.beside(suspect, Probe::SessionTags, Some(tags)).await
    }

    /// A probe that decides nothing. Nothing when there is no principal to send it.
    async fn beside(&self, suspect: &Suspect, probe: Probe, tags: Option<SessionTags>) -> Option<ProbeEvidence> {
        let mut pauses = pauses();
        for tried in 1.. {
            let reply = self.ask(suspect, probe, (None, tags), ALONE).await.ok()?;
            if reply.seen != Seen::Unclear || tried >= SIDE_TRIES {
                return Some(reply.evidence);
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
        None
    }

    /// One probe, in a span that says which and what was seen. An answer that does not come in time is none.
    async fn ask(
        &self,
        suspect: &Suspect,
        probe: Probe,
        with: With<'_>,
        within: Duration,
    ) -> Result<Reply, PrincipalError> {
        let span = tracing::info_span!("probe", probe = ?probe, outcome = field::Empty);
        let put = self.put(suspect, probe, with).instrument(span.clone());
        let reply = match tokio::time::timeout(within, put).await {
            Ok(reply) => reply?,
            Err(_) => unclear(probe, None),
        };
        span.record("outcome", field::debug(reply.evidence.outcome));
        self.metrics.probe(probe, reply.evidence.outcome);
        Ok(reply)
    }

    async fn put(&self, suspect: &Suspect, probe: Probe, (session, tags): With<'_>) -> Result<Reply, PrincipalError> {
        let random = ExternalId::generate();
        let (by, id) = match probe {
            Probe::RightId | Probe::SessionTags => (suspect.tenant, Some(&suspect.external_id)),
            Probe::NoId => (suspect.tenant, None),
            Probe::RandomId => (suspect.tenant, Some(&random)),
            Probe::RetiredId => match &suspect.retired_external_id {
                Some(id) => (suspect.tenant, Some(id)),
                None => return Ok(unclear(probe, None)),
            },
            Probe::OtherPrincipal => (self.chain.stranger_beside(suspect.tenant).await?, Some(&suspect.external_id)),
            Probe::CallerIdentity => return Ok(self.ask_who(suspect, session).await),
        };
        match self.chain.probe(by, &suspect.role, id, tags, &suspect.region).await {
            Ok(answer) => Ok(let_in(probe, answer)),
            Err(ChainError::Principal(error)) => Err(error),
            // Only the customer's role can refuse. A refusal of the first hop is ours: a principal that has not settled, or drifted. And one of the
            // second may be: our own policies are asked first.
            Err(ChainError::Sts { hop: Hop::Customer, failure }) if failure.kind == FailureKind::Refused => {
                let let_out = self.own_side.lets_out(by, id, tags, &suspect.region).await;
                self.metrics.refusal(let_out);
                Ok(said_no(probe, Seen::Refused.weighed(let_out), &failure))
            }
            Err(ChainError::Sts { failure, .. }) => Ok(said_no(probe, Seen::Unclear, &failure)),
            Err(ChainError::Busy(_)) => Ok(unclear(probe, None)),
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
#[path = "runner_tests.rs"]
mod tests;
