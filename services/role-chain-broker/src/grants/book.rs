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

/// The last word on a connection, as far as it was understood.
enum Word {
    Grant(Arc<Grant>),
    /// What came last cannot be read. Grants up to this revision were taken back by it.
    Unreadable {
        after: u64,
    },
}

impl Word {
    fn grant(&self) -> Option<&Arc<Grant>> {
        match self {
            Self::Grant(grant) => Some(grant),
            Self::Unreadable { .. } => None,
        }
    }

    fn revision(&self) -> u64 {
        match self {
            Self::Grant(grant) => grant.revision,
            Self::Unreadable { after } => *after,
        }
    }
}

#[derive(Default)]
pub struct Book {
    grants: RwLock<HashMap<(TenantId, ConnectionId), Word>>,
}

impl Book {
    pub fn accept(&self, grant: Grant) -> Change {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        match grants.entry((grant.tenant, grant.connection)) {
            Entry::Vacant(place) => {
                place.insert(Word::Grant(Arc::new(grant)));
                Change::New
            }
            Entry::Occupied(known) if known.get().revision() >= grant.revision => Change::Stale,
            Entry::Occupied(mut known) => {
                let new = Arc::new(grant);
                match known.insert(Word::Grant(new.clone())) {
                    Word::Grant(old) => what_ends(&old, &new).map_or(Change::Refreshed, Change::Withdrawn),
                    // All that was issued under the one before was withdrawn then.
                    Word::Unreadable { .. } => Change::New,
                }
            }
        }
    }

    /// A grant of this connection came that cannot be read: it may be a withdrawal, so what was granted before is over.
    pub fn forget(&self, tenant: TenantId, connection: ConnectionId) -> Option<Withdrawal> {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        let after = grants.get(&(tenant, connection)).map_or(0, Word::revision);
        let old = grants.insert((tenant, connection), Word::Unreadable { after })?;
        old.grant().map(|old| Withdrawal::all(old))
    }

    #[must_use]
    pub fn get(&self, tenant: TenantId, connection: ConnectionId) -> Option<Arc<Grant>> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        grants.get(&(tenant, connection)).and_then(Word::grant).cloned()
    }

    /// External IDs of the tenant's connections that may be issued for.
    #[must_use]
    pub fn external_ids(&self, tenant: TenantId) -> Vec<ExternalId> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenant =
            grants.values().filter_map(Word::grant).filter(|grant| grant.tenant == tenant && may_issue(grant));
        of_tenant.map(|grant| grant.external_id.clone()).collect()
    }
}

fn what_ends(old: &Grant, new: &Grant) -> Option<Withdrawal> {
    // Revisions have no gaps: one that was not seen may have taken the grant back, though this one gives it again.
    let missed = new.revision > old.revision.saturating_add(1);
    if missed || !same_session(old, new) {
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
            session_tags: false,
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
    fn attack_31_a_revision_that_was_missed_counts_as_a_withdrawal() {
        let (book, first) = (Book::default(), grant(1));
        book.accept(first.clone());
        let third = Grant { revision: 3, ..first.clone() };
        assert_eq!(book.accept(third.clone()), Change::Withdrawn(Withdrawal::all(&first)));
        assert_eq!(book.accept(Grant { revision: 4, ..third }), Change::Refreshed);
    }

    #[test]
    fn attack_31_a_grant_that_cannot_be_read_ends_the_one_before() {
        let (book, first) = (Book::default(), grant(5));
        let (tenant, connection) = (first.tenant, first.connection);
        book.accept(first.clone());
        assert_eq!(book.forget(tenant, connection), Some(Withdrawal::all(&first)));
        assert_eq!((book.get(tenant, connection), book.external_ids(tenant)), (None, Vec::new()));
        assert_eq!(book.forget(tenant, connection), None, "told once");
        assert_eq!(book.accept(first.clone()), Change::Stale, "what was taken back comes late");
        assert_eq!(book.get(tenant, connection), None);
        assert_eq!(book.accept(Grant { revision: 6, ..first.clone() }), Change::New);
        assert!(book.get(tenant, connection).is_some());
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
