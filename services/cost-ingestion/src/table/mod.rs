//! The cost table: Delta Lake, in a folder or in S3.
//!
//! Lives here: where the table is, its schema and partitions, replacing one slice of it in one commit, and questions. Must not live here:
//! exports and their formats.
//!
//! Partition columns are `x_tenant_id`, `x_billing_period` (`2018-11`), `x_connection_id` and `x_export` (`s3://bucket/path`). The first two are
//! what readers prune by. The last two make each data file belong to exactly one slice, whatever compaction is run over the table, so that a
//! slice can be replaced by naming files alone.
//!
//! The log of the table is also the ledger of what was read: each commit carries a Delta `txn` action whose application ID is the slice and whose
//! version is the fingerprint of the source files. The same files twice are therefore one commit, and no other store is needed.

mod chunk;
mod compact;
mod encode;
mod held;
mod pack;
mod piece;
mod query;
mod replace;
mod run;
mod sort;
mod vacuum;
mod write;

pub use compact::Compacted;
pub use query::{From, QueryError};
pub use replace::Replaced;
pub use sort::{Gathered, Gatherer, Sorted, write};
pub use vacuum::{KEEP_DAYS, Vacuumed};
pub use write::{Sums, Written};

use crate::export::Export;
use crate::focus;
use arrow_schema::{DataType, Field, Schema};
use contracts::costs::BillingPeriod;
use contracts::{ConnectionId, TenantId};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::{StructField, StructType};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::table::config::TableProperty;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use url::Url;

/// The partition columns, in order.
pub const PARTITIONS: [&str; 4] = ["x_tenant_id", "x_billing_period", "x_connection_id", "x_export"];

/// The part of the table that one export of one connection owns for one billing period. It is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The tenant.
    pub tenant: TenantId,
    /// Its connection.
    pub connection: ConnectionId,
    /// The export in that connection's bucket.
    pub export: Export,
    /// The billing period.
    pub period: BillingPeriod,
}

impl Slice {
    /// The values of [`PARTITIONS`].
    fn values(&self) -> [String; 4] {
        let period = self.period.as_str().to_owned();
        [self.tenant.to_string(), period, self.connection.to_string(), self.export.as_str().to_owned()]
    }

    /// The slice of a data file, by its partition values; none if it is not one of this table's.
    fn of(values: &HashMap<String, Option<String>>) -> Option<Self> {
        let [tenant, period, connection, export] = PARTITIONS.map(|name| values.get(name).and_then(Option::as_deref));
        Some(Self {
            tenant: tenant?.parse().ok()?,
            connection: connection?.parse().ok()?,
            export: Export::named(export?),
            period: period?.parse().ok()?,
        })
    }

    /// Its name: the Delta application ID under which its fingerprint is kept.
    #[must_use]
    pub fn name(&self) -> String {
        format!("rolebridge/costs/{}/{}/{}/{}", self.tenant, self.connection, self.period, self.export.as_str())
    }
}

/// What was read: a digest over the names, versions and sizes of the source files and the version of the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(i64);

impl Fingerprint {
    /// Of a slice whose rows were taken away: no files have this one.
    const NOTHING: Self = Self(0);

    /// Of these parts, in this order.
    #[must_use]
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        // Delta keeps 63 bits for this: enough to tell versions of one slice apart, and nobody gains by a collision with himself.
        let head = hash.finalize().iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        Self((head >> 1).cast_signed().max(1))
    }
}

