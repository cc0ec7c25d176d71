//! What is known of connections: whether they stand, and which cost export their stack named.
//!
//! Events are kept for a month, connections for years: so each known one is a small file beside the table (`_rolebridge/connections/...`; engines
//! pass over names that start with `_`). It holds no secret and decides nothing: whether a connection may be read is the broker's word alone.

use crate::table::CostTable;
use contracts::costs::ExportLocation;
use contracts::{AccountId, ConnectionId, Region, TenantId, Timestamp};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FOLDER: &str = "_rolebridge/connections";
/// Files that are read at the same time.
const READERS: usize = 16;

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub tenant: TenantId,
    pub connection: ConnectionId,
    /// When this was so: an older word does not replace a newer one.
    pub as_of: Timestamp,
    /// What is to be read; none when the connection has ended.
    pub export: Option<Readable>,
}

/// A connection whose exports are to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readable {
    pub account: AccountId,
    pub region: Region,
    /// What its stack named.
    pub location: Option<ExportLocation>,
}

/// Why the book could not be kept. Trying again is right.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("{operation} what is known of a connection failed")]
    Storage {
        operation: &'static str,
        #[source]
        source: object_store::Error,
    },
    #[error(
        "what is known of a connection could not be written or read as JSON; delete the file, and it is written anew by the next event"
    )]
    Json(#[source] serde_json::Error),
}

/// The known connections.
#[derive(Clone)]
pub struct Book {
    store: Arc<dyn ObjectStore>,
}

impl Book {
    /// Beside the table.
    #[must_use]
    pub fn of(table: &CostTable) -> Self {
        Self { store: table.store() }
    }

    /// Keeps what is known, unless something newer is.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn keep(&self, known: &Known) -> Result<(), BookError> {
        let path = Path::from(format!("{FOLDER}/{}/{}.json", known.tenant, known.connection));
        if self.read(&path).await?.is_some_and(|before| before.as_of > known.as_of) {
            return Ok(());
        }
        let json = serde_json::to_vec(known).map_err(BookError::Json)?;
        self.store.put(&path, json.into()).await.map_err(storage("keeping"))?;
        Ok(())
    }

    /// All that stand.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn readable(&self) -> Result<Vec<(Known, Readable)>, BookError> {
        let paths =
            self.store.list(Some(&Path::from(FOLDER))).map_err(storage("listing")).map_ok(|object| object.location);
        let known = paths.map_ok(|path| async move { self.read(&path).await }).try_buffer_unordered(READERS);
        let known: Vec<_> = known.try_collect().await?;
        Ok(known.into_iter().flatten().filter_map(|known| known.export.clone().map(|export| (known, export))).collect())
    }

    async fn read(&self, path: &Path) -> Result<Option<Known>, BookError> {
        match self.store.get(path).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(storage("reading"))?;
                serde_json::from_slice(&bytes).map(Some).map_err(BookError::Json)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage("reading")(error)),
        }
    }
}

fn storage(operation: &'static str) -> impl Fn(object_store::Error) -> BookError {
    move |source| BookError::Storage { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::time::Duration;

    #[tokio::test]
    async fn the_newest_word_counts_in_whatever_order_it_comes() {
        let book = Book { store: Arc::new(InMemory::new()) };
        let export = Readable {
            account: "222222222222".parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            location: Some(ExportLocation { bucket: "costs".into(), prefix: "cur".into() }),
        };
        let now = Timestamp::now();
        let verified = Known {
            tenant: TenantId::new(),
            connection: ConnectionId::new(),
            as_of: now,
            export: Some(export.clone()),
        };
        let revoked = Known { as_of: now.plus(Duration::from_secs(1)), export: None, ..verified.clone() };
        book.keep(&verified).await.unwrap();
        assert_eq!(book.readable().await.unwrap(), [(verified.clone(), export)]);
        book.keep(&revoked).await.unwrap();
        book.keep(&verified).await.unwrap();
        assert_eq!(book.readable().await.unwrap(), []);
        let again = Known { as_of: now.plus(Duration::from_secs(2)), ..verified };
        book.keep(&again).await.unwrap();
        assert_eq!(book.readable().await.unwrap().len(), 1);
    }
}
