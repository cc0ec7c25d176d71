//! Deny what a principal has begun, and remove it: done, told as an event, and reported. What fails is reported as waiting, and tried again.

use contracts::{
    CloudEvent, EventId, JobId, Message, TenantId,
    credentials::CredentialsRevoked,
    revocation::{DenySessions, RemovePrincipal, RevocationAction, RevocationReported},
    tenant::PrincipalRemoved,
};
use messaging::Disposition;

use super::Jobs;
use crate::{
    follow::COUNTS,
    principal::{MakeError, whole},
};

/// Of the tries that fail, the first is reported, and then each of so many: a try comes every few seconds.
const REPORTED: i64 = 20;

/// The ID of the event that follows from a job: another one than the report's, and the same at each try.
fn event_id(job: JobId) -> EventId {
    EventId::from_uuid(uuid::Uuid::from_u128(job.as_uuid().as_u128() ^ 1))
}

impl Jobs {
    /// Cancel: finished, or begun anew by whoever takes it. Failure: reported as waiting, and tried again.
    pub(super) async fn deny_sessions(&self, job: DenySessions, attempt: i64) -> Disposition {
        let (tenant, connection) = (job.tenant, job.connection);
        // The policy is held against AWS's clock, and the registry's may be behind it.
        match self.revoker.deny(tenant, self.clock.at_least(job.before)).await {
            Ok(before) => {
                // Reported when no instance hands out a session of before any more, not even one that reads nothing new.
                tokio::time::sleep(COUNTS).await;
                tracing::info!(%tenant, %before, "what the tenant's role began before is denied");
                self.done(
                    job.job,
                    tenant,
                    RevocationAction::SessionsDenied,
                    CredentialsRevoked { tenant, connection, before },
                )
                .await
            }
            Err(error) => self.waiting(job.job, tenant, RevocationAction::SessionsDenied, &error, attempt).await,
        }
    }

    /// Cancel: finished, or begun anew by whoever takes it. Failure: reported as waiting, and tried again.
    pub(super) async fn remove_principal(&self, job: RemovePrincipal, attempt: i64) -> Disposition {
        let tenant = job.tenant;
        match self.revoker.remove(tenant).await {
            Ok(()) => {
                tracing::info!(%tenant, "the tenant's principal is gone");
                self.done(job.job, tenant, RevocationAction::PrincipalRemoved, PrincipalRemoved { tenant }).await
            }
            Err(error @ MakeError::NoTenants { .. }) => Disposition::Refuse { reason: whole(&error) },
            Err(error) => self.waiting(job.job, tenant, RevocationAction::PrincipalRemoved, &error, attempt).await,
        }
    }

    async fn done<T: Message>(&self, job: JobId, tenant: TenantId, action: RevocationAction, event: T) -> Disposition {
        let event = CloudEvent { id: event_id(job), ..messaging::event(event) };
        if let Err(error) = self.bus.publish(&event).await {
            return Disposition::Retry { reason: error.to_string(), after: None };
        }
        self.report(job, RevocationReported { job, tenant, action, done: true, waiting_for: None }).await
    }

    async fn waiting(
        &self,
        job: JobId,
        tenant: TenantId,
        action: RevocationAction,
        error: &MakeError,
        attempt: i64,
    ) -> Disposition {
        let reason = whole(error);
        tracing::warn!(%tenant, ?action, reason, "a revocation is not done yet");
        if attempt % REPORTED == 1 {
            let waiting_for = Some(reason.clone());
            // An ID of its own: the report that it is done must not pass for this one.
            let report = messaging::event(RevocationReported { job, tenant, action, done: false, waiting_for });
            if let Err(error) = self.bus.publish(&report).await {
                tracing::warn!(%tenant, %error, "that a revocation waits could not be reported");
            }
        }
        Disposition::Retry { reason, after: None }
    }
}
