//! Junk in the callback queue, as much as a topic that anybody may publish to can be made to deliver, beside customers who launch their stacks.
//!
//! It lies in SQS as the topic would put it there: the emulator's own topic would need longer for it than the whole test may take.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::time::{Duration, Instant};

use common::{Launched, PATIENCE, World, crafted::Crafted, looks::dead_letters, metrics, sqs, until};
use contracts::{
    CallbackToken, ExternalId, PageRequest, Stream,
    audit::{AuditEntry, ExportAudit},
    connection::ConnectionState,
    enrollment::EnrollmentOffer,
};
use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use sandbox::{Account, Service, System};
use serde_json::{Value, json};
use uuid::Uuid;

const JUNK: usize = 4_000;
const GOOD: usize = 10;
/// Of so many, one is no envelope, and one is an envelope with a request of a wrong form.
const MALFORMED: usize = 100;
/// Accounts that the junk says it is from: few, so that most of it is beyond what one account is answered.
const CLAIMED: usize = 5;
/// ROLEBRIDGE_STRANGERS_PER_ACCOUNT, and audit lines about strangers, in a minute.
const ANSWERS_PER_ACCOUNT: usize = 30;
const LINES: usize = 60;
/// What SQS takes in one call, and calls side by side.
const BATCH: usize = 10;
const SENDERS: usize = 4;
/// The template gives us 600 s.
const WELL_INSIDE: Duration = Duration::from_secs(120);

/// What the topic puts into the queue, of requests that are nobody's.
fn junk(world: &World, account: &Account, offer: &EnrollmentOffer) -> Vec<String> {
    let pattern = Crafted::create(&world.system, account, offer, "").request;
    (0..JUNK).map(|number| body(&world.system, pattern.clone(), number)).collect()
}

fn body(system: &System, mut request: Value, number: usize) -> String {
    if number.is_multiple_of(MALFORMED) {
        return format!("this is no envelope ({number})");
    }
    let account = format!("{}", 700_000_000_000 + number % CLAIMED);
    let address =
        request["ResponseURL"].as_str().and_then(|url| url.rsplit_once('/')).expect("an address").0.to_owned();
    request["RequestId"] = Uuid::new_v4().to_string().into();
    request["StackId"] = format!("arn:aws:cloudformation:eu-central-1:{account}:stack/junk/{}", Uuid::new_v4()).into();
    request["ResponseURL"] = format!("{address}/{}", Uuid::new_v4()).into();
    let properties = &mut request["ResourceProperties"];
    properties["ExternalId"] = ExternalId::generate().as_str().into();
    properties["CallbackToken"] = CallbackToken::generate().expose().into();
    properties["RoleArn"] = format!("arn:aws:iam::{account}:role/rolebridge/junk").into();
    properties["AccountId"] = account.into();
    if number % MALFORMED == 1 {
        properties["AccountId"] = json!([{"no": "account"}]);
    }
    let envelope = json!({
        "Type": "Notification", "MessageId": Uuid::new_v4(), "TopicArn": system.provider.topic_arn,
        "Subject": "AWS CloudFormation custom resource request", "Message": request.to_string(), "Timestamp": "2026-01-01T00:00:00.000Z",
    });
    envelope.to_string()
}

async fn put_in(world: &World, junk: &[String]) {
    let all = futures::stream::iter(junk.chunks(BATCH)).map(|bodies| sqs::put_in_all(&world.system, bodies));
    all.buffer_unordered(SENDERS).collect::<()>().await;
}

/// The whole audit log.
async fn log(world: &World) -> Vec<AuditEntry> {
    let pages = futures::stream::try_unfold(Some(PageRequest::default()), async |next| {
        let Some(request) = next else { return Ok(None) };
        let page = world.bus.request::<ExportAudit>(ExportAudit::subject(), &request, PATIENCE).await?;
        let next = page.next.map(|next| PageRequest { after: Some(next), ..PageRequest::default() });
        Ok::<_, messaging::RequestError>(Some((page.items, next)))
    });
    pages.try_concat().await.expect("the audit log")
}

/// Callbacks that the registry has handled with this result.
async fn handled(world: &mut World, result: &str) -> usize {
    let label = format!("result=\"{result}\"");
    let text = metrics(&mut world.system, Service::TenantRegistry).await;
    sum(&text, |line| line.starts_with("rolebridge_registry_callbacks_total{") && line.contains(&label))
}

/// What was done so far, once all is done.
struct Spent {
    sts_calls: usize,
    jobs: u64,
    lines: usize,
}

impl Spent {
    async fn so_far(world: &mut World) -> Self {
        world.quiet().await;
        let text = metrics(&mut world.system, Service::RoleChainBroker).await;
        let sts_calls = sum(&text, |line| line.starts_with("rolebridge_sts_calls_total{"));
        Self { sts_calls, jobs: world.stored(Stream::Jobs.name()).await, lines: log(world).await.len() }
    }

    const fn since(&self, before: &Self) -> Self {
        Self {
            sts_calls: self.sts_calls - before.sts_calls,
            jobs: self.jobs - before.jobs,
            lines: self.lines - before.lines,
        }
    }
}

