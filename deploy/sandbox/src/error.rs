//! What can go wrong here, in sentences for the person at the terminal. The cause is the error's source, not part of its text.

use std::{path::PathBuf, process::ExitStatus, time::Duration};

use thiserror::Error;

pub(crate) type Result<T, E = SandboxError> = std::result::Result<T, E>;
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    #[error("Python 3.10 or later was not found: install it, so that `python3 --version` answers")]
    NoPython,
    #[error("the tools were not fetched: `{step}` failed; its output is in {}", log.display())]
    Fetch { step: &'static str, log: PathBuf },
    #[error("no build folder was found above this program: start it through cargo")]
    NoBuildFolder,
    #[error("cannot {what}")]
    Io { what: String, source: std::io::Error },
    #[error("no free port between {first} and {last} on 127.0.0.1")]
    NoPort { first: u16, last: u16 },
    #[error("the program `{0}` is not built: run `cargo build --workspace --bins` first")]
    NotBuilt(String),
    #[error("{name} ended while it was awaited ({status}); the end of its log:\n{log}")]
    Ended { name: String, status: ExitStatus, log: String },
    #[error("{name} was not ready within {} s; the end of its log:\n{log}", within.as_secs())]
    NotReady { name: String, within: Duration, log: String },
    #[error("{name} did not end within {} s of being asked", within.as_secs())]
    StillRunning { name: String, within: Duration },
    #[error("cannot {operation}")]
    Aws { operation: String, source: Cause },
    #[error("stack {stack} is {status}, which is not what was awaited: {reason}")]
    Stack { stack: String, status: String, reason: String },
    #[error("stack {stack} was still {status} after {} s", within.as_secs())]
    StackTimeout { stack: String, status: String, within: Duration },
    #[error("the stack's output {0} is missing")]
    MissingOutput(&'static str),
    #[error("the AWS emulator let {0} pass: IAM is off, and no test that expects a refusal would mean anything")]
    IamOff(&'static str),
    #[error("cannot make a key for the NATS user {user}")]
    Nkey { user: String, source: nkeys::error::Error },
    #[error("{0} is no address")]
    NatsAddress(String),
    #[error("cannot connect to nats-server as {user}")]
    Bus { user: String, source: messaging::ConnectError },
    #[error("a request of the operator failed")]
    Request(#[from] messaging::RequestError),
    #[error("{what} within {} s", within.as_secs())]
    NotYet { what: String, within: Duration },
    #[error("cannot make the sealing keys")]
    Seal { source: messaging::seal::SealError },
    #[error("cannot connect to nats-server as {user}")]
    NatsConnect { user: String, source: async_nats::ConnectError },
}

impl SandboxError {
    /// For `map_err`: `what` completes "cannot ...".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: `operation` completes "cannot ...".
    pub(crate) fn aws<E: Into<Cause>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |source| Self::Aws { operation, source: source.into() }
    }
}
