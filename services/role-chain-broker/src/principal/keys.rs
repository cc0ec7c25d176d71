//! The access key of a principal: made, wrapped and stored, and never one too many.
//!
//! The access key is the one thing that cannot be read again. Hence, before one is made, a claim is written; a key is stored only in place of
//! its maker's own claim; and keys that are not in the record are deleted. A crash between making and storing leaves a key that nobody knows,
//! which the next run removes. With several instances at work the last claim wins, and the others throw their keys away. Never more than two
//! keys exist (IAM's own limit), and a recorded key is never deleted.

use contracts::{TenantId, Timestamp};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    MakeError,
    accounts::Place,
    error::iam,
    iam::FoundKey,
    maker::Maker,
    record::{self, Record, Rotation, State},
    store::{StoreError, amend},
};
use crate::{sts::Keys, wrap::Wrapped};

impl Maker {
    pub(super) async fn key(&self, plan: &Place, role_id: &str) -> Result<Record, MakeError> {
        // Listed first: a key that is listed, and then is neither recorded nor being made, never will be recorded.
        let listed = plan.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
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

    async fn new_key(&self, plan: &Place, role_id: &str) -> Result<Record, MakeError> {
        let claim = Uuid::now_v7();
        self.claim(plan, claim, role_id).await?;
        // Listed after the claim: a key made under an earlier claim can no longer be stored. And only while the claim stands: a run that stood
        // still may be listing the key that another has made since.
        let orphans = plan.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
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
        let listed = plan.iam.access_keys(&plan.name).await.map_err(iam("list the access keys"))?;
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
    async fn claim(&self, plan: &Place, claim: Uuid, role_id: &str) -> Result<(), MakeError> {
        let making = State::Making { claim };
        let (here, mut elsewhere) = (plan.account(), false);
        let claimed = amend(self.store.as_ref(), plan.tenant, |record| {
            elsewhere = record.role_arn.account() != here;
            let open = !record.is_closed() && !elsewhere;
            if open {
                record.enter(making.clone());
                record.role_id.get_or_insert_with(|| role_id.to_owned());
            }
            open
        });
        let claimed = claimed.await.map_err(MakeError::Store)?;
        let refused = if elsewhere { MakeError::Busy } else { MakeError::Removed };
        claimed.map(drop).ok_or(refused)
    }

    /// Makes a key, wraps it, and stores it if `store` still wants to. Gives the key's ID and the record.
    pub(super) async fn make_key(
        &self,
        plan: &Place,
        store: impl FnMut(&mut Record, Wrapped) -> bool + Send,
    ) -> Result<(SecretString, Record), MakeError> {
        let keys = plan.iam.create_access_key(&plan.name).await.map_err(iam("make the access key"))?;
        match self.store_key(plan, &keys, store).await {
            Ok(ready) => Ok((keys.access_key_id, ready)),
            Err(error) => {
                // Only where it is certain that it was not stored. Else it stays, and the next run sees whether it is in the record.
                let lost = !matches!(error, MakeError::Store(StoreError::Unavailable { .. }));
                if lost && let Err(failure) = plan.iam.delete_access_key(&plan.name, &keys.access_key_id).await {
                    tracing::warn!(tenant = %plan.tenant, %failure, "an access key that could not be stored remains until the next try");
                }
                Err(error)
            }
        }
    }

    async fn store_key(
        &self,
        plan: &Place,
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
        plan: &Place,
        listed: &[FoundKey],
        keep: &[SecretString],
    ) -> Result<(), MakeError> {
        for key in listed.iter().filter(|key| !keep.iter().any(|keep| key.is(keep))) {
            tracing::info!(tenant = %plan.tenant, "an access key that is not recorded is deleted");
            plan.iam.delete_access_key(&plan.name, &key.id).await.map_err(iam("delete an access key"))?;
        }
        Ok(())
    }
}
