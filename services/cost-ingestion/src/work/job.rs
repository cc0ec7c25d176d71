//! One job: read the export of one connection, and say what came of it.
//!
//! Acknowledged after the table's commit and the event. A job that comes again (we died in between) finds the commit and says the event again, with the
//! same ID. Cancel: the export's current batch is finished, nothing is committed, and the job comes again to whoever is there.

use super::{moment, same_id};
use crate::credentials::{CredentialError, Scope};
use crate::export::ExportError;
use crate::ingest::{IngestError, Ingestor, Order, Outcome, PeriodReport};
use crate::money::Amount;
use crate::table::{CostQuery, CostTable, TableError};
use contracts::costs::{
    Amount as WireAmount, BillingPeriod, CostTotal, CostsFailed, CostsIngested, Currency, IngestCosts,
};
use contracts::{CloudEvent, Message as _, Stream};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Delivery, Disposition, PublishError, Router, event};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Longest reason in an event, in characters.
const MAX_REASON: usize = 2000;

/// The consumer of jobs.
#[must_use]
pub fn consumer(workers: usize) -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::Jobs,
        durable: "cost-ingestion-jobs",
        filters: vec![IngestCosts::SUBJECT.to_owned()],
        in_flight: workers,
        ack_wait: ACK_WAIT,
        max_deliver: 8,
        backoff: Backoff { first: Duration::from_secs(2), most: Duration::from_secs(300) },
    }
}

/// Does jobs.
pub struct Worker {
    pub bus: Bus,
    pub ingestor: Ingestor,
    pub table: Arc<CostTable>,
    pub shutdown: CancellationToken,
}

/// Why a result could not be said. Trying again is right.
#[derive(Debug, thiserror::Error)]
enum SayError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Lets `worker` take every job.
#[must_use]
pub fn router(worker: Arc<Worker>) -> Router {
    Router::new().on(move |event: CloudEvent<IngestCosts>, delivery| {
        let worker = Arc::clone(&worker);
        let span =
            tracing::info_span!("costs.ingest", tenant = %event.data.tenant, connection = %event.data.connection);
        async move { worker.work(event.data, delivery).await }.instrument(span)
    })
}

impl Worker {
    async fn work(&self, job: IngestCosts, delivery: Delivery) -> Disposition {
        let order = Order {
            scope: Scope { tenant: job.tenant, connection: job.connection },
            account: job.account.clone(),
            region: job.region.clone(),
            location: job.export.clone(),
        };
        let said = match self.ingestor.ingest(&order, &self.shutdown).await {
            Ok(reports) => self.say_reports(&job, delivery, reports).await,
            Err(IngestError::Cancelled) => return Disposition::Later { after: Duration::from_secs(1) },
            Err(error) if error.is_transient() => return self.again(&job, delivery, &error).await,
            Err(error) => self.say_failed(&job, &error.to_string()).await,
        };
        match said {
            Ok(()) => Disposition::Done,
            Err(error) => {
                tracing::warn!(error = ?error, "the result of a job could not be said");
                Disposition::Retry { reason: error.to_string(), after: None }
            }
        }
    }

    /// Something that may pass; after the last try it is said as it is.
    async fn again(&self, job: &IngestCosts, delivery: Delivery, error: &IngestError) -> Disposition {
        tracing::warn!(error = ?error, attempt = delivery.attempt, "an export could not be read this time");
        let reason = error.to_string();
        if !delivery.last {
            return Disposition::Retry { reason, after: None };
        }
        if let Err(error) = self.say_failed(job, &reason).await {
            tracing::warn!(error = ?error, "the failure of a job could not be said");
        }
        match error {
            // A connection that has ended meanwhile is no fault of anybody's, and nothing to be replayed.
            IngestError::Export(ExportError::Credentials(CredentialError::NotNow { .. })) => Disposition::Done,
            _ => Disposition::Retry { reason, after: None },
        }
    }

