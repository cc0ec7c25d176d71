//! A look at a principal that an operator asks for: the endpoint, and the words for what was found.
//!
//! The visit is that of the rounds, under a lease of the request's own. Asked again, it looks again: nothing is done twice. Each request ends within
//! [`WITHIN`] and a little more, because whoever asked stops waiting; what was begun then goes on in the rounds.

use std::{sync::Arc, time::Duration};

use contracts::{
    ErrorCode, ErrorReply, TenantId, Timestamp,
    principal::{KeyRotation, LookOutcome, PrincipalFindings, PrincipalReconciled, ReconcilePrincipal},
};
use messaging::{Bus, BusError, Call, EndpointServer, RawMessage};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    MakeError,
    herald::Herald,
    keeper::{Compared, Idle, Keeper, Seen, Visit, Why, whole},
    rounds::Orders,
    stranger,
};

/// How long a look may take, with the wait for its turn.
const WITHIN: Duration = Duration::from_secs(14);
/// How long it waits for another look at the same principal to end.
const FOR_ANOTHER: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(250);
/// How long the last words may take: the lease is given back, and the audit is told.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Looks at the same time: beside the rounds they take what IAM gives an account.
const AT_ONCE: usize = 4;
/// When another look may tell more.
const AGAIN: Duration = Duration::from_secs(2);

/// What answers.
pub struct Asked {
    keeper: Arc<Keeper>,
    orders: Orders,
    herald: Arc<dyn Herald>,
    slots: Semaphore,
}

impl Asked {
    #[must_use]
    pub fn new(keeper: Arc<Keeper>, orders: Orders, bus: &Bus) -> Self {
        Self { keeper, orders, herald: Arc::new(bus.clone()), slots: Semaphore::new(AT_ONCE) }
    }
}

/// Adds the endpoint.
///
/// # Errors
/// When the server refuses.
pub async fn answer(server: EndpointServer, asked: Asked) -> Result<EndpointServer, BusError> {
    let asked = Arc::new(asked);
    let handle = move |call: Call<ReconcilePrincipal>| {
        let asked = asked.clone();
        async move { asked.answer(call.token(0)?, call.user()).await }
    };
    server.serve::<ReconcilePrincipal, _, _>(handle).await
}

impl Asked {
    /// Cancel: may be dropped anywhere, as a visit may. Failure: the requester is told; what was begun is gone on with by the rounds.
    async fn answer(&self, tenant: TenantId, user: Option<&str>) -> Result<PrincipalFindings, ErrorReply> {
        if stranger::is_one(tenant) {
            let message =
                format!("{tenant} is no tenant but a principal of the broker's own, which looks after it itself");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        }
        let deadline = Instant::now() + WITHIN;
        let Ok(slot) = timeout_at(deadline, self.slots.acquire()).await else {
            let message = "too many principals are being looked at: try again";
            return Err(ErrorReply::new(ErrorCode::Throttled, message).retry_after(millis(AGAIN)));
        };
        let looked = self.look(tenant, deadline).await;
        drop(slot);
        let findings = looked?;
        self.told(&findings, user).await?;
        Ok(findings)
    }

    async fn look(&self, tenant: TenantId, deadline: Instant) -> Result<PrincipalFindings, ErrorReply> {
        let (holder, patience) = (Uuid::now_v7(), Instant::now() + FOR_ANOTHER);
        let look = async {
            loop {
                match self.keeper.look(tenant, Why::Asked, holder).await {
                    Ok(Visit::Idle(Idle::Taken { .. })) if Instant::now() < patience => {
                        tokio::time::sleep(BETWEEN).await;
                    }
                    ended => return ended,
                }
            }
        };
        let Ok(looked) = timeout_at(deadline, look).await else {
            // Else nobody could go on before the lease ends.
            let left = tokio::time::timeout(LAST_WORDS, self.keeper.leave(tenant, holder, false)).await;
            drop(left);
            self.orders.doubt(tenant);
            tracing::warn!(%tenant, "a look at a principal that was asked for took too long: the rounds go on with it");
            let message =
                format!("the principal of {tenant} could not be looked at in time; it is gone on with: ask again");
            return Err(ErrorReply::new(ErrorCode::Unavailable, message).retry_after(millis(WITHIN)));
        };
        if let Ok(Visit::Done(seen)) = &looked
            && (seen.again.is_some() || seen.stuck.is_some())
        {
            self.orders.go_on(tenant);
        }
        match looked {
            Ok(Visit::Idle(idle)) => idle_findings(tenant, idle),
            Ok(Visit::Done(seen)) => Ok(findings(tenant, seen)),
            Err(MakeError::Busy) => idle_findings(tenant, Idle::Taken { until: Timestamp::now() }),
            Err(error) => {
                tracing::warn!(%tenant, error = whole(&error), "a look at a principal that was asked for failed");
                let message = format!(
                    "the principal of {tenant} could not be looked at ({error}): try again; role-chain-broker's log says more"
                );
                Err(ErrorReply::new(ErrorCode::Unavailable, message).retry_after(millis(AGAIN)))
            }
        }
    }

