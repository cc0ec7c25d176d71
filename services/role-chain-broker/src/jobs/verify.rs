//! Verify a connection: run the probe and report its verdict with the evidence.

use std::time::Duration;

use contracts::{
    Timestamp,
    verification::{Fault, Verdict, VerificationReported, VerifyConnection},
};
use messaging::Disposition;
use tokio::time::Instant;

use super::Jobs;
use crate::{
    look::Sight,
    principal::PrincipalError,
    probe::{Limits, Outcome, Suspect},
    tags::SessionTags,
};

/// Kept free before the job's deadline, for the report to arrive.
const MARGIN: Duration = Duration::from_secs(2);
/// The longest that a verdict waits for evidence that does not decide it.
const A_MOMENT: Duration = Duration::from_secs(4);
/// A principal is made within about this time.
const PRINCIPAL: Duration = Duration::from_secs(1);

/// All that is reported of a connection.
struct Findings {
    outcome: Outcome,
    sight: Sight,
}

impl Findings {
    fn without_a_call(verdict: Verdict) -> Self {
        let outcome = Outcome { verdict, evidence: Vec::new(), in_aws: Duration::ZERO };
        Self { outcome, sight: Sight::default() }
    }
}

impl Jobs {
    /// Cancel: at shutdown the job is given back at once, for another instance. Failure: reported, or tried again.
    pub(super) async fn verify(&self, job: VerifyConnection) -> Disposition {
        // No call is needed to see that this is wrong.
        if job.role_arn.account() != &job.account {
            let verdict = Verdict::Failed { fault: Fault::WrongAccount };
            return self.report_verdict(&job, Findings::without_a_call(verdict)).await;
        }
        let suspect = Suspect {
            tenant: job.tenant,
            role: job.role_arn.clone(),
            external_id: job.external_id.clone(),
            retired_external_id: job.retired_external_id.clone(),
            account: job.account.clone(),
            region: job.region.clone(),
        };
        let deadline = Timestamp::now().until(job.deadline).saturating_sub(MARGIN);
        let limits = Limits { settle: self.settle, deadline };
        let run = tokio::select! {
            run = self.prober.run(&suspect, limits) => run,
            () = self.shutdown.cancelled() => return Disposition::Later { after: Duration::ZERO },
        };
        match run {
            Ok(outcome) => {
                let findings = self.beside(&job, &suspect, outcome).await;
                self.report_verdict(&job, findings).await
            }
            Err(error) => self.without_principal(&job, &error).await,
        }
    }

    /// Looks for what is reported and decides nothing here. Trouble leaves it out, and the verdict waits for it but a moment.
    async fn beside(&self, job: &VerifyConnection, suspect: &Suspect, outcome: Outcome) -> Findings {
        // Of a role that does not even hold against us there is nothing more to learn.
        if outcome.verdict != Verdict::Held {
            return Findings { outcome, sight: Sight::default() };
        }
        let left = Timestamp::now().until(job.deadline).saturating_sub(MARGIN);
        let began = Instant::now();
        let by = began + left.min(A_MOMENT);
        let tags = async {
            match job.session_tags {
                true => self.prober.session_tags(suspect, SessionTags::of_probe(job.connection)).await,
                false => None,
            }
        };
        let (by_another, tags, sight) = tokio::join!(
            tokio::time::timeout_at(by, self.prober.other_principal(suspect)),
            tokio::time::timeout_at(by, tags),
            self.looker.look(suspect, job.cost_export.as_ref(), by),
        );
        let mut outcome = outcome;
        outcome.evidence.extend(by_another.ok().flatten());
        outcome.evidence.extend(tags.ok().flatten());
        outcome.in_aws += began.elapsed();
        Findings { outcome, sight }
    }

    async fn without_principal(&self, job: &VerifyConnection, error: &PrincipalError) -> Disposition {
        if Timestamp::now().plus(MARGIN) >= job.deadline {
            tracing::warn!(tenant = %job.tenant, connection = %job.connection, %error, "nothing could be proven before the deadline");
            return self.report_verdict(job, Findings::without_a_call(Verdict::Indeterminate)).await;
        }
        if !matches!(error, PrincipalError::NotReady) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(tenant = %job.tenant, connection = %job.connection, cause, "{error}");
        }
        Disposition::Later { after: PRINCIPAL }
    }

    async fn report_verdict(&self, job: &VerifyConnection, findings: Findings) -> Disposition {
        let Findings { outcome, sight } = findings;
        tracing::info!(tenant = %job.tenant, connection = %job.connection, cause = ?job.cause, verdict = ?outcome.verdict, "the connection was probed");
        let report = VerificationReported {
            job: job.job,
            tenant: job.tenant,
            connection: job.connection,
            role_arn: job.role_arn.clone(),
            verdict: outcome.verdict,
            evidence: outcome.evidence,
            purposes: sight.purposes,
            max_session_s: sight.longest_session_s,
            aws_ms: u64::try_from(outcome.in_aws.as_millis()).unwrap_or(u64::MAX),
        };
        self.report(job.job, report).await
    }
}
