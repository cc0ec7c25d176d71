//! Before which instant each tenant's sessions are denied, in memory: what answers out of the cache are held against.
//!
//! The truth is in the bucket of principals. It is followed; when what was read may not be current, the bucket is asked, for each answer. Whoever begins
//! a session asks the bucket in any case ([`crate::chain::Chain`]). What must not live here: what a denial means for a session.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
};

use contracts::{TenantId, Timestamp};
use messaging::async_nats::jetstream::{Message, kv};
use runtime::Part;
use tokio_util::sync::CancellationToken;

use crate::{
    follow::{Current, Followed},
    principal::{PrincipalError, denied_in},
};

/// What is known of the tenants. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    known: Arc<RwLock<HashMap<TenantId, Standing>>>,
    current: Current,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Before(Option<Timestamp>),
    Removed,
}

impl Denials {
    /// The last word on a tenant; `None` when it is not known, or may not be the last one: then the bucket must be asked.
    ///
    /// # Errors
    /// When the principal was removed.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Option<Result<Option<Timestamp>, PrincipalError>> {
        if !self.current.holds() {
            return None;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&tenant).map(|standing| match standing {
            Standing::Before(denied) => Ok(*denied),
            Standing::Removed => Err(PrincipalError::Removed),
        })
    }

    /// Follows the bucket.
    ///
    /// Cancel: ends. Failure: opened again; the bucket is asked meanwhile.
    ///
    /// # Errors
    /// Never.
    pub async fn follow(self, bucket: kv::Store, part: Part, shutdown: CancellationToken) -> Result<(), Infallible> {
        let (filter, prefix) = (format!("{}>", bucket.prefix), bucket.prefix.clone());
        let followed = Followed { what: "principals", stream: bucket.stream, filter, current: self.current.clone() };
        followed.follow(|message| self.read(&prefix, message), &part, &shutdown).await;
        Ok(())
    }

    fn read(&self, prefix: &str, message: &Message) {
        let Some(Ok(tenant)) = message.subject.strip_prefix(prefix).map(str::parse::<TenantId>) else { return };
        // A key that was deleted has no contents: it is forgotten as one that cannot be read is.
        self.learn(tenant, &message.payload);
    }

    fn learn(&self, tenant: TenantId, stored: &[u8]) {
        let standing = match denied_in(stored) {
            Ok(denied) => Some(Standing::Before(denied)),
            Err(PrincipalError::Removed) => Some(Standing::Removed),
            // The bucket is asked each time, and says what is wrong.
            Err(_) => None,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match standing {
            Some(standing) => known.insert(tenant, standing),
            None => known.remove(&tenant),
        };
    }

    /// As if the bucket had just been read: for tests.
    #[cfg(test)]
    pub(crate) fn pretend(&self, tenant: TenantId, denied: Option<Timestamp>) {
        self.known.write().unwrap().insert(tenant, Standing::Before(denied));
        self.current.pretend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_from_memory_that_may_not_be_current() {
        let (denials, tenant) = (Denials::default(), TenantId::new());
        let stored = |more: &str| {
            format!(
                r#"{{"version":"1","tenant":"{tenant}","user_arn":"arn:aws:iam::111111111111:user/rolebridge/rolebridge-{tenant}","role_arn":"arn:aws:iam::111111111111:role/rolebridge/rolebridge-{tenant}","updated_at":"2026-11-01T00:00:00Z",{more}}}"#
            )
        };
        let denied: Timestamp = "2026-11-02T00:00:00Z".parse().unwrap();
        denials.learn(tenant, stored(r#""state":"removing","denied_before":"2026-11-02T00:00:00Z""#).as_bytes());
        assert!(denials.of(tenant).is_none());
        denials.current.pretend();
        assert!(matches!(denials.of(tenant), Some(Err(PrincipalError::Removed))));
        let making = r#""state":"making","claim":"01890a5d-ac96-774b-bcce-b302099a8057""#;
        denials.learn(tenant, stored(&format!(r#"{making},"denied_before":"2026-11-02T00:00:00Z""#)).as_bytes());
        assert!(matches!(denials.of(tenant), Some(Ok(Some(before))) if before == denied));
        denials.learn(tenant, stored(making).as_bytes());
        assert!(matches!(denials.of(tenant), Some(Ok(None))));
        denials.learn(tenant, b"{}");
        assert!(denials.of(tenant).is_none(), "what cannot be read is asked for");
        assert!(denials.of(TenantId::new()).is_none());
    }
}
