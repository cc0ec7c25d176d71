use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::{StreamExt as _, stream::FuturesUnordered};

use super::*;

/// A bucket in memory, for as many instances as are made with it.
#[derive(Default)]
struct Memory {
    windows: Mutex<HashMap<AccountId, (Window, u64)>>,
    away: AtomicBool,
    unreadable: AtomicBool,
}

#[async_trait]
impl Windows for Memory {
    async fn get(&self, account: &AccountId) -> Result<(Option<Window>, u64), WindowError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let stored = lock(&self.windows).get(account).copied();
        let unreadable = self.unreadable.load(Ordering::Acquire);
        Ok(stored.map_or((None, 0), |(window, revision)| ((!unreadable).then_some(window), revision)))
    }

    async fn put(&self, account: &AccountId, window: Window, replaces: u64) -> Result<u64, WindowError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.away.load(Ordering::Acquire) {
            return Err(WindowError::Unavailable { operation: "written", problem: "away".to_owned() });
        }
        let mut windows = lock(&self.windows);
        if windows.get(account).map_or(0, |(_, revision)| *revision) != replaces {
            return Err(WindowError::Conflict);
        }
        windows.insert(account.clone(), (window, replaces + 1));
        Ok(replaces + 1)
    }
}

fn account() -> AccountId {
    AccountId::parse("111111111111").unwrap()
}

fn running(rate: u32, memory: &Arc<Memory>, shutdown: &CancellationToken) -> Budget {
    let (budget, accounts) = Budget::with(Rate::per_second(rate), memory.clone());
    let metrics = Metrics::new(&opentelemetry::global::meter("test"));
    tokio::spawn(budget.clone().run(accounts, metrics, shutdown.clone()));
    budget
}

/// When each of `calls` was handed out, in seconds from the start, with its tenant.
async fn served(
    calls: impl IntoIterator<Item = (Budget, TenantId)>,
    patience: Duration,
) -> Vec<(f64, TenantId, Result<(), Busy>)> {
    let (account, began) = (account(), Instant::now());
    let calls = calls.into_iter().map(|(budget, tenant)| {
        let account = account.clone();
        async move {
            let result = budget.take(&account, tenant, patience).await;
            (began.elapsed().as_secs_f64(), tenant, result)
        }
    });
    calls.collect::<FuturesUnordered<_>>().collect().await
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn three_instances_together_keep_to_the_rate() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let instances: Vec<_> = (0..3).map(|_| running(200, &memory, &shutdown)).collect();
    let calls = (0..1800).map(|n| (instances[n % 3].clone(), TenantId::new()));
    let times: Vec<f64> = served(calls, LONG)
        .await
        .into_iter()
        .map(|(at, _, result)| {
            result.unwrap();
            at
        })
        .collect();
    for from in &times {
        let within = times.iter().filter(|at| (*from..from + 1.0).contains(*at)).count();
        // A second, and the windows at its ends.
        assert!(within <= 200 + 2 * 20, "{within} in the second from {from}");
    }
    let last = times.iter().copied().fold(0.0, f64::max);
    assert!(last < 1800.0 / 200.0 * 1.5, "the budget is used: {last} s");
}