/// Why the table did not do what was asked. All are worth trying again, but for the first two.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The configuration names no table.
    #[error("ROLEBRIDGE_COST_TABLE is neither a folder nor an s3:// URL")]
    BadLocation,
    /// Somebody else's table is there.
    #[error(
        "the table at {url} has other columns or partitions than this version writes; name another table, or migrate it"
    )]
    OtherSchema {
        /// Where.
        url: Url,
    },
    /// The folder cannot be made, or the S3 client cannot.
    #[error("the cost table's storage could not be opened")]
    Open(#[source] object_store::Error),
    /// The folder cannot be made.
    #[error("the cost table's folder could not be made")]
    Folder(#[source] std::io::Error),
    /// Delta Lake failed.
    #[error("{operation} the cost table failed")]
    Delta {
        /// What was done.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A data file could not be written or read.
    #[error("{operation} a data file of the cost table failed")]
    Data {
        /// What was done.
        operation: &'static str,
        /// Why.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// No local space, or not enough of it.
    #[error(
        "{operation} the local space for sorting failed; give the folder that TMPDIR names (or /tmp) about 300 bytes for each row of the largest period"
    )]
    Scratch {
        /// What was done.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Other writers were always faster.
    #[error("the commit to the cost table lost against other writers {0} times")]
    Busy(u32),
    /// A slice that was to be compacted did not read back as it was written.
    #[error(
        "the data files of {period} of a connection hold {found} rows where the log says {wanted}; they were left as they are"
    )]
    Miscounted {
        /// The billing period.
        period: BillingPeriod,
        /// Rows in the files.
        found: u64,
        /// Rows by the log.
        wanted: u64,
    },
    /// Storage failed while old files were looked for or deleted.
    #[error("looking for the cost table's old data files, or deleting them, failed")]
    Upkeep(#[source] object_store::Error),
    /// Sums that do not fit.
    #[error("a sum of costs has too many digits")]
    TooLarge,
    /// A row of the table that this version did not write.
    #[error("the cost table holds a row without {0}")]
    BadRow(&'static str),
}

/// The table. Cheap to share.
pub struct CostTable {
    log: LogStoreRef,
    /// The last state seen; each use brings it up to date, which reads only what is new of the log.
    state: Mutex<Option<DeltaTable>>,
    asking: query::Asking,
}

impl CostTable {
    /// Opens the table at `location` (a folder, or `s3://bucket/path` with the usual `AWS_*` variables) and makes it if there is none.
    ///
    /// # Errors
    /// When the storage cannot be reached, or holds a table with other columns.
    pub async fn open(location: &str) -> Result<Self, TableError> {
        let (root, url) = storage(location)?;
        Self::with_store(root, &url).await
    }

    /// As [`Self::open`], on a store whose root is the root of `url`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn with_store(root: Arc<dyn ObjectStore>, url: &Url) -> Result<Self, TableError> {
        let prefix = Path::from_url_path(url.path()).map_err(|_| TableError::BadLocation)?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), prefix));
        // The default log store commits by put-if-absent, which local folders and S3 (`If-None-Match`) both have.
        let log = default_logstore(prefixed, root, url, &StorageConfig::default());
        let table = Self { log, state: Mutex::new(None), asking: query::Asking::default() };
        let state = table.create_or_load().await?;
        if !fits(&state) {
            return Err(TableError::OtherSchema { url: url.clone() });
        }
        Ok(table)
    }

    async fn create_or_load(&self) -> Result<DeltaTableState, TableError> {
        let create = CreateBuilder::new()
            .with_log_store(Arc::clone(&self.log))
            .with_table_name("rolebridge-costs")
            .with_columns(kernel_schema()?.fields().cloned().collect::<Vec<StructField>>())
            .with_partition_columns(PARTITIONS)
            .with_save_mode(SaveMode::Ignore)
            // A reader of the log starts from the last checkpoint: never more than a few commits away.
            .with_configuration_property(TableProperty::CheckpointInterval, Some("20"))
            // For as long, the log knows which files were removed, and when: what vacuum may be asked to keep.
            .with_configuration_property(
                TableProperty::DeletedFileRetentionDuration,
                Some(format!("interval {} days", KEEP_DAYS.end())),
            )
            .await;
        if let Err(error) = create {
            // Two processes may make it at the same time: one does, the other finds it.
            return self.latest().await.map_err(|_| delta("creating")(error));
        }
        self.latest().await
    }

    /// The table as it is now. A snapshot: what is committed later does not show in it.
    async fn latest(&self) -> Result<DeltaTableState, TableError> {
        let mut held = self.state.lock().await;
        let table = held.get_or_insert_with(|| DeltaTable::new(Arc::clone(&self.log)));
        table.update_state().await.map_err(delta("reading"))?;
        table.snapshot().cloned().map_err(delta("reading"))
    }

    /// Root of the table's files. What starts with `_` there is no data to any engine.
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }
}

fn delta(operation: &'static str) -> impl Fn(DeltaTableError) -> TableError {
    move |source| TableError::Delta { operation, source: Box::new(source) }
}

fn storage(location: &str) -> Result<(Arc<dyn ObjectStore>, Url), TableError> {
    if location.starts_with("s3://") {
        let url = Url::parse(location).map_err(|_| TableError::BadLocation)?;
        let bucket = url.host_str().ok_or(TableError::BadLocation)?;
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        return Ok((Arc::new(builder.build().map_err(TableError::Open)?), url));
    }
    if location.is_empty() || location.contains("://") {
        return Err(TableError::BadLocation);
    }
    std::fs::create_dir_all(location).map_err(TableError::Folder)?;
    let folder = std::fs::canonicalize(location).map_err(TableError::Folder)?;
    let url = Url::from_directory_path(folder).map_err(|()| TableError::BadLocation)?;
    Ok((Arc::new(LocalFileSystem::new()), url))
}

/// All columns: the data files' and the partitions'.
fn kernel_schema() -> Result<StructType, TableError> {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => field.as_ref().clone().with_data_type(DataType::Utf8),
        _ => field.as_ref().clone(),
    };
    let data = focus::SCHEMA.fields().iter().map(plain);
    let partitions = PARTITIONS.iter().map(|name| Field::new(*name, DataType::Utf8, true));
    let schema = Schema::new(data.chain(partitions).collect::<Vec<_>>());
    (&schema).try_into_kernel().map_err(|error| delta("describing")(DeltaTableError::Arrow { source: error }))
}

/// Whether a table has every column that is written here, with its type, and the partitions. More columns are fine: another version may add some.
fn fits(state: &DeltaTableState) -> bool {
    let (there, wanted) = (state.schema(), kernel_schema());
    let columns = wanted.is_ok_and(|wanted| {
        wanted
            .fields()
            .all(|field| there.field(field.name()).is_some_and(|known| known.data_type() == field.data_type()))
    });
    columns && state.metadata().partition_columns().iter().map(String::as_str).eq(PARTITIONS)
}
