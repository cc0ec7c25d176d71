//! The broker in trouble: STS away, a clock that is off, NATS restarted, one of two instances killed under load, STS that takes fewer calls than are asked for.
//!
//! Each test holds the trouble until what it is about has happened (a call that hangs, both instances at work), and ends it by a word, not by the clock.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Client, IssueError, Wanted};
use common::{
    PATIENCE, World,
    looks::{job, refusal},
    metric, until,
};
use contracts::{
    ConnectionId, ErrorCode, TenantId, connection::RevokeConnection, credentials::Purpose, tenant::WithReason,
};
use futures::future::join_all;
use messaging::RequestError;
use rolebridge_tests::{
    faults::{FaultyAws, Outage},
    sts::{self, Seen},
    yard::grant,
};
use sandbox::{NatsUser, Service, SystemOptions};
use tokio::task::JoinHandle;

const BROKER: Service = Service::RoleChainBroker;
/// The client's own limit for a request is 15 s; the rest is for a loaded machine.
const NO_LONGER: Duration = Duration::from_secs(30);
const STS_ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";
/// Sessions of each length are kept by themselves: so many different things can be asked of one connection.
const LENGTHS: [u32; 4] = [900, 1800, 2700, 3600];

type Asked = Result<(), IssueError>;

fn lasting(seconds: u32) -> Wanted {
    Wanted { duration_s: Some(seconds), ..Wanted::from(Purpose::CostRead) }
}

/// Asks once; panics when there is no answer and no error either.
async fn ask(client: &Client, tenant: TenantId, connection: ConnectionId, wanted: Wanted) -> Asked {
    let asked = tokio::time::timeout(NO_LONGER, client.issue(tenant, connection, wanted)).await;
    asked.expect("a request hangs beyond its time limit").map(drop)
}

/// When to come again, by a refusal that says so.
fn come_again(asked: Asked) -> Duration {
    let error = asked.expect_err("credentials were issued");
    let IssueError::Request(RequestError::Refused(reply)) = error else { panic!("no word of the broker: {error}") };
    assert!(matches!(reply.code, ErrorCode::Unavailable | ErrorCode::Throttled), "{reply:?}");
    Duration::from_millis(reply.retry_after_ms.expect("when to come again"))
}

/// Whether the requester can tell from it that nobody answered, or that it may come again.
fn is_clear(error: &IssueError) -> bool {
    match error {
        IssueError::Request(RequestError::Refused(reply)) => {
            matches!(reply.code, ErrorCode::Unavailable | ErrorCode::Throttled) && reply.retry_after_ms.is_some()
        }
        IssueError::Request(error) => matches!(
            error,
            RequestError::NoResponders { .. } | RequestError::TimedOut { .. } | RequestError::Send { .. }
        ),
        _ => false,
    }
}

/// A system whose broker asks STS through a proxy, and the broker's process.
async fn behind_a_proxy() -> (World, FaultyAws, u32) {
    let mut world = World::start().await;
    let proxy = FaultyAws::start(&world.system.emulator.endpoint(), 0).await.expect("a proxy");
    world.restart_with(BROKER, STS_ENDPOINT, &proxy.endpoint()).await;
    let process = broker_process(&mut world);
    (world, proxy, process)
}

fn broker_process(world: &mut World) -> u32 {
    let broker = world.system.service(BROKER).expect("a broker");
    assert!(broker.is_running(), "the broker lives on\n{}", broker.log_text());
    broker.id().expect("it runs")
}

