//! How each database is connected to.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DbErr, RuntimeErr,
    sqlx::{
        ConnectOptions as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};

use super::error::is_busy;
use crate::{SERVICE, config::DatabaseUrl};

/// How long a writer waits for another process's lock on the SQLite file.
const BUSY: Duration = Duration::from_secs(10);
/// Between two tries to open an SQLite file that is busy.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(10);
/// Nothing of ours takes long in PostgreSQL, and a lock that never comes must not hold a message for ever.
const STATEMENT_MS: u64 = 60_000;
const SQLITE_CONNECTIONS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;

/// Opens a pool, with its first connection.
///
/// The first of all switches an SQLite file to its write-ahead log, for which SQLite does not wait as it does for other locks: of instances that start at
/// once on a new file all but one are refused, and try again.
pub(super) async fn connect(url: &DatabaseUrl) -> Result<DatabaseConnection, DbErr> {
    let until = Instant::now() + BUSY;
    loop {
        match Database::connect(options(url)?).await {
            Err(error) if is_busy(&error) && Instant::now() < until => tokio::time::sleep(AGAIN).await,
            result => return result,
        }
    }
}

/// Everything that a pool is made from. Statements are never logged: their values are external IDs and role ARNs side by side.
fn options(url: &DatabaseUrl) -> Result<ConnectOptions, DbErr> {
    let mut options = if url.is_sqlite() { sqlite(url) } else { postgres(url)? };
    options.acquire_timeout(ACQUIRE).connect_timeout(ACQUIRE).sqlx_logging(false).record_stmt_in_spans(false);
    Ok(options)
}

/// A write-ahead log, so that readers do not wait; synced at every commit, because what was acknowledged must survive a power cut.
fn sqlite(url: &DatabaseUrl) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.expose());
    options.max_connections(SQLITE_CONNECTIONS).map_sqlx_sqlite_opts(|sqlite| {
        sqlite
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true)
    });
    options
}

/// sea-orm writes its options into a trace span, URL and all; so it gets a URL that says nothing, and the real one behind its back.
fn postgres(url: &DatabaseUrl) -> Result<ConnectOptions, DbErr> {
    let malformed = |_| DbErr::Conn(RuntimeErr::Internal("the URL is not PostgreSQL's".to_owned()));
    let real = PgConnectOptions::from_str(url.expose())
        .map_err(malformed)?
        .application_name(SERVICE)
        .options([("statement_timeout", STATEMENT_MS.to_string())])
        .disable_statement_logging();
    let mut options = ConnectOptions::new("postgres://localhost");
    options.max_connections(POSTGRES_CONNECTIONS).map_sqlx_postgres_opts(move |_| real.clone());
    Ok(options)
}
