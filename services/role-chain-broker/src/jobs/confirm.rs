//! Confirm a deletion: ask now and then whether the role still lets us in, until it refuses or the deadline has passed.
//!
//! Between two questions the job waits in the stream, not here. Only a refusal by the role says that it is gone.

use std::time::Duration;

use contracts::{
    Timestamp,
    verification::{ConfirmDeletion, DeletionReported, ProbeEvidence},
};
use messaging::Disposition;

use super::Jobs;
use crate::probe::{Seen, Suspect};

/// A stack deletes its role seconds after its custom resource.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Kept free before the job's deadline, for the report to arrive.
const MARGIN: Duration = Duration::from_secs(2);

/// What to do after one question.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Gone,
    StillThere,
    AskAgain { after: Duration },
}

/// `left` is the time until the deadline, `attempt` counts the questions from 1.
fn step(seen: Seen, attempt: i64, left: Duration) -> Step {
    if seen == Seen::Refused {
        return Step::Gone;
    }
    let left = left.saturating_sub(MARGIN);
    if left.is_zero() {
        return Step::StillThere;
    }
    let doublings = u32::try_from(attempt.clamp(1, 8) - 1).unwrap_or(0);
    Step::AskAgain { after: (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE).min(left) }
}

impl Jobs {
    /// Cancel: at shutdown the job is given back at once. Failure: asked again until the deadline, and never taken for a deletion.
    pub(super) async fn confirm(&self, job: ConfirmDeletion, attempt: i64) -> Disposition {
        let suspect = Suspect {
            tenant: job.tenant,
            account: job.role_arn.account().clone(),
            role: job.role_arn.clone(),
            external_id: job.external_id.clone(),
            retired_external_id: None,
            region: job.region.clone(),
        };
        let asked = tokio::select! {
            asked = self.prober.still_lets_in(&suspect) => asked,
            () = self.shutdown.cancelled() => return Disposition::Later { after: Duration::ZERO },
        };
        let (seen, evidence) = match asked {
            Ok((seen, evidence)) => (seen, vec![evidence]),
            Err(error) => {
                tracing::warn!(tenant = %job.tenant, connection = %job.connection, %error, "whether the role is gone cannot be asked");
                (Seen::Unclear, Vec::new())
            }
        };
        match step(seen, attempt, Timestamp::now().until(job.deadline)) {
            Step::Gone => self.report_deletion(&job, true, evidence).await,
            Step::StillThere => self.report_deletion(&job, false, evidence).await,
            Step::AskAgain { after } => Disposition::Later { after },
        }
    }

    async fn report_deletion(&self, job: &ConfirmDeletion, gone: bool, evidence: Vec<ProbeEvidence>) -> Disposition {
        tracing::info!(tenant = %job.tenant, connection = %job.connection, gone, "the deletion was looked at");
        let (tenant, connection) = (job.tenant, job.connection);
        self.report(job.job, DeletionReported { job: job.job, tenant, connection, gone, evidence }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn only_a_refusal_is_gone() {
        assert_eq!(step(Seen::Refused, 1, LONG), Step::Gone);
        assert_eq!(step(Seen::Refused, 1, Duration::ZERO), Step::Gone);
        for seen in [Seen::LetIn, Seen::Unclear, Seen::OtherAccount] {
            assert!(matches!(step(seen, 1, LONG), Step::AskAgain { .. }), "{seen:?}");
            assert_eq!(step(seen, 9, Duration::from_secs(1)), Step::StillThere, "{seen:?}");
        }
    }

    #[test]
    fn pauses_grow_and_end_at_the_deadline() {
        let pauses: Vec<_> = [1, 2, 3, 100].map(|attempt| step(Seen::LetIn, attempt, LONG)).into();
        let expected = [1, 2, 4, 15].map(|s| Step::AskAgain { after: Duration::from_secs(s) });
        assert_eq!(pauses, expected);
        assert_eq!(step(Seen::LetIn, 100, Duration::from_secs(5)), Step::AskAgain { after: Duration::from_secs(3) });
    }
}
