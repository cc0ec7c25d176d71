//! Makes a principal, or mends one: every step looks first, so a run that was stopped anywhere is continued by the next.
//!
//! In which account it lives is written down before anything is made (`placing`); its access key is made last (`keys`).
//!
//! What is there and must not be (other policies, other keys) is taken away: user and role are the broker's alone.

use std::{sync::Arc, time::Duration};

use aws::Failure;
use contracts::{TenantId, Timestamp};

use super::{
    MakeError,
    accounts::{Accounts, Place},
    error::iam,
    iam::Half,
    record::Record,
    store::PrincipalStore,
};
use crate::{metrics::Metrics, wrap::KeyWrapper};

/// Makes principals.
pub struct Maker {
    pub accounts: Arc<Accounts>,
    pub store: Arc<dyn PrincipalStore>,
    pub wrapper: Arc<dyn KeyWrapper>,
    /// IAM may not show at once what was made: for this long a recorded key is believed without being listed.
    pub settle: Duration,
    pub metrics: Metrics,
}

impl Maker {
    /// Brings the tenant's principal to where it should be, and gives its record.
    ///
    /// Cancel: may be dropped anywhere; the next run goes on.
    ///
    /// # Errors
    /// See [`MakeError`]; what was done stays done.
    pub async fn make(&self, tenant: TenantId) -> Result<Record, MakeError> {
        // Once for each account that may prove full.
        for _ in self.accounts.ids() {
            if let Some(record) = self.make_once(tenant).await? {
                return Ok(record);
            }
        }
        Err(MakeError::Busy)
    }

    /// `None`: IAM takes no more there, and another account is written down.
    async fn make_once(&self, tenant: TenantId) -> Result<Option<Record>, MakeError> {
        let plan = self.placed(tenant).await?;
        let made = match self.is_closed(tenant).await? {
            true => Err(MakeError::Removed),
            false => self.build(&plan).await,
        };
        let Err(error) = made else { return made.map(Some) };
        // It may have been closed while we built: what we made after its removal has nobody else to remove it.
        if self.is_closed(tenant).await? {
            self.tear_down(&plan).await?;
            return Err(MakeError::Removed);
        }
        // The same where another has taken it to the next account.
        if self.is_elsewhere(&plan).await? {
            self.tear_down(&plan).await?;
            return Err(MakeError::Busy);
        }
        match error {
            MakeError::AtLimit { .. } if self.leave(&plan).await? => Ok(None),
            error => Err(error),
        }
    }

    async fn build(&self, plan: &Place) -> Result<Record, MakeError> {
        self.user(plan).await?;
        let role_id = self.role(plan).await?;
        self.all_policies(plan).await?;
        self.key(plan, &role_id).await
    }

    /// Sessions may be denied meanwhile, and the policy that does so would pass here for one that must go: then once more.
    async fn all_policies(&self, plan: &Place) -> Result<(), MakeError> {
        let mut denied_before = self.denied_before(plan.tenant).await?;
        loop {
            for half in Half::ALL {
                self.policies(plan, half, denied_before).await?;
            }
            let now = self.denied_before(plan.tenant).await?;
            if now == denied_before {
                return Ok(());
            }
            denied_before = now;
        }
    }

    async fn denied_before(&self, tenant: TenantId) -> Result<Option<Timestamp>, MakeError> {
        let stored = self.store.get(tenant).await.map_err(MakeError::Store)?;
        Ok(stored.and_then(|(record, _)| record.denied_before))
    }

    async fn is_closed(&self, tenant: TenantId) -> Result<bool, MakeError> {
        let stored = self.store.get(tenant).await.map_err(MakeError::Store)?;
        Ok(stored.is_some_and(|(record, _)| record.is_closed()))
    }

    /// Deletes keys, user and role, as far as they are there and ours. Of what is not there IAM knows no path, and refuses all but to look.
    ///
    /// Cancel: the next run goes on. Repeatable.
    pub(super) async fn tear_down(&self, plan: &Place) -> Result<(), MakeError> {
        let user = plan.iam.user(&plan.name).await.map_err(iam("read the user"))?;
        if user.is_some_and(|user| user.arn == plan.user_arn) {
            let listed = plan.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
            self.delete_all_but(plan, &listed, &[]).await?;
            self.delete(plan, Half::User).await?;
        }
        let role = plan.iam.role(&plan.name).await.map_err(iam("read the role"))?;
        if role.is_some_and(|role| role.arn == plan.role_arn) {
            self.delete(plan, Half::Role).await?;
        }
        Ok(())
    }

