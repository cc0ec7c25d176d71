//! Reading one connection's export into the table.
//!
//! Lives here: the order of things for one export. What a period's files are says `export`, what their rows mean says `source`, how they are kept
//! says `table`. Must not live here: NATS, schedules.
//!
//! A period is committed or it is not: whatever is wrong with it is found before the commit, and refuses the whole of it. Periods stand alone, so
//! one that is refused does not keep the others out. Cancelling leaves the table as it was, and so does a crash.

mod found;
mod pour;
mod tally;

pub use found::{Outcome, PeriodReport, Taken};
pub use tally::Tally;

use crate::credentials::Scope;
use crate::export::{CostFile, ExportError, Lasts, Limits, OpenExport};
use crate::object::ObjectFile;
use crate::source::{Made, VERSION};
use crate::table::{CostTable, Fingerprint, Slice, TableError, Written};
use contracts::costs::{BillingPeriod, ExportLocation};
use contracts::{AccountId, Region};
use object_store::{ObjectMeta, ObjectStore};
use pour::{Pour, blocking};
use serde_json::json;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

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
        self.lasts() == Lasts::Passes
    }

    /// Whether trying again helps.
    #[must_use]
    pub fn lasts(&self) -> Lasts {
        match self {
            Self::Export(error) => error.lasts(),
            Self::Table(_) | Self::Cancelled => Lasts::Passes,
        }
    }
}

/// Threads that read one period. Each takes some 200 MB.
const THREADS: usize = 2;

/// Reads exports into the table.
pub struct Ingestor {
    exports: Arc<dyn OpenExport>,
    table: Arc<CostTable>,
    limits: Limits,
    payers: Payers,
    threads: usize,
}

/// A period whose files are known.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Where its rows go.
    pub slice: Slice,
    /// Its files.
    pub files: Vec<ObjectMeta>,
    /// Whether the files have rows of other periods too, which are then other units'.
    pub mixed: bool,
}

impl Unit {
    /// Changes whenever any file does, or the way it is read.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.files)
    }
}

/// A unit that was read: its data files are written, and nobody sees them yet.
#[derive(Debug)]
pub struct ReadUnit {
    /// The data files, rows and totals.
    pub written: Written,
    /// Sums by service, and who pays.
    pub tally: Tally,
    /// The source formats.
    pub formats: BTreeSet<&'static str>,
    /// For the table's history.
    pub note: HashMap<String, serde_json::Value>,
}

/// What a file is, and whose bill it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The source format.
    pub format: &'static str,
    /// FOCUS `BillingAccountId` of its first row.
    pub payer: Option<String>,
}

impl Ingestor {
    /// Reads from `exports` into `table`.
    #[must_use]
    pub fn new(exports: Arc<dyn OpenExport>, table: Arc<CostTable>, limits: Limits, payers: Payers) -> Self {
        Self { exports, table, limits, payers, threads: THREADS }
    }

    /// Opens an export's bucket.
    ///
    /// # Errors
    /// As [`OpenExport::open`].
    pub async fn open(&self, order: &Order) -> Result<Arc<dyn ObjectStore>, ExportError> {
        self.exports.open(order.scope, &order.location, &order.region).await
    }

    /// The bounds on what is read.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The table that is written.
    #[must_use]
    pub const fn table(&self) -> &Arc<CostTable> {
        &self.table
    }

