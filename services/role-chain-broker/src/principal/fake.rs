//! IAM, STS, the bucket and the bus in memory, with a failure at any step. For unit tests.

mod store;
mod world;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use contracts::{AccountId, IamPath, Partition, RoleArn, TenantId};

use self::world::lock;
use super::{
    Accounts, Home, Principals,
    keeper::Keeper,
    maker::Maker,
    policy::Layout,
    revoke::Revoker,
    rotation::{Pace, Rotator},
};
use crate::{
    grants::Book,
    metrics::Metrics,
    wrap::{KeyWrapper, LocalKey},
};

pub use store::FakeStore;
pub use world::{Cut, FakeIam, Key, Knife, World};

/// A maker, and whoever works with it, over a world in memory.
pub struct Bench {
    /// Of the first account.
    pub iam: Arc<FakeIam>,
    pub iams: Vec<Arc<FakeIam>>,
    pub store: Arc<FakeStore>,
    pub wrapper: Arc<dyn KeyWrapper>,
    pub knife: Arc<Knife>,
    pub maker: Arc<Maker>,
    pub revoker: Revoker,
    pub book: Arc<Book>,
}

pub fn wrapper() -> Arc<dyn KeyWrapper> {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("key");
    LocalKey::create(path).unwrap();
    Arc::new(LocalKey::load(path).unwrap())
}

fn metrics() -> Metrics {
    Metrics::new(&opentelemetry::global::meter("test"))
}

impl Default for Bench {
    fn default() -> Self {
        Self::bounded(None)
    }
}

impl Bench {
    pub fn bounded(boundary: Option<&str>) -> Self {
        Self::over(boundary, &[("111111111111", 900)])
    }

    /// Accounts with their capacities; the first is the provider's own.
    pub fn over(boundary: Option<&str>, accounts: &[(&str, u32)]) -> Self {
        let knife = Arc::new(Knife::default());
        let (mut iams, mut homes) = (Vec::new(), Vec::new());
        for (account, capacity) in accounts {
            let layout = Layout {
                partition: Partition::parse("aws").unwrap(),
                account: AccountId::parse(account).unwrap(),
                path: IamPath::parse("/rolebridge/").unwrap(),
                boundary: boundary.map(str::to_owned),
            };
            let iam = Arc::new(FakeIam { world: Mutex::default(), knife: knife.clone(), layout: layout.clone() });
            iams.push(iam.clone());
            homes.push(Home { layout, iam, capacity: *capacity });
        }
        let own = homes[0].layout.account.clone();
        let (accounts, metrics) = (Arc::new(Accounts::new(own, homes)), metrics());
        let store = Arc::new(FakeStore { knife: knife.clone(), ..FakeStore::default() });
        let wrapper = wrapper();
        let settle = Duration::from_secs(60);
        let maker = Maker { accounts, store: store.clone(), wrapper: wrapper.clone(), settle, metrics };
        let maker = Arc::new(maker);
        let book = Arc::new(Book::default());
        let revoker = Revoker { maker: maker.clone(), grants: book.clone(), clock: crate::sts::AwsClock::default() };
        Self { iam: iams[0].clone(), iams, store, wrapper, knife, revoker, book, maker }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.iam.world)
    }

    pub fn world_of(&self, account: usize) -> MutexGuard<'_, World> {
        lock(&self.iams[account].world)
    }

    pub fn rotator(&self) -> Rotator {
        let (settle, grace) = (Duration::from_secs(10), Duration::from_secs(100));
        let pace = Pace { period: Duration::from_secs(30 * 24 * 3600), settle, grace };
        Rotator { maker: self.maker.clone(), sts: self.iam.clone(), herald: self.iam.clone(), pace }
    }

    /// One more instance.
    pub fn keeper(&self) -> Keeper {
        Keeper {
            maker: self.maker.clone(),
            rotator: self.rotator(),
            metrics: metrics(),
            interval: Duration::from_secs(600),
        }
    }

    pub fn principals(&self) -> Principals {
        Principals::new(self.store.clone(), self.wrapper.clone())
    }
}

/// A tenant whose principal stands, and its role.
pub async fn ready_principal(tenant: TenantId) -> (Principals, RoleArn) {
    let (_, principals, role) = ready_bench(tenant).await;
    (principals, role)
}

/// The same, with what is behind it.
pub async fn ready_bench(tenant: TenantId) -> (Bench, Principals, RoleArn) {
    let bench = Bench::default();
    let record = bench.maker.make(tenant).await.unwrap();
    let principals = bench.principals();
    (bench, principals, record.role_arn)
}
