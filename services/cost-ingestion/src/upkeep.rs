//! Keeping the table in shape: `cost-ingestion compact`, `cost-ingestion vacuum`, and both on a schedule in the service.
//!
//! Several instances may do it at the same time: a compaction that comes second finds nothing to do or gives up, and a file is deleted once. Where each of them starts in
//! its interval is up to chance, so that they rarely meet. Cancel: what was done stays done. Failure: logged, counted, and tried again in the next interval.

use crate::table::{Compacted, CostTable, KEEP_DAYS, TableError, Vacuumed};
use clap::Args;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Writes many small or overlapping data files anew as few sorted ones.
#[derive(Clone, Debug, Args)]
pub struct CompactArgs {
    /// The table: a folder, or s3://bucket/path (with the AWS_* variables).
    #[arg(long, env = "ROLEBRIDGE_COST_TABLE", value_name = "FOLDER|S3-URL")]
    pub table: String,
}

/// Deletes data files that no version of the last days needs.
#[derive(Clone, Debug, Args)]
pub struct VacuumArgs {
    /// The table: a folder, or s3://bucket/path (with the AWS_* variables).
    #[arg(long, env = "ROLEBRIDGE_COST_TABLE", value_name = "FOLDER|S3-URL")]
    pub table: String,

    /// Days that old versions stay readable.
    #[arg(long, env = "ROLEBRIDGE_COST_KEEP", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(KEEP_DAYS))]
    pub keep: i64,

    /// Only says what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
}

/// Compacts; says what was done. Cancel: slices that are done stay so.
///
/// # Errors
/// When the table cannot be read or written.
pub async fn compact(args: &CompactArgs, cancel: &CancellationToken) -> Result<String, TableError> {
    let table = Arc::new(CostTable::open(&args.table).await?);
    Ok(told(table.compact(cancel).await?))
}

fn told(compacted: Compacted) -> String {
    let Compacted { slices, before, after, overtaken } = compacted;
    let mut text = match slices {
        0 => "nothing to compact\n".to_owned(),
        _ => format!("{slices} periods compacted: {after} files in place of {before}\n"),
    };
    if overtaken > 0 {
        text += &format!("{overtaken} periods were replaced meanwhile, and left alone\n");
    }
    text
}

/// Vacuums; says what was deleted, or would be.
///
/// # Errors
/// When the table or its storage fails.
pub async fn vacuum(args: &VacuumArgs) -> Result<String, TableError> {
    let table = CostTable::open(&args.table).await?;
    let Vacuumed { files, bytes } =
        table.vacuum(time::Duration::days(args.keep), OffsetDateTime::now_utc(), args.dry_run).await?;
    let mut text = String::new();
    if args.dry_run {
        files.iter().for_each(|file| text += &format!("{file}\n"));
    }
    let done = if args.dry_run { "would be deleted" } else { "deleted" };
    text += &format!("{} files of {bytes} bytes {done}\n", files.len());
    Ok(text)
}

/// Both, every interval, until shutdown.
pub async fn repeat(table: Arc<CostTable>, interval: Duration, keep_days: i64, shutdown: CancellationToken) {
    let meter = telemetry::meter();
    let compacted =
        meter.u64_counter("rolebridge_costs_compacted").with_description("Periods of the cost table compacted").build();
    let vacuumed =
        meter.u64_counter("rolebridge_costs_vacuumed").with_description("Data files of the cost table deleted").build();
    let failed = meter
        .u64_counter("rolebridge_costs_upkeep_failures")
        .with_description("Failed compactions and vacuums")
        .build();
    // Anywhere in the first interval: the last bytes of a UUIDv4 are random.
    let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
    let mut wait = Duration::from_secs(random % interval.as_secs().max(1));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => wait = interval,
        }
        match table.compact(&shutdown).await {
            Ok(done) => {
                compacted.add(done.slices as u64, &[]);
                tracing::info!(
                    slices = done.slices,
                    before = done.before,
                    after = done.after,
                    "the cost table was compacted"
                );
            }
            Err(error) => {
                failed.add(1, &[]);
                tracing::warn!(error = ?error, "the cost table could not be compacted; tried again in the next interval");
            }
        }
        let vacuum = table.vacuum(time::Duration::days(keep_days), OffsetDateTime::now_utc(), false);
        let done = tokio::select! {
            () = shutdown.cancelled() => return,
            done = vacuum => done,
        };
        match done {
            Ok(done) => {
                vacuumed.add(done.files.len() as u64, &[]);
                tracing::info!(
                    files = done.files.len(),
                    bytes = done.bytes,
                    "old data files of the cost table were deleted"
                );
            }
            Err(error) => {
                failed.add(1, &[]);
                tracing::warn!(error = ?error, "old data files of the cost table could not be deleted; tried again in the next interval");
            }
        }
    }
}
