//! The second hop of an issue with session tags, and without them where the role turns out not to admit them: nobody's job fails for want of a tag.
//!
//! Of a refusal STS does not say whether tags are its cause. So the same call is made once more without them, and that answer is the one that counts: a
//! refusal of another cause is a refusal again, and is not hidden. Only a role that lets the bare call in is remembered as one without tags.
//! What must not live here: what the tags are (`tags`), and whether the role should admit them (the grant).

use std::{sync::Arc, time::Duration};

use aws::{Failure, FailureKind};
use contracts::RoleArn;
use moka::future::Cache;

use super::{
    Chain, ChainError, Hop,
    call::Way,
    first_hop::{Begun, FirstHop},
};
use crate::sts::{Answer, AssumeRole, Session};

/// For how long a role is taken for one without tags. The next probe has the grant say so, or not; until then this spares calls.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Roles remembered; the least used give way, at the price of a call. One is some 200 bytes.
const MOST_ROLES: u64 = 10_000;

/// Roles that refused a session with tags, and let the same session in without.
pub(super) type BareRoles = Cache<RoleArn, ()>;

pub(super) fn bare_roles() -> BareRoles {
    Cache::builder().max_capacity(MOST_ROLES).time_to_live(REMEMBERED).build()
}

impl Chain {
    /// The second hop of an issue.
    ///
    /// Cancel: as any call; nothing is remembered. Failure: that of the call without tags, where there was one.
    pub(super) async fn issued_hop(
        &self,
        key: &FirstHop,
        first: &Arc<Begun>,
        way: &Way,
        call: &AssumeRole<'_>,
    ) -> Result<Answer<Session>, ChainError> {
        let hop = async |call: &AssumeRole<'_>| self.second_hop(key, first, way, call).await;
        if call.tags.is_none() {
            return hop(call).await;
        }
        let bare = AssumeRole { tags: None, ..*call };
        if self.bare.contains_key(call.role) {
            self.count_tags("known-refused");
            return hop(&bare).await;
        }
        match hop(call).await {
            Err(ChainError::Sts { hop: Hop::Customer, failure }) if may_be_for_tags(&failure) => {
                let answer = hop(&bare).await?;
                self.bare.insert(call.role.clone(), ()).await;
                self.count_tags("refused");
                tracing::warn!(tenant = %key.tenant, account = %call.role.account(), tags = ?call.tags, %failure,
                    "a customer's role does not admit session tags though it was seen to: its sessions carry none for now. Has its trust policy been changed, or a policy of ours?");
                Ok(answer)
            }
            answer => {
                if answer.is_ok() {
                    self.count_tags("carried");
                }
                answer
            }
        }
    }

    fn count_tags(&self, result: &'static str) {
        if let Some(metrics) = &self.metrics {
            metrics.session_tags(result);
        }
    }
}

/// Whether the same call may pass without tags: who decides has refused it, or policy and tags together were too much.
fn may_be_for_tags(failure: &Failure) -> bool {
    failure.kind == FailureKind::Refused || failure.is("PackedPolicyTooLarge")
}
