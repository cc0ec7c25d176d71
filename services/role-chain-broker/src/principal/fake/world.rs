//! IAM, STS and the bus in memory, with a failure at any step.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws::{Failure, FailureKind, Unclear};
use contracts::{AccountId, IamPath, Region, RoleArn, TenantId, Timestamp, UserArn};
use messaging::{PublishError, RawMessage};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::{
    principal::{
        herald::Herald,
        iam::{FoundKey, FoundRole, FoundUser, Half, Iam},
        policy::Layout,
    },
    sts::{Answer, AssumeRole, Keys, Session, Sts},
};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a step is broken off: before it has any effect, or after (the answer was lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before(usize),
    After(usize),
    /// This step and all that follow: the program has died.
    DeadBefore(usize),
    /// This step still had its effect, and nobody was left to hear of it.
    DeadAfter(usize),
}

/// Counts all steps of IAM, STS, the bucket and the bus together and breaks off.
#[derive(Debug, Default)]
pub struct Knife {
    pub steps: AtomicUsize,
    pub cut: Mutex<Option<Cut>>,
}

impl Knife {
    pub(super) fn step<T, E>(&self, broken: E, effect: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let cut = *lock(&self.cut);
        match cut {
            Some(Cut::Before(at)) if at == step => return Err(broken),
            Some(Cut::DeadBefore(at)) if at <= step => return Err(broken),
            Some(Cut::DeadAfter(at)) if at < step => return Err(broken),
            _ => {}
        }
        let result = effect();
        match cut {
            Some(Cut::After(at) | Cut::DeadAfter(at)) if at == step => Err(broken),
            _ => result,
        }
    }

    /// Counts from nought again, and cuts there.
    pub fn set(&self, cut: Option<Cut>) {
        self.steps.store(0, Ordering::SeqCst);
        *lock(&self.cut) = cut;
    }
}

/// An access key: its ID, and whether it is active.
pub type Key = (String, bool);

#[derive(Debug, Default)]
pub struct World {
    pub users: HashMap<String, FoundUser>,
    pub roles: HashMap<String, FoundRole>,
    pub inline: HashMap<(Half, String), HashMap<String, Value>>,
    pub attached: HashMap<(Half, String), Vec<String>>,
    pub keys: Vec<Key>,
    pub keys_made: usize,
    pub roles_made: usize,
    pub most_keys: usize,
    /// How often a third key was asked for.
    pub over_the_limit: usize,
    /// New keys do not work yet.
    pub unsettled: bool,
    pub told: Vec<RawMessage>,
    /// IAM's quotas.
    pub most_users: Option<usize>,
    pub most_roles: Option<usize>,
    /// IAM answers nothing at all.
    pub silent: bool,
    /// Nor does it end the wait.
    pub hangs: bool,
    /// IAM answers nothing about this name.
    pub down: Option<String>,
    /// How often users were asked for, by name.
    pub asked: HashMap<String, usize>,
}

#[derive(Debug)]
pub struct FakeIam {
    pub world: Mutex<World>,
    pub knife: Arc<Knife>,
    pub(super) layout: Layout,
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
        let hangs = lock(&self.world).hangs;
        if hangs {
            std::future::pending::<()>().await;
        }
        self.knife.step(broken(), || {
            let world = &mut lock(&self.world);
            if world.silent { Err(broken()) } else { effect(world) }
        })
    }

    /// What is neither Get nor Create. Of what is not there IAM knows no path, and the broker has no right to the bare name.
    async fn step_of<T>(
        &self,
        half: Half,
        name: &str,
        effect: impl FnOnce(&mut World) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.step(|world| {
            world.must_be(half, name)?;
            effect(world)
        })
        .await
    }
}

impl World {
    fn must_be(&self, half: Half, name: &str) -> Result<(), Failure> {
        let there = match half {
            Half::User => self.users.contains_key(name),
            Half::Role => self.roles.contains_key(name),
        };
        if there { Ok(()) } else { Err(other("AccessDenied")) }
    }