    /// For the audit, before the answer goes out.
    async fn told(&self, findings: &PrincipalFindings, user: Option<&str>) -> Result<(), ErrorReply> {
        let PrincipalFindings { tenant, outcome, found, key_rotation, .. } = findings;
        let (tenant, outcome, key_rotation) = (*tenant, *outcome, *key_rotation);
        tracing::info!(%tenant, user, outcome = outcome.as_str(), ?found, "a principal was looked at because somebody asked");
        let user = user.map(ToOwned::to_owned);
        let event = PrincipalReconciled { tenant, user, outcome, found: found.clone(), key_rotation };
        let telling = async {
            let message = RawMessage::encode(&messaging::event(event)).ok()?;
            self.herald.tell(&message).await.ok()
        };
        tokio::time::timeout(LAST_WORDS, telling).await.ok().flatten().ok_or_else(|| {
            let message = "the look was done, but could not be written into the stream of events: ask again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(millis(AGAIN))
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is told when nothing was done.
fn idle_findings(tenant: TenantId, idle: Idle) -> Result<PrincipalFindings, ErrorReply> {
    let (outcome, reason, looked_at) = match idle {
        Idle::Absent => {
            let message = format!(
                "the tenant {tenant} has no principal: check the ID; for a new tenant it is made within seconds"
            );
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        }
        Idle::Closed => {
            let message = format!("the tenant {tenant} has ended, and its principal with it: it is never made again");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        }
        Idle::Making => {
            (LookOutcome::Making, "It is still being made: rolebridge tenants show tells when it stands.", None)
        }
        Idle::Taken { .. } => {
            (LookOutcome::Busy, "Another look at it is under way, perhaps by another instance: ask again.", None)
        }
        Idle::Looked { at } => {
            let reason = "It was looked at a moment ago, perhaps by another instance. What was found then stands in the events principal.drift and principal.reconciled.";
            (LookOutcome::JustLookedAt, reason, Some(at))
        }
    };
    let (found, again_after_ms) = (Vec::new(), Some(millis(AGAIN)));
    Ok(PrincipalFindings {
        tenant,
        outcome,
        found,
        key_rotation: None,
        reason: reason.to_owned(),
        looked_at,
        again_after_ms,
    })
}

/// What is told of a look.
fn findings(tenant: TenantId, seen: Seen) -> PrincipalFindings {
    let Seen { compared, rotation, stuck, again } = seen;
    let now = Some(Timestamp::now());
    let mut again_after = again;
    let (outcome, found, mut reason, looked_at) = match compared {
        Compared::InOrder => {
            (LookOutcome::InOrder, Vec::new(), "User, role and access key are as they must be.".to_owned(), now)
        }
        Compared::Differed { found, mended, reason } => {
            let outcome = if mended { LookOutcome::Mended } else { LookOutcome::NotMended };
            (outcome, found, reason, now)
        }
        Compared::Settling(wait) => {
            again_after = Some(again_after.map_or(wait, |again| again.min(wait)));
            let reason = "The broker itself changed it a moment ago, and IAM may not show that yet: ask again.";
            (LookOutcome::Settling, Vec::new(), reason.to_owned(), None)
        }
        // Its record went away under us: it was removed.
        Compared::Not => {
            (LookOutcome::Busy, Vec::new(), "It changed while it was looked at: ask again.".to_owned(), None)
        }
    };
    match rotation {
        Some(KeyRotation::Begun) => {
            reason.push_str(" Its access key was due: the change has begun, and goes on by itself.")
        }
        Some(KeyRotation::UnderWay) => reason.push_str(" Its access key is being changed, which goes on by itself."),
        Some(KeyRotation::Finished) => reason.push_str(" Its access key was changed, and the old one is deleted."),
        None => {}
    }
    if let Some(error) = stuck {
        tracing::warn!(%tenant, error = whole(&error), "the change of a principal's access key stands still");
        reason.push_str(&format!(" The change of its access key stands still ({error}): it is tried again."));
    }
    let again_after_ms = again_after.map(|again| millis(again).max(1));
    PrincipalFindings { tenant, outcome, found, key_rotation: rotation, reason, looked_at, again_after_ms }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
