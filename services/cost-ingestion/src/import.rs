//! `cost-ingestion import`: the same pipeline on files that lie here, without a bus, for history that is older than the connection.
//!
//! What belongs together: the files of one folder are one export (or those of one report, where a manifest lies in the folder), and a billing period of an
//! export is replaced as a whole. The same files again change nothing; files that were delivered anew replace what they were before.

use crate::credentials::Scope;
use crate::export::{self, Discovered, Export, ExportError, Limits, OpenExport};
use crate::ingest::{IngestError, Ingestor, Order, Outcome, Payers, PeriodReport};
use crate::source::{self, MappingError};
use crate::table::{CostTable, Sums, TableError};
use async_trait::async_trait;
use clap::Args;
use contracts::costs::ExportLocation;
use contracts::{AccountId, ConnectionId, ParseIdentityError, Region, TenantId};
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Reads cost files that lie here into a table.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Cost files, or folders of them (with manifests or without). What they are is told by their contents.
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub files: Vec<PathBuf>,

    /// The tenant whose costs they are.
    #[arg(long, value_name = "ID")]
    pub tenant: TenantId,

    /// The table: a folder, or s3://bucket/path (with the AWS_* variables).
    #[arg(long, value_name = "FOLDER|S3-URL")]
    pub table: String,

    /// The connection that the rows are kept under; a fixed one of the tenant's own, if none is named.
    #[arg(long, value_name = "ID")]
    pub connection: Option<ConnectionId>,

    /// Name of the export that all of the files belong to, in place of the folders they lie in.
    #[arg(long, value_name = "NAME")]
    pub export: Option<String>,

    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A mapping file of ours is wrong.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The path leads nowhere.
    #[error("{path} cannot be read; check that it is there and that you may read it")]
    Path {
        /// As it was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without cost files.
    #[error("{path} holds no cost file (Parquet, .csv, .csv.gz, .zip)")]
    Nothing {
        /// As it was given.
        path: PathBuf,
    },
    /// A manifest or a file that cannot be used.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Some of it was; the report says what and why.
    #[error("{0} of what was named was refused, and nothing of that is in the table")]
    Refused(usize),
    /// Reading failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Never: a constant of ours.
    #[error(transparent)]
    Identity(#[from] ParseIdentityError),
    /// The local storage could not be opened.
    #[error("the files' storage could not be opened")]
    Store(#[from] object_store::Error),
}

/// What came of an import. This is the JSON that `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportReport {
    /// Rows that were written.
    pub rows: u64,
    /// One for each billing period of each export.
    pub periods: Vec<PeriodLine>,
    /// Sums of what was written, by currency; decimals as text.
    pub totals: BTreeMap<String, TotalLine>,
    /// What was refused, and why; the table has nothing of it.
    pub refused: Vec<String>,
}

/// One billing period of one export.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeriodLine {
    /// `2018-11`.
    pub period: String,
    /// The export's name in the table (`x_export`).
    pub export: String,
    /// `written`, or `unchanged` when the table holds exactly these files already.
    pub outcome: &'static str,
    /// Its rows; absent if unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Its sums by currency; empty if unchanged.
    pub totals: BTreeMap<String, TotalLine>,
}

/// Sums of one currency.
#[derive(Debug, Serialize)]
pub struct TotalLine {
    /// Of `BilledCost`.
    pub billed: String,
    /// Of `EffectiveCost`.
    pub effective: String,
}

impl From<&Sums> for TotalLine {
    fn from(sums: &Sums) -> Self {
        Self { billed: sums.billed.to_string(), effective: sums.effective.to_string() }
    }
}

/// Imports. Cancel: the batch in hand is finished; periods that were committed stay, the others are as they were.
///
/// # Errors
/// When a path, the table or storage fails. Files that are refused are in the report.
pub async fn import(args: &ImportArgs, cancel: &CancellationToken) -> Result<ImportReport, ImportError> {
    source::check()?;
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
    let found = find(args, &store).await?;
    let table = Arc::new(CostTable::open(&args.table).await?);
    let exports = Arc::new(Here(Arc::clone(&store)));
    let ingestor = Ingestor::new(exports, table, Limits::default(), Payers::Any);
    let mut report = ImportReport { rows: 0, periods: Vec::new(), totals: BTreeMap::new(), refused: Vec::new() };
    let mut totals: BTreeMap<String, Sums> = BTreeMap::new();
    for (order, found) in found {
        let name = found.export.as_str().to_owned();
        for PeriodReport { period, outcome } in ingestor.ingest_found(&store, &order, vec![Ok(found)], cancel).await? {
            let period = period.map(|period| period.to_string()).unwrap_or_default();
            let mut line =
                PeriodLine { period, export: name.clone(), outcome: "unchanged", rows: None, totals: BTreeMap::new() };
            match outcome {
                Outcome::Ingested { rows, totals: of_period } => {
                    report.rows += rows;
                    (line.outcome, line.rows) = ("written", Some(rows));
                    for (currency, sums) in &of_period {
                        line.totals.insert(currency.clone(), sums.into());
                        totals.entry(currency.clone()).or_default().add(sums.billed, sums.effective)?;
                    }
                    report.periods.push(line);
                }
                Outcome::Unchanged => report.periods.push(line),
                Outcome::Refused(error) => report.refused.push(match line.period.as_str() {
                    "" => told(&error),
                    period => format!("{period}: {}", told(&error)),
                }),
            }
        }
    }
    report.totals = totals.iter().map(|(currency, sums)| (currency.clone(), sums.into())).collect();
    Ok(report)
}

