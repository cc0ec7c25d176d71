//! What can go wrong on the command line.

use std::path::PathBuf;

use client::IssueError;
use contracts::{ConnectionId, audit::verify::Break};
use messaging::{BusError, ConnectError, PublishError, RequestError, seal::SealError};
use permissions::{UserName, limited::NotByTenant};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("no NATS address: give --nats-url or ROLEBRIDGE_NATS_URL, such as nats://127.0.0.1:4222")]
    NoUrl,
    #[error("{text} is no NATS address: it should look like nats://127.0.0.1:4222")]
    BadUrl { text: String },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(
        "credentials are not printed to a terminal: pipe them, or name this command as credential_process in ~/.aws/config"
    )]
    Terminal,
    #[error(
        "connection {connection} was not probed to a verdict within {seconds} s: AWS may not be answering clearly; rolebridge connections show tells when it is probed next"
    )]
    NoVerdict { connection: ConnectionId, seconds: u64 },
    #[error("the answer could not be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot write {path}: is it there already, or not yours to write?")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "line {line} of {path} is no entry of the audit log: it was written by `rolebridge audit export`, and whole?"
    )]
    NoEntry {
        path: PathBuf,
        line: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the audit log does not hold: {0}. What comes after it proves nothing. Keep the database and its backups as they are, copy the log (rolebridge audit export), and compare it with earlier copies and with the events in ROLEBRIDGE_EVENTS_AUDIT"
    )]
    Audit(Break),
    #[error("the registry gave a page of the audit log that leads back to itself: the log was not verified")]
    AuditStandsStill,
    #[error("the name {name} is a user's already: choose another for --name")]
    NameTaken { name: UserName },
    #[error("there are no events about {entity}; there are: {known}")]
    NoSuchEvents { entity: String, known: String },
    #[error(transparent)]
    NotByTenant(#[from] NotByTenant),
    #[error("no key could be made")]
    Key(#[source] nkeys::error::Error),
    #[error("the dead letters cannot be read: {problem}")]
    DeadLetters { problem: String },
    #[error("there is no dead letter {sequence}: rolebridge dead-letters list shows those there are")]
    NoLetter { sequence: u64 },
}
