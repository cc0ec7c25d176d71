use std::collections::VecDeque;

use contracts::{
    ErrorReply, SealedBox, SealingKey, Timestamp,
    credentials::{IssuedCredentials, Purpose, SealedCredentials, SecretText},
};

use super::*;

/// What the broker does next.
#[derive(Debug, Clone)]
enum Answer {
    /// A session of so many seconds.
    Lasting(u64),
    Refused(ErrorCode, Option<u64>),
    Nobody,
}

/// Answers in order, the last one for ever, and writes down what was asked for.
#[derive(Debug)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Arc<Mutex<Vec<u64>>>,
}

fn session(key: usize, seconds: u64) -> Session {
    let expires_at = Timestamp::now().plus(Duration::from_secs(seconds));
    let (tenant, connection, purpose) = (TenantId::new(), ConnectionId::new(), Purpose::CostRead);
    let credentials = SealedCredentials {
        tenant,
        connection,
        purpose,
        access_key_id: format!("ASIA{key}"),
        secret_access_key: SecretText::new("canary".to_owned()),
        session_token: SecretText::new("canary".to_owned()),
        expires_at,
        account: None,
        role_arn: None,
        region: None,
    };
    let about = IssuedCredentials {
        tenant,
        connection,
        purpose,
        account: "222222222222".parse().unwrap(),
        role_arn: "arn:aws:iam::222222222222:role/rolebridge/rolebridge-a".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        expires_at,
        broker_key: SealingKey::parse(&format!("X{}", "A".repeat(55))).unwrap(),
        sealed: SealedBox::from_bytes(b"box"),
    };
    Session { about, credentials }
}

impl Source for Script {
    fn ask(&self, min_remaining: Duration, _: Duration) -> BoxFuture<'_, Result<Session, IssueError>> {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(min_remaining.as_secs());
            asked.len() - 1
        };
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        async move {
            tokio::task::yield_now().await;
            match answer.expect("an answer") {
                Answer::Lasting(seconds) => Ok(session(number, seconds)),
                Answer::Refused(code, retry_after_ms) => {
                    let reply = ErrorReply { retry_after_ms, ..ErrorReply::new(code, "no") };
                    Err(RequestError::Refused(reply).into())
                }
                Answer::Nobody => {
                    Err(RequestError::NoResponders { subject: "s".to_owned(), service: "role-chain-broker" }.into())
                }
            }
        }
        .boxed()
    }
}

fn cached(answers: &[Answer]) -> (CachedCredentials, Arc<Mutex<Vec<u64>>>) {
    let asked = Arc::<Mutex<Vec<u64>>>::default();
    let script = Script { answers: Mutex::new(answers.iter().cloned().collect()), asked: asked.clone() };
    (CachedCredentials::of(script, Renewal::default()), asked)
}

async fn key(credentials: &CachedCredentials) -> String {
    credentials.get().await.unwrap().credentials.access_key_id.clone()
}

