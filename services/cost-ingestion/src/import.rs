//! `cost-ingestion import`: the same pipeline on files that lie here, without a bus, for history that is older than the connection.
//!
//! What belongs together: the files of one folder are one export (or those of one report, where a manifest lies in the folder), and a billing period of an
//! export is replaced as a whole. The same files again change nothing; files that were delivered anew replace what they were before. An import may name a part
//! of a period's files: the others, which `known` remembers, are read with it, or it is refused.

mod find;
mod known;

use crate::credentials::Scope;
use crate::export::{ExportError, Limits, OpenExport};
use crate::ingest::{IngestError, Ingestor, Order, Outcome, Payers, Taken, Unit};
use crate::source::{self, MappingError};
use crate::table::{CostTable, Sums, TableError};
use async_trait::async_trait;
use clap::Args;
use contracts::costs::ExportLocation;
use contracts::{AccountId, ConnectionId, ParseIdentityError, Region, TenantId};
use find::{Found, find};
use known::{Known, NotWhole};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
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

    /// What is named is all there is of its billing periods: rows that came from other files go. Without it those files are read again with it, and a period of
    /// which one is gone is refused.
    #[arg(long)]
    pub whole: bool,

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
    /// Which files earlier imports have read is written down beside the table.
    #[error("reading or writing beside the cost table which files were imported failed")]
    Known(#[source] object_store::Error),
    /// That is not what we wrote.
    #[error(
        "what stands beside the cost table (_rolebridge/imports) on which files were imported is damaged; delete it, and import with --whole"
    )]
    BadKnown(#[source] serde_json::Error),
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
    let (order, found) = (order(args)?, find(args, &store).await?);
    let table = Arc::new(CostTable::open(&args.table).await?);
    let known = Known::of(table.store(), order.scope).await?;
    let exports = Arc::new(Here(Arc::clone(&store)));
    let ingestor = Ingestor::new(exports, table, Limits::default(), Payers::Any);
    let report = ImportReport { rows: 0, periods: Vec::new(), totals: BTreeMap::new(), refused: Vec::new() };
    let mut import = Import { store, ingestor, order, known, whole: args.whole, report, totals: BTreeMap::new() };
    for found in found {
        import.found(found, cancel).await?;
    }
    let Import { mut report, totals, .. } = import;
    report.totals = totals.iter().map(|(currency, sums)| (currency.clone(), sums.into())).collect();
    Ok(report)
}

/// An import under way.
struct Import {
    store: Arc<dyn ObjectStore>,
    ingestor: Ingestor,
    order: Order,
    known: Known,
    whole: bool,
    report: ImportReport,
    totals: BTreeMap<String, Sums>,
}

impl Import {
    async fn found(&mut self, found: Found, cancel: &CancellationToken) -> Result<(), ImportError> {
        let units = match found.files {
            Ok(files) => self.ingestor.units(&self.store, &self.order, files).await,
            Err(error) => Err(error),
        };
        match units {
            Ok(units) => {
                for unit in units {
                    self.unit(unit, self.whole || found.whole, cancel).await?;
                }
            }
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => self.report.refused.push(told(&error)),
        }
        Ok(())
    }

    async fn unit(&mut self, unit: Unit, whole: bool, cancel: &CancellationToken) -> Result<(), ImportError> {
        let period = unit.slice.period.to_string();
        let mut refuse = |why: &str| self.report.refused.push(format!("{period}: {why}"));
        let unit = if whole { Ok(unit) } else { self.known.whole(unit, &self.store, &self.ingestor).await? };
        let unit = match unit.and_then(|unit| self.known.twice(&unit).map_or(Ok(unit), Err)) {
            Ok(unit) => unit,
            Err(NotWhole(why)) => {
                refuse(&why);
                return Ok(());
            }
        };
        let outcome = match self.ingestor.take(&self.store, &self.order.account, &unit, cancel).await? {
            Taken::Unchanged => Outcome::Unchanged,
            Taken::Refused(error) => {
                refuse(&told(&error));
                return Ok(());
            }
            Taken::Read(read) => {
                self.known.keep(&unit).await?;
                self.ingestor.commit(&unit, *read).await?
            }
        };
        let export = unit.slice.export.as_str().to_owned();
        let mut line = PeriodLine { period, export, outcome: "unchanged", rows: None, totals: BTreeMap::new() };
        if let Outcome::Ingested { rows, totals } = outcome {
            self.report.rows += rows;
            (line.outcome, line.rows) = ("written", Some(rows));
            for (currency, sums) in &totals {
                line.totals.insert(currency.clone(), sums.into());
                self.totals.entry(currency.clone()).or_default().add(sums.billed, sums.effective)?;
            }
        }
        self.report.periods.push(line);
        Ok(())
    }
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
