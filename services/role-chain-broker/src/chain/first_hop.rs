//! The first hop, user to principal role: kept while it is good, and dropped when a revocation has reached it.

use std::{sync::Arc, time::Duration};

use aws::{Failure, FailureKind, Unclear};
use contracts::{AccountId, TenantId, Timestamp};
use moka::{Expiry, future::Cache, ops::compute::Op};

use super::{Chain, ChainError, Hop, call::Way};
use crate::sts::{AssumeRole, AwsClock, Session, SessionDuration};

/// A first-hop session with less time left than this is not begun with.
const MARGIN: Duration = Duration::from_secs(60);
/// A first hop counts as begun after a revocation only if it was begun this much after: AWS writes down whole seconds.
const CLEAR_OF_DENIED: Duration = Duration::from_secs(2);
/// For a revocation of this very second a new first hop waits; for one that lies further ahead by AWS's clock, it is not waited here.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// First hops kept; the least used give way. One is some 2 KB.
const MOST_FIRST_HOPS: u64 = 10_000;

/// Whose first hop, and bound how. Holds external IDs: no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct FirstHop {
    pub(super) tenant: TenantId,
    /// The session policy; `None` for probes.
    pub(super) policy: Option<Arc<str>>,
}

/// A first hop that was made, and the provider account whose calls are counted when it is used.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) session: Session,
    pub(super) payer: AccountId,
}

struct UntilSpent(AwsClock);

impl Expiry<FirstHop, Arc<Begun>> for UntilSpent {
    fn expire_after_create(&self, _: &FirstHop, begun: &Arc<Begun>, _: std::time::Instant) -> Option<Duration> {
        Some(self.0.left(begun.session.expires_at).saturating_sub(MARGIN))
    }
}

pub(super) fn first_hops(clock: &AwsClock) -> Cache<FirstHop, Arc<Begun>> {
    Cache::builder().max_capacity(MOST_FIRST_HOPS).expire_after(UntilSpent(clock.clone())).build()
}

impl Chain {
    /// A first hop that no revocation has reached. The bucket is asked each time, so that a revocation holds on every instance at once.
    pub(super) async fn first_hop(
        &self,
        key: &FirstHop,
        way: &Way,
        duration: SessionDuration,
        session_name: &str,
    ) -> Result<Arc<Begun>, ChainError> {
        let mut began = self.cached_or_made(key, way, duration, session_name).await?;
        // One of before the revocation, and then one of the same second, give way.
        for _ in 0..2 {
            let denied = self.denied(key.tenant).await?;
            let Some(denied) = denied.filter(|denied| began.session.issued_at < *denied) else { return Ok(began) };
            self.forget(key, &began).await;
            let wait = self.clock.left(denied);
            if wait > LONGEST_WAIT {
                break;
            }
            tokio::time::sleep(wait).await;
            began = self.cached_or_made(key, way, duration, session_name).await?;
        }
        match self.denied(key.tenant).await? {
            Some(denied) if began.session.issued_at < denied => {
                self.forget(key, &began).await;
                let failure = Failure::new(FailureKind::Indeterminate(Unclear::NotSent), None);
                Err(ChainError::Sts { hop: Hop::Principal, failure })
            }
            _ => Ok(began),
        }
    }

    /// As [`Chain::denied`], out of memory where that is current: what was written within [`crate::follow::COUNTS`] may be missed. Enough for handing out again
    /// what was handed out before, and for nothing else.
    ///
    /// # Errors
    /// As [`Chain::denied`].
    pub async fn denied_as_known(&self, tenant: TenantId) -> Result<Option<Timestamp>, ChainError> {
        match self.denials.of(tenant) {
            Some(known) => Ok(known.map_err(ChainError::Principal)?.map(|before| before.plus(CLEAR_OF_DENIED))),
            None => self.denied(tenant).await,
        }
    }

    /// Sessions that began before this are not used any more.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the principal was removed.
    pub async fn denied(&self, tenant: TenantId) -> Result<Option<Timestamp>, ChainError> {
        let denied = self.principals.denied_before(tenant).await.map_err(ChainError::Principal)?;
        Ok(denied.map(|before| before.plus(CLEAR_OF_DENIED)))
    }

    /// Drops this very session; one that another has put in its place meanwhile stays.
    pub(super) async fn forget(&self, key: &FirstHop, spent: &Arc<Begun>) {
        let is_it = |entry: Option<moka::Entry<FirstHop, Arc<Begun>>>| {
            let same = entry.is_some_and(|entry| Arc::ptr_eq(entry.value(), spent));
            std::future::ready(if same { Op::Remove } else { Op::Nop })
        };
        self.first_hops.entry(key.clone()).and_compute_with(is_it).await;
    }

    /// The cached first hop, or a new one: made once, however many wait for it.
    async fn cached_or_made(
        &self,
        key: &FirstHop,
        way: &Way,
        duration: SessionDuration,
        session_name: &str,
    ) -> Result<Arc<Begun>, ChainError> {
        let make = async {
            let principal = self.principals.of(key.tenant).await.map_err(ChainError::Principal)?;
            let call = AssumeRole {
                role: &principal.role_arn,
                external_id: None,
                session_policy: key.policy.as_deref(),
                duration,
                session_name,
                region: None,
                // The customer does not see this hop, and what it bore would have to be admitted by every customer's role if it were transitive.
                tags: None,
            };
            let payer = principal.role_arn.account().clone();
            match self.call(way, Hop::Principal, key.tenant, &payer, &principal.keys, &call).await {
                Ok(answer) => Ok(Arc::new(Begun { session: answer.value, payer })),
                Err(error) => {
                    if let ChainError::Sts { failure, .. } = &error
                        && !matches!(failure.kind, FailureKind::Indeterminate(_))
                    {
                        self.doubt(key.tenant);
                    }
                    Err(error)
                }
            }
        };
        self.first_hops.try_get_with_by_ref(key, make).await.map_err(|shared| (*shared).clone())
    }
}