/// Messages from SQS of which this has become.
async fn settled(world: &mut World, end: &str) -> usize {
    let label = format!("end=\"{end}\"");
    let text = metrics(&mut world.system, Service::CallbackIngest).await;
    sum(&text, |line| line.starts_with("rolebridge_ingest_settled_total{") && line.contains(&label))
}

/// The sum of these samples.
fn sum(metrics: &str, of: impl Fn(&str) -> bool) -> usize {
    let value = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a count");
    metrics.lines().filter(|line| of(line)).map(value).sum()
}

async fn customers(world: &mut World) -> Vec<(Account, EnrollmentOffer)> {
    let mut all = Vec::new();
    for number in 0..GOOD {
        let tenant = world.tenant(&format!("Customer {number}")).await.tenant;
        all.push((world.customer().await, world.offer(tenant, None).await));
    }
    all
}

/// Launches and waits for the end; how long that took.
async fn connects(world: &World, account: &Account, offer: EnrollmentOffer) -> (Launched, Duration) {
    let start = Instant::now();
    let launched = world.launch(account, offer).await;
    world.completed(&launched).await;
    (launched, start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_33_four_thousand_junk_callbacks_do_not_hold_up_ten_customers() {
    let mut world = World::start().await;
    // What one customer costs without any junk: not the first, who costs the broker its own first calls.
    let (first, _) = world.connect("First").await;
    let alone = Spent::so_far(&mut world).await;
    world.connect("Second").await;
    let one = Spent::so_far(&mut world).await.since(&alone);
    let customers = customers(&mut world).await;
    let before = Spent::so_far(&mut world).await;

    let junk = junk(&world, &first.account, &first.offer);
    let start = Instant::now();
    put_in(&world, &junk[..JUNK / 2]).await;
    let (put, waiting) = (start.elapsed(), sqs::waiting(&world.system).await);
    let launches =
        join_all(customers.into_iter().map(async |(account, offer)| connects(&world, &account, offer).await));
    let (connected, ()) = tokio::join!(launches, put_in(&world, &junk[JUNK / 2..]));
    let slowest = connected.iter().map(|(_, took)| *took).max().expect("ten");
    assert!(slowest < WELL_INSIDE, "the slowest took {slowest:?}");
    let left = sqs::waiting(&world.system).await;
    let done = until(WELL_INSIDE, async || sqs::waiting(&world.system).await == 0).await;
    assert!(done, "the queue is worked off\n{}", world.complaints());
    world.quiet().await;
    eprintln!(
        "half of the junk was put in in {put:?}, {waiting} waited; slowest stack {slowest:?}, then {left} waited; all done after {:?}",
        start.elapsed()
    );

    for (launched, _) in &connected {
        let connection = world.only_connection(launched.tenant).await;
        assert_eq!((connection.state, connection.account.as_str()), (ConnectionState::Verified, launched.account.id()));
    }
    costs_little(&mut world, start, &one, &before).await;
}

/// STS was asked for the ten, the registry has answered few, and written down fewer.
async fn costs_little(world: &mut World, start: Instant, one: &Spent, before: &Spent) {
    let spent = Spent::so_far(world).await.since(before);
    // On a busy machine a probe may be repeated that was not answered clearly in time; not as often as there is junk, by far.
    let calls = one.sts_calls * GOOD..=2 * one.sts_calls * GOOD;
    assert!(calls.contains(&spent.sts_calls), "{} calls of STS, not {calls:?}", spent.sts_calls);
    let good = u64::try_from(GOOD).expect("few");
    let jobs = one.jobs * good..=2 * one.jobs * good;
    assert!(jobs.contains(&spent.jobs), "{} jobs, not {jobs:?}", spent.jobs);

    let windows = usize::try_from(start.elapsed().as_secs() / 60).expect("few") + 1;
    let (dropped, answered) = (handled(world, "dropped").await, handled(world, "stranger").await);
    let malformed = JUNK / MALFORMED;
    assert_eq!(dropped + answered, JUNK - 2 * malformed, "each was handled once");
    assert!((1..=CLAIMED * ANSWERS_PER_ACCOUNT * windows).contains(&answered), "{answered} answers to strangers");
    // All of them say that they are of one account.
    let (turned_away, corrected) = (settled(world, "dropped").await, settled(world, "answered").await);
    assert_eq!(turned_away + corrected, malformed, "each request of a wrong form was handled once");
    assert!((1..=ANSWERS_PER_ACCOUNT * windows).contains(&corrected), "{corrected} answers to wrong forms");
    let told = world.system.emulator.log_text().lines().filter(|line| line.contains("unknown token")).count();
    assert_eq!(told, answered + corrected, "answers that nobody waited for");
    let dead = dead_letters(world).await;
    assert_eq!(dead.len(), malformed, "those that are no envelope: {:?}", dead.first());

    // Of a customer: his tenant, its principal, his offer, his connection twice.
    let lines = log(world).await.split_off(before.lines);
    let (strangers, customers): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.tenant.is_none());
    assert!((1..=(LINES + 1) * windows).contains(&strangers.len()), "{} lines about strangers", strangers.len());
    assert_eq!(customers.len(), 2 * GOOD, "{customers:?}");
}
