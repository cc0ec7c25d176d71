//! What the registry does when something reaches it: a callback, a report, an operator's request. One transaction each.
//!
//! | module | what reaches it |
//! |---|---|
//! | [`callbacks`] | a stack's Create, Update, Delete: duplicates, strangers, and who goes on to |
//! | [`register`], [`update`], [`delete`] | the three kinds of request |
//! | [`reports`], [`sweep`] | the broker's findings, and the silence after a deadline |
//! | [`watch`] | the time at which a connection is probed again, and whoever asks for it before |
//! | [`tenants`], [`enrollments`], [`connections`] | operators, and principals that are ready |
//! | [`rotate`], [`rotation`] | external IDs that change: offered by an operator, taken over when a stack's update was proven |
//! | [`template`] | the template's version that a proven request brings, and whether the role admits session tags |
//! | [`revocation`], [`deletion`] | credentials that are taken back step by step; the end of a tenant |
//! | [`step`], [`findings`], [`order`], [`answer`] | what they share: a change of state with its grant and event; what a report means to a connection that serves; an order to probe; the answer to a stack |
//!
//! Decisions are made in [`crate::decide`] and [`crate::state`]; here they are carried out.

pub mod answer;
pub mod callbacks;
mod connections;
mod delete;
mod deletion;
mod enrollments;
mod findings;
mod order;
mod register;
pub mod reports;
mod retention;
mod revocation;
mod rotate;
mod rotation;
mod step;
pub mod strangers;
mod sweep;
mod template;
mod tenants;
mod update;
pub mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use messaging::{Bus, PublishError, RawMessage};

use self::strangers::Strangers;
use crate::{
    config::Rules,
    metrics::Metrics,
    store::{Store, StoreError},
};

/// Where answers go that have no row behind them: those to strangers, and repeated ones.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Returns when the message is stored.
    async fn publish(&self, message: &RawMessage) -> Result<(), PublishError>;
}

#[async_trait]
impl Outlet for Bus {
    async fn publish(&self, message: &RawMessage) -> Result<(), PublishError> {
        self.publish_raw(message).await
    }
}

/// Why something that reached us had no effect. It will be tried again, except for [`StoreError::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// The registry: its memory, its rules, and the way out. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) metrics: Metrics,
    outlet: Arc<dyn Outlet>,
    strangers: Arc<Strangers>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Registry {
    #[must_use]
    pub fn new(store: Store, rules: Rules, outlet: Arc<dyn Outlet>) -> Self {
        let strangers = Arc::new(Strangers::new(rules.strangers));
        Self { store, rules: Arc::new(rules), metrics: Metrics::new(), outlet, strangers }
    }

    /// The same registry at the work of the NATS user `user`: what it writes into the audit log names him.
    #[must_use]
    pub fn asked_by(&self, user: Option<&str>) -> Self {
        Self { store: self.store.asked_by(user), ..self.clone() }
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}
