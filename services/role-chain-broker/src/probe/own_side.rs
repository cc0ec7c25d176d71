//! Our own side: does it let a call out at all? Of two refusals by STS, one by the customer's role and one by a policy of ours (a service control
//! policy of our organization, a boundary, a changed role policy), nothing in the answer tells which it is.
//!
//! So the same call is sent to the canary, a role of our own that is open to every principal of its account: by the same first hop, with the same
//! external ID or with none, to the same region's STS. What refuses there is our own side. What must not live here: what an answer means.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws::FailureKind;
use contracts::{ExternalId, Region, RoleArn, TenantId};
use moka::future::Cache;
use tokio::time::Instant;

use super::VOUCHES_FOR;
use crate::{
    chain::{Chain, ChainError},
    tags::SessionTags,
};

/// Ways of calling that are remembered; the least used give way. One is some 200 bytes.
const MOST_WAYS: u64 = 10_000;
/// Trouble on our side meets every probe, and is written down this often.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Whose call, with which external ID, whether with session tags, to which region's STS. Holds external IDs: no `Debug`.
type Way = (TenantId, Option<ExternalId>, bool, Region);

/// Asks the canary.
pub(super) struct OwnSide {
    chain: Arc<Chain>,
    /// Of one account; there is one in each.
    canary: RoleArn,
    /// When a way that was let in was asked for. By the clock of [`Instant`], which tests can turn.
    open: Cache<Way, Instant>,
    complained: Mutex<Option<Instant>>,
}

impl OwnSide {
    pub(super) fn new(chain: Arc<Chain>, canary: RoleArn) -> Self {
        let open = Cache::builder().max_capacity(MOST_WAYS).time_to_live(VOUCHES_FOR).build();
        Self { chain, canary, open, complained: Mutex::new(None) }
    }

    /// Whether our side lets this call out. A yes is kept for as long as a success of the right ID vouches for refusals, a no is not kept.
    ///
    /// Cancel: may be dropped. Failure: no, which is told in the log; and a refusal has the principal looked at.
    pub(super) async fn lets_out(
        &self,
        by: TenantId,
        external_id: Option<&ExternalId>,
        tags: Option<SessionTags>,
        region: &Region,
    ) -> bool {
        let way = (by, external_id.cloned(), tags.is_some(), region.clone());
        if self.open.get(&way).await.is_some_and(|asked| asked.elapsed() <= VOUCHES_FOR) {
            return true;
        }
        let asked = Instant::now();
        match self.ask(by, external_id, tags, region).await {
            // The session may do nothing, and is dropped, and so wiped, here.
            Ok(_) => {
                self.open.insert(way, asked).await;
                true
            }
            Err(error) => {
                if let ChainError::Sts { failure, .. } = &error
                    && failure.kind == FailureKind::Refused
                {
                    self.chain.doubt(by);
                }
                self.complain(by, external_id.is_some(), tags.is_some(), &error);
                false
            }
        }
    }

    async fn ask(
        &self,
        by: TenantId,
        external_id: Option<&ExternalId>,
        tags: Option<SessionTags>,
        region: &Region,
    ) -> Result<(), ChainError> {
        let canary = self.chain.beside(by, &self.canary).await?;
        self.chain.probe(by, &canary, external_id, tags, region).await.map(drop)
    }

    fn complain(&self, tenant: TenantId, with_id: bool, with_tags: bool, error: &ChainError) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < COMPLAINT) {
            return;
        }
        *last = Some(Instant::now());
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%tenant, with_id, with_tags, canary = %self.canary, cause, "refusals are not believed, for our own canary role did not let the same call in: see that this role stands, and that no policy of this account or its organization denies sts:AssumeRole or asks for sts:ExternalId (with_tags: or does not allow sts:TagSession: is the account's template of deploy/aws of this version?)");
    }
}
