//! The audit log: who did what, when and why.

pub mod verify;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use sha2::{Digest as _, Sha256};

use crate::{
    ConnectionId, EnrollmentId, Page, PageRequest, TenantId, Timestamp,
    message::{endpoint, message},
};

/// One line of the log. It is only ever added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// 1 for the first entry, and one more with each: there are no gaps.
    pub sequence: i64,
    pub at: Timestamp,
    /// `operator`, `stack`, `broker` or `registry`.
    pub actor: String,
    /// The NATS user that asked, by the private inbox that the reply went to; absent when nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What was done: `connection.verified`, `callback.refused`, ...
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<EnrollmentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Why, for a person.
    pub reason: String,
    /// W3C trace ID of the work, if it was traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// SHA-256 over the hash of the entry before and this one's contents, in hex: see [`chain`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of `entry` (its own field `hash` is not looked at) when the hash of the one before is `previous`.
///
/// SHA-256 over `previous` and the contents, each field as its length in bytes (eight, big-endian) and its text, in the order of the type; an absent one is the length 2^64-1
/// and no text. So nothing can move from one field to the next.
#[must_use]
pub fn chain(previous: &str, entry: &AuditEntry) -> String {
    let fields = [
        Some(previous.to_owned()),
        Some(entry.sequence.to_string()),
        Some(entry.at.to_string()),
        Some(entry.actor.clone()),
        entry.user.clone(),
        Some(entry.action.clone()),
        entry.tenant.map(|id| id.to_string()),
        entry.enrollment.map(|id| id.to_string()),
        entry.connection.map(|id| id.to_string()),
        Some(entry.reason.clone()),
        entry.trace_id.clone(),
    ];
    let mut hash = Sha256::new();
    for field in fields {
        match field {
            Some(field) => {
                hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX - 1).to_be_bytes());
                hash.update(field);
            }
            None => hash.update(u64::MAX.to_be_bytes()),
        }
    }
    format!("{:x}", hash.finalize())
}

endpoint!(ListAudit { service: "tenant-registry", name: "audit-list", subject: "rolebridge.rpc.v1.audit.list.*", keys: (tenant: TenantId),
    request: PageRequest, response: Page<AuditEntry>, summary: "Lists what was done to a tenant, oldest first." });
endpoint!(ExportAudit { service: "tenant-registry", name: "audit-export", subject: "rolebridge.rpc.v1.audit.export", keys: (),
    request: PageRequest, response: Page<AuditEntry>, summary: "Gives the whole log, over all tenants, oldest first: for checking its chain of hashes, and for keeping a copy elsewhere." });

/// A line was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecorded {
    #[serde(flatten)]
    pub entry: AuditEntry,
}

message!(AuditRecorded { type: "rolebridge.audit.recorded.v1", subject: "rolebridge.events.v1.audit.recorded", stream: AuditEvents,
    producer: "tenant-registry", keys: [], summary: "A line of the audit log, with its place in the chain of hashes." });

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            sequence: 7,
            at: "2026-11-03T10:15:38.274Z".parse().unwrap(),
            actor: "operator".to_owned(),
            user: Some("operator".to_owned()),
            action: "tenant.suspended".to_owned(),
            tenant: None,
            enrollment: None,
            connection: None,
            reason: "unpaid".to_owned(),
            trace_id: None,
            hash: String::new(),
        }
    }

    /// What stands in databases and copies must verify for ever.
    #[test]
    fn the_hash_of_a_released_version_does_not_change() {
        assert_eq!(chain(GENESIS, &entry()), "2a3fd0f764a71479caa313d4648d213dd868180333404a70443eb93f51c501bb");
        let full = AuditEntry {
            user: None,
            tenant: Some("01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()),
            enrollment: Some("01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap()),
            connection: Some("01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap()),
            reason: "Zahlung fehlt \u{2013} 3. Mahnung".to_owned(),
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
            ..entry()
        };
        assert_eq!(
            chain(&chain(GENESIS, &entry()), &full),
            "53484c4fba89f7e8fd99f82f44b7b36387d059e765b981602cb72b45936996db"
        );
    }

    #[test]
    fn a_change_of_anything_changes_the_hash() {
        let original = chain(GENESIS, &entry());
        let changed: [fn(&mut AuditEntry); 7] = [
            |entry| entry.sequence = 8,
            |entry| entry.actor = "stack".to_owned(),
            |entry| entry.user = None,
            |entry| entry.action = "tenant.resumed".to_owned(),
            |entry| entry.tenant = Some(TenantId::new()),
            |entry| entry.reason = "unpaid ".to_owned(),
            |entry| entry.trace_id = Some(String::new()),
        ];
        for change in changed {
            let mut other = entry();
            change(&mut other);
            assert_ne!(chain(GENESIS, &other), original);
        }
        assert_ne!(chain(&original, &entry()), original);
    }

    #[test]
    fn what_stands_in_one_field_cannot_move_to_the_next() {
        let (mut one, mut other) = (entry(), entry());
        (one.action, one.reason) = ("ab".to_owned(), "c".to_owned());
        (other.action, other.reason) = ("a".to_owned(), "bc".to_owned());
        assert_ne!(chain(GENESIS, &one), chain(GENESIS, &other));
    }

    #[test]
    fn its_own_hash_is_not_part_of_it() {
        let mut other = entry();
        other.hash = "anything".to_owned();
        assert_eq!(chain(GENESIS, &other), chain(GENESIS, &entry()));
    }
}
