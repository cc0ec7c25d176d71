//! Hears of new tenants, makes their principals, and says when they stand.

use std::{sync::Arc, time::Duration};

use contracts::{Stream, tenant::PrincipalReady, tenant::TenantCreated};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Disposition, Router};

use super::{MakeError, maker::Maker};

/// IAM settles within seconds.
const SETTLES: Duration = Duration::from_secs(2);

/// After no account had room for a principal.
const NO_ROOM: Duration = Duration::from_secs(15);

/// The durable consumer of `tenant.created`.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::TenantEvents,
        durable: "role-chain-broker-tenants",
        filters: vec!["rolebridge.events.v1.tenant.created.*".to_owned()],
        in_flight: 8,
        ack_wait: ACK_WAIT,
        // An outage of AWS or wrong rights may last for hours, and the tenant still wants its principal: about three days.
        max_deliver: 4_500,
        backoff: Backoff { first: Duration::from_millis(500), most: Duration::from_secs(60) },
    }
}

/// Cancel: a stopped handler is continued by the next delivery. Failure: tried again, except for a name that is somebody else's.
#[must_use]
pub fn router(bus: Bus, maker: Arc<Maker>) -> Router {
    Router::new().on::<TenantCreated, _, _>(move |event, _| {
        let (bus, maker) = (bus.clone(), maker.clone());
        async move {
            let tenant = event.data.tenant;
            let record = match maker.make(tenant).await {
                Ok(record) => record,
                Err(MakeError::Removed) => {
                    tracing::info!(%tenant, "the tenant has ended: its principal is not made again");
                    return Disposition::Done;
                }
                Err(error) => return after_failure(tenant, &error),
            };
            // The same tenant makes the same event again: whoever hears it twice knows it by its tenant.
            let ready = PrincipalReady { tenant, user_arn: record.user_arn, role_arn: record.role_arn };
            match bus.publish(&messaging::event(ready)).await {
                Ok(()) => {
                    tracing::info!(%tenant, "the tenant's principal stands");
                    Disposition::Done
                }
                Err(error) => Disposition::Retry { reason: error.to_string(), after: None },
            }
        }
    })
}

fn after_failure(tenant: contracts::TenantId, error: &MakeError) -> Disposition {
    match error {
        MakeError::NotSettled => Disposition::Retry { reason: error.to_string(), after: Some(SETTLES) },
        // Nothing but an operator's hand makes room: the tenant waits for as long as that takes.
        MakeError::Full { .. } => {
            tracing::error!(%tenant, "{error}");
            Disposition::Later { after: NO_ROOM }
        }
        MakeError::Foreign { .. } => Disposition::Refuse { reason: error.to_string() },
        MakeError::Iam { failure, .. } => {
            // These calls carry no secret and no external ID, and AWS's sentence names the right that is missing.
            let told = failure.message().unwrap_or("no more is known");
            tracing::warn!(%tenant, %failure, told, "{error}");
            Disposition::Retry { reason: format!("{error}: {failure}"), after: None }
        }
        _ => {
            let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Disposition::Retry { reason: format!("{error}: {source}"), after: None }
        }
    }
}
