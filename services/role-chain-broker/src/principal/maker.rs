//! Makes a principal, or mends one: every step looks first, so a run that was stopped anywhere is continued by the next.
//!
//! The access key is the one thing that cannot be read again. Hence, before one is made, a claim is written; a key is stored only in place of
//! its maker's own claim; and keys that are not in the record are deleted. A crash between making and storing leaves a key that nobody knows,
//! which the next run removes. With several instances at work the last claim wins, and the others throw their keys away. Never more than two
//! keys exist (IAM's own limit), and a recorded key is never deleted.
//!
//! What is there and must not be (other policies, other keys) is taken away: user and role are the broker's alone.

use std::{sync::Arc, time::Duration};

use aws::Failure;
use contracts::{ParseIdentityError, TenantId, Timestamp};
use messaging::PublishError;
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    iam::{FoundKey, Half, Iam},
    policy::{Layout, Plan},
    record::{self, Record, RecordError, Rotation, State},
    store::{PrincipalStore, StoreError, amend},
};
use crate::{
    sts::Keys,
    wrap::{KeyWrapper, WrapError, Wrapped},
};

/// Why a principal is not as it should be. All but [`MakeError::Foreign`], [`MakeError::Removed`] and
/// [`MakeError::NoTenants`] pass with time or with a changed configuration: try again.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("IAM did not {step} of the tenant's principal")]
    Iam {
        step: &'static str,
        #[source]
        failure: Failure,
    },
    /// IAM does not know the new user yet and refuses it in a trust policy.
    #[error("IAM does not know the tenant's new user yet")]
    NotSettled,
    /// Somebody else's user or role has the name.
    #[error(
        "there is a {kind} with the name of the tenant's principal at another path, {found}: move or rename it, or change ROLEBRIDGE_PRINCIPAL_PATH"
    )]
    Foreign { kind: &'static str, found: String },
    #[error("the principal could not be stored")]
    Store(#[source] StoreError),
    #[error("the access key could not be wrapped")]
    Wrap(#[source] WrapError),
    #[error("the principal could not be written down")]
    Record(#[source] RecordError),
    /// Its tenant has ended: it is being removed, or is gone, and is never made again.
    #[error("the tenant has ended, and its principal with it")]
    Removed,
    /// A removal that nobody can have meant.
    #[error("{tenant} is the broker's own principal and no tenant's: it is not removed")]
    NoTenants { tenant: TenantId },
    /// A removal that contradicts the grants.
    #[error(
        "credentials may still be issued for {connections} of the tenant's connections: its principal is removed when their grants are withdrawn"
    )]
    StillGranted { connections: usize },
    /// Another instance works on it.
    #[error("another instance is at work on the tenant's principal")]
    Busy,
    #[error("what happened to the principal could not be told")]
    Tell(#[source] PublishError),
    #[error("path and tenant make no name that IAM takes: check ROLEBRIDGE_PRINCIPAL_PATH")]
    Name(#[source] ParseIdentityError),
}

pub(super) fn iam(step: &'static str) -> impl FnOnce(Failure) -> MakeError {
    move |failure| match failure.is("MalformedPolicyDocument") {
        // "Invalid principal in policy": the documents are our own and well-formed.
        true => MakeError::NotSettled,
        false => MakeError::Iam { step, failure },
    }
}

/// Makes principals.
pub struct Maker {
    pub layout: Layout,
    pub iam: Arc<dyn Iam>,
    pub store: Arc<dyn PrincipalStore>,
    pub wrapper: Arc<dyn KeyWrapper>,
    /// IAM may not show at once what was made: for this long a recorded key is believed without being listed.
    pub settle: Duration,
}

impl Maker {
    /// Brings the tenant's principal to where it should be, and gives its record.
    ///
    /// Cancel: may be dropped anywhere; the next run goes on.
    ///
    /// # Errors
    /// See [`MakeError`]; what was done stays done.
    pub async fn make(&self, tenant: TenantId) -> Result<Record, MakeError> {
        let plan = self.plan(tenant)?;
        let made = match self.is_closed(tenant).await? {
            true => Err(MakeError::Removed),
            false => self.build(&plan).await,
        };
        // It may have been closed while we built: what we made after its removal has nobody else to remove it.
        if made.is_err() && self.is_closed(tenant).await? {
            self.tear_down(&plan).await?;
            return Err(MakeError::Removed);
        }
        made
    }

    async fn build(&self, plan: &Plan) -> Result<Record, MakeError> {
        self.user(plan).await?;
        let role_id = self.role(plan).await?;
        self.all_policies(plan).await?;
        self.key(plan, &role_id).await
    }

    /// Sessions may be denied meanwhile, and the policy that does so would pass here for one that must go: then once more.
    async fn all_policies(&self, plan: &Plan) -> Result<(), MakeError> {
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
    pub(super) async fn tear_down(&self, plan: &Plan) -> Result<(), MakeError> {
        let user = self.iam.user(&plan.name).await.map_err(iam("read the user"))?;
        if user.is_some_and(|user| user.arn == plan.user_arn) {
            let listed = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
            self.delete_all_but(plan, &listed, &[]).await?;
            self.delete(plan, Half::User).await?;
        }
        let role = self.iam.role(&plan.name).await.map_err(iam("read the role"))?;
        if role.is_some_and(|role| role.arn == plan.role_arn) {
            self.delete(plan, Half::Role).await?;
        }
        Ok(())
    }

    async fn delete(&self, plan: &Plan, half: Half) -> Result<(), MakeError> {
        self.strip(plan, half, |_| false).await?;
        self.iam.delete(half, &plan.name).await.map_err(iam("delete user or role"))
    }

    pub(super) fn plan(&self, tenant: TenantId) -> Result<Plan, MakeError> {
        self.layout.plan(tenant).map_err(MakeError::Name)
    }

    async fn user(&self, plan: &Plan) -> Result<(), MakeError> {
        if self.iam.user(&plan.name).await.map_err(iam("read the user"))?.is_none() {
            let made = self.iam.create_user(&plan.path, &plan.name, plan.tenant, plan.boundary.as_deref()).await;
            made.map_err(iam("make the user"))?;
        }
        match self.iam.user(&plan.name).await.map_err(iam("read the user"))? {
            Some(user) if user.arn != plan.user_arn => {
                Err(MakeError::Foreign { kind: "user", found: user.arn.to_string() })
            }
            Some(user) => self.boundary(plan, Half::User, user.boundary.as_deref()).await,
            None => Err(MakeError::NotSettled),
        }
    }

    /// Gives the role's unique ID.
    async fn role(&self, plan: &Plan) -> Result<String, MakeError> {
        let trust = plan.trust();
        if self.iam.role(&plan.name).await.map_err(iam("read the role"))?.is_none() {
            let boundary = plan.boundary.as_deref();
            let made = self.iam.create_role(&plan.path, &plan.name, &trust, plan.tenant, boundary).await;
            made.map_err(iam("make the role"))?;
        }
        match self.iam.role(&plan.name).await.map_err(iam("read the role"))? {
            Some(role) if role.arn != plan.role_arn => {
                Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() })
            }
            Some(role) => {
                // Changed behind our back, or bound to an earlier user of the same name.
                if role.trust.as_ref() != Some(&trust) {
                    tracing::warn!(tenant = %plan.tenant, "the trust policy of the tenant's role was not ours: it is set again");
                    self.iam.set_trust(&plan.name, &trust).await.map_err(iam("set the trust policy of the role"))?;
                }
                self.boundary(plan, Half::Role, role.boundary.as_deref()).await?;
                Ok(role.id)
            }
            None => Err(MakeError::NotSettled),
        }
    }

    pub(super) async fn boundary(&self, plan: &Plan, half: Half, found: Option<&str>) -> Result<(), MakeError> {
        match plan.boundary.as_deref() {
            Some(wanted) if found != Some(wanted) => {
                let set = self.iam.set_boundary(half, &plan.name, wanted).await;
                set.map_err(iam("set the permissions boundary"))
            }
            _ => Ok(()),
        }
    }

    /// Exactly the policies of the plan: what is missing or different is written, and what is not in it goes.
    pub(super) async fn policies(
        &self,
        plan: &Plan,
        half: Half,
        denied_before: Option<Timestamp>,
    ) -> Result<(), MakeError> {
        let wanted = plan.policies(half, denied_before);
        for (name, document) in &wanted {
            let found = self.iam.policy(half, &plan.name, name).await.map_err(iam("read a policy"))?;
            if found.as_ref() != Some(document) {
                let put = self.iam.put_policy(half, &plan.name, name, document).await;
                put.map_err(iam("set a policy"))?;
            }
        }
        let keep = |name: &String| wanted.iter().any(|(wanted, _)| wanted == name);
        self.strip(plan, half, keep).await
    }

    /// Takes away inline policies that are not to be kept, and every managed one.
    pub(super) async fn strip(
        &self,
        plan: &Plan,
        half: Half,
        keep: impl Fn(&String) -> bool + Send + Sync,
    ) -> Result<(), MakeError> {
        let listed = self.iam.policies(half, &plan.name).await.map_err(iam("list the policies"))?;
        for name in listed.iter().filter(|name| !keep(name)) {
            self.iam.delete_policy(half, &plan.name, name).await.map_err(iam("delete a policy"))?;
        }
        for arn in self.iam.attached(half, &plan.name).await.map_err(iam("list the attached policies"))? {
            self.iam.detach(half, &plan.name, &arn).await.map_err(iam("detach a policy"))?;
        }
        Ok(())
    }

    async fn key(&self, plan: &Plan, role_id: &str) -> Result<Record, MakeError> {
        // Listed first: a key that is listed, and then is neither recorded nor being made, never will be recorded.
        let listed = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        let stored = self.store.get(plan.tenant).await.map_err(MakeError::Store)?.map(|(record, _)| record);
        let Some(record) = stored else { return self.new_key(plan, role_id).await };
        match &record.state {
            State::Removing | State::Removed => Err(MakeError::Removed),
            State::Making { .. } => self.new_key(plan, role_id).await,
            State::Ready { key, rotation, .. } => {
                let known = self.known_keys(&record).await?;
                let ours = self.key_id(plan.tenant, key).await?;
                let found = listed.iter().any(|key| key.active && key.is(&ours));
                if !found && listed.iter().any(|key| known.iter().any(|id| key.is(id) && !key.is(&ours))) {
                    // Its rotation has another one, and goes on with that.
                    return Ok(record);
                }
                if !found && record.updated_at.until(Timestamp::now()) >= self.settle {
                    tracing::warn!(tenant = %plan.tenant, "the tenant's access key is gone from IAM or disabled: a new one is made");
                    return self.new_key(plan, role_id).await;
                }
                // While another instance makes the next key, what is not recorded may be that one.
                if found && !matches!(rotation, Some(Rotation::Making { .. })) {
                    self.delete_all_but(plan, &listed, &known).await?;
                }
                Ok(record)
            }
        }
    }

    /// IDs of all the keys that are recorded, the one in use first.
    pub(super) async fn known_keys(&self, record: &Record) -> Result<Vec<SecretString>, MakeError> {
        let State::Ready { key, rotation, .. } = &record.state else { return Ok(Vec::new()) };
        let mut known = vec![self.key_id(record.tenant, key).await?];
        match rotation {
            Some(Rotation::Proving { new: other, .. } | Rotation::Retiring { old: other, .. }) => {
                known.push(self.key_id(record.tenant, other).await?);
            }
            Some(Rotation::Making { .. }) | None => {}
        }
        Ok(known)
    }

    pub(super) async fn key_id(&self, tenant: TenantId, key: &Wrapped) -> Result<SecretString, MakeError> {
        Ok(self.open(tenant, key).await?.access_key_id)
    }

    pub(super) async fn open(&self, tenant: TenantId, key: &Wrapped) -> Result<Keys, MakeError> {
        let bytes = self.wrapper.unwrap(tenant, key).await.map_err(MakeError::Wrap)?;
        record::decode_key(&bytes).map_err(MakeError::Record)
    }

    async fn new_key(&self, plan: &Plan, role_id: &str) -> Result<Record, MakeError> {
        let claim = Uuid::now_v7();
        self.claim(plan, claim, role_id).await?;
        // Listed after the claim: a key made under an earlier claim can no longer be stored. And only while the claim stands: a run that stood
        // still may be listing the key that another has made since.
        let orphans = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        let stored = self.store.get(plan.tenant).await.map_err(MakeError::Store)?;
        if stored.is_none_or(|(record, _)| record.state != State::Making { claim }) {
            return Err(MakeError::Busy);
        }
        self.delete_all_but(plan, &orphans, &[]).await?;
        let (_, ready) = self
            .make_key(plan, |record, key| {
                let mine = record.state == State::Making { claim };
                if mine {
                    record.enter(State::Ready { key, made_at: Some(Timestamp::now()), rotation: None });
                }
                mine
            })
            .await?;
        // Another's key, made while we made ours and not storable any more.
        let listed = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        let stored = self.store.get(plan.tenant).await.map_err(MakeError::Store)?;
        if let Some((now, _)) = stored
            && matches!(
                now.state,
                State::Ready { rotation: None | Some(Rotation::Proving { .. } | Rotation::Retiring { .. }), .. }
            )
        {
            self.delete_all_but(plan, &listed, &self.known_keys(&now).await?).await?;
        }
        Ok(ready)
    }

    /// With the claim goes the role's unique ID: one that is replaced before anybody looks is found all the same.
    async fn claim(&self, plan: &Plan, claim: Uuid, role_id: &str) -> Result<(), MakeError> {
        let making = State::Making { claim };
        if self.store.get(plan.tenant).await.map_err(MakeError::Store)?.is_none() {
            let mut record = Record::new(plan.tenant, plan.user_arn.clone(), plan.role_arn.clone(), making);
            record.role_id = Some(role_id.to_owned());
            return self.store.put(&record, None).await.map(drop).map_err(MakeError::Store);
        }
        let claimed = amend(self.store.as_ref(), plan.tenant, |record| {
            let open = !record.is_closed();
            if open {
                record.enter(making.clone());
                record.role_id.get_or_insert_with(|| role_id.to_owned());
            }
            open
        });
        claimed.await.map_err(MakeError::Store)?.map(drop).ok_or(MakeError::Removed)
    }

    /// Makes a key, wraps it, and stores it if `store` still wants to. Gives the key's ID and the record.
    pub(super) async fn make_key(
        &self,
        plan: &Plan,
        store: impl FnMut(&mut Record, Wrapped) -> bool + Send,
    ) -> Result<(SecretString, Record), MakeError> {
        let keys = self.iam.create_access_key(&plan.name).await.map_err(iam("make the access key"))?;
        match self.store_key(plan, &keys, store).await {
            Ok(ready) => Ok((keys.access_key_id, ready)),
            Err(error) => {
                // Only where it is certain that it was not stored. Else it stays, and the next run sees whether it is in the record.
                let lost = !matches!(error, MakeError::Store(StoreError::Unavailable { .. }));
                if lost && let Err(failure) = self.iam.delete_access_key(&plan.name, &keys.access_key_id).await {
                    tracing::warn!(tenant = %plan.tenant, %failure, "an access key that could not be stored remains until the next try");
                }
                Err(error)
            }
        }
    }

    async fn store_key(
        &self,
        plan: &Plan,
        keys: &Keys,
        mut store: impl FnMut(&mut Record, Wrapped) -> bool + Send,
    ) -> Result<Record, MakeError> {
        let plain = record::encode_key(keys).map_err(MakeError::Record)?;
        let key = self.wrapper.wrap(plan.tenant, &plain).await.map_err(MakeError::Wrap)?;
        let stored = amend(self.store.as_ref(), plan.tenant, |record| store(record, key.clone())).await;
        stored.map_err(MakeError::Store)?.ok_or(MakeError::Store(StoreError::Conflict))
    }

    pub(super) async fn delete_all_but(
        &self,
        plan: &Plan,
        listed: &[FoundKey],
        keep: &[SecretString],
    ) -> Result<(), MakeError> {
        for key in listed.iter().filter(|key| !keep.iter().any(|keep| key.is(keep))) {
            tracing::info!(tenant = %plan.tenant, "an access key that is not recorded is deleted");
            self.iam.delete_access_key(&plan.name, &key.id).await.map_err(iam("delete an access key"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "maker_tests.rs"]
mod tests;
