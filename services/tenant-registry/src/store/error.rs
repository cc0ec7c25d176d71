//! What can go wrong in the store, and which of it is worth another try.

use contracts::{ErrorCode, ErrorReply};
use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

/// Why the database cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "cannot open the database {url}: check ROLEBRIDGE_DATABASE_URL, and that the server runs or the folder can be written"
    )]
    Connect {
        url: String,
        #[source]
        source: DbErr,
    },
    #[error(
        "the database {url} was written by a newer tenant-registry (it has the step {step}): start that version or a later one"
    )]
    Newer { url: String, step: String },
    #[error("the tables of the database {url} could not be brought up to date")]
    Migrate {
        url: String,
        #[source]
        source: DbErr,
    },
}

/// Why an operation did not happen. Nothing of it is left behind: it ran in one transaction.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed at {operation}")]
    Database {
        operation: &'static str,
        #[source]
        source: DbErr,
    },
    #[error("a {kind} could not be written as JSON")]
    Encode {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the database contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// A conditional change found that its condition no longer holds.
    #[error("another transaction was faster at {0}")]
    Raced(&'static str),
    /// Not a fault: the caller asked for what may not be.
    #[error("{0}")]
    Refused(ErrorReply),
}

impl StoreError {
    #[must_use]
    pub fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(ErrorReply::new(code, message))
    }

    /// Whether another transaction was faster, so that a new try sees what it did: serialization failures and deadlocks (PostgreSQL 40001, 40P01),
    /// a busy file (SQLite 5), and a unique value that was taken meanwhile.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Raced(_) => true,
            Self::Database { source, .. } => {
                matches!(source.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) || is_busy(source)
            }
            _ => false,
        }
    }
}

pub(super) fn is_busy(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(inner))
    | DbErr::Exec(RuntimeErr::SqlxError(inner))
    | DbErr::Query(RuntimeErr::SqlxError(inner))) = error
    else {
        return false;
    };
    let sqlx::Error::Database(inner) = inner.as_ref() else { return false };
    matches!(inner.code().as_deref(), Some("40001" | "40P01" | "5" | "261" | "517"))
}

/// Names the operation that a database error belongs to.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, DbErr> {
    fn during(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { operation, source })
    }
}
