//! The silence after a deadline: treated as what it proves, which is nothing.

use std::time::Duration;

use contracts::{
    Timestamp,
    verification::{DeletionReported, Verdict, VerificationReported},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{HandleError, Registry, reports::Reported};
use crate::{
    entity::{At, job},
    store::{Actor, During},
};

/// Silence after a job's deadline that is taken for "nobody will report".
const SILENCE: Duration = Duration::from_secs(30);
/// Overdue jobs that one sweep takes.
const SWEPT: u64 = 100;

impl Registry {
    /// Ends the wait for jobs whose deadline passed without a report, so that no stack hangs. Returns how many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, HandleError> {
        let past = Timestamp::from(now.inner() - SILENCE);
        let overdue = job::Entity::find()
            .filter(job::Column::Deadline.lt(At(past)))
            .order_by_asc(job::Column::Deadline)
            .limit(SWEPT)
            .all(self.store.db())
            .await
            .during("looking for overdue jobs")?;
        for job in &overdue {
            let (tenant, connection) = (job.tenant_id.0, job.connection_id.0);
            tracing::warn!(%tenant, %connection, "nobody reported on a job before its deadline");
            // One that fails must not keep the others waiting.
            if let Err(error) = self.give_up(job).await {
                tracing::warn!(%tenant, %connection, error = %crate::chain(&error), "an overdue job could not be ended, trying again");
            }
        }
        Ok(overdue.len())
    }

    /// Treats silence as what it proves: nothing.
    async fn give_up(&self, job: &job::Model) -> Result<Reported, HandleError> {
        let (id, tenant, connection) = (job.id.0, job.tenant_id.0, job.connection_id.0);
        match job.kind.0 {
            job::JobKind::Verify => {
                let (role_arn, verdict) = (job.role_arn.0.clone(), Verdict::Indeterminate);
                let silence = VerificationReported {
                    job: id,
                    tenant,
                    connection,
                    role_arn,
                    verdict,
                    evidence: Vec::new(),
                    purposes: Vec::new(),
                    max_session_s: None,
                    aws_ms: 0,
                };
                self.verified_or_not(&silence, Actor::Registry).await
            }
            job::JobKind::ConfirmDeletion => {
                let silence = DeletionReported { job: id, tenant, connection, gone: false, evidence: Vec::new() };
                self.gone_or_not(&silence, Actor::Registry).await
            }
        }
    }
}
