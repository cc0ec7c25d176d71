//! The second hop, principal role to customer role, and what its refusal means for the first.

use std::sync::Arc;

use aws::FailureKind;
use contracts::{ExternalId, Region, RoleArn};

use super::{
    Chain, ChainError, Hop,
    call::Way,
    first_hop::{Begun, FirstHop},
};
use crate::{
    sts::{Answer, AssumeRole, Session, SessionDuration},
    tags::SessionTags,
};

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
    /// Where the role was seen to admit them.
    pub tags: Option<SessionTags>,
}

impl Chain {
    pub(super) async fn second_hop(
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
