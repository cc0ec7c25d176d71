//! The order of a connection's periods: one is in the stream at a time, and orders the next when it is done.
//!
//! So connections take turns, whoever they are and however many instances there are: a giant's next period waits behind everybody who came meanwhile. The
//! server itself sees to it that there is one: a job is published only if the last one on the connection's subject is the one in hand, or none.

use super::choose::{self, Due};
use super::ledger::{Ledger, LedgerError};
use super::patience::Patience;
use crate::credentials::Scope;
use contracts::costs::IngestPeriod;
use contracts::{CloudEvent, JobId, Timestamp};
use messaging::{Bus, PublishError, event};

/// What came of ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A period is in the stream: ours, or another one.
    InHand,
    /// Nothing before then.
    At(Timestamp),
    /// Nothing is left.
    Nothing,
}

/// Why nothing could be ordered. Trying again is right.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Orders periods.
#[derive(Clone)]
pub struct Chain {
    pub bus: Bus,
    pub ledger: Ledger,
    pub patience: Patience,
}

impl Chain {
    /// Orders the period that is due next, if the last order of this connection that is still in the stream is number `last` (0: if there is none).
    ///
    /// # Errors
    /// When the ledger or the stream cannot be reached.
    pub async fn order_next(&self, scope: Scope, last: u64) -> Result<Next, OrderError> {
        let Some(found) = self.ledger.found(scope).await? else { return Ok(Next::Nothing) };
        let mut soonest: Option<Timestamp> = None;
        for (export, unit) in choose::in_order(&found.exports) {
            if unit.superseded.is_some() {
                continue;
            }
            let entry = self.ledger.entry(scope, &export.export, &unit.period).await?;
            match choose::due(unit, &entry) {
                Due::Never => {}
                Due::At(at) => soonest = Some(soonest.map_or(at, |soonest| soonest.min(at))),
                Due::Now => {
                    let id = contracts::EventId::new();
                    let job = IngestPeriod {
                        job: JobId::from_uuid(id.as_uuid()),
                        tenant: scope.tenant,
                        connection: scope.connection,
                        export: export.export.clone(),
                        period: unit.period.clone(),
                    };
                    self.bus.publish_after(&CloudEvent { id, ..event(job) }, last).await?;
                    return Ok(Next::InHand);
                }
            }
        }
        Ok(soonest.map_or(Next::Nothing, Next::At))
    }
}
