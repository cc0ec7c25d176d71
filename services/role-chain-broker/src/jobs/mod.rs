//! Jobs from the registry: verify a connection, confirm a deletion, deny sessions, remove a principal. Each ends in a report; the registry decides
//! what follows.
//!
//! A job that comes twice is done twice and reported with the same message ID, which is the job's: the registry knows it by that.

mod confirm;
mod revoke;
mod verify;

use std::{sync::Arc, time::Duration};

use contracts::{
    CloudEvent, EventId, JobId, Message, Stream,
    revocation::{DenySessions, RemovePrincipal},
    verification::{ConfirmDeletion, VerifyConnection},
};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Disposition, Router};
use tokio_util::sync::CancellationToken;

use crate::{look::Looker, principal::Revoker, probe::Prober, sts::AwsClock};

/// What handlers of jobs need. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    pub bus: Bus,
    pub prober: Arc<Prober>,
    pub looker: Looker,
    pub revoker: Arc<Revoker>,
    pub clock: AwsClock,
    /// How long a role that refuses us may just not have settled.
    pub settle: Duration,
    pub shutdown: CancellationToken,
}

/// The durable consumer of our jobs.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::Jobs,
        durable: "role-chain-broker-jobs",
        filters: [VerifyConnection::SUBJECT, ConfirmDeletion::SUBJECT, DenySessions::SUBJECT, RemovePrincipal::SUBJECT]
            .map(str::to_owned)
            .into(),
        // Nearly all of a job is waiting.
        in_flight: 256,
        ack_wait: ACK_WAIT,
        // Every job has a deadline, after which it is reported: it is that which ends it, and not a count.
        max_deliver: 100_000,
        backoff: Backoff { first: Duration::from_millis(500), most: Duration::from_secs(15) },
    }
}

#[must_use]
pub fn router(jobs: Jobs) -> Router {
    let (to_verify, to_confirm, to_deny, to_remove) = (jobs.clone(), jobs.clone(), jobs.clone(), jobs);
    Router::new()
        .on::<VerifyConnection, _, _>(move |event, _| {
            let jobs = to_verify.clone();
            async move { jobs.verify(event.data).await }
        })
        .on::<ConfirmDeletion, _, _>(move |event, delivery| {
            let jobs = to_confirm.clone();
            async move { jobs.confirm(event.data, delivery.attempt).await }
        })
        .on::<DenySessions, _, _>(move |event, delivery| {
            let jobs = to_deny.clone();
            async move { jobs.deny_sessions(event.data, delivery.attempt).await }
        })
        .on::<RemovePrincipal, _, _>(move |event, delivery| {
            let jobs = to_remove.clone();
            async move { jobs.remove_principal(event.data, delivery.attempt).await }
        })
}

impl Jobs {
    /// Publishes the report of a job; then the job is done.
    async fn report<T: Message>(&self, job: JobId, report: T) -> Disposition {
        let event = CloudEvent { id: EventId::from_uuid(job.as_uuid()), ..messaging::event(report) };
        match self.bus.publish(&event).await {
            Ok(()) => Disposition::Done,
            Err(error) => Disposition::Retry { reason: error.to_string(), after: None },
        }
    }
}
