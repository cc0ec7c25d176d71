//! One job: read one billing period of one export, say what came of it, and order the next.
//!
//! The order of things, each of which may be the last before a crash: the try is written down; data files are written; what is about to be committed is
//! written down; the commit; the news; the entry; the next order; the acknowledgement. A job that comes again asks the table's log whether the commit
//! took place, and goes on from there; nothing is read twice, and nothing counts twice. Cancel: the batch in hand is finished, nothing is committed, and
//! the job comes again to whoever is there. Failure: written down with its reason and the time of the next try, and said when it is given up; the
//! connection's other periods go on.

use super::chain::{Chain, OrderError};
use super::choose::{self, Due};
use super::gate::{Gate, Place};
use super::ledger::{
    self, Attempt, Entry, FileVersion, Found, FoundExport, FoundUnit, Ledger, LedgerError, Pending, Version,
};
use super::patience::Patience;
use super::progress::{Metered, Progress, Reading};
use super::say;
use crate::credentials::Scope;
use crate::export::{Export, ExportError, Lasts};
use crate::ingest::{IngestError, Ingestor, Order, ReadUnit, Unit};
use crate::table::{Fingerprint, Replaced, Slice, TableError};
use contracts::costs::{IngestPeriod, PeriodVersion};
use contracts::{CloudEvent, Message as _, Stream, Timestamp};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Delivery, Disposition, PublishError, Router};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The consumer of periods.
#[must_use]
pub fn consumer(workers: usize) -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::Jobs,
        durable: "cost-ingestion-jobs",
        filters: vec![IngestPeriod::SUBJECT.to_owned()],
        in_flight: workers,
        ack_wait: ACK_WAIT,
        // Tries are counted in the ledger: a job also comes back because its tenant has no place left.
        max_deliver: 100_000,
        backoff: Backoff { first: Duration::from_secs(2), most: Duration::from_secs(60) },
    }
}

/// Does jobs.
pub struct Worker {
    pub bus: Bus,
    pub ingestor: Arc<Ingestor>,
    pub ledger: Ledger,
    pub patience: Patience,
    pub gate: Arc<Gate>,
    pub progress: Progress,
    pub shutdown: CancellationToken,
}

/// Why a job did not come to its end. Trying again is right.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("reading was cancelled; it is begun again")]
    Cancelled,
}

/// What a job is about.
struct Job<'j> {
    scope: Scope,
    found: &'j Found,
    export: &'j FoundExport,
    unit: &'j FoundUnit,
    slice: Slice,
    fingerprint: Fingerprint,
}

/// Lets `worker` take every job.
#[must_use]
pub fn router(worker: Arc<Worker>) -> Router {
    Router::new().on(move |event: CloudEvent<IngestPeriod>, delivery| {
        let worker = Arc::clone(&worker);
        let IngestPeriod { tenant, connection, period, .. } = &event.data;
        let span = tracing::info_span!("costs.period", %tenant, %connection, %period);
        async move { worker.work(&event.data, delivery).await }.instrument(span)
    })
}

impl Worker {
    async fn work(&self, job: &IngestPeriod, delivery: Delivery) -> Disposition {
        let Some(place) = self.gate.enter(job.tenant) else {
            return Disposition::Later { after: self.patience.turn(delivery) };
        };
        match self.one(job, place, delivery).await {
            Ok(()) => Disposition::Done,
            Err(WorkError::Cancelled) => Disposition::Later { after: Duration::from_secs(1) },
            Err(error) => {
                tracing::warn!(error = ?error, "a job did not come to its end");
                Disposition::Retry { reason: error.to_string(), after: None }
            }
        }
    }

    async fn one(&self, job: &IngestPeriod, place: Place, delivery: Delivery) -> Result<(), WorkError> {
        let scope = Scope { tenant: job.tenant, connection: job.connection };
        if let Some(found) = self.ledger.found(scope).await?
            && let Some((export, unit, fingerprint)) = find(&found, job)
        {
            let (tenant, connection) = (job.tenant, job.connection);
            let (name, period) = (Export::named(&job.export), job.period.clone());
            let slice = Slice { tenant, connection, export: name, period };
            self.period(&Job { scope, found: &found, export, unit, slice, fingerprint }).await?;
        }
        // The next one may come here at once.
        drop(place);
        let chain = Chain { bus: self.bus.clone(), ledger: self.ledger.clone(), patience: self.patience };
        chain.order_next(scope, delivery.sequence).await?;
        Ok(())
    }

