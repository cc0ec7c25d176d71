//! The look for exports: what a connection has, in which version, compared with what was read.
//!
//! One job for each connection, when it is verified and then on the schedule. It writes down what it found (`ledger`), orders the first period, and then
//! only looks from time to time whether the connection's periods go on, until nothing is left: so whatever dies, somebody goes on. A newer look of the
//! same connection ends an older one. Acknowledged when all periods are read or given up. Cancel: the place in hand is looked at to the end.

use super::chain::{Chain, Next, OrderError};
use super::find::{self, Connected, FindExports, Place};
use super::gate::Gate;
use super::ledger::{self, Failure, Found, FoundExport, FoundUnit, Ledger, LedgerError};
use super::patience::Patience;
use super::place::{self, Looker};
use super::{choose, moment, say};
use crate::credentials::Scope;
use crate::export::{ExportError, Lasts};
use crate::ingest::Ingestor;
use crate::table::{Slice, TableError};
use contracts::costs::DiscoverExports;
use contracts::{CloudEvent, JobId, Message as _, Stream, Timestamp};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Delivery, Disposition, PublishError, Router};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;

/// Connections that an instance looks at at the same time.
const LOOKS: usize = 4;

/// The consumer of looks.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    ConsumerSpec {
        stream: Stream::Jobs,
        durable: "cost-ingestion-discoveries",
        filters: vec![DiscoverExports::SUBJECT.to_owned()],
        in_flight: LOOKS,
        ack_wait: ACK_WAIT,
        // A look waits in the stream until everything is read: it comes back many times.
        max_deliver: 100_000,
        backoff: Backoff { first: Duration::from_secs(2), most: Duration::from_secs(60) },
    }
}

/// Looks for exports.
pub struct Discovery {
    pub bus: Bus,
    pub ingestor: Arc<Ingestor>,
    pub ledger: Ledger,
    pub finders: Vec<Arc<dyn FindExports>>,
    pub patience: Patience,
    pub gate: Arc<Gate>,
}

/// Why a look did not come to its end. Trying again is right.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A gate for looks.
#[must_use]
pub fn gate() -> Arc<Gate> {
    Gate::new(LOOKS)
}

/// Lets `discovery` take every job.
#[must_use]
pub fn router(discovery: Arc<Discovery>) -> Router {
    Router::new().on(move |event: CloudEvent<DiscoverExports>, delivery| {
        let discovery = Arc::clone(&discovery);
        let span =
            tracing::info_span!("costs.discover", tenant = %event.data.tenant, connection = %event.data.connection);
        async move {
            discovery.work(&event.data, delivery).await.unwrap_or_else(|error| {
                tracing::warn!(error = ?error, "the look for exports did not come to its end");
                Disposition::Retry { reason: error.to_string(), after: None }
            })
        }
        .instrument(span)
    })
}

impl Discovery {
    async fn work(&self, job: &DiscoverExports, delivery: Delivery) -> Result<Disposition, LookError> {
        let scope = Scope { tenant: job.tenant, connection: job.connection };
        let before = self.ledger.found(scope).await?;
        if let Some(before) = &before {
            if before.job == job.job && before.complete {
                return self.watch(scope).await;
            }
            if before.job != job.job && began(before.job) > began(job.job) {
                return Ok(Disposition::Done);
            }
        }
        let Some(_place) = self.gate.enter(job.tenant) else {
            return Ok(Disposition::Later { after: self.patience.turn(delivery) });
        };
        let found = self.look(job, before).await?;
        if found.complete {
            return self.watch(scope).await;
        }
        let next = found.failures.iter().filter(|failure| !failure.given_up).map(|failure| failure.next).min();
        // What could be found is read meanwhile.
        self.chain().order_next(scope, 0).await?;
        Ok(Disposition::Later { after: self.patience.until(next) })
    }

    fn chain(&self) -> Chain {
        Chain { bus: self.bus.clone(), ledger: self.ledger.clone(), patience: self.patience }
    }

    /// Sees to it that the connection's periods go on.
    async fn watch(&self, scope: Scope) -> Result<Disposition, LookError> {
        Ok(match self.chain().order_next(scope, 0).await? {
            Next::InHand => Disposition::Later { after: self.patience.look },
            Next::At(at) => Disposition::Later { after: self.patience.until(Some(at)) },
            Next::Nothing => Disposition::Done,
        })
    }

