//! When which principal is visited.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use contracts::TenantId;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::keeper::{Ages, Keeper, Why, whole};

/// Visits at the same time: about as many calls to IAM a second as an account is given.
const AT_ONCE: usize = 8;
/// Orders that wait; more are dropped, since the round comes anyway.
const MOST_ORDERS: usize = 1024;
/// After a visit that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// After a list that could not be read.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Asks for a visit ahead of its turn. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<(TenantId, Why)>);

impl Orders {
    /// Has the principal looked at: somebody has found that it does not work.
    pub fn doubt(&self, tenant: TenantId) {
        // Too many are waiting already, or the service ends.
        let _ = self.0.try_send((tenant, Why::Doubt));
    }

    /// Has its access key changed.
    pub fn rotate(&self, tenant: TenantId) {
        // Too many are waiting already, or the service ends.
        let _ = self.0.try_send((tenant, Why::Rotate));
    }
}

/// What is ordered comes out of the other end, which [`keep`] takes.
#[must_use]
pub fn orders() -> (Orders, mpsc::Receiver<(TenantId, Why)>) {
    let (send, receive) = mpsc::channel(MOST_ORDERS);
    (Orders(send), receive)
}

/// One visit's end: whose it was, and when to come again.
type Visited = (TenantId, Option<Duration>, Option<Ages>);

struct Rounds {
    keeper: Arc<Keeper>,
    planned: BTreeSet<(Instant, TenantId, Why)>,
    visits: JoinSet<Visited>,
    next_round: Instant,
    oldest: Ages,
}

/// Visits principals until shutdown.
///
/// Cancel: takes up no more visits; those in hand are left where they are, for the next run to go on. Failure: none ends it; a visit that
/// fails is logged, and what it left half done is gone on with after a minute.
///
/// # Errors
/// Never.
pub async fn keep(
    keeper: Arc<Keeper>,
    mut ordered: mpsc::Receiver<(TenantId, Why)>,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let (planned, visits) = (BTreeSet::new(), JoinSet::new());
    let mut rounds = Rounds { keeper, planned, visits, next_round: Instant::now(), oldest: Ages::default() };
    loop {
        let first = rounds.planned.first().map_or(rounds.next_round, |(at, ..)| (*at).min(rounds.next_round));
        let room = rounds.visits.len() < AT_ONCE;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some((tenant, why)) = ordered.recv() => {
                rounds.planned.insert((Instant::now(), tenant, why));
            }
            Some(ended) = rounds.visits.join_next() => rounds.ended(ended),
            () = tokio::time::sleep_until(first), if room => rounds.begin().await,
        }
    }
}

impl Rounds {
    /// The next visit, or the next round.
    async fn begin(&mut self) {
        let now = Instant::now();
        match self.planned.pop_first() {
            Some((at, tenant, why)) if at <= now => {
                let keeper = self.keeper.clone();
                self.visits.spawn(async move { visit(&keeper, tenant, why).await });
            }
            other => {
                self.planned.extend(other);
                if self.next_round <= now {
                    self.round(now).await;
                }
            }
        }
    }

    async fn round(&mut self, now: Instant) {
        self.keeper.metrics.principals(self.oldest.key, self.oldest.look);
        self.oldest = Ages::default();
        let interval = self.keeper.interval;
        match self.keeper.maker.store.tenants().await {
            Ok(tenants) => {
                // The same one each time at the same distance: nobody waits longer than an interval.
                let count = u32::try_from(tenants.len()).unwrap_or(u32::MAX).max(1);
                let turns = (0..count).map(|turn| now + interval / count * turn);
                self.planned.retain(|(_, _, why)| *why != Why::Round);
                self.planned.extend(turns.zip(tenants).map(|(at, tenant)| (at, tenant, Why::Round)));
                self.next_round = now + interval;
            }
            Err(error) => {
                tracing::warn!(%error, "the principals cannot be listed, trying again");
                self.next_round = now + TRY_AGAIN;
            }
        }
    }

    fn ended(&mut self, ended: Result<Visited, tokio::task::JoinError>) {
        match ended {
            Ok((tenant, again, ages)) => {
                if let Some(after) = again {
                    self.planned.insert((Instant::now() + after, tenant, Why::Step));
                }
                let ages = ages.unwrap_or_default();
                self.oldest.key = self.oldest.key.max(ages.key);
                self.oldest.look = self.oldest.look.max(ages.look);
            }
            Err(error) => tracing::error!(%error, "a visit of a principal broke: this is a bug, please report it"),
        }
    }
}

async fn visit(keeper: &Keeper, tenant: TenantId, why: Why) -> Visited {
    let again = keeper.visit(tenant, why).await.unwrap_or_else(|error| {
        tracing::warn!(%tenant, error = whole(&error), "a principal could not be looked after: it is visited again");
        Some(AFTER_FAILURE)
    });
    let ages = keeper.ages(tenant).await.ok().flatten();
    (tenant, again, ages)
}
