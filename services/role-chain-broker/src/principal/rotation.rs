//! Changes a principal's access key: two overlap, and the old one goes only after the new one was seen to work.
//!
//! `ready` -> `making` (a claim is written, then a key made) -> `proving` (recorded, and tried at STS until IAM knows it) -> `retiring` (handed
//! out; the old one is disabled, and after a time deleted) -> `ready`. Each step is one compare-and-set and may be the last that a run does:
//! the next run reads the record and goes on. The key of the record is at all times one that was seen to work. A key that was made and not
//! stored is deleted under the next claim, as the maker does it.

use std::{sync::Arc, time::Duration};

use contracts::{CloudEvent, EventId, TenantId, Timestamp, credentials::CredentialsRotated};
use messaging::RawMessage;
use uuid::Uuid;

use super::{
    MakeError,
    accounts::Place,
    error::iam,
    herald::Herald,
    maker::Maker,
    record::{Record, Rotation, State},
    store::amend,
    stranger,
};
use crate::{
    purpose::DENY_ALL,
    sts::{AssumeRole, SessionDuration, Sts},
    wrap::Wrapped,
};

/// More than one rotation has.
const MOST_STEPS: usize = 8;
/// Between two tries of a key that does not work yet.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// A new key that has not worked for so long never will: another one is made.
const GIVE_UP: Duration = Duration::from_secs(600);
/// Calls to STS with the old key that had begun before the new one was handed out are over by then ([`crate::ISSUING`]).
const IN_FLIGHT: Duration = Duration::from_secs(15);

/// How fast keys are changed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How old a key becomes at most.
    pub period: Duration,
    /// A new key is not handed out before it is this old.
    pub settle: Duration,
    /// How long the old key stays, disabled, after the new one was handed out.
    pub grace: Duration,
}

impl Pace {
    /// When the key in use is to be changed: for each tenant at another time in the last tenth of the period, so that keys that were made
    /// together are not changed together. `None` while there is none.
    #[must_use]
    pub fn due(&self, record: &Record) -> Option<Timestamp> {
        let spread = u32::try_from(record.tenant.as_uuid().as_u128() % 1000).unwrap_or(0);
        let early = (self.period / 10).saturating_mul(spread) / 1000;
        record.key_made_at().map(|made_at| made_at.plus(self.period.saturating_sub(early)))
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to do.
    Idle,
    /// The next step is not before this time has passed.
    Later(Duration),
    /// A rotation has ended, and was told.
    Rotated,
}

enum Step {
    Next,
    Stop(Progress),
}

/// Changes keys.
pub struct Rotator {
    pub maker: Arc<Maker>,
    pub sts: Arc<dyn Sts>,
    pub herald: Arc<dyn Herald>,
    pub pace: Pace,
}

impl Rotator {
    /// Goes as far as is possible now; with `wanted` also when the key is not due.
    ///
    /// Cancel: may be dropped anywhere; the next run goes on.
    ///
    /// # Errors
    /// See [`MakeError`]; what was done stays done, and the key in use stays good.
    pub async fn advance(&self, tenant: TenantId, mut wanted: bool) -> Result<Progress, MakeError> {
        let plan = self.maker.plan(tenant).await?;
        for _ in 0..MOST_STEPS {
            let Some((record, _)) = self.maker.store.get(tenant).await.map_err(MakeError::Store)? else {
                return Ok(Progress::Idle);
            };
            let State::Ready { key, rotation, .. } = &record.state else { return Ok(Progress::Idle) };
            let step = match rotation {
                None if wanted || self.due(&record) => self.begin(&plan, key, wanted).await?,
                None => Step::Stop(Progress::Idle),
                Some(Rotation::Making { .. }) => self.begin(&plan, key, wanted).await?,
                Some(Rotation::Proving { new, made_at }) => self.prove(&plan, key, new, *made_at).await?,
                Some(Rotation::Retiring { old, id, since }) => self.retire(&plan, key, old, *id, *since).await?,
            };
            wanted = false;
            if let Step::Stop(progress) = step {
                return Ok(progress);
            }
        }
        Ok(Progress::Later(TRY_AGAIN))
    }

