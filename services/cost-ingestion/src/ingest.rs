//! Reading one connection's export into the table.
//!
//! Lives here: the order of things for one export. What a period's files are says `export`, what their rows mean says `source`, how they are kept
//! says `table`. Must not live here: NATS, schedules.
//!
//! A period is committed or it is not: whatever is wrong with it is found before the commit, and refuses the whole of it. Periods stand alone, so
//! one that is refused does not keep the others out. Cancelling leaves the table as it was, and so does a crash.

use crate::credentials::Scope;
use crate::export::{self, Discovered, Export, ExportError, Limits, OpenExport};
use crate::focus;
use crate::object::ObjectFile;
use crate::source::MAPPING_VERSION;
use crate::table::{CostTable, Fingerprint, Replaced, Slice, SliceWriter, Sums, TableError, Written};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use contracts::costs::{BillingPeriod, ExportLocation};
use contracts::{AccountId, Region};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Whose bills are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payers {
    /// Bills that are paid by the connection's own account, or by one of these.
    OwnAnd(BTreeSet<AccountId>),
    /// Every bill: needed where tenants connect member accounts, whose reports name the payer of their organization.
    Any,
}

impl Default for Payers {
    fn default() -> Self {
        Self::OwnAnd(BTreeSet::new())
    }
}

impl Payers {
    fn accept(&self, payer: &str, own: &AccountId) -> bool {
        match self {
            Self::Any => true,
            Self::OwnAnd(others) => payer == own.as_str() || others.iter().any(|other| other.as_str() == payer),
        }
    }
}

/// What is to be read.
#[derive(Clone, Debug)]
pub struct Order {
    /// For whom.
    pub scope: Scope,
    /// The connection's account.
    pub account: AccountId,
    /// The bucket's region.
    pub region: Region,
    /// Where the export lies.
    pub location: ExportLocation,
}

/// What became of one period.
#[derive(Debug)]
pub enum Outcome {
    /// It was written anew.
    Ingested {
        /// Its rows.
        rows: u64,
        /// Their sums by currency.
        totals: BTreeMap<String, Sums>,
    },
    /// The table holds exactly these files already.
    Unchanged,
    /// It was refused; the table is as it was.
    Refused(ExportError),
}

/// One period's report.
#[derive(Debug)]
pub struct PeriodReport {
    /// The period; none if it could not even be told.
    pub period: Option<BillingPeriod>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why an export as a whole was not read.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The export is at fault, or its storage.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The table is.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The program is shutting down.
    #[error("reading the export was cancelled; it is begun again later")]
    Cancelled,
}

impl IngestError {
    /// Whether trying again helps without anybody doing anything. The table's troubles are ours, and pass.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Export(error) => error.is_transient(),
            Self::Table(_) | Self::Cancelled => true,
        }
    }
}

/// Reads exports into the table.
pub struct Ingestor {
    exports: Arc<dyn OpenExport>,
    table: Arc<CostTable>,
    limits: Limits,
    payers: Payers,
}

/// A period whose files are known.
struct Unit {
    slice: Slice,
    files: Vec<ObjectMeta>,
}

impl Ingestor {
    /// Reads from `exports` into `table`.
    #[must_use]
    pub fn new(exports: Arc<dyn OpenExport>, table: Arc<CostTable>, limits: Limits, payers: Payers) -> Self {
        Self { exports, table, limits, payers }
    }

