//! Looks at every principal, again and again: mends what was changed behind our back, says so, and changes keys that are due.
//!
//! Visits are spread over the interval. One visit at a time works on a principal (a lease in its record, whose holder is the visit), and a principal
//! that another instance has just looked at is left out, so that instances share the work. Both only save calls: two at once do no harm.

use std::{sync::Arc, time::Duration};

use contracts::{
    CloudEvent, EventId, TenantId, Timestamp,
    principal::KeyRotation,
    tenant::{Drift, PrincipalDrift},
};
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

/// And for so long every question: one who asks again and again costs no more than that.
const ASKED: Duration = Duration::from_secs(2);

/// Why a principal is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its turn has come.
    Round,
    /// The next step of a rotation.
    Step,
    /// Somebody has a reason to doubt it.
    Doubt,
    /// Somebody waits for what is found.
    Asked,
    /// Its key shall be changed now.
    Rotate,
}

/// What a visit saw of the principal's age, for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ages {
    pub key: Duration,
    pub look: Duration,
}

/// What a visit came to.
#[derive(Debug)]
pub enum Visit {
    /// Nothing was done.
    Idle(Idle),
    Done(Seen),
}

/// Why nothing was done at a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    Absent,
    /// Its tenant has ended.
    Closed,
    /// Whoever heard of its tenant is making it.
    Making,
    /// Another visit is under way, for so long at the most.
    Taken {
        until: Timestamp,
    },
    /// It was looked at then, and that is enough.
    Looked {
        at: Timestamp,
    },
}

/// What was seen and done at a visit.
#[derive(Debug)]
pub struct Seen {
    pub compared: Compared,
    pub rotation: Option<KeyRotation>,
    /// Why the change of its key cannot go on.
    pub stuck: Option<MakeError>,
    /// When to come again, if that is before its next turn.
    pub again: Option<Duration>,
}

/// How it compares with what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// That was not asked.
    Not,
    /// IAM may not show yet what we did ourselves; it will after so long.
    Settling(Duration),
    InOrder,
    /// It was told.
    Differed {
        found: Vec<Drift>,
        mended: bool,
        reason: String,
    },
}

/// Visits principals.
pub struct Keeper {
    pub maker: Arc<Maker>,
    pub rotator: Rotator,
    pub metrics: Metrics,
    pub interval: Duration,
}

impl Keeper {
    /// Visits one principal. Gives when to come again, if that is before its next turn.
    ///
    /// Cancel: may be dropped anywhere. Failure: tried again at the next visit; an alarm that was not told is told then.
    ///
    /// # Errors
    /// See [`MakeError`].
    pub async fn visit(&self, tenant: TenantId, why: Why) -> Result<Option<Duration>, MakeError> {
        match self.look(tenant, why, Uuid::now_v7()).await? {
            Visit::Idle(idle) => {
                tracing::debug!(%tenant, ?why, ?idle, "a principal is left alone");
                Ok(None)
            }
            Visit::Done(seen) => seen.stuck.map_or(Ok(seen.again), Err),
        }
    }

    /// The same, with all that was seen. `holder` is this visit's own: no two share a lease.
    ///
    /// # Errors
    /// See [`MakeError`]; not of the change of its key alone.
    pub async fn look(&self, tenant: TenantId, why: Why, holder: Uuid) -> Result<Visit, MakeError> {
        if let Some(idle) = self.enter(tenant, why, holder).await? {
            return Ok(Visit::Idle(idle));
        }
        let result = self.work(tenant, why).await;
        // What failed is looked at again soon, by whoever comes next.
        let looked = why != Why::Step && result.as_ref().is_ok_and(|seen| seen.stuck.is_none());
        self.leave(tenant, holder, looked).await?;
        result.map(Visit::Done)
    }

