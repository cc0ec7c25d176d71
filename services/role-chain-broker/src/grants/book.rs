//! The grants, by connection.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError, RwLock},
};

use contracts::{ConnectionId, ExternalId, TenantId, connection::Grant};

/// What a grant did to the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// First heard of.
    New,
    /// Older than what is known, or the same again: nothing.
    Stale,
    /// Newer, and credentials issued under the old one may still be used.
    Refreshed,
    /// Newer, and nothing that was issued under the old one may be handed out again.
    Withdrawn { old: Arc<Grant> },
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
                if same_session(&old, &new) { Change::Refreshed } else { Change::Withdrawn { old } }
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

fn same_session(old: &Grant, new: &Grant) -> bool {
    may_issue(new)
        && old.role_arn == new.role_arn
        && old.external_id == new.external_id
        && old.region == new.region
        && old.account == new.account
}

#[cfg(test)]
pub mod tests {
    use contracts::{AccountId, Region, RoleArn, connection::ConnectionState};
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
        assert_eq!(book.accept(second), Change::Withdrawn { old: Arc::new(first) });
    }

    #[test]
    fn degraded_keeps_what_was_issued() {
        let (book, first) = (Book::default(), grant(1));
        book.accept(first.clone());
        assert_eq!(book.accept(Grant { revision: 2, state: ConnectionState::Degraded, ..first }), Change::Refreshed);
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