    /// The periods that a file has rows of. `thorough` asks each row.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn periods_of(
        &self,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
        thorough: bool,
    ) -> Result<BTreeSet<BillingPeriod>, ExportError> {
        let reader = ObjectFile::listed(Arc::clone(store), file, self.limits.row_group_bytes);
        let opened = CostFile::open(reader, &self.limits).await?;
        let limits = self.limits;
        blocking(&file.location, move |runtime| opened.periods(&limits, runtime, thorough)).await
    }

    /// Looks at the beginning of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn look(&self, store: &Arc<dyn ObjectStore>, file: &ObjectMeta) -> Result<Look, ExportError> {
        let reader = ObjectFile::listed(Arc::clone(store), file, self.limits.row_group_bytes);
        let opened = CostFile::open(reader, &self.limits).await?;
        let (limits, path) = (self.limits, file.location.clone());
        let (format, source) = (opened.format(), opened.source());
        let of = move |source| ExportError::Source { path: path.clone(), source };
        let payer = blocking(&file.location, move |runtime| {
            let Some(part) = opened.parts().into_iter().next() else { return Ok(None) };
            let mut reader = part.read(&limits, runtime, |name| source.wants(name))?;
            let Some(batch) = reader.next()? else { return Ok(None) };
            let mapped = source.map(&batch, reader.layout()).map_err(of)?;
            Ok(match mapped.column("BillingAccountId") {
                Some(Made::Text(text)) => text.at(0).map(str::to_owned),
                _ => None,
            })
        });
        Ok(Look { format, payer: payer.await? })
    }

    /// Writes the unit's rows to data files that nobody sees yet; `rows` counts them meanwhile.
    ///
    /// # Errors
    /// When the unit is refused, or something failed; what was written is taken back.
    pub async fn read(
        &self,
        store: &Arc<dyn ObjectStore>,
        account: &AccountId,
        unit: &Unit,
        rows: &Arc<AtomicU64>,
        cancel: &CancellationToken,
    ) -> Result<ReadUnit, IngestError> {
        let (mut parts, mut formats) = (VecDeque::new(), BTreeSet::new());
        for file in &unit.files {
            let reader = ObjectFile::listed(Arc::clone(store), file, self.limits.row_group_bytes);
            let opened = CostFile::open(reader, &self.limits).await?;
            formats.insert(opened.format());
            parts.extend(opened.parts());
        }
        one_family(unit, &formats)?;
        let pour = Pour {
            table: Arc::clone(&self.table),
            slice: unit.slice.clone(),
            mixed: unit.mixed,
            payers: self.payers.clone(),
            account: account.clone(),
            limits: self.limits,
            parts: Mutex::new(parts),
            rows: Arc::clone(rows),
            rounded: AtomicU64::new(0),
            tally: Mutex::default(),
            stop: cancel.child_token(),
        };
        let pour = Arc::new(pour);
        let (written, failed) = pour::run(&pour, self.threads).await;
        let rows = written.rows;
        let result = match failed {
            Some(error) => Err(error),
            None if cancel.is_cancelled() => Err(IngestError::Cancelled),
            None if rows == 0 => Err(ExportError::without_rows(unit.files.first()).into()),
            None => Ok(()),
        };
        if let Err(error) = result {
            written.discard(&self.table).await;
            return Err(error);
        }
        let rounded = pour.rounded.load(Ordering::Relaxed);
        if rounded > 0 {
            tracing::warn!(rounded, "numbers with more than 18 digits after the point were rounded");
        }
        let tally = std::mem::take(&mut *pour.tally.lock().unwrap_or_else(PoisonError::into_inner));
        let note = note(unit, rows, rounded, &formats);
        Ok(ReadUnit { written, tally, formats, note })
    }
}

/// Files of one period are of one export: reports and FOCUS exports beside each other tell the same costs, which would count twice. Within each of the two, columns
/// come and go from file to file.
fn one_family(unit: &Unit, formats: &BTreeSet<&'static str>) -> Result<(), ExportError> {
    let family = |format: &&'static str| match *format {
        "legacy-cur" | "cur-2.0" => "Cost and Usage Report",
        "focus-1.0" | "focus-1.2" => "FOCUS",
        other => other,
    };
    let families: BTreeSet<_> = formats.iter().map(family).collect();
    if families.len() < 2 {
        return Ok(());
    }
    let families = families.into_iter().collect::<Vec<_>>().join(", ");
    Err(ExportError::SeveralFormats { period: unit.slice.period.clone(), families })
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
    lines.push(format!("mapping {}", *VERSION));
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
