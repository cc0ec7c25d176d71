//! One call of STS: its turn in the budget, its time limit, and the tries that are left to it.

use std::{sync::Arc, time::Duration};

use aws::{Failure, FailureKind, Unclear};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::{AccountId, TenantId};
use tokio::time::Instant;

use super::{Chain, ChainError, Hop};
use crate::sts::{Answer, AssumeRole, Keys, Session, Sts};

/// How a kind of call is made.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) sts: Arc<dyn Sts>,
    /// Of calls whose answer is not clear.
    tries: usize,
    /// How long a call may wait for its turn.
    patience: Duration,
    /// How long one answer may take, from when it is the call's turn. AWS answers within a tenth of a second.
    answer: Duration,
    /// When all calls of one request have ended, with their turns, answers and tries.
    deadline: Option<Instant>,
}

/// Tries of an issue: somebody waits, so a few quick ones, and then the requester is told.
const ISSUE_TRIES: usize = 3;
const ISSUE_PATIENCE: Duration = Duration::from_secs(8);
/// The whole chain of an issue: the requester waits 15 s (`shared/client`), and shall hear why there is nothing before he gives up.
pub(super) const ISSUE_WHOLE: Duration = Duration::from_secs(12);
/// A probe tries once, because the inquiry decides about the next try; nobody waits for its turn but a job.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);
const ONE_ANSWER: Duration = Duration::from_secs(6);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Way {
    pub(super) fn of_issuing(sts: Arc<dyn Sts>) -> Self {
        Self { sts, tries: ISSUE_TRIES, patience: ISSUE_PATIENCE, answer: ONE_ANSWER, deadline: None }
    }

    /// The same for one request that begins now: whatever it waits for comes out of [`ISSUE_WHOLE`].
    pub(super) fn of_one_request(&self) -> Self {
        Self { deadline: Some(Instant::now() + ISSUE_WHOLE), ..self.clone() }
    }

    /// So much of it as is left of the request's time.
    fn within(&self, time: Duration) -> Duration {
        self.deadline.map_or(time, |deadline| time.min(deadline.saturating_duration_since(Instant::now())))
    }

    pub(super) fn of_probing(sts: Arc<dyn Sts>) -> Self {
        Self { sts, tries: 1, patience: PROBE_PATIENCE, answer: ONE_ANSWER, deadline: None }
    }
}

impl Chain {
    /// One call, or as many as `way` allows while the answers are unclear; each is taken from the budget.
    pub(super) async fn call(
        &self,
        way: &Way,
        hop: Hop,
        tenant: TenantId,
        payer: &AccountId,
        keys: &Keys,
        call: &AssumeRole<'_>,
    ) -> Result<Answer<Session>, ChainError> {
        let mut pauses =
            ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_jitter().with_max_times(way.tries - 1).build();
        loop {
            if let Some(budget) = &self.budget {
                budget.take(payer, tenant, way.within(way.patience)).await.map_err(ChainError::Busy)?;
            }
            let failure = match tokio::time::timeout(way.within(way.answer), way.sts.assume_role(keys, call)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::new(FailureKind::Indeterminate(Unclear::TimedOut), None),
            };
            if let (FailureKind::Indeterminate(Unclear::Throttled), Some(budget)) = (failure.kind, &self.budget) {
                budget.throttled(payer);
            }
            match pauses.next() {
                // Without time for another answer there is no other try.
                Some(pause)
                    if matches!(failure.kind, FailureKind::Indeterminate(_)) && way.within(pause * 2) > pause =>
                {
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(ChainError::Sts { hop, failure }),
            }
        }
    }
}
