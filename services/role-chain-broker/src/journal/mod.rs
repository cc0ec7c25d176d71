//! The audit's journal: what was given out and refused, on local disk before the answer goes out, and from there into the stream of events.
//!
//! - `answer`: what is written down of an answer: no credentials, no external ID, no role ARN.
//! - `record`: how it lies in a file: length, checksum, contents. Pure.
//! - `segment`: the files in the folder; `reader`: reading one, past whatever is damaged.
//! - `share`: nobody holds more of it than is left free. Pure.
//! - `writer`: [`Journal`], which whoever answers writes to. It waits for the disk alone, never for the stream.
//! - `sums`: records become events; answers out of memory are summed up by minute. Pure.
//! - `task`: closes segments, publishes what they hold, deletes them when the stream has acknowledged all of it.
//!
//! What a record survives: that of a new session or a refusal is on the disk before the answer goes out; that of an answer out of memory is with the operating
//! system by then, so it survives whatever happens to this process, but not the loss of power. Publishing is at least once: an event's ID follows from the
//! record's place, so that a repetition has the ID of the first. ADR 16 says why.

mod answer;
mod folder;
mod reader;
mod record;
mod segment;
mod share;
mod sums;
mod task;
mod writer;

pub use answer::{Given, Refused};
pub use folder::OpenError;
pub use task::{Events, keep};
pub use writer::{Journal, JournalError};

#[cfg(test)]
pub(crate) mod tests;