/// Until the renewal that is under way has ended.
async fn settled(credentials: &CachedCredentials) {
    let flight = credentials.0.state().flight.clone();
    if let Some(flight) = flight {
        let _ = flight.outcome.await;
    }
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_request_and_what_it_brought() {
    let (credentials, asked) = cached(&[Answer::Lasting(3600)]);
    let keys = futures::future::join_all((0..100).map(|_| key(&credentials))).await;
    assert!(keys.iter().all(|key| key == "ASIA0"));
    assert_eq!(key(&credentials).await, "ASIA0");
    assert_eq!(*asked.lock().unwrap(), [300]);
    assert!(!format!("{credentials:?}").contains("canary"));
}

#[tokio::test]
async fn renewed_in_the_background_before_they_must_be() {
    // 500 s are left of a session that the broker had: enough to be used, few enough for the next to be asked for.
    let (credentials, asked) = cached(&[Answer::Lasting(500), Answer::Lasting(3600)]);
    assert_eq!(key(&credentials).await, "ASIA0");
    // Of 200 s beyond the least a third is ahead of time; taken as if they had passed.
    credentials.0.state().held.as_mut().unwrap().renew_below = Duration::from_secs(600);
    credentials.0.state().rest_until = None;
    assert_eq!(key(&credentials).await, "ASIA0");
    assert_eq!(key(&credentials).await, "ASIA0");
    settled(&credentials).await;
    assert_eq!(key(&credentials).await, "ASIA1");
    assert_eq!(*asked.lock().unwrap(), [300, 600]);
}

#[tokio::test]
async fn what_is_held_serves_on_while_a_renewal_fails_and_not_below_the_least() {
    let (credentials, asked) = cached(&[Answer::Lasting(500), Answer::Nobody]);
    assert_eq!(key(&credentials).await, "ASIA0");
    tokio::time::pause();
    credentials.0.state().held.as_mut().unwrap().renew_below = Duration::from_secs(600);
    credentials.0.state().rest_until = None;
    assert_eq!(key(&credentials).await, "ASIA0");
    settled(&credentials).await;
    assert_eq!(key(&credentials).await, "ASIA0");
    assert!(asked.lock().unwrap().len() > 10, "it was tried again for half a minute");
    // As if time had passed: what is held has too little left now.
    let too_old = Held { session: Arc::new(session(9, 200)), renew_below: Duration::ZERO };
    credentials.0.state().held = Some(too_old);
    let error = credentials.get().await.unwrap_err();
    assert!(error.to_string().contains("nobody serves"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn tried_again_when_the_broker_said_within_the_limit() {
    let throttled = |after| Answer::Refused(ErrorCode::Throttled, Some(after));
    let (credentials, _) = cached(&[throttled(7_000), throttled(9_000), Answer::Lasting(3600)]);
    let began = Instant::now();
    assert_eq!(key(&credentials).await, "ASIA2");
    assert_eq!(began.elapsed().as_secs(), 16);
    let (credentials, asked) = cached(&[throttled(31_000)]);
    let began = Instant::now();
    assert!(credentials.get().await.unwrap_err().issue().is_some());
    assert!(began.elapsed().as_secs() < 1, "it waited for what comes too late");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refusal_takes_what_is_held_and_an_error_is_not_kept() {
    let refused = Answer::Refused(ErrorCode::NotVerified, None);
    let (credentials, asked) = cached(&[Answer::Lasting(500), refused.clone(), refused, Answer::Lasting(3600)]);
    assert_eq!(key(&credentials).await, "ASIA0");
    credentials.0.state().held.as_mut().unwrap().renew_below = Duration::from_secs(600);
    credentials.0.state().rest_until = None;
    assert_eq!(key(&credentials).await, "ASIA0");
    settled(&credentials).await;
    assert!(credentials.get().await.is_err());
    assert_eq!(key(&credentials).await, "ASIA3");
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn nothing_expired_or_too_short_is_given_out() {
    for seconds in [0, 299] {
        let (credentials, _) = cached(&[Answer::Lasting(seconds)]);
        let error = credentials.get().await.unwrap_err();
        assert!(matches!(error, CredentialsError::TooShort { wanted_s: 300, .. }), "{error}");
    }
    let (script, renewal) =
        (cached(&[Answer::Lasting(0)]), Renewal { min_remaining: Duration::ZERO, ..Renewal::default() });
    let source = Arc::into_inner(script.0.0).unwrap().source;
    let ended = CachedCredentials(Arc::new(Kept { source, renewal, state: Mutex::default() }));
    assert!(matches!(ended.get().await, Err(CredentialsError::TooShort { left_s: 0, .. })));
}

#[tokio::test]
async fn who_goes_away_does_not_end_it_for_the_others() {
    let (credentials, asked) = cached(&[Answer::Lasting(3600)]);
    let impatient = credentials.clone();
    tokio::select! {
        biased;
        _ = impatient.get() => unreachable!("it yields once"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(key(&credentials).await, "ASIA0");
    assert_eq!(asked.lock().unwrap().len(), 1);
}
