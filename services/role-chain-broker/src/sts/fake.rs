//! STS in memory: roles with trust policies of a few shapes, scripted trouble, and a log of every call. For unit tests.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws::{Failure, FailureKind, Unclear};
use contracts::{AccountId, ExternalId, Region, RoleArn, Timestamp};
use secrecy::ExposeSecret as _;

use super::{Answer, AssumeRole, Keys, Session, Sts};
use crate::tags::SessionTags;

/// What a fake role demands.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Exactly this external ID.
    Id(ExternalId),
    /// Nothing.
    Anyone,
    /// Some external ID, whichever (`StringLike *`).
    AnyId,
    /// This one if one is given (`StringEqualsIfExists`).
    IdIfGiven(ExternalId),
    Nobody,
}

impl Trust {
    fn lets_in(&self, given: Option<&ExternalId>) -> bool {
        match self {
            Self::Id(id) => given == Some(id),
            Self::Anyone => true,
            Self::AnyId => given.is_some(),
            Self::IdIfGiven(id) => given.is_none_or(|given| given == id),
            Self::Nobody => false,
        }
    }
}

/// One call, as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub role: RoleArn,
    pub external_id: Option<ExternalId>,
    pub session_policy: Option<String>,
    pub seconds: u32,
    pub session_name: String,
    pub tags: Option<SessionTags>,
    pub by: String,
}

#[derive(Debug, Default)]
pub struct FakeSts {
    pub roles: Mutex<HashMap<RoleArn, Trust>>,
    pub trouble: Mutex<VecDeque<Option<Failure>>>,
    pub calls: Mutex<Vec<Seen>>,
    pub delay: Duration,
    /// Seconds that sessions last, whatever was asked for.
    pub lasts: Option<u32>,
    pub account: Option<AccountId>,
    /// What our own side lets a session send, whatever the role says; `None` for everything.
    pub lets_out: Mutex<Option<Trust>>,
    /// Roles whose trust policies do not allow `sts:TagSession`.
    pub without_tags: Mutex<HashSet<RoleArn>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn refused() -> Failure {
    Failure::new(FailureKind::Refused, Some("AccessDenied"))
}

pub fn throttled() -> Failure {
    Failure::new(FailureKind::Indeterminate(Unclear::Throttled), Some("Throttling"))
}

impl FakeSts {
    pub fn role(self, role: &RoleArn, trust: Trust) -> Self {
        self.set(role, trust);
        self
    }

    pub fn set(&self, role: &RoleArn, trust: Trust) {
        lock(&self.roles).insert(role.clone(), trust);
    }

    /// The next calls meet this; `None` lets one pass.
    pub fn trouble(&self, next: impl IntoIterator<Item = Option<Failure>>) {
        lock(&self.trouble).extend(next);
    }

    /// From now on the role refuses session tags, or no longer.
    pub fn admit_tags(&self, role: &RoleArn, admits: bool) {
        let mut without = lock(&self.without_tags);
        if admits {
            without.remove(role);
        } else {
            without.insert(role.clone());
        }
    }

    pub fn calls(&self) -> Vec<Seen> {
        lock(&self.calls).clone()
    }
}

#[async_trait]
impl Sts for FakeSts {
    async fn assume_role(&self, keys: &Keys, call: &AssumeRole<'_>) -> Result<Answer<Session>, Failure> {
        lock(&self.calls).push(Seen {
            role: call.role.clone(),
            external_id: call.external_id.cloned(),
            session_policy: call.session_policy.map(str::to_owned),
            seconds: call.duration.seconds(),
            session_name: call.session_name.to_owned(),
            tags: call.tags,
            by: keys.access_key_id.expose_secret().to_owned(),
        });
        tokio::time::sleep(self.delay).await;
        if let Some(Some(failure)) = lock(&self.trouble).pop_front() {
            return Err(failure);
        }
        let chained = keys.session_token.is_some();
        if chained && lock(&self.lets_out).as_ref().is_some_and(|ours| !ours.lets_in(call.external_id)) {
            return Err(refused());
        }
        if !lock(&self.roles).get(call.role).is_some_and(|trust| trust.lets_in(call.external_id)) {
            return Err(refused());
        }
        if call.tags.is_some() && lock(&self.without_tags).contains(call.role) {
            return Err(refused());
        }
        let lasts = Duration::from_secs(self.lasts.unwrap_or(call.duration.seconds()).into());
        let keys = Keys {
            access_key_id: format!("ASIA-{}", call.role.account()).into(),
            secret_access_key: "canary-secret".into(),
            session_token: Some("canary-token".into()),
        };
        let session = Session { keys, issued_at: Timestamp::now(), expires_at: Timestamp::now().plus(lasts) };
        Ok(Answer { value: session, request_id: Some("fake-request".to_owned()) })
    }

    async fn caller_account(&self, keys: &Keys, _: Option<&Region>) -> Result<Answer<AccountId>, Failure> {
        if let Some(Some(failure)) = lock(&self.trouble).pop_front() {
            return Err(failure);
        }
        let named =
            keys.access_key_id.expose_secret().strip_prefix("ASIA-").and_then(|text| AccountId::parse(text).ok());
        let account = self.account.clone().or(named).ok_or_else(refused)?;
        Ok(Answer { value: account, request_id: None })
    }
}
