//! The chain: the tenant's user -> the tenant's principal role -> the customer's role.
//!
//! Two kinds of first hop, never mixed. One for issuing: its session policy lets it assume roles only with the tenant's own external IDs, so
//! that even a confused broker cannot use another's. One for probing: without that condition, because a probe that must be refused has to be
//! refused by the customer's role and not by us. What must not live here: what may be issued, and what an answer means.

use std::{sync::Arc, time::Duration};

use aws::{Failure, FailureKind, Unclear};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::{AccountId, ExternalId, Region, RoleArn, TenantId, Timestamp};
use moka::{Expiry, future::Cache, ops::compute::Op};

use crate::{
    denials::Denials,
    principal::{Orders, PrincipalError, Principals},
    purpose::DENY_ALL,
    sts::{
        Answer, AssumeRole, AwsClock, Keys, Session, SessionDuration, Sts,
        budget::{Budget, Busy},
    },
};

/// A first-hop session with less time left than this is not begun with.
const MARGIN: Duration = Duration::from_secs(60);
/// A first hop counts as begun after a revocation only if it was begun this much after: AWS writes down whole seconds.
const CLEAR_OF_DENIED: Duration = Duration::from_secs(2);
/// For a revocation of this very second a new first hop waits; for one that lies further ahead by AWS's clock, it is not waited here.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// First hops kept; the least used give way. One is some 2 KB.
const MOST_FIRST_HOPS: u64 = 10_000;
const PROBE_SESSION: &str = "rolebridge.probe";

/// Which of the two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// User to principal role: both ours.
    Principal,
    /// Principal role to customer role.
    Customer,
}

/// Why there is no session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    #[error("the tenant's principal cannot be used")]
    Principal(#[source] PrincipalError),
    /// Nothing was asked of AWS.
    #[error("AWS STS was not asked")]
    Busy(#[source] Busy),
    #[error("{}", match .hop { Hop::Principal => "the tenant's user could not assume the tenant's role", Hop::Customer => "the tenant's role could not assume the customer's role" })]
    Sts {
        hop: Hop,
        #[source]
        failure: Failure,
    },
}

/// Whose first hop, and bound how. Holds external IDs: no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FirstHop {
    tenant: TenantId,
    /// The session policy; `None` for probes.
    policy: Option<Arc<str>>,
}

/// The second hop of a real issue.
#[derive(Debug, Clone, Copy)]
pub struct SecondHop<'a> {
    pub role: &'a RoleArn,
    pub external_id: &'a ExternalId,
    /// What the purpose allows.
    pub session_policy: &'a str,
    pub duration: SessionDuration,
    pub session_name: &'a str,
    pub region: &'a Region,
}

/// A first hop that was made, and the provider account whose calls are counted when it is used.
#[derive(Debug)]
struct Begun {
    session: Session,
    payer: AccountId,
}

/// How a kind of call is made.
struct Way {
    sts: Arc<dyn Sts>,
    /// Of calls whose answer is not clear.
    tries: usize,
    /// How long a call may wait for its turn.
    patience: Duration,
    /// How long one answer may take, from when it is the call's turn. AWS answers within a tenth of a second.
    answer: Duration,
}

/// Tries of an issue: somebody waits, so a few quick ones, and then the requester is told.
const ISSUE_TRIES: usize = 3;
const ISSUE_PATIENCE: Duration = Duration::from_secs(8);
/// A probe tries once, because the inquiry decides about the next try; nobody waits for its turn but a job.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);
const ONE_ANSWER: Duration = Duration::from_secs(6);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Makes sessions in customers' roles.
pub struct Chain {
    principals: Principals,
    issuing: Way,
    probing: Way,
    first_hops: Cache<FirstHop, Arc<Begun>>,
    /// Calls are taken from it before they are made.
    budget: Option<Budget>,
    /// Has a principal looked at that does not work.
    alarms: Option<Orders>,
    denials: Denials,
    clock: AwsClock,
}

struct UntilSpent(AwsClock);