    async fn delete(&self, plan: &Place, half: Half) -> Result<(), MakeError> {
        self.strip(plan, half, |_| false).await?;
        plan.iam.delete(half, &plan.name).await.map_err(iam("delete user or role"))
    }

    async fn user(&self, plan: &Place) -> Result<(), MakeError> {
        if plan.iam.user(&plan.name).await.map_err(iam("read the user"))?.is_none() {
            let made = plan.iam.create_user(&plan.path, &plan.name, plan.tenant, plan.boundary.as_deref()).await;
            made.map_err(|failure| made_none(plan, "make the user", failure))?;
        }
        match plan.iam.user(&plan.name).await.map_err(iam("read the user"))? {
            Some(user) if user.arn != plan.user_arn => {
                Err(MakeError::Foreign { kind: "user", found: user.arn.to_string() })
            }
            Some(user) => self.boundary(plan, Half::User, user.boundary.as_deref()).await,
            None => Err(MakeError::NotSettled),
        }
    }

    /// Gives the role's unique ID.
    async fn role(&self, plan: &Place) -> Result<String, MakeError> {
        let trust = plan.trust();
        if plan.iam.role(&plan.name).await.map_err(iam("read the role"))?.is_none() {
            let boundary = plan.boundary.as_deref();
            let made = plan.iam.create_role(&plan.path, &plan.name, &trust, plan.tenant, boundary).await;
            made.map_err(|failure| made_none(plan, "make the role", failure))?;
        }
        match plan.iam.role(&plan.name).await.map_err(iam("read the role"))? {
            Some(role) if role.arn != plan.role_arn => {
                Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() })
            }
            Some(role) => {
                // Changed behind our back, or bound to an earlier user of the same name.
                if role.trust.as_ref() != Some(&trust) {
                    tracing::warn!(tenant = %plan.tenant, "the trust policy of the tenant's role was not ours: it is set again");
                    plan.iam.set_trust(&plan.name, &trust).await.map_err(iam("set the trust policy of the role"))?;
                }
                self.boundary(plan, Half::Role, role.boundary.as_deref()).await?;
                Ok(role.id)
            }
            None => Err(MakeError::NotSettled),
        }
    }

    pub(super) async fn boundary(&self, plan: &Place, half: Half, found: Option<&str>) -> Result<(), MakeError> {
        match plan.boundary.as_deref() {
            Some(wanted) if found != Some(wanted) => {
                let set = plan.iam.set_boundary(half, &plan.name, wanted).await;
                set.map_err(iam("set the permissions boundary"))
            }
            _ => Ok(()),
        }
    }

    /// Exactly the policies of the plan: what is missing or different is written, and what is not in it goes.
    pub(super) async fn policies(
        &self,
        plan: &Place,
        half: Half,
        denied_before: Option<Timestamp>,
    ) -> Result<(), MakeError> {
        let wanted = plan.policies(half, denied_before);
        for (name, document) in &wanted {
            let found = plan.iam.policy(half, &plan.name, name).await.map_err(iam("read a policy"))?;
            if found.as_ref() != Some(document) {
                let put = plan.iam.put_policy(half, &plan.name, name, document).await;
                put.map_err(iam("set a policy"))?;
            }
        }
        let keep = |name: &String| wanted.iter().any(|(wanted, _)| wanted == name);
        self.strip(plan, half, keep).await
    }

    /// Takes away inline policies that are not to be kept, and every managed one.
    pub(super) async fn strip(
        &self,
        plan: &Place,
        half: Half,
        keep: impl Fn(&String) -> bool + Send + Sync,
    ) -> Result<(), MakeError> {
        let listed = plan.iam.policies(half, &plan.name).await.map_err(iam("list the policies"))?;
        for name in listed.iter().filter(|name| !keep(name)) {
            plan.iam.delete_policy(half, &plan.name, name).await.map_err(iam("delete a policy"))?;
        }
        for arn in plan.iam.attached(half, &plan.name).await.map_err(iam("list the attached policies"))? {
            plan.iam.detach(half, &plan.name, &arn).await.map_err(iam("detach a policy"))?;
        }
        Ok(())
    }
}

/// IAM's own limit of users or roles is the account's trouble, and not the principal's.
fn made_none(place: &Place, step: &'static str, failure: Failure) -> MakeError {
    match failure.is("LimitExceeded") {
        true => MakeError::AtLimit { account: place.account().clone() },
        false => iam(step)(failure),
    }
}

#[cfg(test)]
#[path = "maker_tests.rs"]
mod tests;
