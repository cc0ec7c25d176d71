//! tenant-registry against real databases (SQLite and PostgreSQL, the same tests on both) and, as a program, against a real nats-server.

mod bus;
mod callbacks;
mod lifecycle;
mod operators;
mod outbox;
mod world;