impl Expiry<FirstHop, Arc<Begun>> for UntilSpent {
    fn expire_after_create(&self, _: &FirstHop, begun: &Arc<Begun>, _: std::time::Instant) -> Option<Duration> {
        Some(self.0.left(begun.session.expires_at).saturating_sub(MARGIN))
    }
}

fn first_hops(clock: &AwsClock) -> Cache<FirstHop, Arc<Begun>> {
    Cache::builder().max_capacity(MOST_FIRST_HOPS).expire_after(UntilSpent(clock.clone())).build()
}

impl Chain {
    #[must_use]
    pub fn new(principals: Principals, issuing: Arc<dyn Sts>, probing: Arc<dyn Sts>) -> Self {
        let clock = AwsClock::default();
        let (first_hops, denials) = (first_hops(&clock), Denials::default());
        let issuing = Way { sts: issuing, tries: ISSUE_TRIES, patience: ISSUE_PATIENCE, answer: ONE_ANSWER };
        let probing = Way { sts: probing, tries: 1, patience: PROBE_PATIENCE, answer: ONE_ANSWER };
        Self { principals, issuing, probing, first_hops, budget: None, alarms: None, denials, clock }
    }

    /// What is left of a session is reckoned by this clock.
    #[must_use]
    pub fn timed(self, clock: AwsClock) -> Self {
        Self { first_hops: first_hops(&clock), clock, ..self }
    }

    /// What is denied is known from here, as long as that is current, to whoever asks by [`Chain::denied_as_known`].
    #[must_use]
    pub fn remembering(self, denials: Denials) -> Self {
        Self { denials, ..self }
    }

