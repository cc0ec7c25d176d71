//! When which principal is visited.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use contracts::TenantId;
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
    time::Instant,
};
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

    /// Has the change of its access key gone on with.
    pub fn go_on(&self, tenant: TenantId) {
        // Too many are waiting already, or the service ends: the next round goes on with it.
        let _ = self.0.try_send((tenant, Why::Step));
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

/// One visit's end: when to come again and why, and what was seen.
type Visited = (Option<(Duration, Why)>, Option<Ages>);

/// Which visits are to come: of one tenant at most one for each reason, so that ten thousand doubts are one.
#[derive(Debug, Default)]
struct Planned {
    by_tenant: BTreeMap<(TenantId, Why), Instant>,
    by_time: BTreeSet<(Instant, TenantId, Why)>,
}

impl Planned {
    /// One that is planned already stays as it is: after a visit that failed, nobody hurries the next.
    fn add(&mut self, at: Instant, tenant: TenantId, why: Why) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.by_tenant.entry((tenant, why)) {
            place.insert(at);
            self.by_time.insert((at, tenant, why));
        }
    }

    /// The first whose tenant nobody is visiting.
    fn first(&self, in_hand: &BTreeMap<Id, TenantId>) -> Option<(Instant, TenantId, Why)> {
        let busy = |tenant: &TenantId| in_hand.values().any(|visited| visited == tenant);
        self.by_time.iter().find(|(_, tenant, _)| !busy(tenant)).copied()
    }

    fn remove(&mut self, (at, tenant, why): (Instant, TenantId, Why)) {
        self.by_tenant.remove(&(tenant, why));
        self.by_time.remove(&(at, tenant, why));
    }

    fn forget_rounds(&mut self) {
        self.by_tenant.retain(|(_, why), _| *why != Why::Round);
        self.by_time.retain(|(_, _, why)| *why != Why::Round);
    }
}

struct Rounds {
    keeper: Arc<Keeper>,
    planned: Planned,
    visits: JoinSet<Visited>,
    /// Whom each visit is at: a second one at the same tenant would find the lease taken, and its reason would be lost.
    in_hand: BTreeMap<Id, TenantId>,
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
    let mut rounds = Rounds::new(keeper);
    loop {
        let first =
            rounds.planned.first(&rounds.in_hand).map_or(rounds.next_round, |(at, ..)| at.min(rounds.next_round));
        let room = rounds.visits.len() < AT_ONCE;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some((tenant, why)) = ordered.recv() => {
                rounds.planned.add(Instant::now(), tenant, why);
            }
            Some(ended) = rounds.visits.join_next_with_id() => rounds.ended(ended),
            () = tokio::time::sleep_until(first), if room => rounds.begin().await,
        }
    }
}

impl Rounds {
    fn new(keeper: Arc<Keeper>) -> Self {
        let (planned, visits, in_hand) = (Planned::default(), JoinSet::new(), BTreeMap::new());
        Self { keeper, planned, visits, in_hand, next_round: Instant::now(), oldest: Ages::default() }
    }

    /// The next round, or the next visit.
    async fn begin(&mut self) {
        let now = Instant::now();
        if self.next_round <= now {
            return self.round(now).await;
        }
        if let Some(next) = self.planned.first(&self.in_hand).filter(|(at, ..)| *at <= now) {
            self.planned.remove(next);
            let (keeper, (_, tenant, why)) = (self.keeper.clone(), next);
            let visit = self.visits.spawn(async move { visit(&keeper, tenant, why).await });
            self.in_hand.insert(visit.id(), tenant);
        }
    }

    async fn round(&mut self, now: Instant) {
        self.keeper.metrics.principals(self.oldest.key, self.oldest.look);
        self.oldest = Ages::default();
        let interval = self.keeper.interval;
        let maker = &self.keeper.maker;
        match maker.accounts.fullness(maker.store.as_ref(), Duration::ZERO).await {
            Ok(all) => all.iter().for_each(|one| self.keeper.metrics.fullness(one)),
            Err(error) => tracing::warn!(%error, "how full the provider's accounts are is not known at the moment"),
        }
        match self.keeper.maker.store.tenants().await {
            Ok(tenants) => {
                // The same one each time at the same distance: nobody waits longer than an interval.
                let count = u32::try_from(tenants.len()).unwrap_or(u32::MAX).max(1);
                let turns = (0..count).map(|turn| now + interval / count * turn);
                self.planned.forget_rounds();
                turns.zip(tenants).for_each(|(at, tenant)| self.planned.add(at, tenant, Why::Round));
                self.next_round = now + interval;
            }
            Err(error) => {
                tracing::warn!(%error, "the principals cannot be listed, trying again");
                self.next_round = now + TRY_AGAIN;
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, Visited), tokio::task::JoinError>) {
        let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let tenant = self.in_hand.remove(&id);
        match ended {
            Ok((_, (again, ages))) => {
                if let (Some((after, why)), Some(tenant)) = (again, tenant) {
                    self.planned.add(Instant::now() + after, tenant, why);
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
    let again = match keeper.visit(tenant, why).await {
        Ok(again) => again.map(|after| (after, Why::Step)),
        Err(error) => {
            tracing::warn!(%tenant, error = whole(&error), "a principal could not be looked after: it is visited again");
            Some((AFTER_FAILURE, why))
        }
    };
    (again, keeper.ages(tenant).await.ok().flatten())
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
