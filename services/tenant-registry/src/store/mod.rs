//! The database: opening it, transactions, and what a transaction writes besides rows (outbox, audit).
//!
//! SQLite has one writer at a time, so writers of this process queue here (a file lock would have them poll); PostgreSQL takes row locks. On both a
//! transaction that lost a race is rolled back and run again from the start ([`transaction!`]): its decisions are made anew on what is true then.
//!
//! Locks are taken in one order everywhere, so that nothing waits in a circle: tenant, enrollment, connection, job, callback, budget, end of
//! the audit log.

mod audit;
mod connect;
mod error;
mod outbox;
pub(crate) mod pages;

use std::{ops::Deref, sync::Arc, time::Duration};

use contracts::{CloudEvent, Message};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

pub use audit::{Actor, AuditLine};
pub(crate) use error::During;
pub use error::{OpenError, StoreError};
pub use outbox::{Backlog, Claim};

use self::audit::Lines;
use crate::{config::DatabaseUrl, migration::Migrator};

/// Instances that start at once migrate one after the other (any number will do, as long as nobody else uses it).
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7224519046501132654)";

/// The registry's memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    db: DatabaseConnection,
    /// SQLite alone.
    writer: Option<Arc<Mutex<()>>>,
    /// Rung after every commit: the outbox may hold something.
    committed: Arc<Notify>,
    /// For whom it works: enters every audit line.
    user: Option<Arc<str>>,
}

/// A write transaction. Dropped without [`Store::finish`] it is rolled back.
#[derive(Debug)]
pub struct Tx {
    inner: DatabaseTransaction,
    lines: Lines,
    user: Option<Arc<str>>,
    _writer: Option<OwnedMutexGuard<()>>,
}

impl Deref for Tx {
    type Target = DatabaseTransaction;
    fn deref(&self) -> &DatabaseTransaction {
        &self.inner
    }
}

impl Store {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be reached, was written by a newer version, or a migration step fails.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Connect { url: url.to_string(), source };
        let db = connect::connect(url).await.map_err(failed)?;
        let writer = (db.get_database_backend() == DbBackend::Sqlite).then(|| Arc::new(Mutex::new(())));
        let store = Self { db, writer, committed: Arc::new(Notify::new()), user: None };
        store.migrate(url).await?;
        Ok(store)
    }

    async fn migrate(&self, url: &DatabaseUrl) -> Result<(), OpenError> {
        let failed = |source| OpenError::Migrate { url: url.to_string(), source };
        let tx = self.db.begin_with_options(write_options()).await.map_err(failed)?;
        if self.db.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared(MIGRATION_LOCK).await.map_err(failed)?;
        }
        let ours: Vec<String> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
        let applied = Migrator::get_migration_models(&tx).await.map_err(failed)?;
        if let Some(newer) = applied.into_iter().map(|step| step.version).find(|version| !ours.contains(version)) {
            return Err(OpenError::Newer { url: url.to_string(), step: newer });
        }
        Migrator::up(&tx, None).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// The same store at the work of the NATS user `user`: every audit line of its transactions names him.
    #[must_use]
    pub fn asked_by(&self, user: Option<&str>) -> Self {
        Self { user: user.map(Arc::from), ..self.clone() }
    }

    /// For reads that need no transaction.
    #[must_use]
    pub fn db(&self) -> &DatabaseConnection {
        &self.db
    }

    /// Rung after every commit of this process.
    #[must_use]
    pub fn committed(&self) -> &Notify {
        &self.committed
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await.during("asking whether it is there")
    }

    /// Begins a write transaction. Prefer [`transaction!`], which also runs it again after a lost race.
    ///
    /// # Errors
    /// When the database cannot be reached, or stays busy.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let writer = match &self.writer {
            Some(writer) => Some(writer.clone().lock_owned().await),
            None => None,
        };
        let inner = self.db.begin_with_options(write_options()).await.during("beginning a transaction")?;
        Ok(Tx { inner, lines: Lines::default(), user: self.user.clone(), _writer: writer })
    }

    /// Writes the audit lines and commits what succeeded, rolls back what did not.
    ///
    /// # Errors
    /// The operation's own, or that of the log or the commit.
    pub async fn finish<T>(&self, tx: Tx, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let result = match result {
            Ok(value) => tx.lines.write(&tx.inner).await.map(|()| value),
            failed => failed,
        };
        match result {
            Ok(value) => {
                tx.inner.commit().await.during("committing")?;
                self.committed.notify_one();
                Ok(value)
            }
            Err(error) => {
                if let Err(rollback) = tx.inner.rollback().await {
                    tracing::debug!(error = %rollback, "rolling back failed; the server does it when the connection ends");
                }
                Err(error)
            }
        }
    }
}

impl Tx {
    /// Promises a message: it is published after the commit, after all earlier ones of the same key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn send<T: Message>(&self, key: impl std::fmt::Display + Send, data: T) -> Result<(), StoreError> {
        let event: CloudEvent<T> = messaging::event(data);
        outbox::append(&self.inner, key.to_string(), &event).await
    }

    /// Leaves a line in the audit log, written with the commit. It is an event, too: [`contracts::audit::AuditRecorded`].
    ///
    /// # Errors
    /// Never here: what goes wrong while it is written fails the commit.
    pub async fn audit(&self, line: AuditLine) -> Result<(), StoreError> {
        self.lines.add(line, self.user.as_deref());
        Ok(())
    }
}

/// On SQLite the write lock is taken at once: a reader that turns writer halfway could only fail.
fn write_options() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// How often a transaction that lost a race is run again.
pub const MOST_TRIES: u32 = 10;

/// A short, growing, random pause, so that two who collided do not collide again.
pub async fn pause_after_conflict(attempt: u32) {
    let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0] % 8);
    tokio::time::sleep(Duration::from_millis(jitter + 2u64.pow(attempt.min(6)))).await;
}

/// Runs `$body` (a future of `Result<_, StoreError>`) in a transaction of `$store`: committed when it succeeds, run again when it lost a race.
///
/// A macro, because a closure that borrows the transaction cannot promise a `Send` future.
#[macro_export]
macro_rules! transaction {
    ($store:expr, $tx:ident => $body:expr) => {{
        let mut attempt = 1;
        loop {
            let $tx = $store.begin().await?;
            let result = $body.await;
            match $store.finish($tx, result).await {
                Err(error) if error.is_conflict() && attempt < $crate::store::MOST_TRIES => {
                    tracing::debug!(attempt, "another transaction was faster, trying again");
                    $crate::store::pause_after_conflict(attempt).await;
                    attempt += 1;
                }
                other => break other,
            }
        }
    }};
}