/// A refusal, with the file's path as it is here: in a bucket, paths have no slash before them.
fn told(error: &ExportError) -> String {
    let text = error.to_string();
    match error.path() {
        Some(path) => text.replacen(path.as_ref(), &format!("/{path}"), 1),
        None => text,
    }
}

/// For people.
#[must_use]
pub fn describe(report: &ImportReport) -> String {
    let mut text = String::new();
    let money = |totals: &BTreeMap<String, TotalLine>| {
        let line = |(currency, sums): (&String, &TotalLine)| {
            format!("{currency} {} billed, {} effective", sums.billed, sums.effective)
        };
        totals.iter().map(line).collect::<Vec<_>>().join("; ")
    };
    for line in &report.periods {
        let what =
            line.rows.map_or_else(|| "unchanged".to_owned(), |rows| format!("{rows} rows, {}", money(&line.totals)));
        text += &format!("{}  {}  {what}\n", line.period, line.export);
    }
    if report.periods.len() > 1 && report.rows > 0 {
        text += &format!("in all  {} rows, {}\n", report.rows, money(&report.totals));
    }
    report.refused.iter().for_each(|refused| text += &format!("refused: {refused}\n"));
    text
}

/// What is to be read, folder by folder.
async fn find(args: &ImportArgs, store: &Arc<dyn ObjectStore>) -> Result<Vec<(Order, Discovered)>, ImportError> {
    let mut folders: BTreeMap<PathBuf, Vec<ObjectMeta>> = BTreeMap::new();
    let mut all = Vec::new();
    let order = order(args)?;
    for given in &args.files {
        let path = |source| ImportError::Path { path: given.clone(), source };
        let whole = std::fs::canonicalize(given).map_err(path)?;
        if whole.is_dir() {
            let found = folder(&whole, store).await?;
            if found.is_empty() {
                return Err(ImportError::Nothing { path: given.clone() });
            }
            all.extend(found);
        } else {
            let path = object_store::path::Path::from_filesystem_path(&whole).map_err(object_store::Error::from)?;
            let parent = whole.parent().unwrap_or(Path::new("/")).to_owned();
            folders.entry(parent).or_default().push(store.head(&path).await?);
        }
    }
    all.extend(folders.into_iter().map(|(folder, files)| loose(&folder, files)));
    let mut merged: Vec<Discovered> = Vec::new();
    for mut found in all {
        if let Some(name) = &args.export {
            found.export = Export::named(name);
        }
        match merged.iter_mut().find(|known| known.export == found.export && known.period == found.period) {
            Some(known) => {
                known.files.extend(found.files);
                known.files.sort_by(|a, b| a.location.cmp(&b.location));
                known.files.dedup_by(|a, b| a.location == b.location);
            }
            None => merged.push(found),
        }
    }
    Ok(merged.into_iter().map(|found| (order.clone(), found)).collect())
}

fn loose(folder: &Path, mut files: Vec<ObjectMeta>) -> Discovered {
    // Named twice, its costs must not count twice.
    files.sort_by(|a, b| a.location.cmp(&b.location));
    files.dedup_by(|a, b| a.location == b.location);
    let export = Export::named(&format!("file://{}", folder.display()));
    Discovered { export, period: None, files, thorough: true }
}

/// A folder: by its manifests if there are any, else all cost files below it, each folder of them an export.
async fn folder(path: &Path, store: &Arc<dyn ObjectStore>) -> Result<Vec<Discovered>, ImportError> {
    let prefix = object_store::path::Path::from_filesystem_path(path).map_err(object_store::Error::from)?;
    let found = export::discover_local(store, &prefix, &Limits::default()).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await?;
    let mut folders: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
    for object in objects.into_iter().filter(|object| export::is_cost_file(object.location.as_ref())) {
        let (folder, _) = object.location.as_ref().rsplit_once('/').unwrap_or_default();
        // Data Exports and Athena keep each period in a folder of its own; the export is what they lie in.
        let parts = folder.split('/').take_while(|part| !part.contains('='));
        folders.entry(parts.collect::<Vec<_>>().join("/")).or_default().push(object);
    }
    Ok(folders.into_iter().map(|(folder, files)| loose(Path::new(&format!("/{folder}")), files)).collect())
}

fn order(args: &ImportArgs) -> Result<Order, ImportError> {
    // Where rows come from files here, no account and no region is asked for.
    // Stands for "imported" where a connection's ID is asked for; the same for the same tenant.
    let digest = Sha256::digest(format!("rolebridge/import/{}", args.tenant));
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    let own = ConnectionId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid());
    Ok(Order {
        scope: Scope { tenant: args.tenant, connection: args.connection.unwrap_or(own) },
        account: AccountId::parse("000000000000")?,
        region: Region::parse("us-east-1")?,
        location: ExportLocation { bucket: "local".to_owned(), prefix: String::new() },
    })
}

/// The files that lie here.
struct Here(Arc<dyn ObjectStore>);

#[async_trait]
impl OpenExport for Here {
    async fn open(&self, _: Scope, _: &ExportLocation, _: &Region) -> Result<Arc<dyn ObjectStore>, ExportError> {
        Ok(Arc::clone(&self.0))
    }
}
