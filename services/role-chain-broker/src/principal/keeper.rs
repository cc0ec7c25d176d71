//! Looks at every principal, again and again: mends what was changed behind our back, says so, and changes keys that are due.
//!
//! Visits are spread over the interval. One instance at a time works on a principal (a lease in its record), and a principal that another
//! instance has just looked at is left out, so that instances share the work. Both only save calls: two at once do no harm.

use std::{sync::Arc, time::Duration};

use contracts::{CloudEvent, EventId, TenantId, Timestamp, tenant::Drift, tenant::PrincipalDrift};
use messaging::RawMessage;
use uuid::Uuid;

use super::{
    MakeError, drift,
    error::iam,
    maker::Maker,
    record::{Alarm, Lease, Record, State},
    rotation::{Progress, Rotator},
    store::amend,
    stranger,
};
use crate::metrics::Metrics;

/// How long a visit may take before another instance may begin one.
const LEASE: Duration = Duration::from_secs(60);

/// For so long a look answers every doubt.
const DOUBT: Duration = Duration::from_secs(5);

/// Why a principal is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its turn has come.
    Round,
    /// The next step of a rotation.
    Step,
    /// Somebody has a reason to doubt it.
    Doubt,
    /// Its key shall be changed now.
    Rotate,
}

/// What a visit saw of the principal's age, for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ages {
    pub key: Duration,
    pub look: Duration,
}

/// Visits principals.
pub struct Keeper {
    pub maker: Arc<Maker>,
    pub rotator: Rotator,
    pub metrics: Metrics,
    pub interval: Duration,
    /// This instance.
    pub holder: Uuid,
}

impl Keeper {
    /// Visits one principal. Gives when to come again, if that is before its next turn.
    ///
    /// Cancel: may be dropped anywhere. Failure: tried again at the next visit; an alarm that was not told is told then.
    ///
    /// # Errors
    /// See [`MakeError`].
    pub async fn visit(&self, tenant: TenantId, why: Why) -> Result<Option<Duration>, MakeError> {
        if !self.enter(tenant, why).await? {
            return Ok(None);
        }
        let result = self.work(tenant, why).await;
        let left = amend(self.maker.store.as_ref(), tenant, |record| {
            let mine = record.lease.as_ref().is_some_and(|lease| lease.holder == self.holder);
            if mine {
                record.lease = None;
                // What failed is looked at again soon, by whoever comes next.
                if result.is_ok() && why != Why::Step {
                    record.looked_at = Some(Timestamp::now());
                }
            }
            mine
        });
        left.await.map_err(MakeError::Store)?;
        result
    }