    /// Every call is taken from `budget` first.
    #[must_use]
    pub fn within(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// A first hop that AWS refuses has the principal looked at.
    #[must_use]
    pub fn alarming(self, orders: Orders) -> Self {
        Self { alarms: Some(orders), ..self }
    }

    /// Has the tenant's principal looked at: somebody has a reason to doubt it.
    pub fn doubt(&self, tenant: TenantId) {
        if let Some(orders) = &self.alarms {
            orders.doubt(tenant);
        }
    }

    /// A session in the customer's role, for a purpose. `first_hop_policy` binds the first hop to the tenant's external IDs.
    ///
    /// # Errors
    /// By hop; a failed first hop is not kept.
    pub async fn issue(
        &self,
        tenant: TenantId,
        first_hop_policy: Arc<str>,
        hop: &SecondHop<'_>,
    ) -> Result<Session, ChainError> {
        let key = FirstHop { tenant, policy: Some(first_hop_policy) };
        let first = self.first_hop(&key, &self.issuing, SessionDuration::LONGEST, "rolebridge.issue").await?;
        let call = AssumeRole {
            role: hop.role,
            external_id: Some(hop.external_id),
            session_policy: Some(hop.session_policy),
            duration: hop.duration,
            session_name: hop.session_name,
            region: Some(hop.region),
        };
        let answer = self.second_hop(&key, &first, &self.issuing, &call).await?;
        Ok(answer.value)
    }

    /// A session in the customer's role that may do nothing, to see whether there is one.
    ///
    /// # Errors
    /// By hop: only a refusal of [`Hop::Customer`] says something about the customer's role.
    pub async fn probe(
        &self,
        tenant: TenantId,
        role: &RoleArn,
        external_id: Option<&ExternalId>,
        region: &Region,
    ) -> Result<Answer<Session>, ChainError> {
        self.unbound(tenant, role, external_id, DENY_ALL, region).await
    }

    /// A session in the customer's role for looking at it, with what the session policy leaves; never issued to anybody.
    ///
    /// # Errors
    /// As [`Chain::probe`].
    pub async fn look(
        &self,
        tenant: TenantId,
        role: &RoleArn,
        external_id: &ExternalId,
        session_policy: &str,
        region: &Region,
    ) -> Result<Session, ChainError> {
        Ok(self.unbound(tenant, role, Some(external_id), session_policy, region).await?.value)
    }

    async fn unbound(
        &self,
        tenant: TenantId,
        role: &RoleArn,
        external_id: Option<&ExternalId>,
        session_policy: &str,
        region: &Region,
    ) -> Result<Answer<Session>, ChainError> {
        let key = FirstHop { tenant, policy: None };
        let first = self.first_hop(&key, &self.probing, SessionDuration::SHORTEST, PROBE_SESSION).await?;
        let call = AssumeRole {
            role,
            external_id,
            session_policy: Some(session_policy),
            duration: SessionDuration::SHORTEST,
            session_name: PROBE_SESSION,
            region: Some(region),
        };
        self.second_hop(&key, &first, &self.probing, &call).await
    }

    /// Who is no tenant and lives in the account that the tenant's principal lives in.
    ///
    /// # Errors
    /// When the tenant has no principal, or the bucket cannot be read.
    pub async fn stranger_beside(&self, tenant: TenantId) -> Result<TenantId, PrincipalError> {
        self.principals.stranger_beside(tenant).await
    }

    /// `role` of one account of ours, in the account that the tenant's principal lives in.
    ///
    /// # Errors
    /// When the tenant has no principal, or the bucket cannot be read.
    pub async fn beside(&self, tenant: TenantId, role: &RoleArn) -> Result<RoleArn, ChainError> {
        let account = self.principals.account(tenant).await.map_err(ChainError::Principal)?;
        Ok(role.in_account(&account))
    }

    /// The account that a probe's session belongs to.
    ///
    /// # Errors
    /// When STS does not say.
    pub async fn who(&self, keys: &Keys, region: &Region) -> Result<Answer<AccountId>, Failure> {
        self.probing.sts.caller_account(keys, Some(region)).await
    }

    /// A first hop that no revocation has reached. The bucket is asked each time, so that a revocation holds on every instance at once.
    async fn first_hop(
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
    async fn forget(&self, key: &FirstHop, spent: &Arc<Begun>) {
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

    /// One call, or as many as `way` allows while the answers are unclear; each is taken from the budget.
    async fn call(
        &self,
        way: &Way,
        hop: Hop,
        tenant: TenantId,
        payer: &AccountId,
        keys: &Keys,
        call: &AssumeRole<'_>,
    ) -> Result<Answer<Session>, ChainError> {
        let mut pauses =
            ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_jitter().with_max_times(way.tries - 1).build();
        loop {
            if let Some(budget) = &self.budget {
                budget.take(payer, tenant, way.patience).await.map_err(ChainError::Busy)?;
            }
            let failure = match tokio::time::timeout(way.answer, way.sts.assume_role(keys, call)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::new(FailureKind::Indeterminate(Unclear::TimedOut), None),
            };
            if let (FailureKind::Indeterminate(Unclear::Throttled), Some(budget)) = (failure.kind, &self.budget) {
                budget.throttled(payer);
            }
            match pauses.next() {
                Some(pause) if matches!(failure.kind, FailureKind::Indeterminate(_)) => {
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(ChainError::Sts { hop, failure }),
            }
        }
    }

    async fn second_hop(
        &self,
        key: &FirstHop,
        first: &Arc<Begun>,
        way: &Way,
        call: &AssumeRole<'_>,
    ) -> Result<Answer<Session>, ChainError> {
        let asked = self.call(way, Hop::Customer, key.tenant, &first.payer, &first.session.keys, call).await;
        match asked {
            Err(ChainError::Sts { failure, .. }) => {
                // The first hop's own session is no longer good: the next try makes a new one.
                if failure.is("ExpiredToken") || failure.is("InvalidClientTokenId") {
                    self.first_hops.invalidate(key).await;
                }
                // Revoked while we asked: the refusal is our own, and says nothing about the customer's role.
                if failure.kind == FailureKind::Refused
                    && self.denied(key.tenant).await?.is_some_and(|denied| first.session.issued_at < denied)
                {
                    self.forget(key, first).await;
                    return Err(ChainError::Sts { hop: Hop::Principal, failure });
                }
                Err(ChainError::Sts { hop: Hop::Customer, failure })
            }
            other => other,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        principal::fake::ready_principal,
        probe::{Prober, Suspect},
        sts::fake::{FakeSts, Trust},
    };

    /// A tenant with a ready principal, one customer role, and STS in memory.
    pub struct Fixture {
        pub sts: Arc<FakeSts>,
        pub chain: Arc<Chain>,
        pub metrics: Metrics,
        pub suspect: Suspect,
        pub principal_role: RoleArn,
        pub canary: RoleArn,
    }

    pub async fn fixture(sts: FakeSts) -> Fixture {
        let tenant = TenantId::new();
        let (principals, principal_role) = ready_principal(tenant).await;
        let role = RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/rolebridge-stack").unwrap();
        let suspect = Suspect {
            tenant,
            account: role.account().clone(),
            external_id: ExternalId::generate(),
            retired_external_id: None,
            region: Region::parse("eu-central-1").unwrap(),
            role,
        };
        let canary = RoleArn::parse("arn:aws:iam::111111111111:role/rolebridge/rolebridge-canary").unwrap();
        let sts = sts.role(&canary, Trust::Anyone);
        let sts = Arc::new(
            sts.role(&principal_role, Trust::Anyone).role(&suspect.role, Trust::Id(suspect.external_id.clone())),
        );
        let chain = Arc::new(Chain::new(principals, sts.clone(), sts.clone()));
        let metrics = Metrics::new(&opentelemetry::global::meter("test"));
        Fixture { sts, chain, metrics, suspect, principal_role, canary }
    }

    impl Fixture {
        pub fn prober(&self) -> Prober {
            Prober::new(self.chain.clone(), self.canary.clone(), self.metrics.clone())
        }

        pub fn second_hop(&self) -> SecondHop<'_> {
            SecondHop {
                role: &self.suspect.role,
                external_id: &self.suspect.external_id,
                session_policy: "{}",
                duration: SessionDuration::LONGEST,
                session_name: "rolebridge.cost-read.0123456789ab",
                region: &self.suspect.region,
            }
        }
    }

    #[tokio::test]
    async fn issuing_and_probing_never_share_a_first_hop() {
        let fixture = fixture(FakeSts::default()).await;
        let suspect = &fixture.suspect;
        let policy: Arc<str> = "bound to the tenant's IDs".into();
        fixture.chain.probe(suspect.tenant, &suspect.role, Some(&suspect.external_id), &suspect.region).await.unwrap();
        for _ in 0..3 {
            fixture.chain.issue(suspect.tenant, policy.clone(), &fixture.second_hop()).await.unwrap();
        }
        let first_hops: Vec<_> =
            fixture.sts.calls().into_iter().filter(|call| call.role == fixture.principal_role).collect();
        let policies: Vec<_> = first_hops.iter().map(|call| call.session_policy.as_deref()).collect();
        assert_eq!(policies, [None, Some("bound to the tenant's IDs")]);
    }

    #[tokio::test]
    async fn a_dead_first_hop_is_made_anew() {
        let fixture = fixture(FakeSts::default()).await;
        let expired = Failure::new(aws::FailureKind::Other, Some("ExpiredToken"));
        fixture.sts.trouble([None, Some(expired)]);
        let issue = || fixture.chain.issue(fixture.suspect.tenant, "p".into(), fixture_hop(&fixture));
        assert!(matches!(issue().await, Err(ChainError::Sts { hop: Hop::Customer, .. })));
        issue().await.unwrap();
        assert_eq!(fixture.sts.calls().iter().filter(|call| call.role == fixture.principal_role).count(), 2);
    }

    fn fixture_hop(fixture: &Fixture) -> &'static SecondHop<'static> {
        Box::leak(Box::new(SecondHop {
            role: Box::leak(Box::new(fixture.suspect.role.clone())),
            external_id: Box::leak(Box::new(fixture.suspect.external_id.clone())),
            region: Box::leak(Box::new(fixture.suspect.region.clone())),
            session_policy: "{}",
            duration: SessionDuration::LONGEST,
            session_name: "rolebridge.cost-read.0123456789ab",
        }))
    }
}