    /// Whether the record is still at this step.
    async fn stands(&self, plan: &Place, step: &Rotation) -> Result<bool, MakeError> {
        let stored = self.maker.store.get(plan.tenant).await.map_err(MakeError::Store)?;
        Ok(stored.is_some_and(
            |(record, _)| matches!(&record.state, State::Ready { rotation: Some(rotation), .. } if rotation == step),
        ))
    }

    fn due(&self, record: &Record) -> bool {
        self.pace.due(record).is_some_and(Timestamp::has_passed)
    }

    /// A claim, then a key. A claim that is there already is of a run that was broken off: its key, if it made one, is deleted.
    async fn begin(&self, plan: &Place, key: &Wrapped, wanted: bool) -> Result<Step, MakeError> {
        let claim = Uuid::now_v7();
        let claimed = self.change(plan, |record| {
            let due = wanted || self.due(record);
            match &mut record.state {
                State::Ready { key: current, rotation: rotation @ (None | Some(Rotation::Making { .. })), .. }
                    if current == key && (due || rotation.is_some()) =>
                {
                    *rotation = Some(Rotation::Making { claim });
                    true
                }
                _ => false,
            }
        });
        if !claimed.await? {
            return Ok(Step::Next);
        }
        let ours = self.maker.key_id(plan.tenant, key).await?;
        let listed = plan.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        // While the claim stands, what was listed is of earlier claims and can no longer be stored. A run that stood still may be listing the
        // key that another has handed out since.
        if !self.stands(plan, &Rotation::Making { claim }).await? {
            return Ok(Step::Next);
        }
        self.maker.delete_all_but(plan, &listed, &[ours]).await?;
        let store = |record: &mut Record, new: Wrapped| match &mut record.state {
            State::Ready { rotation: Some(rotation), .. } if *rotation == (Rotation::Making { claim }) => {
                *rotation = Rotation::Proving { new, made_at: Timestamp::now() };
                record.updated_at = Timestamp::now();
                true
            }
            _ => false,
        };
        self.maker.make_key(plan, store).await?;
        tracing::info!(tenant = %plan.tenant, "a second access key is made: it is tried before it is used");
        Ok(Step::Next)
    }

    /// Uses the new key for what it is for, and hands it out only when it was let in.
    async fn prove(&self, plan: &Place, key: &Wrapped, new: &Wrapped, made_at: Timestamp) -> Result<Step, MakeError> {
        let age = made_at.until(Timestamp::now());
        if age < self.pace.settle {
            return Ok(Step::Stop(Progress::Later(self.pace.settle - age)));
        }
        let keys = self.maker.open(plan.tenant, new).await?;
        let call = AssumeRole {
            role: &plan.role_arn,
            external_id: None,
            session_policy: Some(DENY_ALL),
            duration: SessionDuration::SHORTEST,
            session_name: "rolebridge.rotation",
            region: None,
            tags: None,
        };
        if let Err(failure) = self.sts.assume_role(&keys, &call).await {
            tracing::info!(tenant = %plan.tenant, %failure, "the new access key does not work yet");
            if age < GIVE_UP {
                return Ok(Step::Stop(Progress::Later(TRY_AGAIN)));
            }
            let given_up = Rotation::Making { claim: Uuid::now_v7() };
            self.exchange(plan, &proving(new, made_at), key, key, made_at, Some(given_up)).await?;
            return Ok(Step::Next);
        }
        let retiring = Rotation::Retiring { old: key.clone(), id: Uuid::now_v7(), since: Timestamp::now() };
        self.exchange(plan, &proving(new, made_at), key, new, made_at, Some(retiring)).await?;
        Ok(Step::Next)
    }

