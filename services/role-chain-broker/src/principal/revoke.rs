//! Takes back what a principal has begun, and removes it when its tenant has ended.

use std::sync::Arc;

use contracts::{TenantId, Timestamp};

use super::{
    MakeError,
    accounts::Place,
    error::iam,
    iam::Half,
    maker::Maker,
    record::{Record, State},
    store::amend,
    stranger,
};
use crate::{grants::GrantSource, sts::AwsClock};

pub struct Revoker {
    pub maker: Arc<Maker>,
    /// The second opinion on a removal, which cannot be undone.
    pub grants: Arc<dyn GrantSource>,
    /// The instants are AWS's.
    pub clock: AwsClock,
}

/// The next whole second: `aws:TokenIssueTime` has no fractions, and a session of the same second must not pass for a later one.
fn whole_second(at: Timestamp) -> Timestamp {
    let cut = at.inner().replace_nanosecond(0).unwrap_or(at.inner());
    let cut = Timestamp::from(cut);
    if cut == at { at } else { cut.plus(std::time::Duration::from_secs(1)) }
}

impl Revoker {
    /// Denies what the tenant's role began before the instant, or before a later one that was asked for already; gives which.
    ///
    /// The record first: from then on no instance uses a first hop of before, and takes no refusal of one for the customer's. An instant that is
    /// still to come is now: what is begun after the order is nobody's to revoke.
    ///
    /// Cancel: the next run goes on. Repeatable.
    ///
    /// # Errors
    /// See [`MakeError`].
    pub async fn deny(&self, tenant: TenantId, before: Timestamp) -> Result<Timestamp, MakeError> {
        let plan = self.maker.plan(tenant).await?;
        let before = whole_second(before.min(self.clock.now()));
        loop {
            let mut denied = None;
            let written = amend(self.maker.store.as_ref(), tenant, |record| {
                let later = record.denied_before.is_none_or(|known| known < before);
                if later {
                    record.denied_before = Some(before);
                    // IAM may not show it yet, and that is no drift.
                    record.touch();
                }
                denied = record.denied_before.filter(|_| !record.is_closed());
                later
            });
            written.await.map_err(MakeError::Store)?;
            // Without a principal nothing was begun.
            let Some(denied) = denied else { return Ok(before) };
            let role = plan.iam.role(&plan.name).await.map_err(iam("read the role"))?;
            // One of the same name at another path is not ours; what ours began ended with it.
            if let Some(role) = role.filter(|role| role.arn == plan.role_arn) {
                // First: without it the broker may not write the role's policies.
                self.maker.boundary(&plan, Half::Role, role.boundary.as_deref()).await?;
                self.maker.policies(&plan, Half::Role, Some(denied)).await?;
            }
            // Another may have asked for a later instant, and written it to IAM before us.
            let stored = self.maker.store.get(tenant).await.map_err(MakeError::Store)?;
            if stored.is_none_or(|(record, _)| record.denied_before == Some(denied) || record.is_closed()) {
                return Ok(denied);
            }
        }
    }

    /// Deletes keys, user and role, and leaves a record that says so. Not the broker's own principal, and not while credentials may be issued
    /// for any of the tenant's connections: a tenant that ends has its grants withdrawn before.
    ///
    /// Cancel: the next run goes on. Repeatable.
    ///
    /// # Errors
    /// See [`MakeError`]; what was deleted stays deleted.
    pub async fn remove(&self, tenant: TenantId) -> Result<(), MakeError> {
        if stranger::is_one(tenant) {
            return Err(MakeError::NoTenants { tenant });
        }
        let connections = self.grants.external_ids(tenant).len();
        if connections > 0 {
            return Err(MakeError::StillGranted { connections });
        }
        let plan = self.maker.plan(tenant).await?;
        self.check_ours(&plan).await?;
        if !self.close(&plan).await? {
            return Ok(());
        }
        // Nobody moves it from here on; until here somebody may have.
        let Some((record, _)) = self.maker.store.get(tenant).await.map_err(MakeError::Store)? else {
            return Err(MakeError::Busy);
        };
        let plan = self.maker.place_of(&record)?;
        self.maker.clear_left(&record).await?;
        self.maker.tear_down(&plan).await?;
        if !self.check_ours(&plan).await? {
            // Somebody was at work on it when this began.
            return Err(MakeError::NotSettled);
        }
        let ended = amend(self.maker.store.as_ref(), tenant, |record| {
            record.enter(State::Removed);
            true
        });
        ended.await.map(drop).map_err(MakeError::Store)
    }

    /// Whether neither user nor role is there. What bears the name at another path is somebody else's.
    async fn check_ours(&self, plan: &Place) -> Result<bool, MakeError> {
        let user = plan.iam.user(&plan.name).await.map_err(iam("read the user"))?;
        let role = plan.iam.role(&plan.name).await.map_err(iam("read the role"))?;
        match (&user, &role) {
            (Some(user), _) if user.arn != plan.user_arn => {
                Err(MakeError::Foreign { kind: "user", found: user.arn.to_string() })
            }
            (_, Some(role)) if role.arn != plan.role_arn => {
                Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() })
            }
            _ => Ok(user.is_none() && role.is_none()),
        }
    }

    /// From here on nobody makes it, mends it or uses it. False when it is gone already.
    async fn close(&self, plan: &Place) -> Result<bool, MakeError> {
        let store = self.maker.store.as_ref();
        if store.get(plan.tenant).await.map_err(MakeError::Store)?.is_none() {
            let record = Record::new(plan.tenant, plan.user_arn.clone(), plan.role_arn.clone(), State::Removing);
            return store.put(&record, None).await.map(|_| true).map_err(MakeError::Store);
        }
        let (mut gone, mut busy) = (false, false);
        let closed = amend(store, plan.tenant, |record| {
            gone = record.state == State::Removed;
            busy = record.lease.as_ref().is_some_and(|lease| !lease.until.has_passed());
            let begin = !gone && !busy && record.state != State::Removing;
            if begin {
                record.enter(State::Removing);
            }
            begin
        });
        closed.await.map_err(MakeError::Store)?;
        if busy && !gone { Err(MakeError::Busy) } else { Ok(!gone) }
    }
}

#[cfg(test)]
#[path = "revoke_tests.rs"]
mod tests;
