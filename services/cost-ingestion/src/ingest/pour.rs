//! The heavy part of reading a period: a few threads that each take a part, map its rows and gather them, until no part is left; then the same threads write all of
//! them in order.
//!
//! The threads share nothing but the list of parts and two counters, so two of them take half the time of one. Cancel: each stops after the batch, or the span, in hand.
//! Failure: the first one stops the others; what was written is handed back, to be discarded.

use super::{IngestError, Payers, Tally};
use crate::export::{self, ExportError, Limits, Part};
use crate::source::{Made, Many, Mapped};
use crate::table::{self, CostTable, Gathered, Gatherer, Slice, Written};
use arrow_array::{BooleanArray, RecordBatch};
use contracts::AccountId;
use object_store::path::Path;
use parquet::errors::ParquetError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What the threads of one period share.
pub(super) struct Pour {
    pub(super) table: Arc<CostTable>,
    pub(super) slice: Slice,
    pub(super) mixed: bool,
    pub(super) payers: Payers,
    pub(super) account: AccountId,
    pub(super) limits: Limits,
    pub(super) parts: Mutex<VecDeque<Part>>,
    pub(super) rows: Arc<AtomicU64>,
    pub(super) rounded: AtomicU64,
    pub(super) tally: Mutex<Tally>,
    pub(super) stop: CancellationToken,
}

/// Runs to the end: what was written, and the first failure.
pub(super) async fn run(pour: &Arc<Pour>, threads: usize) -> (Written, Option<IngestError>) {
    let parts = pour.parts.lock().unwrap_or_else(PoisonError::into_inner).len();
    let runtime = Handle::current();
    let all: Vec<_> = (0..threads.min(parts).max(1))
        .map(|_| {
            let (pour, runtime, span) = (Arc::clone(pour), runtime.clone(), tracing::Span::current());
            tokio::task::spawn_blocking(move || span.in_scope(|| pour.work(&runtime)))
        })
        .collect();
    let (mut gathered, mut failed) = (Gathered::default(), None);
    for thread in all {
        match thread.await {
            Ok(Ok(more)) => failed = failed.or(gathered.merge(more).map_err(IngestError::from).err()),
            Ok(Err(error)) => failed = failed.or(Some(error)),
            // Without a word on it, it would be begun again without end.
            Err(error) if error.is_panic() => failed = failed.or(Some(ExportError::BrokeOff.into())),
            Err(_) => failed = failed.or(Some(IngestError::Cancelled)),
        }
    }
    if failed.is_some() || pour.stop.is_cancelled() || gathered.rows() == 0 {
        return (Written::default(), failed);
    }
    let sorted = Arc::new(gathered.sorted());
    let (written, result) = table::write(sorted, &pour.table, &pour.slice, threads, &pour.stop).await;
    (written, result.err().map(IngestError::from))
}

/// Does something that blocks in a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Handle) -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    let runtime = Handle::current();
    let result = tokio::task::spawn_blocking(move || work(&runtime)).await;
    result.map_err(|error| export::failed(path, ParquetError::External(Box::new(error))))?
}

/// A column, what its texts must fit, and the reason if they do not.
type Asked<'a> = (&'a str, &'a dyn Fn(&str) -> bool, &'a str);

impl Pour {
    fn work(&self, runtime: &Handle) -> Result<Gathered, IngestError> {
        let mut gatherer = Gatherer::default();
        let mut read = || {
            while let Some(part) = self.next() {
                self.part(&part, &mut gatherer, runtime)?;
            }
            Ok(())
        };
        let result = read().and_then(|()| Ok(gatherer.finish()?));
        if result.is_err() {
            self.stop.cancel();
        }
        result
    }

    fn next(&self) -> Option<Part> {
        if self.stop.is_cancelled() {
            return None;
        }
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn part(&self, part: &Part, gatherer: &mut Gatherer, runtime: &Handle) -> Result<(), IngestError> {
        let (source, path) = (part.file().source(), part.file().path());
        let of = |source| ExportError::Source { path: path.clone(), source };
        let mut reader = part.read(&self.limits, runtime, |name| source.wants(name))?;
        while let Some(mut batch) = reader.next()? {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            if self.mixed {
                let periods = source.periods(&batch, reader.layout()).map_err(of)?;
                batch = self.ours(&batch, &periods).map_err(|error| of(crate::source::SourceError::Arrow(error)))?;
                if batch.num_rows() == 0 {
                    continue;
                }
            }
            let mapped = source.map(&batch, reader.layout()).map_err(of)?;
            self.check(path, &mapped)?;
            let tally = Tally::of(&mapped)?;
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).merge(tally)?;
            self.rounded.fetch_add(mapped.rounded, Ordering::Relaxed);
            let rows = self.rows.fetch_add(mapped.rows as u64, Ordering::Relaxed) + mapped.rows as u64;
            if rows > self.limits.period_rows {
                let (what, limit) = ("rows of the period".to_owned(), self.limits.period_rows);
                return Err(ExportError::TooMuch { what, found: rows, limit }.into());
            }
            gatherer.take(&mapped)?;
        }
        Ok(())
    }

    fn is_ours(&self, start: i64) -> bool {
        export::period_of(start).as_ref() == Some(&self.slice.period)
    }

    fn ours(&self, batch: &RecordBatch, periods: &Many<i64>) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let mut last = (i64::MIN, false);
        let mut ours = |row| {
            let start = periods.at(row).unwrap_or(i64::MIN);
            if last.0 != start {
                last = (start, self.is_ours(start));
            }
            Some(last.1)
        };
        let keep: BooleanArray = (0..batch.num_rows()).map(&mut ours).collect();
        arrow_select::filter::filter_record_batch(batch, &keep)
    }

    /// What every source's rows must fit: the period they were announced for, a payer that is believed, a currency.
    fn check(&self, path: &Path, mapped: &Mapped) -> Result<(), ExportError> {
        let bad = |why: &str| Err(ExportError::BadRows { path: path.clone(), why: why.to_owned() });
        let column = |name| mapped.column(name);
        let Some(Made::Instants(starts)) = column("BillingPeriodStart") else { return bad("a column is missing") };
        let strange = match starts {
            Many::One(start) => !self.is_ours(*start),
            Many::Each(all) => {
                let mut last = i64::MIN;
                all.iter().any(|start| std::mem::replace(&mut last, *start) != *start && !self.is_ours(*start))
            }
        };
        if strange {
            return bad("a row belongs to another billing period than its file");
        }
        let is_code = |text: &str| text.parse::<contracts::costs::Currency>().is_ok();
        let believed = |text: &str| self.payers.accept(text, &self.account);
        let payer = "a row's payer is not the connection's account; if that is right, the operator names it in ROLEBRIDGE_COST_PAYERS";
        let asked: [Asked<'_>; 2] = [
            ("BillingAccountId", &believed, payer),
            ("BillingCurrency", &is_code, "a row's currency is no currency code"),
        ];
        for (name, fits, why) in asked {
            let Some(Made::Text(text)) = column(name) else { return bad("a column is missing") };
            let fits = text.ask(false, fits);
            let all = match &fits {
                Many::One(fits) => *fits,
                Many::Each(fits) => fits.iter().all(|fits| *fits),
            };
            if !all {
                return bad(why);
            }
        }
        Ok(())
    }
}
