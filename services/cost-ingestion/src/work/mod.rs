//! The work that comes over NATS.
//!
//! | where | what |
//! |---|---|
//! | `connections` | what is known of connections |
//! | `schedule` | when their exports are looked for |
//! | `discovery`, `find`, `place` | the look: where exports may lie, what lies there, what changed |
//! | `listed`, `explorer` | what the account itself says of its exports; Cost Explorer as an export of its own |
//! | `choose` | which export serves a period, and which period is next |
//! | `chain`, `gate` | one period of a connection at a time; no tenant takes all workers |
//! | `period` | one period, read and committed |
//! | `ledger` | what was found and read, beside the table |
//! | `patience` | when what failed is tried again |
//! | `say`, `progress` | the news |
//! | `exports`, `query` | what is asked |
//! | `broker` | credentials |
//!
//! What an export is and how it is read stands elsewhere.

pub mod broker;
pub mod chain;
pub mod choose;
pub mod connections;
pub mod discovery;
pub mod explorer;
pub mod exports;
pub mod find;
pub mod gate;
pub mod ledger;
pub mod listed;
pub mod patience;
pub mod period;
mod place;
pub mod progress;
pub mod query;
mod say;
pub mod schedule;

use contracts::EventId;
use sha2::{Digest as _, Sha256};

/// A UUIDv7 of the moment `at_ms` (milliseconds since 1970) that the same parts always give: what is published twice for one reason is then one message.
fn same_id(at_ms: u64, parts: &[&str]) -> EventId {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut tail = [0_u8; 10];
    tail.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(at_ms, &tail).into_uuid())
}

/// The moment that a UUIDv7 carries, in milliseconds since 1970; 0 if it carries none.
fn moment(id: uuid::Uuid) -> u64 {
    id.get_timestamp().map_or(0, |at| at.to_unix().0 * 1000 + u64::from(at.to_unix().1) / 1_000_000)
}
