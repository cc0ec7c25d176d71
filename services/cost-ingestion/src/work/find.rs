//! Where a connection's exports may lie: what the customer's stack named, and what the account itself says.
//!
//! The seam for whatever knows of exports: a new way to find them is another [`FindExports`], and a line where the program is put together.

use crate::credentials::Scope;
use crate::export::ExportError;
use async_trait::async_trait;
use contracts::costs::ExportLocation;
use contracts::{AccountId, Region};
use std::sync::Arc;

/// A connection that may have exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Whose.
    pub scope: Scope,
    /// Its account.
    pub account: AccountId,
    /// The region of its stack.
    pub region: Region,
    /// What its stack named.
    pub named: Option<ExportLocation>,
}

/// A bucket and prefix to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub location: ExportLocation,
    /// The region that is tried first.
    pub region: Region,
}

/// Says where exports may lie.
#[async_trait]
pub trait FindExports: Send + Sync + 'static {
    /// What it asks, for a person who reads that it failed.
    fn name(&self) -> &'static str {
        "the account's own list of exports"
    }

    /// The places of this connection; none is fine.
    ///
    /// # Errors
    /// When it could not be found out. Places that others know of are looked at all the same.
    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError>;
}

/// What the stack named.
#[derive(Clone, Copy, Debug)]
pub struct NamedByStack;

#[async_trait]
impl FindExports for NamedByStack {
    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
        let place = |location: &ExportLocation| Place { location: location.clone(), region: connected.region.clone() };
        Ok(connected.named.iter().map(place).collect())
    }
}

/// Asks them all. A place that lies within another one is left out: its files would be found twice.
pub(super) async fn places(
    finders: &[Arc<dyn FindExports>],
    connected: &Connected,
) -> (Vec<Place>, Vec<(&'static str, ExportError)>) {
    let (mut places, mut errors) = (Vec::<Place>::new(), Vec::new());
    for finder in finders {
        match finder.find(connected).await {
            Ok(found) => places.extend(found),
            Err(error) => errors.push((finder.name(), error)),
        }
    }
    places.sort_by(|a, b| (&a.location.bucket, &a.location.prefix).cmp(&(&b.location.bucket, &b.location.prefix)));
    let mut kept: Vec<Place> = Vec::new();
    for place in places {
        if !kept.iter().any(|outer| is_within(&place.location, &outer.location)) {
            kept.push(place);
        }
    }
    (kept, errors)
}

fn is_within(inner: &ExportLocation, outer: &ExportLocation) -> bool {
    let rest = inner.prefix.strip_prefix(&outer.prefix);
    inner.bucket == outer.bucket
        && rest.is_some_and(|rest| rest.is_empty() || outer.prefix.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same places for everybody, or none.
    struct Fixed(Option<Vec<&'static str>>);

    #[async_trait]
    impl FindExports for Fixed {
        async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
            let prefixes = self.0.as_ref().ok_or(ExportError::Nothing)?;
            let place = |prefix: &&str| Place {
                location: ExportLocation { bucket: "costs".to_owned(), prefix: (*prefix).to_owned() },
                region: connected.region.clone(),
            };
            Ok(prefixes.iter().map(place).collect())
        }
    }

    #[tokio::test]
    async fn what_several_know_of_is_looked_at_once_and_one_that_fails_keeps_nobody() {
        let connected = Connected {
            scope: Scope { tenant: contracts::TenantId::new(), connection: contracts::ConnectionId::new() },
            account: "222222222222".parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            named: Some(ExportLocation { bucket: "costs".into(), prefix: "a".into() }),
        };
        let finders: Vec<Arc<dyn FindExports>> =
            vec![Arc::new(NamedByStack), Arc::new(Fixed(None)), Arc::new(Fixed(Some(vec!["b", "a/cur", "a", "ab"])))];
        let (places, errors) = places(&finders, &connected).await;
        assert_eq!(places.iter().map(|place| place.location.prefix.as_str()).collect::<Vec<_>>(), ["a", "ab", "b"]);
        assert_eq!(errors.len(), 1);
        assert_eq!(NamedByStack.find(&Connected { named: None, ..connected }).await.unwrap(), []);
    }
}
