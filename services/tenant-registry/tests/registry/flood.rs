//! Ten thousand strangers and ten customers: the program as a process, on a real nats-server. The test plays callback-ingest and the broker.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use contracts::{
    CallbackToken, CloudEvent, ExternalId, Message as _, Stream,
    callback::{Answer, CallbackOutcome, CallbackReceived, RequestType},
    verification::{Verdict, VerifyConnection},
};
use futures::StreamExt as _;
use messaging::{RawMessage, async_nats::jetstream::consumer::pull};
use sea_orm::{EntityTrait, PaginatorTrait};
use tenant_registry::{entity, store::Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    bus::Bed,
    world::{callback, callback_of, report},
};

const JUNK: usize = 10_000;
const GOOD: usize = 10;
/// A stack waits for 600 s; nothing here comes near it.
const IN_TIME: Duration = Duration::from_secs(120);

fn junk(number: usize) -> CallbackReceived {
    let account = format!("{}", 700_000_000_000 + number);
    callback_of(&ExternalId::generate(), CallbackToken::generate().hash(), RequestType::Create, &account, "bad")
}

/// What the registry has counted so far, by the word for what became of a callback.
async fn handled(bed: &Bed, word: &str) -> usize {
    let mut connection = tokio::net::TcpStream::connect(bed.registry.http_address()).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    let of_word = |line: &&str| line.starts_with("rolebridge_registry_callbacks_total{") && line.contains(word);
    text.lines().filter(of_word).filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Publishes as callback-ingest does: many at once, each acknowledged by the stream.
async fn publish(bed: &Bed, callbacks: Vec<CallbackReceived>) {
    let all = futures::stream::iter(callbacks).map(|callback| async move {
        let raw = RawMessage::encode(&CloudEvent::new(callback)).unwrap();
        bed.ingest.publish_raw(&raw).await.unwrap();
    });
    all.buffer_unordered(64).collect::<()>().await;
}

/// Reads answers to stacks until the ten have theirs.
async fn answers(bed: &Bed, wanted: &BTreeSet<String>) -> Duration {
    let start = Instant::now();
    let stream = bed.ingest.jetstream().get_stream(Stream::Callbacks.name()).await.unwrap();
    let config = pull::Config {
        durable_name: Some("callback-ingest-outcomes".to_owned()),
        filter_subject: CallbackOutcome::SUBJECT.to_owned(),
        ..pull::Config::default()
    };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut connected = BTreeSet::new();
    while connected.len() < wanted.len() {
        let message = messages.next().await.unwrap().unwrap();
        message.ack().await.unwrap();
        let outcome = CloudEvent::<CallbackOutcome>::decode(&message.payload).unwrap().data;
        if wanted.contains(&outcome.key.request_id) {
            assert!(matches!(outcome.answer, Answer::Success { .. }), "{:?}", outcome.answer);
            connected.insert(outcome.key.request_id);
        }
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "the numbers are worth seeing")]
async fn attack_33_ten_thousand_strangers_do_not_hold_up_ten_customers() {
    let bed = Bed::start().await;
    let mut good = Vec::new();
    for number in 0..GOOD {
        let (_, offer) = bed.offer().await;
        good.push(callback(&offer, RequestType::Create, &format!("{}", 300_000_000_000 + number), "0a"));
    }
    let store = Store::open(&bed.database()).await.unwrap();
    let lines_before = entity::audit::Entity::find().count(store.db()).await.unwrap();

    // Half of the junk lies before the good ones, the other half comes at the same time.
    let start = Instant::now();
    publish(&bed, (0..JUNK / 2).map(junk).collect()).await;
    let wanted = good.iter().map(|create| create.key.request_id.clone()).collect();
    let broker = async {
        for (_, job) in bed.read::<VerifyConnection>(&bed.broker, GOOD).await {
            bed.broker.publish(&CloudEvent::new(report(&job.data, Verdict::Held))).await.unwrap();
        }
    };
    let rest = (JUNK / 2..JUNK).map(junk).collect();
    let all = async { tokio::join!(publish(&bed, good), publish(&bed, rest), broker, answers(&bed, &wanted)).3 };
    let took = tokio::time::timeout(IN_TIME, all).await.expect("a good one was not answered in time");

    let everything = async { while handled(&bed, "").await < JUNK + GOOD {} };
    tokio::time::timeout(IN_TIME, everything).await.expect("the flood was not worked off");
    eprintln!(
        "{JUNK} junk and {GOOD} good ones: the good ones answered after {took:?}, all handled after {:?}",
        start.elapsed()
    );
    assert_eq!(handled(&bed, "\"dropped\"").await + handled(&bed, "\"stranger\"").await, JUNK);
    let windows = usize::try_from(start.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((1..=600 * windows).contains(&handled(&bed, "\"stranger\"").await), "answers to strangers");

    // What it cost: ten jobs (what the broker asks STS for), ten rows, and a bounded audit.
    let jobs = bed.broker.jetstream().get_stream(Stream::Jobs.name()).await.unwrap();
    assert_eq!(jobs.cached_info().state.last_sequence, GOOD as u64, "jobs that were ever handed out");
    assert_eq!(entity::callback::Entity::find().count(store.db()).await.unwrap(), GOOD as u64);
    assert_eq!(entity::connection::Entity::find().count(store.db()).await.unwrap(), GOOD as u64);
    let lines = entity::audit::Entity::find().count(store.db()).await.unwrap() - lines_before;
    let bound = 2 * GOOD as u64 + 61 * windows as u64;
    assert!((2 * GOOD as u64..=bound).contains(&lines), "{lines} audit lines");
}