    async fn period(&self, job: &Job<'_>) -> Result<(), WorkError> {
        let mut entry = self.ledger.entry(job.scope, &job.export.export, &job.unit.period).await?;
        self.recover(job, &mut entry).await?;
        // Whoever tried it before us has died: its turn is ours, and not only when its time has come.
        let died = entry.attempt_at(job.fingerprint).is_some_and(|attempt| attempt.running);
        match choose::due(job.unit, &entry) {
            Due::Now => {}
            Due::At(_) if died => {}
            _ => return Ok(()),
        }
        let attempt = begin(&entry, job.fingerprint, &self.patience);
        if attempt.tries > self.patience.tries {
            let reason = format!("the program ended {} times while it read this period", self.patience.tries);
            return self.give_up(job, entry, attempt, reason, Lasts::Stays).await;
        }
        entry.attempt = Some(attempt.clone());
        self.keep(job, &entry).await?;
        match self.read(job).await {
            Ok(read) => self.commit(job, entry, read).await,
            Err(IngestError::Cancelled) => {
                // It was no try.
                let tries = attempt.tries.saturating_sub(1);
                entry.attempt = Some(Attempt { tries, running: false, next: Timestamp::now(), ..attempt });
                self.keep(job, &entry).await?;
                Err(WorkError::Cancelled)
            }
            Err(error) => self.failed(job, entry, attempt, &error).await,
        }
    }

    async fn keep(&self, job: &Job<'_>, entry: &Entry) -> Result<(), LedgerError> {
        self.ledger.keep_entry(job.scope, &job.export.export, &job.unit.period, entry).await
    }

    /// Goes on after a crash between the commit and the entry.
    async fn recover(&self, job: &Job<'_>, entry: &mut Entry) -> Result<(), WorkError> {
        let Some(pending) = entry.pending.clone() else { return Ok(()) };
        if self.ingestor.table().holds(&job.slice, pending.version.fingerprint).await? {
            let version = self.ingestor.table().version().await?;
            self.committed(job, entry, pending, version).await?;
        }
        Ok(())
    }

    async fn read(&self, job: &Job<'_>) -> Result<ReadUnit, IngestError> {
        let files = self.ledger.files(job.scope, &job.export.export, &job.unit.period).await;
        let files = match files {
            Ok(Some(files)) if files.fingerprint == job.fingerprint => files.files,
            // They have changed, and the look that saw it is not done writing it down.
            _ => return Err(ExportError::Relisted.into()),
        };
        let files: Option<Vec<_>> = files.iter().map(FileVersion::object).collect();
        let Some(files) = files else { return Err(ExportError::Relisted.into()) };
        let order = Order {
            scope: job.scope,
            account: job.found.account.clone(),
            region: job.export.region.clone(),
            location: job.export.place.clone(),
        };
        let (store, meter) = Metered::over(self.ingestor.open(&order).await?);
        let unit = Unit { slice: job.slice.clone(), files, mixed: job.unit.mixed };
        let rows = Arc::new(AtomicU64::new(0));
        let progress = self.progress.of(&self.ledger, job.scope, job.export, job.unit).await;
        let reading = Reading { progress, rows: Arc::clone(&rows), bytes: meter };
        let read = self.ingestor.read(&store, &order.account, &unit, &rows, &self.shutdown);
        self.progress.during(&self.bus, &reading, read).await
    }

    async fn commit(&self, job: &Job<'_>, mut entry: Entry, read: ReadUnit) -> Result<(), WorkError> {
        let pending = Pending {
            version: Version {
                fingerprint: job.fingerprint,
                seen: PeriodVersion {
                    at: Timestamp::now(),
                    rows: read.written.rows,
                    totals: say::totals(&read.written.totals)?,
                    bytes: job.unit.bytes,
                    table_version: 0,
                },
                formats: read.formats.iter().copied().collect::<Vec<_>>().join(","),
            },
            services: say::services(&read.tally)?,
            payers: read.tally.payers.iter().cloned().collect(),
        };
        entry.pending = Some(pending.clone());
        self.keep(job, &entry).await?;
        let taken = self.alternatives(job, &pending.payers).await?;
        let table = self.ingestor.table();
        let ReadUnit { written, note, .. } = read;
        let version = match table.replace_and_take(&job.slice, job.fingerprint, written, note, &taken).await {
            Ok(Replaced::Committed { version }) => version,
            Ok(Replaced::Unchanged) => table.version().await?,
            Err(error) => {
                let Some(attempt) = entry.attempt.clone() else { return Err(error.into()) };
                return self.failed(job, entry, attempt, &error.into()).await;
            }
        };
        self.committed(job, &mut entry, pending, version).await?;
        for slice in taken {
            let mut other = self.ledger.entry(job.scope, slice.export.as_str(), &slice.period).await?;
            other.taken_by = Some(job.export.export.clone());
            self.ledger.keep_entry(job.scope, slice.export.as_str(), &slice.period, &other).await?;
        }
        Ok(())
    }

