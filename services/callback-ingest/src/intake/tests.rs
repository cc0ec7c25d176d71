use contracts::CallbackToken;
use runtime::quota::PerMinute;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    answer::PutError,
    queue::{MemoryQueue, Queue},
    sns::SignatureCheck,
    testing,
};

/// For how long a taken message is hidden.
const HIDDEN: Duration = Duration::from_secs(15);
/// Few are answered, and fewer of one account.
const LIMITS: PerMinute = PerMinute { all: 5, each: 3 };

struct World {
    queue: Arc<MemoryQueue>,
    outlet: Arc<MemoryOutlet>,
    seed: Arc<SealSeed>,
    answers: Arc<testing::Script>,
    health: runtime::Health,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        Self::with_answers(vec![])
    }

    /// One poller over a queue and an outlet in memory. Time is tokio's paused one: waits pass when all are idle.
    fn with_answers(replies: Vec<PutError>) -> Self {
        let (queue, outlet) = (Arc::new(MemoryQueue::new()), Arc::new(MemoryOutlet::default()));
        let answers = testing::script(replies);
        let answerer = Arc::new(testing::answerer(answers.clone(), AddressRules::default()));
        let seed = answerer.seed.clone();
        let intake = Arc::new(Intake {
            gate: Gate::new(vec![testing::topic()], SignatureCheck::SandboxSkip),
            rules: AddressRules::default(),
            seed: seed.clone(),
            outlet: outlet.clone(),
            answerer,
            strangers: Strangers::new(LIMITS),
            metrics: Metrics::default(),
        });
        let (health, shutdown) = (runtime::Health::new(), CancellationToken::new());
        let poller = Poller { queue: queue.clone(), intake, health: health.part("sqs"), visibility: HIDDEN };
        let token = shutdown.clone();
        let running = tokio::spawn(async move {
            let Ok(()) = poller.run(token).await;
        });
        Self { queue, outlet, seed, answers, health, shutdown, running }
    }

    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(3600), async {
            while !reached(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "never: {what}");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

fn envelope(message: &Value) -> String {
    json!({
        "Type": "Notification", "MessageId": uuid::Uuid::new_v4().to_string(), "TopicArn": testing::topic().as_str(),
        "Message": message.to_string(), "Timestamp": "2026-11-20T10:00:00.123Z",
    })
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_published_then_deleted() {
    let world = World::start();
    let token = CallbackToken::generate();
    world.queue.put(envelope(&testing::request("Create", &token)));
    world.until("deleted", |world| world.queue.left() == 0).await;
    let received = world.outlet.look(|sent| sent.callbacks[0].1.clone());
    let url = world.seed.open(world.seed.public(), &received.return_address.sealed_url).unwrap();
    assert_eq!(url.as_slice(), testing::RESPONSE_URL.as_bytes());
    assert!(received.claims.unwrap().token_hash.matches(&token.hash()));
    assert!(world.health.missing().is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_stays_and_gets_through_later() {
    let world = World::start();
    world.outlet.close(true);
    world.queue.put(envelope(&testing::request("Create", &CallbackToken::generate())));
    world.queue.put("garbage");
    world.until("tried thrice", |world| world.queue.most_deliveries() >= 3).await;
    assert_eq!(world.queue.left(), 2);
    world.outlet.close(false);
    world.until("deleted", |world| world.queue.left() == 0).await;
    assert_eq!(world.outlet.look(|sent| (sent.callbacks.len(), sent.notes.len())), (1, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_delivery_has_the_same_event_id() {
    let world = World::start();
    let body = envelope(&testing::request("Create", &CallbackToken::generate()));
    world.queue.put(body.clone());
    world.queue.put(body);
    world.until("deleted", |world| world.queue.left() == 0).await;
    world.outlet.look(|sent| assert_eq!(sent.callbacks[0].0, sent.callbacks[1].0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attack_16_a_request_of_a_wrong_form_is_answered_once_even_if_s3_falters() {
    let world = World::with_answers(vec![PutError::Transient("HTTP status 503".to_owned()); 9]);
    let mut request = testing::request("Create", &CallbackToken::generate());
    request["ResourceProperties"]["RoleArn"] = json!(5);
    world.queue.put(envelope(&request));
    world.queue.put(envelope(&request));
    world.until("deleted", |world| world.queue.left() == 0).await;
    let taken = world.answers.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 1, "its duplicate, in hand at the same time, was answered too");
    let answer: Value = serde_json::from_slice(&taken[0]).unwrap();
    assert_eq!(answer["Status"], "FAILED");
    assert!(answer["Reason"].as_str().unwrap().contains("RoleArn"), "{answer}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attack_16_a_request_of_a_wrong_form_that_cannot_be_answered_is_a_dead_letter() {
    let world = World::with_answers(vec![PutError::Refused(403)]);
    let mut request = testing::request("Create", &CallbackToken::generate());
    request["ResourceProperties"]["RoleArn"] = json!(5);
    world.queue.put(envelope(&request));
    world.until("deleted", |world| world.queue.left() == 0).await;
    let reason = world.outlet.look(|sent| sent.notes[0].reason.clone());
    assert!(reason.contains("RoleArn") && reason.contains("403"), "{reason}");
    world.stop().await;
}

/// Each would make us send a request: to an address of CloudFormation, but as often as somebody likes.
#[tokio::test(start_paused = true)]
async fn attack_33_requests_of_a_wrong_form_are_answered_within_the_limits_for_strangers() {
    let world = World::start();
    let put = |account: &str, number: u32, role: Value| {
        let mut request = testing::request("Create", &CallbackToken::generate());
        request["RequestId"] = json!(format!("{account}-{number}"));
        request["StackId"] = json!(testing::STACK.replace("222222222222", account));
        request["ResourceProperties"]["RoleArn"] = role;
        world.queue.put(envelope(&request));
    };
    for (account, expected) in [("333333333333", 3), ("444444444444", 5), ("555555555555", 5)] {
        (0..50).for_each(|number| put(account, number, json!(5)));
        world.until("deleted", |world| world.queue.left() == 0).await;
        assert_eq!(world.answers.taken.lock().unwrap().len(), expected, "{account}");
    }
    world.outlet.look(|sent| assert_eq!((sent.callbacks.len(), sent.notes.len()), (0, 0), "nothing is kept of them"));
    // What is of the right form is none of this limit's business.
    put("333333333333", 50, json!("arn:aws:iam::333333333333:role/rolebridge/rolebridge-0242ac120002"));
    world.until("deleted", |world| world.queue.left() == 0).await;
    assert_eq!(world.outlet.look(|sent| sent.callbacks.len()), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attack_11_a_dead_letter_tells_the_reason_and_holds_no_secret() {
    let world = World::start();
    let token = CallbackToken::generate();
    let mut request = testing::request("Create", &token);
    request["ResponseURL"] = json!("https://canary.evil.example/signed");
    let body = envelope(&request);
    world.queue.put(body.clone());
    world.until("deleted", |world| world.queue.left() == 0).await;
    let note = world.outlet.look(|sent| sent.notes[0].clone());
    assert!(note.reason.contains("response bucket"), "{}", note.reason);
    assert_eq!((note.bytes, note.sha256), (body.len(), hex::encode(Sha256::digest(body.as_bytes()))));
    let text = world.outlet.look(|sent| serde_json::to_string(&sent.notes).unwrap());
    assert!(!text.contains("canary") && !text.contains(token.expose()), "{text}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_queue_is_waited_out_and_said() {
    let world = World::start();
    world.queue.break_down(true);
    world.until("not ready", |world| !world.health.missing().is_empty()).await;
    world.until("not ready for long", |world| world.health.missing().iter().any(|(part, _)| *part == "sqs")).await;
    world.queue.put(envelope(&testing::request("Create", &CallbackToken::generate())));
    world.queue.break_down(false);
    world.until("deleted", |world| world.queue.left() == 0).await;
    assert!(world.health.missing().is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_long_poll_at_once() {
    let world = World::start();
    world.until("ready", |world| world.health.missing().is_empty()).await;
    let started = tokio::time::Instant::now();
    world.stop().await;
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// An outlet that takes its time.
struct Slow(Duration, MemoryOutlet);

#[async_trait::async_trait]
impl Outlet for Slow {
    fn is_open(&self) -> bool {
        true
    }
    async fn callback(
        &self,
        id: contracts::EventId,
        received: contracts::callback::CallbackReceived,
    ) -> Result<(), OutletError> {
        tokio::time::sleep(self.0).await;
        self.1.callback(id, received).await
    }
    async fn dead(&self, note: &Note) -> Result<(), OutletError> {
        self.1.dead(note).await
    }
}

#[tokio::test(start_paused = true)]
async fn work_under_way_stays_hidden_and_is_finished_at_shutdown() {
    let (queue, outlet) =
        (Arc::new(MemoryQueue::new()), Arc::new(Slow(Duration::from_secs(25), MemoryOutlet::default())));
    let intake = Arc::new(Intake {
        gate: Gate::new(vec![testing::topic()], SignatureCheck::SandboxSkip),
        rules: AddressRules::default(),
        seed: Arc::new(SealSeed::generate().unwrap()),
        outlet: outlet.clone(),
        answerer: Arc::new(testing::answerer(testing::script(vec![]), AddressRules::default())),
        strangers: Strangers::new(LIMITS),
        metrics: Metrics::default(),
    });
    let shutdown = CancellationToken::new();
    queue.put(envelope(&testing::request("Create", &CallbackToken::generate())));
    let pollers: Vec<_> = (0..2)
        .map(|_| {
            let health = runtime::Health::new().part("sqs");
            let poller =
                Poller { queue: queue.clone(), intake: intake.clone(), health, visibility: Duration::from_secs(10) };
            tokio::spawn(poller.run(shutdown.clone()))
        })
        .collect();
    while queue.most_deliveries() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    for poller in pollers {
        let Ok(()) = poller.await.unwrap();
    }
    assert_eq!((queue.left(), outlet.1.look(|sent| sent.callbacks.len())), (0, 1));
    assert!(queue.extended() >= 4, "renewed {} times in 25 s", queue.extended());
    // Nobody else got it meanwhile: it is gone and was delivered once.
    assert!(queue.receive(Duration::ZERO, HIDDEN).await.unwrap().is_empty());
}

#[test]
fn kept_messages_come_again_later_each_time() {
    assert_eq!(again_after(1), FIRST_AGAIN);
    assert_eq!(again_after(2), FIRST_AGAIN * 2);
    assert_eq!(again_after(u32::MAX), LAST_AGAIN);
}