#[tokio::test(start_paused = true)]
async fn a_giant_does_not_starve_the_others() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let budget = running(100, &memory, &shutdown);
    let giant = TenantId::new();
    let calls: Vec<_> = (0..2000).map(|_| giant).chain((0..50).map(|_| TenantId::new())).collect();
    let times = served(calls.into_iter().map(|tenant| (budget.clone(), tenant)), LONG).await;
    let last = |small: bool| {
        times.iter().filter(|(_, tenant, _)| (*tenant != giant) == small).map(|(at, _, _)| *at).fold(0.0, f64::max)
    };
    assert!(last(true) < 2.0, "the small ones waited {} s", last(true));
    assert!(last(false) > 15.0);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_told_when_to_come_again() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let budget = running(10, &memory, &shutdown);
    let (giant, small) = (TenantId::new(), TenantId::new());
    let calls = std::iter::repeat_n((budget.clone(), giant), 200).chain([(budget.clone(), small)]);
    let times = served(calls, Duration::from_secs(5)).await;
    let refused: Vec<_> = times.iter().filter(|(_, _, result)| result.is_err()).collect();
    assert!((140..=155).contains(&refused.len()), "{}", refused.len());
    for (at, tenant, result) in refused {
        assert_eq!(*tenant, giant);
        assert!(*at > 4.9 || result.unwrap_err().again_after > Duration::from_secs(5), "{at} {result:?}");
    }
    assert_eq!(budget.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_all_instances_down_and_passes() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let instances: Vec<_> = (0..2).map(|_| running(500, &memory, &shutdown)).collect();
    let burst = |count: usize| served((0..count).map(|n| (instances[n % 2].clone(), TenantId::new())), LONG);
    burst(10).await;
    for _ in 0..6 {
        instances[0].throttled(&account());
        tokio::time::sleep(Duration::from_millis(150)).await;
        burst(2).await;
    }
    let last = |times: &[(f64, TenantId, Result<(), Busy>)]| times.iter().map(|(at, _, _)| *at).fold(0.0, f64::max);
    let slow = last(&burst(100).await);
    assert!(slow > 0.5, "100 calls took {slow} s");
    burst(1500).await;
    let again = last(&burst(500).await);
    assert!((0.7..2.0).contains(&again), "500 calls took {again} s");
}

#[tokio::test(start_paused = true)]
async fn without_the_bucket_nothing_is_handed_out_and_with_it_all_is() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    memory.away.store(true, Ordering::Release);
    let budget = running(100, &memory, &shutdown);
    assert!(budget.take(&account(), TenantId::new(), Duration::from_secs(3)).await.is_err());
    memory.away.store(false, Ordering::Release);
    budget.take(&account(), TenantId::new(), Duration::from_secs(3)).await.unwrap();
    shutdown.cancel();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(budget.take(&account(), TenantId::new(), LONG).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for a budget that has ended");
}

#[tokio::test(start_paused = true)]
async fn accounts_have_budgets_of_their_own_and_those_who_left_cost_nothing() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let budget = running(10, &memory, &shutdown);
    let other = AccountId::parse("222222222222").unwrap();
    let (mut used, began) = (BTreeMap::new(), Instant::now());
    for _ in 0..10 {
        for account in [account(), other.clone()] {
            budget.take(&account, TenantId::new(), LONG).await.unwrap();
            *used.entry(account).or_insert(0) += 1;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(1) && used.len() == 2);
    let left: Vec<_> = (0..50).map(|_| budget.take(&other, TenantId::new(), Duration::from_millis(20))).collect();
    let refused = futures::future::join_all(left).await.into_iter().filter(Result::is_err).count();
    assert!(refused >= 40, "{refused}");
    let began = Instant::now();
    budget.take(&other, TenantId::new(), LONG).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(2100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_cannot_be_read_is_begun_anew() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    let patience = Duration::from_secs(3);
    running(100, &memory, &shutdown).take(&account(), TenantId::new(), patience).await.unwrap();
    // Deleted, or written by another version: there is a revision, and nothing to be read.
    memory.unreadable.store(true, Ordering::Release);
    running(100, &memory, &shutdown).take(&account(), TenantId::new(), patience).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_who_goes_away_leaves_the_line() {
    let (memory, shutdown) = (Arc::new(Memory::default()), CancellationToken::new());
    memory.away.store(true, Ordering::Release);
    let budget = running(100, &memory, &shutdown);
    let (account, tenant) = (account(), TenantId::new());
    let given_up = tokio::time::timeout(Duration::from_secs(1), budget.take(&account, tenant, LONG));
    assert!(given_up.await.is_err());
    assert_eq!(budget.waiting(), 0);
}
