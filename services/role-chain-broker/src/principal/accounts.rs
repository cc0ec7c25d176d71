//! The provider's accounts that principals live in, and which of them has room.
//!
//! IAM allows one account 1,000 roles (5,000 when the quota is raised), so that one account does not hold every provider's tenants. Which account a
//! principal lives in is in its record, as the account of its ARNs; a principal never moves to another once it has stood, because customers' roles
//! trust its role by that name.
//!
//! How full an account is, is counted in the bucket: a count that is some seconds old, and that other instances add to meanwhile. A capacity is
//! therefore kept roughly; the quota is kept by IAM, whose word ends it. What must not live here: how a principal is made.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contracts::{AccountId, TenantId};
use tokio::time::Instant;

use super::{
    MakeError,
    iam::Iam,
    policy::{Layout, Plan},
    store::{PrincipalStore, StoreError},
};

/// For so long a count is good, with what was placed since.
const COUNTED: Duration = Duration::from_secs(10);
/// For so long an account that is at IAM's own limit gets no new principals.
const AT_LIMIT: Duration = Duration::from_secs(600);

/// One account, and the door to its IAM.
pub struct Home {
    pub layout: Layout,
    pub iam: Arc<dyn Iam>,
    /// Principals that it takes; none new when there are as many already.
    pub capacity: u32,
}

/// Where one principal lives, and everything that follows from it.
#[derive(Clone)]
pub struct Place {
    pub iam: Arc<dyn Iam>,
    plan: Plan,
}

impl Deref for Place {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl Place {
    pub fn account(&self) -> &AccountId {
        self.plan.role_arn.account()
    }
}

/// Principals by the account that they live in.
pub type Census = BTreeMap<AccountId, u32>;

/// How full an account is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fullness {
    pub account: AccountId,
    pub principals: u32,
    pub capacity: u32,
}

/// All of them, in the order of the configuration.
pub struct Accounts {
    homes: Vec<Home>,
    /// The broker's own: where principals lived when there was one account alone.
    own: AccountId,
    counted: Mutex<Option<(Instant, Census)>>,
    at_limit: Mutex<HashMap<AccountId, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Accounts {
    /// `own` is the account of the broker's own credentials; it need not be among them.
    #[must_use]
    pub fn new(own: AccountId, homes: Vec<Home>) -> Self {
        Self { homes, own, counted: Mutex::default(), at_limit: Mutex::default() }
    }

    pub fn own(&self) -> &AccountId {
        &self.own
    }

    pub fn homes(&self) -> &[Home] {
        &self.homes
    }

    pub fn ids(&self) -> impl Iterator<Item = &AccountId> {
        self.homes.iter().map(|home| &home.layout.account)
    }

    /// The tenant's place in this account.
    ///
    /// # Errors
    /// When the account is not on the list.
    pub fn place(&self, tenant: TenantId, account: &AccountId) -> Result<Place, MakeError> {
        let home = self.homes.iter().find(|home| home.layout.account == *account);
        let home = home.ok_or_else(|| MakeError::NotListed { account: account.clone() })?;
        let plan = home.layout.plan(tenant).map_err(MakeError::Name)?;
        Ok(Place { iam: home.iam.clone(), plan })
    }

    /// Where a principal is looked for of which nothing is written down.
    ///
    /// # Errors
    /// When there is no account at all, which the configuration cannot bring about.
    pub fn default_place(&self, tenant: TenantId) -> Result<Place, MakeError> {
        let own = self.ids().find(|account| **account == self.own);
        let account = own.or(self.homes.first().map(|home| &home.layout.account)).unwrap_or(&self.own);
        self.place(tenant, account)
    }

    /// Accounts with room, the one with the most first.
    ///
    /// # Errors
    /// When the bucket cannot be read, or when there is none.
    pub async fn with_room(&self, store: &dyn PrincipalStore) -> Result<Vec<AccountId>, MakeError> {
        let fullness = self.fullness(store, COUNTED).await.map_err(MakeError::Store)?;
        let mut free: Vec<_> = fullness.iter().filter(|one| one.principals < one.capacity).collect();
        free.retain(|one| !self.is_at_limit(&one.account));
        if free.is_empty() {
            let all = fullness.iter().map(|one| {
                let word = if self.is_at_limit(&one.account) { ", and IAM takes no more" } else { "" };
                format!("{} has {} of {}{word}", one.account, one.principals, one.capacity)
            });
            return Err(MakeError::Full { accounts: all.collect::<Vec<_>>().join("; ") });
        }
        // Stable: of two with the same room, the one that is named first.
        free.sort_by_key(|one| std::cmp::Reverse(one.capacity - one.principals));
        Ok(free.into_iter().map(|one| one.account.clone()).collect())
    }

    /// How full each account is, from a count that is at most so old.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn fullness(&self, store: &dyn PrincipalStore, within: Duration) -> Result<Vec<Fullness>, StoreError> {
        let known = lock(&self.counted).clone().filter(|(at, _)| at.elapsed() < within);
        let census = match known {
            Some((_, census)) => census,
            None => {
                let began = Instant::now();
                let census = store.census().await?;
                *lock(&self.counted) = Some((began, census.clone()));
                census
            }
        };
        Ok(self.by(&census))
    }

    fn by(&self, census: &Census) -> Vec<Fullness> {
        let of = |home: &Home| Fullness {
            account: home.layout.account.clone(),
            principals: census.get(&home.layout.account).copied().unwrap_or(0),
            capacity: home.capacity,
        };
        self.homes.iter().map(of).collect()
    }

    /// One more lives there. Gives how full they all are, as far as it was ever counted.
    pub fn placed(&self, account: &AccountId) -> Vec<Fullness> {
        let mut counted = lock(&self.counted);
        let Some((_, census)) = counted.as_mut() else { return Vec::new() };
        *census.entry(account.clone()).or_default() += 1;
        self.by(census)
    }

    /// IAM has said that it takes no more there.
    pub fn is_full(&self, account: &AccountId) {
        lock(&self.at_limit).insert(account.clone(), Instant::now());
    }

    fn is_at_limit(&self, account: &AccountId) -> bool {
        lock(&self.at_limit).get(account).is_some_and(|since| since.elapsed() < AT_LIMIT)
    }
}
