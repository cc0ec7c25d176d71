//! In which of the provider's accounts a principal is made.
//!
//! The account is chosen once, and written into the principal's record before anything is made: whoever goes on after a crash goes on there. It is
//! changed only while the principal has never stood and IAM takes no more users or roles there. Then the record names the new account first, and
//! beside it the one that is left: what was made there is deleted, and looked for again until nobody can be at work there any more.

use std::time::Duration;

use contracts::{AccountId, TenantId, Timestamp};
use uuid::Uuid;

use super::{
    MakeError,
    accounts::Place,
    error::iam,
    maker::Maker,
    record::{Record, State},
    store::{StoreError, amend},
    stranger,
};

/// A run that began before the account was left is over by then: each of its calls to AWS ends within 70 s.
const STRAGGLERS: Duration = Duration::from_secs(900);

impl Maker {
    /// Where the tenant's principal lives, or would be looked for if it had no record.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the account is not on the list.
    pub(super) async fn plan(&self, tenant: TenantId) -> Result<Place, MakeError> {
        match self.store.get(tenant).await.map_err(MakeError::Store)? {
            Some((record, _)) => self.place_of(&record),
            None => self.accounts.default_place(tenant),
        }
    }

    pub(super) fn place_of(&self, record: &Record) -> Result<Place, MakeError> {
        self.accounts.place(record.tenant, record.role_arn.account())
    }

    /// Where the principal lives: as its record says, which is written now if there is none.
    pub(super) async fn placed(&self, tenant: TenantId) -> Result<Place, MakeError> {
        if let Some((record, _)) = self.store.get(tenant).await.map_err(MakeError::Store)? {
            return self.place_of(&record);
        }
        let place = match stranger::account(tenant, self.accounts.own()) {
            Some(account) => self.accounts.place(tenant, &account)?,
            None => self.choose(tenant).await?,
        };
        let making = State::Making { claim: Uuid::now_v7() };
        let record = Record::new(tenant, place.user_arn.clone(), place.role_arn.clone(), making);
        match self.store.put(&record, None).await {
            Ok(_) => {
                self.note_placement(&place, "placed");
                Ok(place)
            }
            // Another was faster, and its choice holds.
            Err(StoreError::Conflict) => Err(MakeError::Busy),
            Err(error) => Err(MakeError::Store(error)),
        }
    }

    /// The account with the most room among those that answer.
    async fn choose(&self, tenant: TenantId) -> Result<Place, MakeError> {
        let free = self.accounts.with_room(self.store.as_ref()).await;
        let free = free.inspect_err(|error| {
            if let MakeError::Full { .. } = error {
                self.metrics.placement("full");
            }
        })?;
        let mut trouble = None;
        for account in free {
            let place = self.accounts.place(tenant, &account)?;
            match place.iam.user(&place.name).await {
                Ok(_) => return Ok(place),
                Err(failure) => {
                    tracing::warn!(%tenant, %account, %failure, told = failure.message(), "the account does not answer: the next one is tried");
                    self.metrics.placement("unreachable");
                    trouble = Some(iam("read the user")(failure));
                }
            }
        }
        Err(trouble.unwrap_or(MakeError::Busy))
    }

    /// Has the principal made in another account than the one that takes no more. False when it may not be: it has stood there, or another
    /// instance has decided meanwhile.
    pub(super) async fn leave(&self, place: &Place) -> Result<bool, MakeError> {
        let (tenant, left) = (place.tenant, place.account().clone());
        self.accounts.is_full(&left);
        let may_leave = |record: &Record| {
            matches!(record.state, State::Making { .. })
                && record.role_id.is_none()
                && *record.role_arn.account() == left
        };
        let stored = self.store.get(tenant).await.map_err(MakeError::Store)?;
        if stored.is_none_or(|(record, _)| !may_leave(&record)) || stranger::is_one(tenant) {
            return Ok(false);
        }
        let next = self.choose(tenant).await?;
        let moved = amend(self.store.as_ref(), tenant, |record| {
            let may = may_leave(record);
            if may {
                record.user_arn = next.user_arn.clone();
                record.role_arn = next.role_arn.clone();
                record.left.push(left.clone());
                record.enter(State::Making { claim: Uuid::now_v7() });
            }
            may
        });
        if moved.await.map_err(MakeError::Store)?.is_none() {
            return Ok(false);
        }
        self.note_placement(&next, "moved");
        tracing::warn!(%tenant, account = %left, next = %next.account(), "IAM takes no more principals in the account: the next one is taken");
        self.tear_down(place).await?;
        Ok(true)
    }

    fn note_placement(&self, place: &Place, result: &'static str) {
        self.metrics.placement(result);
        self.accounts.placed(place.account()).iter().for_each(|one| self.metrics.fullness(one));
    }

    pub(super) async fn clear_left_of(&self, tenant: TenantId) -> Result<(), MakeError> {
        match self.store.get(tenant).await.map_err(MakeError::Store)? {
            Some((record, _)) => self.clear_left(&record).await,
            None => Ok(()),
        }
    }

    /// Deletes what is left of the principal in accounts where it does not live, and forgets those where nobody can be at work any more.
    ///
    /// Cancel: the next run goes on. Repeatable.
    pub(super) async fn clear_left(&self, record: &Record) -> Result<(), MakeError> {
        for account in &record.left {
            self.tear_down(&self.accounts.place(record.tenant, account)?).await?;
        }
        if record.left.is_empty() || record.updated_at.until(Timestamp::now()) < STRAGGLERS {
            return Ok(());
        }
        let forgotten = amend(self.store.as_ref(), record.tenant, |now| {
            let same = now.left == record.left;
            if same {
                now.left.clear();
            }
            same
        });
        forgotten.await.map(drop).map_err(MakeError::Store)
    }

    /// Whether the principal lives in another account by now.
    pub(super) async fn is_elsewhere(&self, place: &Place) -> Result<bool, MakeError> {
        let stored = self.store.get(place.tenant).await.map_err(MakeError::Store)?;
        Ok(stored.is_some_and(|(record, _)| record.role_arn.account() != place.account()))
    }

    /// Accounts with principals that are not on the list, and how many live there.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn unlisted(&self) -> Result<Vec<(AccountId, u32)>, StoreError> {
        let census = self.store.census().await?;
        Ok(census.into_iter().filter(|(account, _)| !self.accounts.ids().any(|listed| listed == account)).collect())
    }
}

#[cfg(test)]
#[path = "placing_tests.rs"]
mod tests;