    async fn say_reports(
        &self,
        job: &IngestCosts,
        delivery: Delivery,
        reports: Vec<PeriodReport>,
    ) -> Result<(), SayError> {
        let mut news = News::default();
        let mut refusals = Vec::new();
        for PeriodReport { period, outcome } in reports {
            match (outcome, period) {
                (Outcome::Ingested { rows, totals }, Some(period)) => {
                    let totals = totals.into_iter().map(|(currency, sums)| (currency, sums.billed, sums.effective));
                    news.add(period, rows, totals)?;
                }
                // It may have been committed by a try that died before it could say so.
                (Outcome::Unchanged, Some(period)) if delivery.attempt > 1 => {
                    self.add_known(job, period, &mut news).await?
                }
                (Outcome::Refused(error), period) => {
                    tracing::warn!(period = period.as_ref().map(BillingPeriod::as_str), error = ?error, "a billing period is refused");
                    refusals.push(period.map_or_else(|| error.to_string(), |period| format!("{period}: {error}")));
                }
                _ => {}
            }
        }
        if !news.periods.is_empty() {
            tracing::info!(periods = news.periods.len(), rows = news.rows, "costs were read");
            let id = same_id(moment(job.job.as_uuid()), &["ingested", &job.job.to_string()]);
            self.bus.publish(&CloudEvent { id, ..event(news.into_event(job)?) }).await?;
        }
        if !refusals.is_empty() {
            self.say_failed(job, &refusals.join("; ")).await?;
        }
        Ok(())
    }

    async fn add_known(&self, job: &IngestCosts, period: BillingPeriod, news: &mut News) -> Result<(), SayError> {
        let (connection, top) = (Some(job.connection), Some(1));
        let query = CostQuery { tenant: job.tenant, connection, period: Some(period.clone()), top };
        let costs = self.table.by_service(&query).await?;
        let units = |amount: WireAmount| Amount::parse(&amount.to_string()).map_or(Amount::ZERO, |read| read.amount);
        let totals = costs.totals.iter().map(|t| (t.currency.to_string(), units(t.billed), units(t.effective)));
        news.add(period, costs.rows, totals)
    }

    async fn say_failed(&self, job: &IngestCosts, reason: &str) -> Result<(), SayError> {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        tracing::warn!(reason, "an export could not be read");
        let failed = CostsFailed { tenant: job.tenant, connection: job.connection, reason };
        let id = same_id(moment(job.job.as_uuid()), &["failed", &job.job.to_string()]);
        Ok(self.bus.publish(&CloudEvent { id, ..event(failed) }).await?)
    }
}

/// What is new, over all periods of a job.
#[derive(Default)]
struct News {
    periods: Vec<BillingPeriod>,
    rows: u64,
    totals: BTreeMap<String, (Amount, Amount)>,
}

impl News {
    fn add(
        &mut self,
        period: BillingPeriod,
        rows: u64,
        totals: impl Iterator<Item = (String, Amount, Amount)>,
    ) -> Result<(), SayError> {
        // Several exports of one connection may hold the same month.
        if !self.periods.contains(&period) {
            self.periods.push(period);
        }
        self.rows += rows;
        for (currency, billed, effective) in totals {
            let sums = self.totals.entry(currency).or_default();
            let add = |a: Amount, b| a.checked_add(b).ok_or(TableError::TooLarge);
            *sums = (add(sums.0, billed)?, add(sums.1, effective)?);
        }
        Ok(())
    }

    fn into_event(self, job: &IngestCosts) -> Result<CostsIngested, TableError> {
        let wire = |amount: Amount| amount.to_decimal().map(WireAmount::new).ok_or(TableError::TooLarge);
        let total = |(currency, (billed, effective)): (String, (Amount, Amount))| {
            let currency: Currency = currency.parse().map_err(|_| TableError::BadRow("BillingCurrency"))?;
            Ok(CostTotal { currency, billed: wire(billed)?, effective: wire(effective)? })
        };
        let totals = self.totals.into_iter().map(total).collect::<Result<_, TableError>>()?;
        let (tenant, connection, account) = (job.tenant, job.connection, job.account.clone());
        Ok(CostsIngested { tenant, connection, account, periods: self.periods, rows: self.rows, totals })
    }
}
