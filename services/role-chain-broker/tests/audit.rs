//! The audit of credentials: what requesters were answered is what the events say, whatever becomes of the broker and of the stream.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{ACCOUNTS, World, bus, grant, only_with, world, world_under};
use contracts::{
    CloudEvent, ConnectionId, ErrorCode, ErrorReply, ExternalId, Message, Stream,
    connection::Grant,
    credentials::{CredentialsDenied, CredentialsIssued, IssueCredentials, IssueRequest, Purpose},
};
use futures::StreamExt as _;
use messaging::{Bus, RequestError, async_nats::jetstream::consumer::pull::OrderedConfig, seal::SealSeed};
use sandbox::NatsUser;

/// For machines that have much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

async fn until(what: &str, world: &World, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < PATIENCE, "{what}; the broker says:\n{}", world.broker.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn connected(world: &mut World) -> Grant {
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    let grant = grant(tenant.id, &role, &id);
    world.publish(grant.clone()).await;
    grant
}

/// Accounts under which no `credentials.issued` and no `credentials.denied` of the broker reaches the stream.
fn without_the_stream() -> String {
    let lines: Vec<_> = ACCOUNTS.lines().collect();
    let events = ["issued", "denied"].map(|event| format!("\"rolebridge.events.v1.credentials.{event}.*.*\""));
    let kept: Vec<_> = lines.iter().filter(|line| !events.iter().any(|event| line.trim() == event)).copied().collect();
    assert_eq!(kept.len() + 2, lines.len(), "the broker may publish both");
    kept.join("\n")
}

struct Job {
    bus: Bus,
    seal: SealSeed,
}

impl Job {
    async fn new(world: &World) -> Self {
        Self { bus: bus(&world.nats, NatsUser::Job).await, seal: SealSeed::generate().unwrap() }
    }

    async fn ask(&self, requester: &str, grant: &Grant, connection: ConnectionId) -> Result<(), RequestError> {
        let request = IssueRequest {
            requester_key: self.seal.public().clone(),
            requester: requester.to_owned(),
            duration_s: None,
            min_remaining_s: None,
        };
        let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, connection);
        self.bus.request::<IssueCredentials>(subject, &request, Duration::from_secs(20)).await.map(drop)
    }

    async fn refused(&self, requester: &str, grant: &Grant) -> ErrorReply {
        let error = self.ask(requester, grant, ConnectionId::new()).await.unwrap_err();
        error.refusal().expect("the broker's own word").clone()
    }
}

/// As a consumer would count: each event once, by its ID.
async fn events<T: Message>(reader: &Bus) -> Vec<T> {
    let stream = reader.jetstream().get_stream(T::STREAM.name()).await.unwrap();
    let stored = stream.get_info().await.unwrap().state.messages;
    let stored = usize::try_from(stored).unwrap();
    let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
    let (mut seen, mut events) = (BTreeSet::new(), Vec::new());
    let mut messages = consumer.messages().await.unwrap().take(stored);
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        if let Ok(event) = CloudEvent::<T>::decode(&message.payload)
            && seen.insert(event.id)
        {
            assert_eq!(message.subject.as_str(), event.data.subject().as_str());
            events.push(event.data);
        }
    }
    events
}

async fn issued_by_requester(reader: &Bus) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    for event in events::<CredentialsIssued>(reader).await {
        assert_eq!(event.user.as_deref(), Some("job"));
        assert!(event.session_name.starts_with("rolebridge.cost-read."));
        *answers.entry(event.requester).or_default() += event.answers;
    }
    answers
}