    /// Reads the export: every period that is not in the table in exactly this version. Doing it again does nothing more.
    ///
    /// # Errors
    /// When nothing could be told of the export, or something failed that may pass. Periods that were committed before stay so.
    pub async fn ingest(&self, order: &Order, cancel: &CancellationToken) -> Result<Vec<PeriodReport>, IngestError> {
        let store = self.exports.open(order.scope, &order.location, &order.region).await?;
        let mut reports = Vec::new();
        for found in export::discover(&store, &order.location, &order.account, &self.limits).await? {
            let units = match found {
                Ok(found) => self.units(&store, order, found).await,
                Err(error) => Err(error),
            };
            match units {
                Ok(units) => {
                    for unit in units {
                        let period = Some(unit.slice.period.clone());
                        let outcome = self.one(&store, order, unit, cancel).await?;
                        reports.push(PeriodReport { period, outcome });
                    }
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => reports.push(PeriodReport { period: None, outcome: Outcome::Refused(error) }),
            }
        }
        Ok(reports)
    }

    /// Tells files apart by period, where no manifest does.
    async fn units(
        &self,
        store: &Arc<dyn ObjectStore>,
        order: &Order,
        found: Discovered,
    ) -> Result<Vec<Unit>, ExportError> {
        let slice = |export: &Export, period| Slice {
            tenant: order.scope.tenant,
            connection: order.scope.connection,
            export: export.clone(),
            period,
        };
        if let Some(period) = found.period {
            return Ok(vec![Unit { slice: slice(&found.export, period), files: found.files }]);
        }
        let mut periods: BTreeMap<BillingPeriod, Vec<ObjectMeta>> = BTreeMap::new();
        for file in found.files {
            // One file that cannot be told spoils all: without it, its period would look complete and be too cheap.
            let reader = ObjectFile::listed(Arc::clone(store), &file, self.limits.row_group_bytes);
            let (period, _) = export::read_period(reader, &self.limits).await?;
            periods.entry(period).or_default().push(file);
        }
        Ok(periods.into_iter().map(|(period, files)| Unit { slice: slice(&found.export, period), files }).collect())
    }

    async fn one(
        &self,
        store: &Arc<dyn ObjectStore>,
        order: &Order,
        unit: Unit,
        cancel: &CancellationToken,
    ) -> Result<Outcome, IngestError> {
        let fingerprint = fingerprint(&unit.files);
        if self.table.holds(&unit.slice, fingerprint).await? {
            return Ok(Outcome::Unchanged);
        }
        let span = tracing::info_span!("costs.period", tenant = %order.scope.tenant, connection = %order.scope.connection,
            period = %unit.slice.period, files = unit.files.len());
        match self.read(store, order, &unit, cancel).instrument(span.clone()).await {
            Ok((written, note)) => {
                let (rows, totals) = (written.rows, written.totals.clone());
                let replaced = self.table.replace(&unit.slice, fingerprint, written, note).instrument(span).await?;
                Ok(match replaced {
                    Replaced::Committed { .. } => Outcome::Ingested { rows, totals },
                    Replaced::Unchanged => Outcome::Unchanged,
                })
            }
            Err(IngestError::Export(error)) if !error.is_transient() => Ok(Outcome::Refused(error)),
            Err(error) => Err(error),
        }
    }

    /// Writes the unit's rows to data files that nobody sees yet.
    async fn read(
        &self,
        store: &Arc<dyn ObjectStore>,
        order: &Order,
        unit: &Unit,
        cancel: &CancellationToken,
    ) -> Result<(Written, HashMap<String, serde_json::Value>), IngestError> {
        let mut writer = SliceWriter::new(&self.table, &unit.slice);
        match self.pour(store, order, unit, &mut writer, cancel).await {
            Ok(note) => {
                let written = writer.finish().await?;
                Ok((written, note))
            }
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }

    async fn pour(
        &self,
        store: &Arc<dyn ObjectStore>,
        order: &Order,
        unit: &Unit,
        writer: &mut SliceWriter,
        cancel: &CancellationToken,
    ) -> Result<HashMap<String, serde_json::Value>, IngestError> {
        let (mut rows, mut rounded, mut formats) = (0_u64, 0_u64, BTreeSet::new());
        for file in &unit.files {
            let path = &file.location;
            let reader = ObjectFile::listed(Arc::clone(store), file, self.limits.row_group_bytes);
            let (source, mut batches) = export::read_batches(reader, &self.limits).await?;
            formats.insert(source.name());
            while let Some(batch) = batches.try_next().await.map_err(|error| export::failed(path, error))? {
                if cancel.is_cancelled() {
                    return Err(IngestError::Cancelled);
                }
                let mapped = source.map(&batch).map_err(|source| ExportError::Source { path: path.clone(), source })?;
                self.check(order, unit, path, &mapped.rows)?;
                rows += mapped.rows.num_rows() as u64;
                rounded += mapped.rounded;
                if rows > self.limits.period_rows {
                    let (what, limit) = ("rows of the period".to_owned(), self.limits.period_rows);
                    return Err(ExportError::TooMuch { what, found: rows, limit }.into());
                }
                writer.write(&mapped.rows).await?;
            }
        }
        if rows == 0 {
            let path = unit.files.first().map(|file| file.location.clone()).unwrap_or_default();
            return Err(ExportError::BadRows { path, why: "the period has no rows".to_owned() }.into());
        }
        if rounded > 0 {
            tracing::warn!(rounded, "numbers with more than 18 digits after the point were rounded");
        }
        Ok(note(unit, rows, rounded, &formats))
    }

    /// What every source's rows must fit: the period they were announced for, and a payer that is believed.
    fn check(&self, order: &Order, unit: &Unit, path: &Path, rows: &RecordBatch) -> Result<(), ExportError> {
        let bad = |why: &str| ExportError::BadRows { path: path.clone(), why: why.to_owned() };
        let column = |name| rows.column_by_name(name).ok_or_else(|| bad("a column is missing"));
        let starts = column("BillingPeriodStart")?.as_primitive::<TimestampMicrosecondType>();
        let mut last = None;
        for start in starts.iter() {
            if start != last && start.and_then(export::period_of).as_ref() != Some(&unit.slice.period) {
                return Err(bad("a row belongs to another billing period than its file"));
            }
            last = start;
        }
        let payers = column("BillingAccountId")?.as_string_view();
        let mut last = None;
        for payer in payers.iter() {
            if payer != last && !payer.is_some_and(|payer| self.payers.accept(payer, &order.account)) {
                return Err(bad(
                    "a row's payer is not the connection's account; if that is right, the operator names it in ROLEBRIDGE_COST_PAYERS",
                ));
            }
            last = payer;
        }
        let currencies = column("BillingCurrency")?.as_string_view();
        let is_code = |text: &str| text.parse::<contracts::costs::Currency>().is_ok();
        let mut last = None;
        for currency in currencies.iter() {
            if currency != last && !currency.is_some_and(is_code) {
                return Err(bad("a row's currency is no currency code"));
            }
            last = currency;
        }
        debug_assert_eq!(rows.schema_ref(), &*focus::SCHEMA);
        Ok(())
    }
}

/// Changes whenever any file does, or the way it is read.
fn fingerprint(files: &[ObjectMeta]) -> Fingerprint {
    let mut lines: Vec<String> = files
        .iter()
        .map(|file| {
            let version = file.e_tag.clone().unwrap_or_else(|| file.last_modified.to_rfc3339());
            format!("{}\n{}\n{version}", file.location, file.size)
        })
        .collect();
    lines.sort_unstable();
    lines.push(format!("mapping {MAPPING_VERSION}"));
    Fingerprint::of(lines.iter().map(String::as_str))
}

/// For people who read the table's history.
fn note(unit: &Unit, rows: u64, rounded: u64, formats: &BTreeSet<&str>) -> HashMap<String, serde_json::Value> {
    const LISTED: usize = 100;
    let files: Vec<_> = unit
        .files
        .iter()
        .take(LISTED)
        .map(|file| json!({"path": file.location.as_ref(), "size": file.size, "etag": file.e_tag}))
        .collect();
    let values = json!({
        "tenant": unit.slice.tenant.to_string(), "connection": unit.slice.connection.to_string(),
        "period": unit.slice.period.as_str(), "export": unit.slice.export.as_str(), "formats": formats, "rows": rows,
        "rounded": rounded, "fileCount": unit.files.len(), "files": files,
    });
    HashMap::from([("rolebridge".to_owned(), values)])
}
