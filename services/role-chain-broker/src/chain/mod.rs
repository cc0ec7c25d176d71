//! The chain: the tenant's user -> the tenant's principal role -> the customer's role.
//!
//! Two kinds of first hop, never mixed. One for issuing: its session policy lets it assume roles only with the tenant's own external IDs, so
//! that even a confused broker cannot use another's. One for probing: without that condition, because a probe that must be refused has to be
//! refused by the customer's role and not by us. What must not live here: what may be issued, and what an answer means.

mod call;
mod first_hop;
mod second_hop;
mod tagged;
#[cfg(test)]
pub mod tests;

use std::sync::Arc;

use aws::Failure;
use contracts::{AccountId, ExternalId, Region, RoleArn, TenantId};
use moka::future::Cache;

use crate::{
    denials::Denials,
    metrics::Metrics,
    principal::{Orders, PrincipalError, Principals},
    purpose::DENY_ALL,
    sts::{
        Answer, AssumeRole, AwsClock, Keys, Session, SessionDuration, Sts,
        budget::{Budget, Busy},
    },
    tags::SessionTags,
};

use call::Way;
use first_hop::{Begun, FirstHop, first_hops};
use tagged::{BareRoles, bare_roles};

pub use second_hop::SecondHop;

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
    /// Roles that were seen to refuse tags.
    bare: BareRoles,
    metrics: Option<Metrics>,
}

impl Chain {
    #[must_use]
    pub fn new(principals: Principals, issuing: Arc<dyn Sts>, probing: Arc<dyn Sts>) -> Self {
        let clock = AwsClock::default();
        let (first_hops, denials) = (first_hops(&clock), Denials::default());
        let (issuing, probing) = (Way::of_issuing(issuing), Way::of_probing(probing));
        let (budget, alarms, bare, metrics) = (None, None, bare_roles(), None);
        Self { principals, issuing, probing, first_hops, budget, alarms, denials, clock, bare, metrics }
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

    /// What becomes of session tags is counted here.
    #[must_use]
    pub fn counted(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
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
        let way = self.issuing.of_one_request();
        let first = self.first_hop(&key, &way, SessionDuration::LONGEST, "rolebridge.issue").await?;
        let call = AssumeRole {
            role: hop.role,
            external_id: Some(hop.external_id),
            session_policy: Some(hop.session_policy),
            duration: hop.duration,
            session_name: hop.session_name,
            region: Some(hop.region),
            tags: hop.tags,
        };
        let answer = self.issued_hop(&key, &first, &way, &call).await?;
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
        tags: Option<SessionTags>,
        region: &Region,
    ) -> Result<Answer<Session>, ChainError> {
        self.unbound(tenant, role, external_id, DENY_ALL, tags, region).await
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
        Ok(self.unbound(tenant, role, Some(external_id), session_policy, None, region).await?.value)
    }

    async fn unbound(
        &self,
        tenant: TenantId,
        role: &RoleArn,
        external_id: Option<&ExternalId>,
        session_policy: &str,
        tags: Option<SessionTags>,
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
            tags,
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
}