    async fn look(&self, job: &DiscoverExports, before: Option<Found>) -> Result<Found, LookError> {
        let scope = Scope { tenant: job.tenant, connection: job.connection };
        let (account, region, named) = (job.account.clone(), job.region.clone(), job.named.clone());
        let connected = Connected { scope, account, region, named };
        let (places, errors) = find::places(&self.finders, &connected).await;
        // Tries are counted anew for each job; what was said stays said.
        let of_job = before.as_ref().is_some_and(|before| before.job == job.job);
        let earlier = before.iter().flat_map(|before| before.failures.clone());
        let earlier: Vec<Failure> =
            earlier.map(|failure| Failure { tries: if of_job { failure.tries } else { 0 }, ..failure }).collect();
        let mut failures = Vec::new();
        for (finder, error) in errors {
            failures.push(self.failure(finder, &error, &earlier));
        }
        let known = before.as_ref().map_or(&[][..], |before| &before.exports);
        let looker = Looker { ingestor: &self.ingestor, ledger: &self.ledger, scope, account: &job.account, known };
        let (mut exports, mut stores) = (Vec::new(), Vec::new());
        for place in &places {
            let looked = match looker.open(place).await {
                Ok(store) => looker.look(&store, place).await.map(|seen| (store, seen)),
                Err(error) => Err(error.into()),
            };
            match looked {
                Ok((store, seen)) => {
                    exports.extend(seen);
                    stores.push((place.location.clone(), store));
                }
                Err(place::PlaceError::Ledger(error)) => return Err(error.into()),
                Err(place::PlaceError::Export(error)) => {
                    failures.push(self.failure(&name(place), &error, &earlier));
                    exports.extend(known.iter().filter(|export| export.place == place.location).cloned());
                }
            }
        }
        for (export, error) in looker.compare(&mut exports, &stores).await? {
            failures.push(self.failure(&export, &error, &earlier));
        }
        choose::supersede(&mut exports);
        self.heal(scope, &exports).await?;
        let complete = failures.iter().all(|failure| failure.given_up);
        let mut found =
            Found { job: job.job, at: Timestamp::now(), account: job.account.clone(), exports, failures, complete };
        self.say(scope, before.as_ref(), &mut found).await?;
        self.ledger.keep_found(scope, &found).await?;
        Ok(found)
    }

    fn failure(&self, place: &str, error: &ExportError, earlier: &[Failure]) -> Failure {
        tracing::warn!(place, error = ?error, "exports could not be looked for this time");
        let earlier = earlier.iter().find(|failure| failure.place == place);
        let said = earlier.and_then(|failure| failure.said.clone());
        let (lasts, tries) = (error.lasts(), earlier.map_or(0, |failure| failure.tries) + 1);
        let given_up = self.patience.is_over(lasts, tries);
        // The schedule looks again in any case.
        let lasts = if given_up { Lasts::Passes } else { lasts };
        let next = if given_up { Timestamp::now().plus(self.patience.soon) } else { self.patience.next(lasts, tries) };
        Failure { place: place.to_owned(), reason: ledger::reason(error), tries, given_up, next, said }
    }

    /// Says what is given up, and which periods cannot even be told: each reason once, and again when it has changed.
    async fn say(&self, scope: Scope, before: Option<&Found>, found: &mut Found) -> Result<(), LookError> {
        let since = began(found.job);
        let job = found.job.to_string();
        for failure in found.failures.iter_mut().filter(|failure| failure.given_up) {
            let (export, reason) = (Some(failure.place.as_str()), failure.reason.as_str());
            if failure.said.as_deref() != Some(reason) {
                say::failed(&self.bus, &say::Refused { scope, export, period: None, reason }, since, &job).await?;
            }
            failure.said = Some(failure.reason.clone());
        }
        let known = |export: &FoundExport| before?.exports.iter().find(|known| known.export == export.export);
        for export in &found.exports {
            for unit in &export.units {
                let Some(reason) = &unit.failure else { continue };
                let said = |known: &FoundUnit| known.period == unit.period && known.failure.as_ref() == Some(reason);
                if !known(export).is_some_and(|known| known.units.iter().any(said)) {
                    let (name, period) = (Some(export.export.as_str()), Some(&unit.period));
                    say::failed(&self.bus, &say::Refused { scope, export: name, period, reason }, since, &job).await?;
                }
            }
        }
        Ok(())
    }

    /// The table's log has the last word on what the table holds: rows that another export took away are missing, whatever the ledger says.
    async fn heal(&self, scope: Scope, exports: &[FoundExport]) -> Result<(), LookError> {
        let (mut entries, mut slices) = (Vec::new(), Vec::new());
        for (export, unit) in choose::in_order(exports) {
            let Some(fingerprint) = unit.fingerprint else { continue };
            let entry = self.ledger.entry(scope, &export.export, &unit.period).await?;
            if entry.holds(fingerprint) {
                let period = unit.period.clone();
                let export = crate::export::Export::named(&export.export);
                slices
                    .push((Slice { tenant: scope.tenant, connection: scope.connection, export, period }, fingerprint));
                entries.push(entry);
            }
        }
        let held = self.ingestor.table().holds_each(&slices).await?;
        for (((slice, _), mut entry), held) in slices.into_iter().zip(entries).zip(held) {
            if !held {
                entry.taken_by = Some("the table's log, which holds other rows or none".to_owned());
                self.ledger.keep_entry(scope, slice.export.as_str(), &slice.period, &entry).await?;
            }
        }
        Ok(())
    }
}

/// When a job was ordered: later looks end earlier ones.
fn began(job: JobId) -> u64 {
    moment(job.as_uuid())
}

fn name(place: &Place) -> String {
    crate::export::Export::new(&place.location.bucket, &place.location.prefix).as_str().to_owned()
}