    /// Gives the lease back, if it is still this visit's.
    pub(super) async fn leave(&self, tenant: TenantId, holder: Uuid, looked: bool) -> Result<(), MakeError> {
        let left = amend(self.maker.store.as_ref(), tenant, |record| {
            let mine = record.lease.as_ref().is_some_and(|lease| lease.holder == holder);
            if mine {
                record.lease = None;
                if looked {
                    record.looked_at = Some(Timestamp::now());
                }
            }
            mine
        });
        left.await.map(drop).map_err(MakeError::Store)
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

    /// Takes the lease, if there is anything to do and nobody else does it; else says why not.
    async fn enter(&self, tenant: TenantId, why: Why, holder: Uuid) -> Result<Option<Idle>, MakeError> {
        let mut idle = Some(Idle::Absent);
        let entered = amend(self.maker.store.as_ref(), tenant, |record| {
            idle = self.idle(record, why);
            if idle.is_none() {
                record.lease = Some(Lease { holder, until: Timestamp::now().plus(LEASE) });
            }
            idle.is_none()
        });
        entered.await.map_err(MakeError::Store)?;
        Ok(idle)
    }

    fn idle(&self, record: &Record, why: Why) -> Option<Idle> {
        match record.state {
            State::Removing | State::Removed => return Some(Idle::Closed),
            // One with an alarm was being mended when that broke off, and nobody but us goes on with it.
            State::Making { .. } if record.alarm.is_none() => return Some(Idle::Making),
            State::Making { .. } | State::Ready { .. } => {}
        }
        if let Some(lease) = record.lease.as_ref().filter(|lease| !lease.until.has_passed()) {
            return Some(Idle::Taken { until: lease.until });
        }
        let enough = match why {
            Why::Round => self.interval.mul_f32(0.9),
            // A hundred jobs may come upon the same trouble at once.
            Why::Doubt => DOUBT,
            Why::Asked => ASKED,
            Why::Step | Why::Rotate => return None,
        };
        let at = record.looked_at.filter(|at| at.until(Timestamp::now()) < enough)?;
        Some(Idle::Looked { at })
    }

    async fn work(&self, tenant: TenantId, why: Why) -> Result<Seen, MakeError> {
        let mut compared = Compared::Not;
        if why != Why::Step {
            self.maker.clear_left_of(tenant).await?;
            compared = self.reconcile(tenant).await?;
        }
        let before = self.is_rotating(tenant).await?;
        let progress = self.rotator.advance(tenant, why == Why::Rotate).await;
        let (stuck, again) = match progress {
            Ok(Progress::Idle) => (None, None),
            Ok(Progress::Later(after)) => (None, Some(after)),
            Ok(Progress::Rotated) => {
                self.metrics.rotation("done");
                return Ok(Seen { compared, rotation: Some(KeyRotation::Finished), stuck: None, again: None });
            }
            Err(error) => {
                self.metrics.rotation("failed");
                (Some(error), None)
            }
        };
        let rotation = match (before, self.is_rotating(tenant).await?) {
            (_, false) => None,
            (false, true) => Some(KeyRotation::Begun),
            (true, true) => Some(KeyRotation::UnderWay),
        };
        Ok(Seen { compared, rotation, stuck, again })
    }

    async fn is_rotating(&self, tenant: TenantId) -> Result<bool, MakeError> {
        let stored = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        Ok(stored.is_some_and(|(record, _)| matches!(record.state, State::Ready { rotation: Some(_), .. })))
    }

    /// Compares, mends, and tells. The alarm is written down first: whatever happens then, it is told.
    async fn reconcile(&self, tenant: TenantId) -> Result<Compared, MakeError> {
        let stored = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        let Some((record, revision)) = stored else { return Ok(Compared::Not) };
        let plan = self.maker.place_of(&record)?;
        let age = record.updated_at.until(Timestamp::now());
        if record.alarm.is_none() && age < self.maker.settle {
            return Ok(Compared::Settling(self.maker.settle - age));
        }
        let known = self.maker.known_keys(&record).await?;
        let found = drift::read(plan.iam.as_ref(), &plan).await.map_err(iam("read the principal"))?;
        let drifts = drift::compare(&plan, &record, &known, &found);
        let seen = found.role.as_ref().map(|role| role.id.clone());
        if drifts.is_empty() && record.alarm.is_none() {
            if drift::is_of_an_earlier_version(&plan, &record, &found) {
                self.maker.make(tenant).await?;
                self.metrics.upgraded();
                tracing::info!(%tenant, "the principal's policies were those of an earlier version: they are renewed");
            }
            self.note_role(&record, seen, None).await?;
            return Ok(Compared::InOrder);
        }
        let now = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
        if now.is_none_or(|(_, now)| now != revision) {
            // What it was compared with is no longer what it must be: sessions were denied, or another works on it. The next look tells.
            return Err(MakeError::Busy);
        }
        let Some(alarm) = self.raise(tenant, &drifts).await? else { return Ok(Compared::Not) };
        let trouble = self.maker.make(tenant).await.err().map(|error| whole(&error));
        let seen = plan.iam.role(&plan.name).await.map_err(iam("read the role"))?.map(|role| role.id);
        let told = self.alarm(tenant, &alarm, trouble.as_deref()).await?;
        self.note_role(&record, seen, Some(&alarm)).await?;
        Ok(told)
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

    async fn alarm(&self, tenant: TenantId, alarm: &Alarm, trouble: Option<&str>) -> Result<Compared, MakeError> {
        let (found, mended) = (alarm.found.clone(), trouble.is_none() && drift::can_be_mended(&alarm.found));
        let reason = drift::reason(&found, trouble);
        tracing::error!(%tenant, ?found, mended, "a principal was changed behind our back: {reason}");
        for drift in &found {
            self.metrics.drift(*drift, mended);
        }
        // One that is no tenant's has its troubles in the log and in the metrics alone.
        if !stranger::is_one(tenant) {
            let data = PrincipalDrift { tenant, found: found.clone(), mended, reason: reason.clone() };
            let event = CloudEvent { id: EventId::from_uuid(alarm.id), ..messaging::event(data) };
            let message = RawMessage::encode(&event).map_err(MakeError::Tell)?;
            self.rotator.herald.tell(&message).await.map_err(MakeError::Tell)?;
        }
        Ok(Compared::Differed { found, mended, reason })
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
