//! The audit log: lines that a transaction leaves behind, each with its place in the chain of hashes.
//!
//! Lines are gathered while the transaction works and written just before it commits, under a lock on the one row that says where the log ends. So there are
//! neither gaps nor forks, whatever runs at the same time in however many instances; and because that lock is always the last one, nobody waits in a circle.

use std::sync::{Mutex, PoisonError};

use contracts::{
    ConnectionId, EnrollmentId, TenantId,
    audit::{AuditEntry, AuditRecorded, chain},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect};

use super::{During, StoreError, outbox};
use crate::entity::{At, audit, audit_head};

/// All events about the log have this key in the outbox, so that they are published in the log's order.
const ORDERING_KEY: &str = "audit";

/// A line for the audit log.
#[derive(Debug, Clone)]
pub struct AuditLine {
    pub actor: Actor,
    pub action: &'static str,
    pub tenant: Option<TenantId>,
    pub enrollment: Option<EnrollmentId>,
    pub connection: Option<ConnectionId>,
    pub reason: String,
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Somebody who may call our endpoints.
    Operator,
    /// A customer's stack.
    Stack,
    /// role-chain-broker, with what it found.
    Broker,
    /// This service, by itself.
    Registry,
}

impl Actor {
    const fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Stack => "stack",
            Self::Broker => "broker",
            Self::Registry => "registry",
        }
    }
}

impl AuditLine {
    #[must_use]
    pub fn new(actor: Actor, action: &'static str, tenant: TenantId, reason: impl Into<String>) -> Self {
        Self { actor, action, tenant: Some(tenant), enrollment: None, connection: None, reason: reason.into() }
    }

    #[must_use]
    pub fn enrollment(mut self, enrollment: EnrollmentId) -> Self {
        self.enrollment = Some(enrollment);
        self
    }

    #[must_use]
    pub fn connection(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }

    /// As the log has it; number, instant and hash follow when it is written.
    fn entry(self, user: Option<&str>) -> AuditEntry {
        AuditEntry {
            sequence: 0,
            at: contracts::Timestamp::now(),
            actor: self.actor.word().to_owned(),
            user: user.map(ToOwned::to_owned),
            action: self.action.to_owned(),
            tenant: self.tenant,
            enrollment: self.enrollment,
            connection: self.connection,
            reason: self.reason,
            trace_id: telemetry::trace_id(),
            hash: String::new(),
        }
    }
}

/// The lines of one transaction.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Vec<AuditEntry>>);

impl Lines {
    pub(super) fn add(&self, line: AuditLine, user: Option<&str>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.entry(user));
    }

    /// Writes the lines behind the last one of the log, each with its event.
    pub(super) async fn write(&self, tx: &DatabaseTransaction) -> Result<(), StoreError> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return Ok(());
        }
        let mut head = audit_head::Entity::find_by_id(audit_head::THE_ONE)
            .lock_exclusive()
            .one(tx)
            .await
            .during("locking the end of the audit log")?
            .ok_or(StoreError::Inconsistent("the audit log has no end: the one row of audit_head is gone"))?;
        // Taken under the lock, so that instants follow the order of the log.
        let at = At::now();
        for mut entry in lines {
            entry.sequence = head.sequence + 1;
            entry.at = at.0;
            entry.hash = chain(&head.hash, &entry);
            (head.sequence, head.hash) = (entry.sequence, entry.hash.clone());
            let row = audit::Model::from(entry.clone()).into_active_model();
            row.insert(tx).await.during("writing the audit log")?;
            let event = messaging::event(AuditRecorded { entry });
            outbox::append(tx, ORDERING_KEY.to_owned(), &event).await?;
        }
        let end = audit_head::ActiveModel {
            id: Set(audit_head::THE_ONE),
            sequence: Set(head.sequence),
            hash: Set(head.hash),
        };
        end.update(tx).await.during("moving the end of the audit log")?;
        Ok(())
    }
}