/// What one requester has sent, and what it was given.
#[derive(Debug, Default)]
struct Count {
    sent: AtomicU64,
    answered: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_in_an_event_though_the_broker_is_killed_under_load() {
    let mut world = world().await;
    let (grant, stop) = (connected(&mut world).await, Arc::new(AtomicBool::new(false)));
    let mut load = Vec::new();
    for number in 0..8 {
        let (job, grant, stop) = (Job::new(&world).await, grant.clone(), stop.clone());
        let (name, count) = (format!("job-{number}"), Arc::new(Count::default()));
        let counted = count.clone();
        let asking = async move {
            while !stop.load(Ordering::SeqCst) {
                count.sent.fetch_add(1, Ordering::SeqCst);
                if job.ask(&name, &grant, grant.connection).await.is_ok() {
                    count.answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        load.push((format!("job-{number}"), counted, tokio::spawn(asking)));
    }
    let answered = |load: &[(String, Arc<Count>, _)]| -> u64 {
        load.iter().map(|(_, count, _)| count.answered.load(Ordering::SeqCst)).sum()
    };
    // Twice, and in different places of the journal.
    for round in 1..=2 {
        let before = answered(&load);
        until("answers come", &world, async || answered(&load) > before + 400 * round).await;
        world.broker.kill();
        world.broker.restart().unwrap();
        world.broker.wait_ready(PATIENCE).await.unwrap();
    }
    let before = answered(&load);
    until("answers come again", &world, async || answered(&load) > before + 100).await;
    stop.store(true, Ordering::SeqCst);
    let mut counts = BTreeMap::new();
    for (name, count, task) in load {
        task.await.unwrap();
        counts.insert(name, (count.answered.load(Ordering::SeqCst), count.sent.load(Ordering::SeqCst)));
    }
    // The last minute's sums are told at the end.
    let status = world.broker.terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "{}", world.broker.log_text());
    let reader = bus(&world.nats, NatsUser::Events).await;
    let told = issued_by_requester(&reader).await;
    for (name, (answered, sent)) in counts {
        let told = told.get(&name).copied().unwrap_or_default();
        assert!(
            (answered..=sent).contains(&told),
            "{name} was answered {answered} of {sent} times, and events tell of {told}"
        );
    }
    // Each life of the broker began a session of its own.
    let new = events::<CredentialsIssued>(&reader).await.into_iter().filter(|event| event.new_session).count();
    assert!(new >= 3, "{new}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_away_delays_no_answer_and_has_all_of_them_later() {
    let mut world = world_under(&without_the_stream(), |_| Vec::new()).await;
    let (grant, job) = (connected(&mut world).await, Job::new(&world).await);
    let reader = bus(&world.nats, NatsUser::Events).await;
    let (asked, refused) = (300, 3);
    until("the grant is known", &world, async || job.ask("early", &grant, grant.connection).await.is_ok()).await;
    for number in 0..asked {
        job.ask(if number % 3 == 0 { "one" } else { "two" }, &grant, grant.connection).await.unwrap();
    }
    for _ in 0..refused {
        assert_eq!(job.refused("three", &grant).await.code, ErrorCode::NotFound);
    }
    // All answers came while nothing was acknowledged.
    assert!(events::<CredentialsIssued>(&reader).await.is_empty());
    until("the gauge tells", &world, async || world.counted("rolebridge_journal_bytes", &[]).await > 21 * asked).await;

    world.nats.set_accounts(ACCOUNTS).await.unwrap();
    until("refusals are told at once", &world, async || {
        events::<CredentialsDenied>(&reader)
            .await
            .iter()
            .filter(|event| event.requester.as_deref() == Some("three"))
            .count()
            == refused
    })
    .await;
    let status = world.broker.terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "{}", world.broker.log_text());
    let told = issued_by_requester(&reader).await;
    assert_eq!(
        told,
        BTreeMap::from([("early".into(), 1), ("one".into(), asked / 3), ("two".into(), asked - asked / 3)])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_fills_ends_issuing_for_whoever_fills_it_until_the_stream_has_taken_what_is_in_it() {
    let small = |_: &_| vec![("ROLEBRIDGE_AUDIT_JOURNAL_MIB", "1".to_owned())];
    let mut world = world_under(&without_the_stream(), small).await;
    let (grant, job) = (connected(&mut world).await, Job::new(&world).await);
    until("the grant is known", &world, async || job.ask("early", &grant, grant.connection).await.is_ok()).await;
    let mut refusals = 0;
    let full = loop {
        let some: Vec<_> = futures::future::join_all((0..64).map(|_| job.refused("many", &grant))).await;
        refusals += some.iter().filter(|refusal| refusal.code == ErrorCode::NotFound).count();
        if let Some(full) = some.into_iter().find(|refusal| refusal.code != ErrorCode::NotFound) {
            break full;
        }
    };
    assert_eq!(full.code, ErrorCode::Throttled);
    assert!(full.message.contains("the audit") && full.retry_after_ms.is_some(), "{}", full.message);
    // A session that is there is not given out either.
    while job.ask("cached", &grant, grant.connection).await.is_ok() {}

    world.nats.set_accounts(ACCOUNTS).await.unwrap();
    until("it goes on", &world, async || job.ask("late", &grant, grant.connection).await.is_ok()).await;
    let reader = bus(&world.nats, NatsUser::Events).await;
    let many = async || {
        let denied = events::<CredentialsDenied>(&reader).await;
        denied.iter().filter(|event| event.requester.as_deref() == Some("many")).count()
    };
    until("every refusal is told", &world, async || many().await >= refusals).await;
    assert_eq!(many().await, refusals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_who_asked_and_what_was_told() {
    let mut world = world().await;
    let (grant, job) = (connected(&mut world).await, Job::new(&world).await);
    let told = job.refused("three", &grant).await;
    // A word that is no requester's is not repeated.
    let malformed = job.refused("no requester", &grant).await;
    assert_eq!(malformed.code, ErrorCode::InvalidRequest);
    let operator = bus(&world.nats, NatsUser::Operator).await;
    let subject = format!("rolebridge.rpc.v1.credentials.issue.root.{}.{}", grant.tenant, grant.connection);
    let body = serde_json::json!({ "requester_key": job.seal.public(), "requester": "operator" }).to_string();
    operator.client().request(subject, body.into()).await.unwrap();

    let reader = bus(&world.nats, NatsUser::Events).await;
    until("all are told", &world, async || events::<CredentialsDenied>(&reader).await.len() >= 3).await;
    let events = events::<CredentialsDenied>(&reader).await;
    let [first, second, third] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((first.requester.as_deref(), first.code), (Some("three"), ErrorCode::NotFound));
    assert_eq!((&first.reason, first.user.as_deref(), first.answers), (&told.message, Some("job"), 1));
    assert_eq!((&second.requester, second.code), (&None, ErrorCode::InvalidRequest));
    assert_eq!((third.purpose, third.code, third.user.as_deref()), (None, ErrorCode::Denied, Some("operator")));
    assert_eq!(third.connection, grant.connection);
    assert_eq!(CredentialsDenied::STREAM, Stream::CredentialsEvents);
}