/// Requests that the broker there has issued credentials for.
async fn issued(address: SocketAddr) -> f64 {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = http.get(format!("http://{address}/metrics")).send().await.expect("it answers");
    let text = answer.text().await.expect("text");
    let of_issued = |line: &&str| {
        line.starts_with("rolebridge_issue_duration_seconds_count{") && line.contains(r#"result="issued""#)
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
    text.lines().filter(of_issued).map(value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sts_is_away_cached_credentials_serve_and_others_are_refused_with_a_time() {
    let (mut world, proxy, process) = behind_a_proxy().await;
    let (warm, warm_id) = world.connect("Acme").await;
    let (cold, cold_id) = world.connect("Globex").await;
    let client = job(&world).await;
    let (warm, cold) = ((warm.tenant, warm_id.connection), (cold.tenant, cold_id.connection));
    ask(&client, warm.0, warm.1, lasting(900)).await.expect("credentials");

    for outage in [Outage::Closed, Outage::Silent] {
        let before = proxy.turned_away();
        proxy.set_outage(Some(outage));
        // New credentials of one whose first hop is there, and of one who has nothing.
        let refused = join_all([
            ask(&client, warm.0, warm.1, lasting(1800)),
            ask(&client, cold.0, cold.1, lasting(900)),
            ask(&client, cold.0, cold.1, lasting(1800)),
        ]);
        let cached = async {
            assert!(until(PATIENCE, async || proxy.turned_away() > before).await, "STS was not asked");
            for _ in 0..20 {
                ask(&client, warm.0, warm.1, lasting(900)).await.expect("cached ones are served");
            }
        };
        let (refused, ()) = tokio::join!(refused, cached);
        for refused in refused {
            let wait = come_again(refused);
            assert!(!wait.is_zero() && wait <= Duration::from_secs(60), "{wait:?}");
        }
    }

    proxy.set_outage(None);
    for (tenant, connection) in [warm, cold] {
        let mut last = None;
        let served = until(PATIENCE, async || {
            let asked = ask(&client, tenant, connection, lasting(1800)).await;
            last = asked.err().map(|error| error.to_string());
            last.is_none()
        });
        assert!(served.await, "{last:?}\n{}", world.complaints());
    }
    assert_eq!(broker_process(&mut world), process, "the same process");
}

/// Jobs that ask for cached credentials all the time.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<Vec<IssueError>>>,
}

impl Load {
    fn begin(client: &Client, workers: usize, of: &[(TenantId, ConnectionId)]) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let work = |number: usize| {
            let (client, of, stop, served) = (client.clone(), of.to_vec(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut errors = Vec::new();
                for round in number.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let (tenant, connection) = of[round % of.len()];
                    let wanted = lasting(LENGTHS[round / of.len() % LENGTHS.len()]);
                    match ask(&client, tenant, connection, wanted).await {
                        Ok(()) => drop(served.fetch_add(1, Ordering::AcqRel)),
                        Err(error) => {
                            errors.push(error);
                            // Of those that come at once, as while nobody serves.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                errors
            })
        };
        Self { workers: (0..workers).map(work).collect(), stop, served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Acquire)
    }

    /// So many more are served.
    async fn goes_on(&self, more: usize) {
        let before = self.served();
        assert!(until(PATIENCE, async || self.served() >= before + more).await, "{} served", self.served() - before);
    }

    /// What went wrong, by worker.
    async fn end(self) -> Vec<Vec<IssueError>> {
        self.stop.store(true, Ordering::Release);
        let ended = tokio::time::timeout(PATIENCE, join_all(self.workers)).await.expect("a request hangs");
        ended.into_iter().map(|errors| errors.expect("no panic")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn issuing_goes_on_after_nats_was_killed_in_the_middle_and_a_revocation_holds() {
    let (mut world, proxy, process) = behind_a_proxy().await;
    let (first, first_id) = world.connect("Acme").await;
    let (second, second_id) = world.connect("Globex").await;
    let client = job(&world).await;
    let (warm, cold) = ((first.tenant, first_id.connection), (second.tenant, second_id.connection));
    for length in LENGTHS {
        ask(&client, warm.0, warm.1, lasting(length)).await.expect("credentials");
    }

    let load = Load::begin(&client, 4, &[warm]);
    load.goes_on(20).await;
    proxy.set_outage(Some(Outage::Silent));
    let in_hand: Vec<_> = LENGTHS[..2]
        .iter()
        .map(|length| {
            let (client, wanted) = (client.clone(), lasting(*length));
            tokio::spawn(async move { ask(&client, cold.0, cold.1, wanted).await })
        })
        .collect();
    assert!(until(PATIENCE, async || proxy.turned_away() > 0).await, "a chain is under way");
    world.system.nats.kill();
    proxy.set_outage(None);
    world.system.nats.restart().await.expect("nats-server starts again");
    assert!(until(PATIENCE, async || world.bus.is_connected()).await, "the operator is connected again");

    for asked in in_hand {
        // Its answer may have had nowhere to go.
        if let Err(error) = asked.await.expect("no panic") {
            assert!(is_clear(&error), "{error:?}");
        }
    }
    load.goes_on(100).await;
    for error in load.end().await.into_iter().flatten() {
        assert!(is_clear(&error), "{error:?}");
    }
    let mut last = None;
    let served = until(PATIENCE, async || {
        let asked = ask(&client, cold.0, cold.1, lasting(3600)).await;
        last = asked.err().map(|error| error.to_string());
        last.is_none()
    });
    assert!(served.await, "{last:?}\n{}", world.complaints());
    assert_eq!(broker_process(&mut world), process, "the same process");

    let because = WithReason { reason: "the contract ended".to_owned() };
    let subject = RevokeConnection::subject(warm.0, warm.1);
    world.bus.request::<RevokeConnection>(subject, &because, PATIENCE).await.expect("revoked");
    let refused = until(PATIENCE, async || ask(&client, warm.0, warm.1, lasting(900)).await.is_err()).await;
    assert!(refused, "issued after it was revoked");
    for length in LENGTHS {
        let asked = client.issue(warm.0, warm.1, lasting(length)).await;
        assert_eq!(refusal(asked), ErrorCode::NotVerified, "of {length} s");
    }
    ask(&client, cold.0, cold.1, lasting(900)).await.expect("the other one is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_leaves_no_request_hanging_and_the_other_serves() {
    const WORKERS: usize = 16;
    let mut world = World::start().await;
    let other = world.system.another(BROKER).await.expect("one more broker");
    let (first, first_id) = world.connect("Acme").await;
    let (second, second_id) = world.connect("Globex").await;
    let client = job(&world).await;
    let of = [(first.tenant, first_id.connection), (second.tenant, second_id.connection)];
    let victim = world.system.service(BROKER).expect("a broker").http_address();

    let load = Load::begin(&client, WORKERS, &of);
    let both = until(PATIENCE, async || issued(victim).await >= 50.0 && issued(other.http_address()).await >= 50.0);
    assert!(both.await, "both issue\n{}", world.complaints());
    world.kill(BROKER);
    let before = issued(other.http_address()).await;
    load.goes_on(500).await;
    let now = issued(other.http_address()).await;
    assert!(now - before >= 400.0, "the other one served them: {before}, then {now}");
    for errors in load.end().await {
        // Only what was in the hands of the one that was killed.
        assert!(errors.len() <= 1, "{errors:?}");
        assert!(errors.iter().all(is_clear), "{errors:?}");
    }
    for (tenant, connection) in of {
        for length in LENGTHS {
            ask(&client, tenant, connection, lasting(length)).await.expect("credentials");
        }
    }
}

/// Asks until there are credentials, each time when the refusal said.
async fn until_served(client: &Client, tenant: TenantId, connection: ConnectionId) {
    let began = Instant::now();
    loop {
        let asked = ask(client, tenant, connection, lasting(3600)).await;
        if asked.is_ok() {
            return;
        }
        let wait = come_again(asked);
        assert!(began.elapsed() < PATIENCE, "{connection} is not served");
        tokio::time::sleep(wait).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_share_one_budget_of_calls_to_sts() {
    const TENANTS: usize = 5;
    const OF_EACH: usize = 20;
    const PER_SECOND: u32 = 20;
    let environment = BTreeMap::from([("ROLEBRIDGE_STS_PER_SECOND".to_owned(), PER_SECOND.to_string())]);
    let mut world = World::with(SystemOptions { environment, ..SystemOptions::default() }).await;
    let registry = world.system.bus(NatsUser::TenantRegistry).await.expect("as the registry");
    let mut connections = Vec::new();
    for number in 0..TENANTS {
        let tenant = world.tenant(&format!("Tenant {number}")).await.tenant;
        for _ in 0..OF_EACH {
            connections.push((tenant, grant(&registry, tenant).await.expect("a grant")));
        }
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    // It refuses nothing by itself: what it sees is what the brokers let through.
    let endpoint = sts::serve(usize::MAX, seen.clone()).await.expect("a stand-in for STS");
    world.restart_with(BROKER, STS_ENDPOINT, &endpoint).await;
    let other = world.system.another(BROKER).await.expect("one more broker");
    let first = world.system.service(BROKER).expect("a broker").http_address();
    seen.lock().expect("no panic").calls.clear();

    let client = job(&world).await;
    let all = connections.iter().map(|(tenant, connection)| until_served(&client, *tenant, *connection));
    join_all(all).await;

    for address in [first, other.http_address()] {
        assert!(issued(address).await > 0.0, "both instances had a part");
    }
    let calls = seen.lock().expect("no panic").calls.clone();
    // A call for each connection, and a first hop of each tenant in one instance or both.
    let least = TENANTS * OF_EACH + TENANTS;
    assert!((least..=least + TENANTS).contains(&calls.len()), "{} calls", calls.len());
    // In any stretch of time, a second among them: its own calls, and those of the windows at its ends, which last a second at this rate.
    for (from, first) in calls.iter().enumerate() {
        for (to, last) in calls.iter().enumerate().skip(from) {
            let seconds = last.duration_since(*first).as_secs_f64();
            let most = f64::from(PER_SECOND) * (seconds + 2.0);
            let count = u32::try_from(to - from + 1).expect("few");
            assert!(f64::from(count) <= most, "{count} calls in {seconds:.2} s");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_minutes_off_is_told_and_told_again_when_it_is_right() {
    const GAUGE: &str = "rolebridge_clock_skew_seconds";
    let (mut world, proxy, process) = behind_a_proxy().await;
    let (launched, connection) = world.connect("Acme").await;
    let (tenant, connection) = (launched.tenant, connection.connection);
    let client = job(&world).await;
    ask(&client, tenant, connection, lasting(LENGTHS[0])).await.expect("credentials");
    assert!(metric(&mut world.system, BROKER, GAUGE).await.abs() < 30.0, "one machine, one clock");
    assert!(!world.system.logs().contains("behind AWS's"));

    proxy.set_clock_ahead(300);
    // Each is a call, and the middle one of the last five answers counts.
    for length in &LENGTHS[1..] {
        ask(&client, tenant, connection, lasting(*length)).await.expect("credentials");
    }
    let skew = metric(&mut world.system, BROKER, GAUGE).await;
    assert!((270.0..=330.0).contains(&skew), "{skew} s");
    let log = world.system.logs();
    let warning = log.lines().find(|line| line.contains("behind AWS's")).expect("a warning");
    assert!(warning.contains(r#""level":"WARN""#) && warning.contains("NTP"), "{warning}");

    proxy.set_clock_ahead(0);
    let registry = world.system.bus(NatsUser::TenantRegistry).await.expect("as the registry");
    let right = until(PATIENCE, async || {
        // AWS refuses a role that is not there, and says what time it is.
        let nobodys = grant(&registry, tenant).await.expect("a grant");
        assert!(ask(&client, tenant, nobodys, lasting(LENGTHS[0])).await.is_err(), "there is no such role");
        metric(&mut world.system, BROKER, GAUGE).await.abs() < 20.0
    });
    assert!(right.await, "{}", world.complaints());
    assert!(world.system.logs().contains("agrees with AWS's again"));
    assert_eq!(broker_process(&mut world), process, "the same process");
}
