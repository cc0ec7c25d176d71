//! Which data files hold a tenant's slices, from the table's log alone.
//!
//! This is where one tenant is kept from another: a file belongs to the tenant that its partition value names, and only files that are found here are opened.

use crate::table::{CostTable, PARTITIONS, TableError, delta};
use contracts::TenantId;
use contracts::costs::{BillingPeriod, QueryCostsRequest};
use deltalake_core::DeltaTableError;
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What one version of the table holds of one slice.
#[derive(Debug)]
pub(super) struct SliceFiles {
    pub(super) tenant: String,
    pub(super) period: BillingPeriod,
    pub(super) connection: String,
    /// Digest of the slice's partition values.
    pub(super) name: String,
    /// Digest of the names of its data files. Files are never changed, so what was made of these is right for as long as the slice has them, and no longer.
    pub(super) content: String,
    /// Path and size in bytes.
    pub(super) files: Vec<(Path, u64)>,
}

/// The slices of one version of the table, by tenant.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) version: u64,
    tenants: HashMap<String, Vec<Arc<SliceFiles>>>,
}

impl Index {
    fn of(state: &DeltaTableState) -> Result<Self, TableError> {
        let mut found: BTreeMap<[String; 4], Vec<(Path, u64)>> = BTreeMap::new();
        for file in state.log_data() {
            if file.deletion_vector_descriptor().is_some() {
                let why = DeltaTableError::generic("a file has deletion vectors, which are not understood");
                return Err(delta("reading")(why));
            }
            let mut values = file.partition_values_map();
            let mut value = |name: &'static str| values.remove(name).flatten().ok_or(TableError::BadRow(name));
            let [tenant, period, connection, export] = PARTITIONS;
            let key = [value(tenant)?, value(period)?, value(connection)?, value(export)?];
            let size = u64::try_from(file.size()).map_err(|_| TableError::BadRow("size"))?;
            found.entry(key).or_default().push((file.object_store_path(), size));
        }
        let mut tenants: HashMap<String, Vec<Arc<SliceFiles>>> = HashMap::new();
        for (key, mut files) in found {
            files.sort();
            let name = digest(key.iter().map(String::as_str));
            let content = digest(files.iter().map(|(path, _)| path.as_ref()));
            let [tenant, period, connection, _] = key;
            let period = period.parse().map_err(|_| TableError::BadRow("x_billing_period"))?;
            let slice = SliceFiles { tenant: tenant.clone(), period, connection, name, content, files };
            tenants.entry(tenant).or_default().push(Arc::new(slice));
        }
        Ok(Self { version: state.version(), tenants })
    }

    /// What is asked for of a tenant, by partition values.
    pub(super) fn wanted(&self, tenant: TenantId, request: &QueryCostsRequest) -> Vec<Arc<SliceFiles>> {
        let connections: Vec<_> = request.connections.iter().map(ToString::to_string).collect();
        let is_wanted = |slice: &&Arc<SliceFiles>| {
            let periods = request.periods.as_ref();
            periods.is_none_or(|range| range.first <= slice.period && slice.period <= range.last)
                && (connections.is_empty() || connections.contains(&slice.connection))
        };
        self.tenants.get(&tenant.to_string()).into_iter().flatten().filter(is_wanted).cloned().collect()
    }

    /// All slices, of all tenants: for summaries alone.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<SliceFiles>> {
        self.tenants.values().flatten()
    }
}

impl CostTable {
    /// The slices of the table as it is now.
    pub(super) async fn index(&self) -> Result<Arc<Index>, TableError> {
        let state = self.latest().await?;
        let mut held = self.asking.index.lock().await;
        if let Some(known) = held.as_ref().filter(|known| known.version == state.version()) {
            return Ok(Arc::clone(known));
        }
        let fresh = Arc::new(Index::of(&state)?);
        *held = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

/// 64 bits of SHA-256 would do to tell versions apart; 128 are held, in hexadecimal.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
