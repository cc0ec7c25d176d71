//! What comes in over NATS: callbacks, reports, principals. Each consumer is durable and shared by all instances.
//!
//! A message is acknowledged after its transaction has committed. Cancel: what is in hand is finished. Failure: a database that is away is waited for, about a
//! quarter of an hour, before the message becomes a dead letter (which can be replayed).

use std::time::Duration;

use contracts::{
    Message as _, Stream,
    callback::CallbackReceived,
    revocation::RevocationReported,
    tenant::PrincipalReady,
    verification::{ConnectionsUsed, DeletionReported, VerificationReported},
};
use messaging::{ACK_WAIT, Backoff, ConsumerSpec, Disposition, Router};

use crate::{
    flow::{HandleError, Registry},
    store::StoreError,
};

fn spec(stream: Stream, durable: &'static str, filters: &[&str]) -> ConsumerSpec {
    ConsumerSpec {
        stream,
        durable,
        filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        in_flight: 32,
        ack_wait: ACK_WAIT,
        max_deliver: 100,
        backoff: Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) },
    }
}

pub(crate) fn callbacks(registry: Registry) -> (ConsumerSpec, Router) {
    let router = Router::new().on::<CallbackReceived, _, _>(move |event, _| {
        let registry = registry.clone();
        async move { disposition(registry.callback(&event.data).await) }
    });
    (spec(Stream::Callbacks, "tenant-registry-callbacks", &[CallbackReceived::SUBJECT]), router)
}

pub(crate) fn reports(registry: Registry) -> (ConsumerSpec, Router) {
    let (for_deletions, for_uses, for_revocations) = (registry.clone(), registry.clone(), registry.clone());
    let router = Router::new()
        .on::<VerificationReported, _, _>(move |event, _| {
            let registry = registry.clone();
            async move { disposition(registry.verification_reported(&event.data).await) }
        })
        .on::<DeletionReported, _, _>(move |event, _| {
            let registry = for_deletions.clone();
            async move { disposition(registry.deletion_reported(&event.data).await) }
        })
        .on::<ConnectionsUsed, _, _>(move |event, _| {
            let registry = for_uses.clone();
            async move { disposition(registry.connections_used(&event.data).await) }
        })
        .on::<RevocationReported, _, _>(move |event, _| {
            let registry = for_revocations.clone();
            async move { disposition(registry.revocation_reported(&event.data).await) }
        });
    (spec(Stream::Reports, "tenant-registry-reports", &[Stream::Reports.subjects()]), router)
}

pub(crate) fn principals(registry: Registry) -> (ConsumerSpec, Router) {
    let router = Router::new().on::<PrincipalReady, _, _>(move |event, _| {
        let registry = registry.clone();
        async move { disposition(registry.principal_ready(&event.data).await.map_err(HandleError::from)) }
    });
    (spec(Stream::PrincipalEvents, "tenant-registry-principals", &[PrincipalReady::SUBJECT]), router)
}

fn disposition<T>(result: Result<T, HandleError>) -> Disposition {
    match result {
        Ok(_) => Disposition::Done,
        Err(HandleError::Store(StoreError::Refused(reply))) => Disposition::Refuse { reason: reply.message },
        Err(error) => Disposition::Retry { reason: crate::chain(&error), after: None },
    }
}