    /// Ages as they stand in the record.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn ages(&self, tenant: TenantId) -> Result<Option<Ages>, MakeError> {
        let stored = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        let since = |at: Timestamp| at.until(Timestamp::now());
        Ok(stored.and_then(|(record, _)| {
            let key = since(record.key_made_at()?);
            Some(Ages { key, look: since(record.looked_at.unwrap_or(record.updated_at)) })
        }))
    }

    /// Takes the lease, if there is anything to do and nobody else does it.
    async fn enter(&self, tenant: TenantId, why: Why) -> Result<bool, MakeError> {
        let entered = amend(self.maker.store.as_ref(), tenant, |record| {
            let ready = matches!(record.state, State::Ready { .. });
            let taken =
                record.lease.as_ref().is_some_and(|lease| lease.holder != self.holder && !lease.until.has_passed());
            let looked = |within| record.looked_at.is_some_and(|at| at.until(Timestamp::now()) < within);
            let idle = match why {
                Why::Round => looked(self.interval.mul_f32(0.9)),
                // A hundred jobs may come upon the same trouble at once.
                Why::Doubt => looked(DOUBT),
                Why::Step | Why::Rotate => false,
            };
            let free = ready && !taken && !idle;
            if free {
                record.lease = Some(Lease { holder: self.holder, until: Timestamp::now().plus(LEASE) });
            }
            free
        });
        entered.await.map(|entered| entered.is_some()).map_err(MakeError::Store)
    }

    async fn work(&self, tenant: TenantId, why: Why) -> Result<Option<Duration>, MakeError> {
        if why != Why::Step {
            self.maker.clear_left_of(tenant).await?;
            self.reconcile(tenant).await?;
        }
        match self.rotator.advance(tenant, why == Why::Rotate).await {
            Ok(Progress::Idle) => Ok(None),
            Ok(Progress::Later(after)) => Ok(Some(after)),
            Ok(Progress::Rotated) => {
                self.metrics.rotation("done");
                Ok(None)
            }
            Err(error) => {
                self.metrics.rotation("failed");
                Err(error)
            }
        }
    }

    /// Compares, mends, and tells. The alarm is written down first: whatever happens then, it is told.
    async fn reconcile(&self, tenant: TenantId) -> Result<(), MakeError> {
        let stored = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        let Some((record, revision)) = stored else { return Ok(()) };
        let plan = self.maker.place_of(&record)?;
        if record.alarm.is_none() && record.updated_at.until(Timestamp::now()) < self.maker.settle {
            // IAM may not show yet what was just done.
            return Ok(());
        }
        let known = self.maker.known_keys(&record).await?;
        let found = drift::read(plan.iam.as_ref(), &plan).await.map_err(iam("read the principal"))?;
        let drifts = drift::compare(&plan, &record, &known, &found);
        let seen = found.role.map(|role| role.id);
        if drifts.is_empty() && record.alarm.is_none() {
            return self.note_role(&record, seen, None).await;
        }
        let now = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        if now.is_none_or(|(_, now)| now != revision) {
            // What it was compared with is no longer what it must be: sessions were denied, or another works on it. The next look tells.
            return Err(MakeError::Busy);
        }
        let Some(alarm) = self.raise(tenant, &drifts).await? else { return Ok(()) };
        let trouble = self.maker.make(tenant).await.err().map(|error| whole(&error));
        let seen = plan.iam.role(&plan.name).await.map_err(iam("read the role"))?.map(|role| role.id);
        self.alarm(tenant, &alarm, trouble.as_deref()).await?;
        self.note_role(&record, seen, Some(&alarm)).await
    }

    async fn raise(&self, tenant: TenantId, drifts: &[Drift]) -> Result<Option<Alarm>, MakeError> {
        let raised = amend(self.maker.store.as_ref(), tenant, |record| {
            let alarm = record.alarm.get_or_insert_with(|| Alarm { id: Uuid::now_v7(), found: Vec::new() });
            alarm.found.extend(drifts.iter().filter(|drift| !alarm.found.contains(drift)).copied().collect::<Vec<_>>());
            alarm.found.sort_unstable();
            true
        });
        Ok(raised.await.map_err(MakeError::Store)?.and_then(|record| record.alarm))
    }

    async fn alarm(&self, tenant: TenantId, alarm: &Alarm, trouble: Option<&str>) -> Result<(), MakeError> {
        let mended = trouble.is_none() && drift::can_be_mended(&alarm.found);
        let reason = drift::reason(&alarm.found, trouble);
        tracing::error!(%tenant, found = ?alarm.found, mended, "a principal was changed behind our back: {reason}");
        for drift in &alarm.found {
            self.metrics.drift(*drift, mended);
        }
        if stranger::is_one(tenant) {
            // It is no tenant: its troubles are in the log and in the metrics.
            return Ok(());
        }
        let data = PrincipalDrift { tenant, found: alarm.found.clone(), mended, reason };
        let event = CloudEvent { id: EventId::from_uuid(alarm.id), ..messaging::event(data) };
        let message = RawMessage::encode(&event).map_err(MakeError::Tell)?;
        self.rotator.herald.tell(&message).await.map_err(MakeError::Tell)
    }

    /// Writes down which role it is, and that the alarm was told. A role that is another one was told of once, and is then the one we know.
    async fn note_role(&self, known: &Record, seen: Option<String>, told: Option<&Alarm>) -> Result<(), MakeError> {
        if told.is_none() && (seen.is_none() || known.role_id == seen) {
            return Ok(());
        }
        let noted = amend(self.maker.store.as_ref(), known.tenant, |record| {
            if let Some(id) = &seen {
                record.role_id = Some(id.clone());
            }
            if record.alarm.as_ref().map(|alarm| alarm.id) == told.map(|alarm| alarm.id) {
                record.alarm = None;
            }
            true
        });
        noted.await.map(drop).map_err(MakeError::Store)
    }
}

/// An error with its source: these hold no secrets.
pub fn whole(error: &MakeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
