//! Makes a principal, or mends one: every step looks first, so a run that was stopped anywhere is continued by the next.
//!
//! The access key is the one thing that cannot be read again. Hence, before one is made, a claim is written; a key is stored only in place of
//! its maker's own claim; and keys that are not in the record are deleted. A crash between making and storing leaves a key that nobody knows,
//! which the next run removes. With several instances at work the last claim wins, and the others throw their keys away. Never more than two
//! keys exist (IAM's own limit), and a recorded key is never deleted.

use std::{sync::Arc, time::Duration};

use aws::Failure;
use contracts::{ParseIdentityError, TenantId, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{
    iam::Iam,
    policy::{Layout, Plan},
    record::{self, Record, RecordError, State},
    store::{PrincipalStore, Revision, StoreError},
};
use crate::{
    sts::Keys,
    wrap::{KeyWrapper, WrapError},
};

/// `ListAccessKeys` may not show a new key at once: for this long a recorded key is believed without being listed.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no principal yet. All but [`MakeError::Foreign`] pass with time or with a changed configuration: try again.
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
    #[error("path and tenant make no name that IAM takes: check ROLEBRIDGE_PRINCIPAL_PATH")]
    Name(#[source] ParseIdentityError),
}

fn iam(step: &'static str) -> impl FnOnce(Failure) -> MakeError {
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
}

impl Maker {
    /// Brings the tenant's principal to where it should be, and gives its record.
    ///
    /// Cancel: may be dropped anywhere; the next run goes on.
    ///
    /// # Errors
    /// See [`MakeError`]; what was done stays done.
    pub async fn make(&self, tenant: TenantId) -> Result<Record, MakeError> {
        let plan = self.layout.plan(tenant).map_err(MakeError::Name)?;
        self.user(&plan).await?;
        self.role(&plan).await?;
        self.policies(&plan).await?;
        self.key(&plan).await
    }

    async fn user(&self, plan: &Plan) -> Result<(), MakeError> {
        if self.iam.user(&plan.name).await.map_err(iam("read the user"))?.is_none() {
            self.iam.create_user(&plan.path, &plan.name, plan.tenant).await.map_err(iam("make the user"))?;
        }
        match self.iam.user(&plan.name).await.map_err(iam("read the user"))? {
            Some(arn) if arn == plan.user_arn => Ok(()),
            Some(arn) => Err(MakeError::Foreign { kind: "user", found: arn.to_string() }),
            None => Err(MakeError::NotSettled),
        }
    }

    async fn role(&self, plan: &Plan) -> Result<(), MakeError> {
        let trust = plan.trust();
        if self.iam.role(&plan.name).await.map_err(iam("read the role"))?.is_none() {
            let made = self.iam.create_role(&plan.path, &plan.name, &trust, plan.tenant).await;
            made.map_err(iam("make the role"))?;
        }
        match self.iam.role(&plan.name).await.map_err(iam("read the role"))? {
            Some(role) if role.arn != plan.role_arn => {
                Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() })
            }
            Some(role) if role.trust.as_ref() == Some(&trust) => Ok(()),
            // Changed behind our back, or bound to an earlier user of the same name.
            Some(_) => {
                tracing::warn!(tenant = %plan.tenant, "the trust policy of the tenant's role was not ours: it is set again");
                self.iam.set_trust(&plan.name, &trust).await.map_err(iam("set the trust policy of the role"))
            }
            None => Err(MakeError::NotSettled),
        }
    }

    async fn policies(&self, plan: &Plan) -> Result<(), MakeError> {
        let wanted = plan.user_policy();
        if self.iam.user_policy(&plan.name).await.map_err(iam("read the user's policy"))?.as_ref() != Some(&wanted) {
            self.iam.put_user_policy(&plan.name, &wanted).await.map_err(iam("set the user's policy"))?;
        }
        let wanted = plan.role_policy();
        if self.iam.role_policy(&plan.name).await.map_err(iam("read the role's policy"))?.as_ref() != Some(&wanted) {
            self.iam.put_role_policy(&plan.name, &wanted).await.map_err(iam("set the role's policy"))?;
        }
        Ok(())
    }

    async fn key(&self, plan: &Plan) -> Result<Record, MakeError> {
        let stored = self.store.get(plan.tenant).await.map_err(MakeError::Store)?;
        let listed = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        if let Some((record, _)) = &stored
            && let State::Ready { key } = &record.state
        {
            let bytes = self.wrapper.unwrap(plan.tenant, key).await.map_err(MakeError::Wrap)?;
            let ours = record::decode_key(&bytes).map_err(MakeError::Record)?.access_key_id;
            if listed.iter().any(|id| same(id, &ours)) {
                self.delete_all_but(plan, &listed, Some(&ours)).await?;
                return Ok(record.clone());
            }
            if record.updated_at.until(Timestamp::now()) < LISTED_WITHIN {
                return Ok(record.clone());
            }
            tracing::warn!(tenant = %plan.tenant, "the tenant's access key is gone from IAM: a new one is made");
        }
        self.new_key(plan, stored.map(|(_, revision)| revision)).await
    }

    async fn new_key(&self, plan: &Plan, replaces: Option<Revision>) -> Result<Record, MakeError> {
        let record = |state| Record {
            tenant: plan.tenant,
            user_arn: plan.user_arn.clone(),
            role_arn: plan.role_arn.clone(),
            state,
            updated_at: Timestamp::now(),
        };
        let claim = record(State::Making { claim: Uuid::now_v7() });
        let claimed = self.store.put(&claim, replaces).await.map_err(MakeError::Store)?;
        // Listed after the claim: a key made under an earlier claim can no longer be stored.
        let orphans = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
        self.delete_all_but(plan, &orphans, None).await?;

        let keys = self.iam.create_access_key(&plan.name).await.map_err(iam("make the access key"))?;
        match self.store_key(plan, &keys, claimed, record).await {
            Ok(ready) => {
                // Another's key, made while we made ours and not storable any more.
                let listed = self.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
                self.delete_all_but(plan, &listed, Some(&keys.access_key_id)).await?;
                Ok(ready)
            }
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
        claimed: Revision,
        record: impl FnOnce(State) -> Record,
    ) -> Result<Record, MakeError> {
        let plain = record::encode_key(keys).map_err(MakeError::Record)?;
        let key = self.wrapper.wrap(plan.tenant, &plain).await.map_err(MakeError::Wrap)?;
        let ready = record(State::Ready { key });
        self.store.put(&ready, Some(claimed)).await.map_err(MakeError::Store)?;
        Ok(ready)
    }

    async fn delete_all_but(
        &self,
        plan: &Plan,
        listed: &[SecretString],
        keep: Option<&SecretString>,
    ) -> Result<(), MakeError> {
        for id in listed.iter().filter(|id| keep.is_none_or(|keep| !same(id, keep))) {
            tracing::info!(tenant = %plan.tenant, "an access key that is not recorded is deleted");
            self.iam.delete_access_key(&plan.name, id).await.map_err(iam("delete an access key"))?;
        }
        Ok(())
    }
}

fn same(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret() == b.expose_secret()
}

#[cfg(test)]
#[path = "maker_tests.rs"]
mod tests;
