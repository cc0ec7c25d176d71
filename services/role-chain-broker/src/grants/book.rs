//! The grants, by connection.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError, RwLock},
};

use contracts::{ConnectionId, ExternalId, RoleArn, TenantId, connection::Grant, credentials::Purpose};

/// What a grant did to the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// First heard of.
    New,
    /// Older than what is known, or the same again: nothing.
    Stale,
    /// Newer, and credentials issued under the old one may still be used.
    Refreshed,
    /// Newer, and of what was issued under the old one this may not be handed out again.
    Withdrawn(Withdrawal),
}

/// Which credentials may not be handed out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    pub role: RoleArn,
    /// These alone; all of them when absent.
    pub purposes: Option<Vec<Purpose>>,
}

impl Withdrawal {
    /// Everything that was issued under this grant.
    #[must_use]
    pub fn all(grant: &Grant) -> Self {
        Self { tenant: grant.tenant, connection: grant.connection, role: grant.role_arn.clone(), purposes: None }
    }
}

/// Whether credentials may be issued under the grant as it stands.
#[must_use]
pub(crate) fn may_issue(grant: &Grant) -> bool {
    grant.tenant_active && grant.state.may_be_issued_for()
}

#[derive(Default)]
pub struct Book {
    grants: RwLock<HashMap<(TenantId, ConnectionId), Arc<Grant>>>,
}

impl Book {
    pub fn accept(&self, grant: Grant) -> Change {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        match grants.entry((grant.tenant, grant.connection)) {
            Entry::Vacant(place) => {
                place.insert(Arc::new(grant));
                Change::New
            }
            Entry::Occupied(known) if known.get().revision >= grant.revision => Change::Stale,
            Entry::Occupied(mut known) => {
                let new = Arc::new(grant);
                let old = known.insert(new.clone());
                what_ends(&old, &new).map_or(Change::Refreshed, Change::Withdrawn)
            }
        }
    }

    #[must_use]
    pub fn get(&self, tenant: TenantId, connection: ConnectionId) -> Option<Arc<Grant>> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        grants.get(&(tenant, connection)).cloned()
    }

    /// External IDs of the tenant's connections that may be issued for.
    #[must_use]
    pub fn external_ids(&self, tenant: TenantId) -> Vec<ExternalId> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = grants.values().filter(|grant| grant.tenant == tenant && may_issue(grant));
        of_tenant.map(|grant| grant.external_id.clone()).collect()
    }
}

fn what_ends(old: &Grant, new: &Grant) -> Option<Withdrawal> {
    if !same_session(old, new) {
        return Some(Withdrawal::all(old));
    }
    let newly: Vec<Purpose> = new.missing.iter().filter(|purpose| !old.missing.contains(purpose)).copied().collect();
    (!newly.is_empty()).then(|| Withdrawal { purposes: Some(newly), ..Withdrawal::all(old) })
}

fn same_session(old: &Grant, new: &Grant) -> bool {
    may_issue(new)
        && old.role_arn == new.role_arn
        && old.external_id == new.external_id
        && old.region == new.region
        && old.account == new.account
}

#[cfg(test)]
pub mod tests {
    use contracts::{AccountId, Region, connection::ConnectionState};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    pub fn grant(revision: u64) -> Grant {
        Grant {
            tenant: TenantId::new(),
            connection: ConnectionId::new(),
            state: ConnectionState::Verified,
            tenant_active: true,
            account: AccountId::parse("222222222222").unwrap(),
            region: Region::parse("eu-central-1").unwrap(),
            role_arn: RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/rolebridge-stack").unwrap(),
            external_id: ExternalId::generate(),
            missing: Vec::new(),
            revision,
        }
    }

    #[rstest]
    #[case::suspended(|g: &mut Grant| g.tenant_active = false)]
    #[case::revoked(|g: &mut Grant| g.state = ConnectionState::Revoked)]
    #[case::insecure(|g: &mut Grant| g.state = ConnectionState::Insecure)]
    #[case::other_id(|g: &mut Grant| g.external_id = ExternalId::generate())]
    #[case::other_role(|g: &mut Grant| g.role_arn = RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/rolebridge-b").unwrap())]
    fn what_withdraws(#[case] change: fn(&mut Grant)) {
        let (book, first) = (Book::default(), grant(1));
        assert_eq!(book.accept(first.clone()), Change::New);
        let mut second = Grant { revision: 2, ..first.clone() };
        change(&mut second);
        assert_eq!(book.accept(second), Change::Withdrawn(Withdrawal::all(&first)));
    }

    #[test]
    fn degraded_keeps_what_was_issued() {
        let (book, first) = (Book::default(), grant(1));
        book.accept(first.clone());
        assert_eq!(book.accept(Grant { revision: 2, state: ConnectionState::Degraded, ..first }), Change::Refreshed);
    }

    #[test]
    fn a_purpose_that_goes_missing_ends_alone_and_once() {
        let (book, first) = (Book::default(), grant(1));
        book.accept(first.clone());
        let missing = vec![Purpose::CostRead];
        let second = Grant { revision: 2, state: ConnectionState::Degraded, missing: missing.clone(), ..first.clone() };
        let ends = Withdrawal { purposes: Some(missing), ..Withdrawal::all(&first) };
        assert_eq!(book.accept(second.clone()), Change::Withdrawn(ends));
        assert_eq!(book.accept(Grant { revision: 3, ..second }), Change::Refreshed);
        assert_eq!(book.accept(Grant { revision: 4, ..first }), Change::Refreshed, "it is back");
    }

    #[test]
    fn a_tenants_ids_are_its_own_and_only_the_living() {
        let (book, mine, others) = (Book::default(), grant(1), grant(1));
        let dead = Grant { connection: ConnectionId::new(), state: ConnectionState::Revoked, ..grant(1) };
        let dead = Grant { tenant: mine.tenant, ..dead };
        for grant in [&mine, &others, &dead] {
            book.accept(grant.clone());
        }
        assert_eq!(book.external_ids(mine.tenant), [mine.external_id]);
        assert_eq!(book.get(others.tenant, mine.connection), None);
    }

    proptest! {
        #[test]
        fn the_highest_revision_is_the_last_word_in_any_order(mut revisions in prop::collection::vec(0u64..50, 1..40)) {
            let (book, first) = (Book::default(), grant(0));
            for revision in &revisions {
                book.accept(Grant { revision: *revision, ..first.clone() });
            }
            revisions.sort_unstable();
            prop_assert_eq!(book.get(first.tenant, first.connection).unwrap().revision, *revisions.last().unwrap());
        }
    }
}
