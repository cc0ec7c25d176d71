//! IAM and the bucket in memory, with a failure at any step. For unit tests.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use aws::{Failure, FailureKind, Unclear};
use contracts::{AccountId, IamPath, Partition, RoleArn, TenantId, UserArn};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{
    Principals,
    iam::{FoundRole, Iam},
    maker::Maker,
    policy::Layout,
    record::Record,
    store::{PrincipalStore, Revision, StoreError},
};
use crate::{
    sts::Keys,
    wrap::{KeyWrapper, LocalKey},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a step is broken off: before it has any effect, or after (the answer was lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before(usize),
    After(usize),
}

/// Counts all steps of IAM and the bucket together and breaks one off.
#[derive(Debug, Default)]
pub struct Knife {
    pub steps: AtomicUsize,
    pub cut: Mutex<Option<Cut>>,
}

impl Knife {
    fn step<T, E>(&self, broken: E, effect: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let cut = *lock(&self.cut);
        if cut == Some(Cut::Before(step)) {
            return Err(broken);
        }
        let result = effect();
        if cut == Some(Cut::After(step)) { Err(broken) } else { result }
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub users: HashMap<String, (UserArn, Option<Value>)>,
    pub roles: HashMap<String, (FoundRole, Option<Value>)>,
    pub keys: Vec<String>,
    pub keys_made: usize,
    pub most_keys: usize,
}

#[derive(Debug)]
pub struct FakeIam {
    pub world: Mutex<World>,
    pub knife: Arc<Knife>,
    layout: Layout,
}

fn broken() -> Failure {
    Failure::new(FailureKind::Indeterminate(Unclear::Unreachable), None)
}

fn other(code: &str) -> Failure {
    Failure::new(FailureKind::Other, Some(code))
}

impl FakeIam {
    async fn step<T>(&self, effect: impl FnOnce(&mut World) -> Result<T, Failure>) -> Result<T, Failure> {
        // Lets others in between any two steps.
        tokio::task::yield_now().await;
        self.knife.step(broken(), || effect(&mut lock(&self.world)))
    }
}

#[async_trait]
impl Iam for FakeIam {
    async fn user(&self, name: &str) -> Result<Option<UserArn>, Failure> {
        self.step(|world| Ok(world.users.get(name).map(|(arn, _)| arn.clone()))).await
    }
    async fn create_user(&self, path: &IamPath, name: &str, _: TenantId) -> Result<(), Failure> {
        let arn = UserArn::new(&self.layout.partition, &self.layout.account, path, name).unwrap();
        self.step(|world| {
            world.users.entry(name.to_owned()).or_insert((arn, None));
            Ok(())
        })
        .await
    }
    async fn user_policy(&self, user: &str) -> Result<Option<Value>, Failure> {
        self.step(|world| Ok(world.users.get(user).and_then(|(_, policy)| policy.clone()))).await
    }
    async fn put_user_policy(&self, user: &str, policy: &Value) -> Result<(), Failure> {
        self.step(|world| {
            world.users.get_mut(user).ok_or_else(|| other("NoSuchEntity"))?.1 = Some(policy.clone());
            Ok(())
        })
        .await
    }
    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure> {
        self.step(|world| Ok(world.roles.get(name).map(|(role, _)| role.clone()))).await
    }
    async fn create_role(&self, path: &IamPath, name: &str, trust: &Value, _: TenantId) -> Result<(), Failure> {
        let arn = RoleArn::new(&self.layout.partition, &self.layout.account, path, name).unwrap();
        self.step(|world| {
            if !world.users.values().any(|(user, _)| trust.to_string().contains(user.as_str())) {
                return Err(other("MalformedPolicyDocument"));
            }
            let role = FoundRole { arn, trust: Some(trust.clone()) };
            world.roles.entry(name.to_owned()).or_insert((role, None));
            Ok(())
        })
        .await
    }
    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure> {
        self.step(|world| {
            world.roles.get_mut(role).ok_or_else(|| other("NoSuchEntity"))?.0.trust = Some(trust.clone());
            Ok(())
        })
        .await
    }
    async fn role_policy(&self, role: &str) -> Result<Option<Value>, Failure> {
        self.step(|world| Ok(world.roles.get(role).and_then(|(_, policy)| policy.clone()))).await
    }
    async fn put_role_policy(&self, role: &str, policy: &Value) -> Result<(), Failure> {
        self.step(|world| {
            world.roles.get_mut(role).ok_or_else(|| other("NoSuchEntity"))?.1 = Some(policy.clone());
            Ok(())
        })
        .await
    }
    async fn access_keys(&self, _: &str) -> Result<Vec<SecretString>, Failure> {
        self.step(|world| Ok(world.keys.iter().map(|id| id.as_str().into()).collect())).await
    }
    async fn create_access_key(&self, _: &str) -> Result<Keys, Failure> {
        self.step(|world| {
            if world.keys.len() >= 2 {
                return Err(other("LimitExceeded"));
            }
            world.keys_made += 1;
            let id = format!("AKIAFAKE{:012}", world.keys_made);
            world.keys.push(id.clone());
            world.most_keys = world.most_keys.max(world.keys.len());
            Ok(Keys { access_key_id: id.into(), secret_access_key: "canary".into(), session_token: None })
        })
        .await
    }
    async fn delete_access_key(&self, _: &str, id: &SecretString) -> Result<(), Failure> {
        self.step(|world| {
            world.keys.retain(|key| key != id.expose_secret());
            Ok(())
        })
        .await
    }
}

#[derive(Debug, Default)]
pub struct FakeStore {
    records: Mutex<HashMap<TenantId, (Record, Revision)>>,
    knife: Arc<Knife>,
}

impl FakeStore {
    pub fn age(&self, tenant: TenantId, span: std::time::Duration) {
        if let Some((record, _)) = lock(&self.records).get_mut(&tenant) {
            record.updated_at = contracts::Timestamp::from(record.updated_at.inner() - span);
        }
    }
}

#[async_trait]
impl PrincipalStore for FakeStore {
    async fn get(&self, tenant: TenantId) -> Result<Option<(Record, Revision)>, StoreError> {
        let broken = StoreError::Unavailable { operation: "read", problem: "cut".to_owned() };
        self.knife.step(broken, || Ok(lock(&self.records).get(&tenant).cloned()))
    }
    async fn put(&self, record: &Record, replaces: Option<Revision>) -> Result<Revision, StoreError> {
        let broken = StoreError::Unavailable { operation: "written", problem: "cut".to_owned() };
        self.knife.step(broken, || {
            let mut records = lock(&self.records);
            let last = records.get(&record.tenant).map(|(_, revision)| *revision);
            if last != replaces {
                return Err(StoreError::Conflict);
            }
            let next = last.unwrap_or(0) + 1;
            records.insert(record.tenant, (record.clone(), next));
            Ok(next)
        })
    }
}

/// A maker over a world in memory.
pub struct Bench {
    pub iam: Arc<FakeIam>,
    pub store: Arc<FakeStore>,
    pub wrapper: Arc<dyn KeyWrapper>,
    pub knife: Arc<Knife>,
    pub maker: Maker,
}

pub fn wrapper() -> Arc<dyn KeyWrapper> {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("key");
    LocalKey::create(path).unwrap();
    Arc::new(LocalKey::load(path).unwrap())
}

impl Default for Bench {
    fn default() -> Self {
        let layout = Layout {
            partition: Partition::parse("aws").unwrap(),
            account: AccountId::parse("111111111111").unwrap(),
            path: IamPath::parse("/rolebridge/").unwrap(),
        };
        let knife = Arc::new(Knife::default());
        let iam = Arc::new(FakeIam { world: Mutex::default(), knife: knife.clone(), layout: layout.clone() });
        let store = Arc::new(FakeStore { knife: knife.clone(), ..FakeStore::default() });
        let wrapper = wrapper();
        let maker = Maker { layout, iam: iam.clone(), store: store.clone(), wrapper: wrapper.clone() };
        Self { iam, store, wrapper, knife, maker }
    }
}

/// A tenant whose principal stands, and its role.
pub async fn ready_principal(tenant: TenantId) -> (Principals, RoleArn) {
    let bench = Bench::default();
    let record = bench.maker.make(tenant).await.unwrap();
    (Principals::new(bench.store, bench.wrapper), record.role_arn)
}
