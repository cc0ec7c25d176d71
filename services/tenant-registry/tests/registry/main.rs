//! tenant-registry against real databases (SQLite and PostgreSQL, the same tests on both) and, as a program, against a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail the test"
)]

mod answers;
mod audit;
mod bus;
mod callbacks;
mod flood;
mod lifecycle;
mod operators;
mod outbox;
mod races;
mod revocation;
mod rotation;
mod strangers;
mod template;
mod watch;
mod world;