    async fn retire(
        &self,
        plan: &Place,
        key: &Wrapped,
        old: &Wrapped,
        id: Uuid,
        since: Timestamp,
    ) -> Result<Step, MakeError> {
        let elapsed = since.until(Timestamp::now());
        let in_flight = IN_FLIGHT.min(self.pace.grace);
        if elapsed < in_flight {
            return Ok(Step::Stop(Progress::Later(in_flight - elapsed)));
        }
        let (user, iam_of) = (&plan.name, &plan.iam);
        let listed = iam_of.access_keys(user).await.map_err(iam("list the access keys"))?;
        let (new_id, old_id) = (self.maker.key_id(plan.tenant, key).await?, self.maker.key_id(plan.tenant, old).await?);
        let here = Rotation::Retiring { old: old.clone(), id, since };
        let still_there = listed.iter().find(|key| key.is(&old_id));
        if !listed.iter().any(|key| key.active && key.is(&new_id)) {
            // Somebody took the new one away: the old one is the last that works.
            let Some(_) = still_there else { return Ok(Step::Stop(Progress::Later(TRY_AGAIN))) };
            tracing::error!(tenant = %plan.tenant, "the tenant's new access key is gone from IAM: back to the old one");
            iam_of.set_key_active(user, &old_id, true).await.map_err(iam("enable the old access key"))?;
            let made_at = since;
            self.exchange(plan, &here, key, old, made_at, None).await?;
            return Ok(Step::Stop(Progress::Idle));
        }
        if still_there.is_some_and(|key| key.active) {
            iam_of.set_key_active(user, &old_id, false).await.map_err(iam("disable the old access key"))?;
        }
        if elapsed < self.pace.grace {
            return Ok(Step::Stop(Progress::Later(self.pace.grace - elapsed)));
        }
        if !self.stands(plan, &here).await? {
            // Another went on meanwhile, perhaps back to the old key.
            return Ok(Step::Next);
        }
        if still_there.is_some() {
            iam_of.delete_access_key(user, &old_id).await.map_err(iam("delete the old access key"))?;
        }
        self.told(plan.tenant, id, since).await?;
        let ended = self.change(plan, |record| match &mut record.state {
            State::Ready { rotation, .. } if rotation.as_ref() == Some(&here) => {
                *rotation = None;
                true
            }
            _ => false,
        });
        ended.await?;
        tracing::info!(tenant = %plan.tenant, "the tenant's access key was changed, and the old one is gone");
        Ok(Step::Stop(Progress::Rotated))
    }

    /// The rotation's own ID is the event's: told twice, it is the same event.
    async fn told(&self, tenant: TenantId, id: Uuid, at: Timestamp) -> Result<(), MakeError> {
        if stranger::is_one(tenant) {
            return Ok(());
        }
        let event = messaging::event(CredentialsRotated { tenant, at });
        let event = CloudEvent { id: EventId::from_uuid(id), ..event };
        let message = RawMessage::encode(&event).map_err(MakeError::Tell)?;
        self.herald.tell(&message).await.map_err(MakeError::Tell)
    }

    /// Puts `key` and `next` in place of `from` and `before`, if those are still there.
    async fn exchange(
        &self,
        plan: &Place,
        from: &Rotation,
        before: &Wrapped,
        key: &Wrapped,
        made_at: Timestamp,
        next: Option<Rotation>,
    ) -> Result<bool, MakeError> {
        self.change(plan, |record| {
            let made_before = record.key_made_at();
            match &mut record.state {
                State::Ready { key: current, made_at: current_made_at, rotation }
                    if rotation.as_ref() == Some(from) && current == before =>
                {
                    *current_made_at = if key == before { made_before } else { Some(made_at) };
                    *current = key.clone();
                    rotation.clone_from(&next);
                    true
                }
                _ => false,
            }
        })
        .await
    }

    async fn change(
        &self,
        plan: &Place,
        mut change: impl FnMut(&mut Record) -> bool + Send,
    ) -> Result<bool, MakeError> {
        let changed = amend(self.maker.store.as_ref(), plan.tenant, |record| {
            let changed = change(record);
            if changed {
                record.touch();
            }
            changed
        });
        changed.await.map(|changed| changed.is_some()).map_err(MakeError::Store)
    }
}

fn proving(new: &Wrapped, made_at: Timestamp) -> Rotation {
    Rotation::Proving { new: new.clone(), made_at }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