    /// Other exports whose rows tell the same costs, and which do not serve (any more).
    async fn alternatives(&self, job: &Job<'_>, payers: &[String]) -> Result<Vec<Slice>, WorkError> {
        let Slice { tenant, connection, period, .. } = &job.slice;
        let mut taken = Vec::new();
        for export in self.ingestor.table().exports(*tenant, *connection, period).await? {
            let serves = |found: &FoundExport| {
                let unit = found.units.iter().find(|unit| unit.period == *period);
                found.export == export.as_str() && unit.is_some_and(|unit| unit.superseded.is_none())
            };
            if export == job.slice.export || job.found.exports.iter().any(serves) {
                continue;
            }
            let entry = self.ledger.entry(job.scope, export.as_str(), period).await?;
            let either = [&job.slice.export, &export].into_iter().any(Export::is_cost_explorer);
            if either || entry.payers.iter().any(|payer| payers.contains(payer)) {
                taken.push(Slice { export, ..job.slice.clone() });
            }
        }
        Ok(taken)
    }

    /// Says what was committed, and writes it down.
    async fn committed(
        &self,
        job: &Job<'_>,
        entry: &mut Entry,
        pending: Pending,
        version: u64,
    ) -> Result<(), WorkError> {
        say::read(&self.bus, &job.slice, &job.found.account, entry, &pending).await?;
        entry.promote(pending, version);
        tracing::info!(export = job.export.export, version, "costs were read");
        Ok(self.keep(job, entry).await?)
    }

    async fn failed(
        &self,
        job: &Job<'_>,
        mut entry: Entry,
        attempt: Attempt,
        error: &IngestError,
    ) -> Result<(), WorkError> {
        let (lasts, reason) = (error.lasts(), ledger::reason(error));
        tracing::warn!(error = ?error, tries = attempt.tries, "a billing period could not be read this time");
        if self.patience.is_over(lasts, attempt.tries) {
            return self.give_up(job, entry, attempt, reason, lasts).await;
        }
        if matches!(error, IngestError::Export(ExportError::Changed { .. } | ExportError::Relisted)) {
            self.look_again(job).await?;
        }
        let next = self.patience.next(lasts, attempt.tries);
        entry.attempt = Some(Attempt { running: false, reason: Some(reason), next, ..attempt });
        Ok(self.keep(job, &entry).await?)
    }

    /// Has the look that found these files look once more. It comes by while anything waits.
    async fn look_again(&self, job: &Job<'_>) -> Result<(), LedgerError> {
        if let Some(found) = self.ledger.found(job.scope).await? {
            self.ledger.keep_found(job.scope, &Found { complete: false, ..found }).await?;
        }
        Ok(())
    }

    async fn give_up(
        &self,
        job: &Job<'_>,
        mut entry: Entry,
        attempt: Attempt,
        reason: String,
        lasts: Lasts,
    ) -> Result<(), WorkError> {
        if attempt.said.as_ref() != Some(&reason) {
            let (export, period) = (Some(job.export.export.as_str()), Some(&job.unit.period));
            let refused = say::Refused { scope: job.scope, export, period, reason: &reason };
            say::failed(&self.bus, &refused, say::millis(attempt.since), &format!("{:?}", attempt.fingerprint)).await?;
        }
        let next = self.patience.next(lasts, self.patience.tries);
        let (said, reason) = (Some(reason.clone()), Some(reason));
        entry.attempt = Some(Attempt { running: false, given_up: true, reason, next, said, ..attempt });
        Ok(self.keep(job, &entry).await?)
    }
}

fn find<'f>(found: &'f Found, job: &IngestPeriod) -> Option<(&'f FoundExport, &'f FoundUnit, Fingerprint)> {
    let export = found.exports.iter().find(|export| export.export == job.export)?;
    let unit = export.units.iter().find(|unit| unit.period == job.period)?;
    Some((export, unit, unit.fingerprint?))
}

/// The next try at a version: written down before it begins, so that one that ends the program counts.
fn begin(entry: &Entry, fingerprint: Fingerprint, patience: &Patience) -> Attempt {
    let before = entry.attempt_at(fingerprint).filter(|attempt| !attempt.given_up);
    let tries = before.map_or(0, |attempt| attempt.tries) + 1;
    Attempt {
        fingerprint,
        since: before.map_or_else(Timestamp::now, |attempt| attempt.since),
        tries,
        running: true,
        given_up: false,
        reason: before.and_then(|attempt| attempt.reason.clone()),
        next: patience.next(Lasts::Passes, tries),
        said: entry.attempt_at(fingerprint).and_then(|attempt| attempt.said.clone()),
    }
}
