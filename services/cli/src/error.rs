//! What can go wrong on the command line.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use client::{CredentialsError, IssueError};
use contracts::{ConnectionId, audit::verify::Break, costs::InvalidCostQuery};
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
    Question(#[from] InvalidCostQuery),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(
        "no broker key is pinned: give --sealing-key or ROLEBRIDGE_SEALING_KEY, as role-chain-broker keygen printed it"
    )]
    NothingPinned,
    #[error("credentials are not printed to a terminal: pipe them, or add --show if nobody looks over your shoulder")]
    TerminalWithoutShow,
    #[error("cannot listen on {address}: is the port taken? Port 0 takes a free one (--listen 127.0.0.1:0)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the endpoint on {address} failed: start it again")]
    Serve {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the token file {path} {problem}")]
    TokenFile { path: PathBuf, problem: &'static str },
    #[error("there is no program {program}: check its name and PATH")]
    NoProgram { program: String },
    #[error("the program {program} cannot be run")]
    CannotRun {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the program {program} runs, but its end cannot be waited for")]
    Wait {
        program: String,
        #[source]
        source: std::io::Error,
    },
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
    #[error("the events cannot be read: {problem}")]
    Events { problem: String },
    #[error("there is no dead letter {sequence}: rolebridge dead-letters list shows those there are")]
    NoLetter { sequence: u64 },
}

impl CliError {
    /// What `credentials exec` ends with when the fault is not the program's: as of env, timeout and nohup.
    pub(crate) fn status_of_exec(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NoProgram { .. } => 127,
            Self::CannotRun { .. } => 126,
            _ => 125,
        })
    }
}
