//! What was found of an export, read at once: without jobs and without a ledger, for whoever has the files at hand.
//!
//! Periods stand alone. Doing it again does nothing more, and cancelling leaves the period in hand as it was.

use super::{IngestError, Ingestor, Order, ReadUnit, Unit};
use crate::export::{Discovered, Export, ExportError};
use crate::table::{Replaced, Slice, Sums};
use contracts::AccountId;
use contracts::costs::BillingPeriod;
use object_store::{ObjectMeta, ObjectStore};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

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

/// What reading a unit came to; nothing of it is seen yet.
#[derive(Debug)]
pub enum Taken {
    /// Its data files are written.
    Read(Box<ReadUnit>),
    /// The table holds exactly these files already.
    Unchanged,
    /// It cannot be used.
    Refused(ExportError),
}

impl Ingestor {
    /// Reads what was found of an export: every period that is not in the table in exactly this version. Doing it again does nothing more.
    ///
    /// # Errors
    /// When something failed that may pass. Periods that were committed before stay so.
    pub async fn ingest_found(
        &self,
        store: &Arc<dyn ObjectStore>,
        order: &Order,
        found: Vec<Result<Discovered, ExportError>>,
        cancel: &CancellationToken,
    ) -> Result<Vec<PeriodReport>, IngestError> {
        let mut reports = Vec::new();
        for found in found {
            let units = match found {
                Ok(found) => self.units(store, order, found).await,
                Err(error) => Err(error),
            };
            match units {
                Ok(units) => {
                    for unit in units {
                        let period = Some(unit.slice.period.clone());
                        let outcome = match self.take(store, &order.account, &unit, cancel).await? {
                            Taken::Read(read) => self.commit(&unit, *read).await?,
                            Taken::Unchanged => Outcome::Unchanged,
                            Taken::Refused(error) => Outcome::Refused(error),
                        };
                        reports.push(PeriodReport { period, outcome });
                    }
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => reports.push(PeriodReport { period: None, outcome: Outcome::Refused(error) }),
            }
        }
        Ok(reports)
    }

    /// Tells files apart by period, where no manifest does. Files without rows belong to none.
    ///
    /// # Errors
    /// When one of them cannot be read, or none has a row.
    pub async fn units(
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
            return Ok(vec![Unit { slice: slice(&found.export, period), files: found.files, mixed: false }]);
        }
        let mut periods: BTreeMap<BillingPeriod, (Vec<ObjectMeta>, bool)> = BTreeMap::new();
        for file in &found.files {
            // One file that cannot be told spoils all: without it, its period would look complete and be too cheap.
            let of_file = self.periods_of(store, file, found.thorough).await?;
            let mixed = of_file.len() > 1;
            for period in of_file {
                let (files, any_mixed) = periods.entry(period).or_default();
                files.push(file.clone());
                *any_mixed |= mixed;
            }
        }
        if periods.is_empty() {
            return Err(ExportError::without_rows(found.files.first()));
        }
        let unit = |(period, (files, mixed))| Unit { slice: slice(&found.export, period), files, mixed };
        Ok(periods.into_iter().map(unit).collect())
    }

    /// Reads a unit, unless the table holds it in exactly this version.
    ///
    /// # Errors
    /// When something failed that may pass.
    pub async fn take(
        &self,
        store: &Arc<dyn ObjectStore>,
        account: &AccountId,
        unit: &Unit,
        cancel: &CancellationToken,
    ) -> Result<Taken, IngestError> {
        if self.table().holds(&unit.slice, unit.fingerprint()).await? {
            return Ok(Taken::Unchanged);
        }
        let rows = Arc::default();
        match self.read(store, account, unit, &rows, cancel).instrument(span(unit)).await {
            Ok(read) => Ok(Taken::Read(Box::new(read))),
            Err(IngestError::Export(error)) if !error.is_transient() => Ok(Taken::Refused(error)),
            Err(error) => Err(error),
        }
    }

    /// Puts what was read of a unit into the table, in one commit.
    ///
    /// # Errors
    /// When the table fails. Reading the unit again is right.
    pub async fn commit(&self, unit: &Unit, read: ReadUnit) -> Result<Outcome, IngestError> {
        let ReadUnit { written, note, .. } = read;
        let (rows, totals) = (written.rows, written.totals.clone());
        let replaced = self.table().replace(&unit.slice, unit.fingerprint(), written, note);
        Ok(match replaced.instrument(span(unit)).await? {
            Replaced::Committed { .. } => Outcome::Ingested { rows, totals },
            Replaced::Unchanged => Outcome::Unchanged,
        })
    }
}

fn span(unit: &Unit) -> tracing::Span {
    let Slice { tenant, connection, period, .. } = &unit.slice;
    tracing::info_span!("costs.period", %tenant, %connection, %period, files = unit.files.len())
}
