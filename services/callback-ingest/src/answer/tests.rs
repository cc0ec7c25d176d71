use std::sync::atomic::Ordering;

use contracts::ConnectionId;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

use super::*;
use crate::testing::{self, answerer, script};

fn outcome_to(answerer: &Answerer, url: &str) -> CallbackOutcome {
    let mut outcome = testing::outcome(Answer::Success { connection: Some(ConnectionId::new()) });
    outcome.return_address.sealed_url = answerer.seed.seal(answerer.seed.public(), url.as_bytes()).unwrap();
    outcome
}

fn transient(times: usize) -> Vec<PutError> {
    vec![PutError::Transient("HTTP status 503".to_owned()); times]
}

#[tokio::test(start_paused = true)]
async fn attack_09_a_duplicate_outcome_is_not_sent_twice() {
    let put = script(vec![]);
    let answerer = answerer(put.clone(), AddressRules::default());
    let outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    for _ in 0..3 {
        assert_eq!(answerer.handle(&outcome).await, Disposition::Done);
    }
    assert_eq!(put.taken.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn attack_09_a_duplicate_that_comes_while_the_first_is_in_hand_waits() {
    let put = script(transient(1));
    let answerer = answerer(put.clone(), AddressRules::default());
    let outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    let (first, second) = tokio::join!(answerer.handle(&outcome), answerer.handle(&outcome));
    assert_eq!((first, second), (Disposition::Done, Disposition::Later { after: NEXT_DELIVERY }));
    assert_eq!(answerer.handle(&outcome).await, Disposition::Done);
    assert_eq!(put.taken.lock().unwrap().len(), 1);
}

/// A ledger that cannot be written to for some tries.
struct Away(std::sync::atomic::AtomicUsize, MemoryLedger);

#[async_trait::async_trait]
impl Ledger for Away {
    async fn is_answered(&self, key: &CallbackKey) -> Result<bool, LedgerError> {
        self.1.is_answered(key).await
    }

    async fn answered(&self, key: &CallbackKey) -> Result<(), LedgerError> {
        let left = &self.0;
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(LedgerError { operation: "writing", source: "no connection".into() });
        }
        self.1.answered(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn attack_21_an_answer_is_remembered_when_the_bus_is_away_as_it_is_sent() {
    let put = script(vec![]);
    let mut answerer = answerer(put.clone(), AddressRules::default());
    answerer.ledger = Arc::new(Away((TRIES - 1).into(), MemoryLedger::default()));
    let outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    // Delivered again, since the acknowledgement was lost with the bus.
    for _ in 0..2 {
        assert_eq!(answerer.handle(&outcome).await, Disposition::Done);
    }
    assert_eq!(put.taken.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_passes_is_tried_again_at_once_and_then_by_redelivery() {
    let put = script(transient(TRIES + 1));
    let answerer = answerer(put.clone(), AddressRules::default());
    let outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    assert_eq!(answerer.handle(&outcome).await, Disposition::Later { after: NEXT_DELIVERY });
    assert_eq!(answerer.handle(&outcome).await, Disposition::Done);
    assert_eq!(put.taken.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_one_try_is_made_and_then_it_is_given_up() {
    let put = script(transient(1));
    let answerer = answerer(put.clone(), AddressRules::default());
    let mut outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    outcome.received_at = Timestamp::from(Timestamp::now().inner() - Duration::from_secs(601));
    assert!(matches!(answerer.handle(&outcome).await, Disposition::Refuse { .. }));
    assert_eq!(answerer.handle(&outcome).await, Disposition::Done);
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_the_rest_to_redelivery() {
    let answerer = answerer(script(transient(TRIES)), AddressRules::default());
    answerer.shutdown.cancel();
    let outcome = outcome_to(&answerer, testing::RESPONSE_URL);
    assert_eq!(answerer.handle(&outcome).await, Disposition::Later { after: NEXT_DELIVERY });
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_answered_goes_to_dead_letters_without_its_address() {
    let put = script(vec![PutError::Refused(403)]);
    let answerer = answerer(put.clone(), AddressRules::default());
    let elsewhere = outcome_to(&answerer, "https://canary.evil.example/x");
    let mut foreign = outcome_to(&answerer, testing::RESPONSE_URL);
    let other = SealSeed::generate().unwrap();
    foreign.return_address.sealed_url = other.seal(other.public(), b"canary").unwrap();
    let refused = outcome_to(&answerer, testing::RESPONSE_URL);
    for (outcome, why) in [(elsewhere, "response bucket"), (foreign, "does not open"), (refused, "403")] {
        let Disposition::Refuse { reason } = answerer.handle(&outcome).await else { panic!("not refused: {why}") };
        assert!(reason.contains(why) && !reason.contains("canary") && !reason.contains("Signature"), "{reason}");
    }
    assert!(put.taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn attack_10_a_redirect_is_not_followed_and_no_content_type_is_sent() {
    let (bucket, evil) = (MockServer::start().await, MockServer::start().await);
    let to = format!("{}/stolen", evil.uri());
    Mock::given(method("PUT"))
        .respond_with(ResponseTemplate::new(307).insert_header("location", to))
        .mount(&bucket)
        .await;
    let rules = AddressRules { sandbox: Some(bucket.uri().parse().unwrap()) };
    let answerer = answerer(Arc::new(HttpPut::new(true).unwrap()), rules);
    let outcome = outcome_to(&answerer, &format!("{}/answer?X-Amz-Signature=1", bucket.uri()));
    let Disposition::Refuse { reason } = answerer.handle(&outcome).await else { panic!("not refused") };
    assert!(reason.contains("307"), "{reason}");
    let asked = bucket.received_requests().await.unwrap();
    assert_eq!((asked.len(), asked[0].headers.get("content-type").map(|value| value.as_bytes())), (1, Some(&b""[..])));
    assert!(evil.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn errors_of_the_connection_do_not_tell_the_address() {
    let put = HttpPut::new(true).unwrap();
    let rules = AddressRules { sandbox: Some("http://127.0.0.1:9".parse().unwrap()) };
    let stack = contracts::StackId::parse(testing::STACK).unwrap();
    let address = rules.check("http://127.0.0.1:9/canary", &stack).unwrap();
    let error = put.put(&address, vec![]).await.unwrap_err();
    assert!(matches!(&error, PutError::Transient(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
}