    /// The template allows policies to be written of what has the boundary alone.
    fn must_be_bound(&self, half: Half, name: &str, boundary: Option<&str>) -> Result<(), Failure> {
        let found = match half {
            Half::User => self.users.get(name).and_then(|user| user.boundary.as_deref()),
            Half::Role => self.roles.get(name).and_then(|role| role.boundary.as_deref()),
        };
        if boundary.is_none() || found == boundary { Ok(()) } else { Err(other("AccessDenied")) }
    }

    pub fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|(id, _)| id.as_str()).collect()
    }
}

#[async_trait]
impl Iam for FakeIam {
    async fn user(&self, name: &str) -> Result<Option<FoundUser>, Failure> {
        self.step(|world| {
            *world.asked.entry(name.to_owned()).or_default() += 1;
            if world.down.as_deref() == Some(name) { Err(broken()) } else { Ok(world.users.get(name).cloned()) }
        })
        .await
    }
    async fn create_user(
        &self,
        path: &IamPath,
        name: &str,
        _: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure> {
        let arn = UserArn::new(&self.layout.partition, &self.layout.account, path, name).unwrap();
        self.step(|world| {
            if world.most_users.is_some_and(|most| world.users.len() >= most) {
                return Err(other("LimitExceeded"));
            }
            world.users.entry(name.to_owned()).or_insert(FoundUser { arn, boundary: boundary.map(str::to_owned) });
            Ok(())
        })
        .await
    }
    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure> {
        self.step(|world| Ok(world.roles.get(name).cloned())).await
    }
    async fn create_role(
        &self,
        path: &IamPath,
        name: &str,
        trust: &Value,
        _: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure> {
        let arn = RoleArn::new(&self.layout.partition, &self.layout.account, path, name).unwrap();
        self.step(|world| {
            if !trust.to_string().contains(":root")
                && !world.users.values().any(|user| trust.to_string().contains(user.arn.as_str()))
            {
                return Err(other("MalformedPolicyDocument"));
            }
            if world.most_roles.is_some_and(|most| world.roles.len() >= most) {
                return Err(other("LimitExceeded"));
            }
            world.roles_made += 1;
            let id = format!("AROA{}", world.roles_made);
            let role = FoundRole { arn, id, trust: Some(trust.clone()), boundary: boundary.map(str::to_owned) };
            world.roles.entry(name.to_owned()).or_insert(role);
            Ok(())
        })
        .await
    }
    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure> {
        self.step_of(Half::Role, role, |world| {
            world.roles.get_mut(role).unwrap().trust = Some(trust.clone());
            Ok(())
        })
        .await
    }
    async fn set_boundary(&self, half: Half, name: &str, boundary: &str) -> Result<(), Failure> {
        self.step_of(half, name, |world| {
            let place = match half {
                Half::User => world.users.get_mut(name).map(|user| &mut user.boundary),
                Half::Role => world.roles.get_mut(name).map(|role| &mut role.boundary),
            };
            *place.unwrap() = Some(boundary.to_owned());
            Ok(())
        })
        .await
    }
    async fn delete(&self, half: Half, name: &str) -> Result<(), Failure> {
        self.step_of(half, name, |world| {
            let of = (half, name.to_owned());
            let bound = world.inline.get(&of).is_some_and(|policies| !policies.is_empty())
                || world.attached.get(&of).is_some_and(|policies| !policies.is_empty())
                || (half == Half::User && !world.keys.is_empty());
            if bound {
                return Err(other("DeleteConflict"));
            }
            match half {
                Half::User => drop(world.users.remove(name)),
                Half::Role => drop(world.roles.remove(name)),
            }
            Ok(())
        })
        .await
    }
    async fn policies(&self, half: Half, name: &str) -> Result<Vec<String>, Failure> {
        let of = (half, name.to_owned());
        self.step_of(half, name, |world| {
            Ok(world.inline.get(&of).map(|all| all.keys().cloned().collect()).unwrap_or_default())
        })
        .await
    }
    async fn policy(&self, half: Half, name: &str, policy: &str) -> Result<Option<Value>, Failure> {
        let of = (half, name.to_owned());
        self.step_of(half, name, |world| Ok(world.inline.get(&of).and_then(|all| all.get(policy).cloned()))).await
    }
    async fn put_policy(&self, half: Half, name: &str, policy: &str, document: &Value) -> Result<(), Failure> {
        let boundary = self.layout.boundary.as_deref();
        self.step_of(half, name, |world| {
            world.must_be_bound(half, name, boundary)?;
            let all = world.inline.entry((half, name.to_owned())).or_default();
            all.insert(policy.to_owned(), document.clone());
            Ok(())
        })
        .await
    }
    async fn delete_policy(&self, half: Half, name: &str, policy: &str) -> Result<(), Failure> {
        self.step_of(half, name, |world| {
            world.inline.entry((half, name.to_owned())).or_default().remove(policy);
            Ok(())
        })
        .await
    }
    async fn attached(&self, half: Half, name: &str) -> Result<Vec<String>, Failure> {
        self.step_of(half, name, |world| Ok(world.attached.get(&(half, name.to_owned())).cloned().unwrap_or_default()))
            .await
    }
    async fn detach(&self, half: Half, name: &str, policy_arn: &str) -> Result<(), Failure> {
        self.step_of(half, name, |world| {
            world.attached.entry((half, name.to_owned())).or_default().retain(|arn| arn != policy_arn);
            Ok(())
        })
        .await
    }
    async fn access_keys(&self, user: &str) -> Result<Vec<FoundKey>, Failure> {
        let found = |(id, active): &Key| FoundKey { id: id.as_str().into(), active: *active };
        self.step_of(Half::User, user, |world| Ok(world.keys.iter().map(found).collect())).await
    }
    async fn create_access_key(&self, user: &str) -> Result<Keys, Failure> {
        self.step_of(Half::User, user, |world| {
            if world.keys.len() >= 2 {
                world.over_the_limit += 1;
                return Err(other("LimitExceeded"));
            }
            world.keys_made += 1;
            let id = format!("AKIAFAKE{:012}", world.keys_made);
            world.keys.push((id.clone(), true));
            world.most_keys = world.most_keys.max(world.keys.len());
            Ok(Keys { access_key_id: id.into(), secret_access_key: "canary".into(), session_token: None })
        })
        .await
    }
    async fn set_key_active(&self, user: &str, id: &SecretString, active: bool) -> Result<(), Failure> {
        self.step_of(Half::User, user, |world| {
            for key in world.keys.iter_mut().filter(|key| key.0 == id.expose_secret()) {
                key.1 = active;
            }
            Ok(())
        })
        .await
    }
    async fn delete_access_key(&self, user: &str, id: &SecretString) -> Result<(), Failure> {
        self.step_of(Half::User, user, |world| {
            world.keys.retain(|key| key.0 != id.expose_secret());
            Ok(())
        })
        .await
    }
}

/// STS lets in who has an active key.
#[async_trait]
impl Sts for FakeIam {
    async fn assume_role(&self, keys: &Keys, call: &AssumeRole<'_>) -> Result<Answer<Session>, Failure> {
        let issued_at = Timestamp::now();
        let expires_at = issued_at.plus(Duration::from_secs(call.duration.seconds().into()));
        let value = Session { keys: keys.clone(), issued_at, expires_at };
        self.step(|world| {
            let id = keys.access_key_id.expose_secret();
            let works = !world.unsettled && world.keys.iter().any(|(key, active)| key == id && *active);
            if works { Ok(Answer { value, request_id: None }) } else { Err(other("InvalidClientTokenId")) }
        })
        .await
    }
    async fn caller_account(&self, _: &Keys, _: Option<&Region>) -> Result<Answer<AccountId>, Failure> {
        Err(broken())
    }
}

#[async_trait]
impl Herald for FakeIam {
    async fn tell(&self, message: &RawMessage) -> Result<(), PublishError> {
        let source = messaging::async_nats::jetstream::context::PublishErrorKind::TimedOut.into();
        let broken = PublishError::NotAcknowledged { subject: message.subject.clone(), source };
        self.knife.step(broken, || {
            let told = &mut lock(&self.world).told;
            // As the stream does.
            if !told.iter().any(|known| known.id == message.id) {
                told.push(message.clone());
            }
            Ok(())
        })
    }
}
