use std::sync::atomic::AtomicUsize;

use aws::Failure;
use contracts::Timestamp;

use super::*;
use crate::{
    grants::tests::grant,
    principal::PrincipalError,
    sts::{
        Keys,
        fake::{refused, throttled},
    },
};

/// A session that was begun `ago` seconds ago and has `left`.
fn aged(ago: u64, left: u64) -> Issued {
    let keys = Keys { access_key_id: "ASIA".into(), secret_access_key: "canary".into(), session_token: None };
    let now = Timestamp::now();
    let issued_at = Timestamp::from(now.inner() - Duration::from_secs(ago));
    let session = Session { keys, issued_at, expires_at: now.plus(Duration::from_secs(left)) };
    Issued::new(session, "rolebridge.cost-read.0123456789ab".to_owned(), SecretSlice::from(Vec::new()))
}

fn key(grant: &Grant) -> SessionKey {
    SessionKey::of(grant, Purpose::CostRead, SessionDuration::LONGEST)
}

#[derive(Clone, Default)]
struct Maker {
    made: Arc<AtomicUsize>,
}

impl Maker {
    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    async fn result(
        &self,
        sessions: &Sessions,
        key: &SessionKey,
        min_remaining: u64,
        outcome: Result<Issued, ChainError>,
    ) -> Result<(Arc<Issued>, bool), NoSession> {
        let made = self.made.clone();
        let make = move |_: Cause| async move {
            made.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(outcome?)
        };
        sessions.get(key.clone(), 1, Duration::from_secs(min_remaining), make).await
    }

    /// Whether it was cached.
    async fn get(&self, sessions: &Sessions, key: &SessionKey, min_remaining: u64, seconds: u64) -> bool {
        self.result(sessions, key, min_remaining, Ok(aged(0, seconds))).await.unwrap().1
    }

    async fn until_made(&self, number: usize) {
        while self.made() < number {
            tokio::task::yield_now().await;
        }
    }
}

async fn landed(sessions: &Sessions) {
    while !sessions.flights().is_empty() {
        tokio::task::yield_now().await;
    }
}

fn sts(hop: Hop, failure: Failure) -> ChainError {
    ChainError::Sts { hop, failure }
}

#[tokio::test]
async fn a_spent_session_is_made_anew_once_for_all() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    assert!(!maker.get(&sessions, &key, 300, 400).await);
    assert!(maker.get(&sessions, &key, 300, 400).await);
    futures::future::join_all((0..100).map(|_| maker.get(&sessions, &key, 1000, 3600))).await;
    assert_eq!(maker.made(), 2);
}

#[tokio::test]
async fn a_session_that_is_nearly_over_is_not_kept() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    for _ in 0..3 {
        maker.get(&sessions, &key, 0, 20).await;
    }
    assert_eq!(maker.made(), 3);
}

#[tokio::test]
async fn nobody_is_given_less_than_he_asked_for() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    let short = maker.result(&sessions, &key, 300, Ok(aged(0, 200))).await;
    assert!(matches!(short, Err(NoSession::TooShort)), "not even of a new one");
    // Making it anew fails: the old one serves those for whom it is good enough, and no others.
    let unavailable = || ChainError::Principal(PrincipalError::NotReady);
    assert!(maker.result(&sessions, &key, 100, Err(unavailable())).await.unwrap().1);
    assert!(maker.result(&sessions, &key, 300, Err(unavailable())).await.is_err());
    assert!(maker.result(&sessions, &key, 100, Err(unavailable())).await.unwrap().1);
}

#[tokio::test]
async fn withdrawing_takes_one_role_of_one_tenant() {
    let (sessions, maker) = (Sessions::default(), Maker::default());
    let (mine, others) = (grant(1), grant(1));
    for grant in [&mine, &others] {
        maker.get(&sessions, &key(grant), 0, 3600).await;
    }
    sessions.withdraw(&Withdrawal { purposes: Some(Vec::new()), ..Withdrawal::all(&mine) });
    assert!(maker.get(&sessions, &key(&mine), 0, 3600).await, "other purposes go on");
    sessions.withdraw(&Withdrawal { purposes: Some(vec![Purpose::CostRead]), ..Withdrawal::all(&mine) });
    assert!(!maker.get(&sessions, &key(&mine), 0, 3600).await);
    sessions.withdraw(&Withdrawal::all(&mine));
    assert!(maker.get(&sessions, &key(&others), 0, 3600).await);
    assert!(!maker.get(&sessions, &key(&mine), 0, 3600).await);
}

#[tokio::test]
async fn a_failure_is_given_to_all_who_waited_and_not_kept() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    let failing = || maker.result(&sessions, &key, 0, Err(ChainError::Principal(PrincipalError::NotReady)));
    let failed = futures::future::join_all((0..10).map(|_| failing())).await;
    assert!(failed.into_iter().all(|failed| failed.is_err()));
    assert_eq!(maker.made(), 1);
    assert!(!maker.get(&sessions, &key, 0, 3600).await);
}

#[tokio::test]
async fn one_that_is_in_use_is_made_anew_before_its_end_and_nobody_waits() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    let (young, _) = maker.result(&sessions, &key, 300, Ok(aged(0, 3600))).await.unwrap();
    maker.get(&sessions, &key, 300, 3600).await;
    assert_eq!(maker.made(), 1, "it is young");
    sessions.withdraw(&Withdrawal::all(&Grant { tenant: key.tenant, role_arn: key.role.clone(), ..grant(1) }));
    let (old, _) = maker.result(&sessions, &key, 300, Ok(aged(2700, 900))).await.unwrap();
    let (served, cached) = maker.result(&sessions, &key, 300, Ok(aged(0, 3600))).await.unwrap();
    assert!(cached && Arc::ptr_eq(&served, &old), "who asked was served out of the cache");
    maker.until_made(3).await;
    landed(&sessions).await;
    let (served, cached) = maker.result(&sessions, &key, 300, Ok(aged(0, 3600))).await.unwrap();
    assert!(cached && !Arc::ptr_eq(&served, &old) && !Arc::ptr_eq(&served, &young));
    assert!(maker.get(&sessions, &key, 300, 3600).await);
    assert_eq!(maker.made(), 3);
}

#[tokio::test]
async fn what_cannot_be_made_anew_rests_and_serves_on() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    maker.result(&sessions, &key, 300, Ok(aged(2700, 900))).await.unwrap();
    for _ in 0..20 {
        let failing = maker.result(&sessions, &key, 300, Err(sts(Hop::Customer, refused()))).await;
        assert!(failing.unwrap().1);
        landed(&sessions).await;
    }
    assert_eq!(maker.made(), 2, "it is not tried for each who asks");
}

#[test]
fn those_that_began_together_are_not_made_anew_together() {
    let (needed, at) = (Duration::from_secs(300), |left: u64| Duration::from_secs(left));
    let sessions: Vec<_> = (0..200).map(|_| aged(2600, 1000)).collect();
    let old = |left: u64| sessions.iter().filter(|issued| issued.grows_old(at(left), needed)).count();
    assert_eq!((old(1500), old(900)), (0, 200));
    assert!((20..180).contains(&old(1200)), "{}", old(1200));
}

#[tokio::test]
async fn attack_31_a_flight_does_not_put_back_what_was_withdrawn() {
    let (sessions, granted, maker) = (Sessions::default(), grant(1), Maker::default());
    let key = key(&granted);
    // Somebody waits for it.
    let waiting = maker.result(&sessions, &key, 300, Ok(aged(0, 3600)));
    let (waited, ()) = tokio::join!(waiting, async {
        maker.until_made(1).await;
        sessions.withdraw(&Withdrawal::all(&granted));
    });
    assert!(matches!(waited, Err(NoSession::Withdrawn)));
    assert!(sessions.good(&key, MARGIN).is_none());
    // It is made anew behind the back of whoever asked.
    maker.result(&sessions, &key, 300, Ok(aged(2700, 900))).await.unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let make = |cause: Cause| async move {
        assert_eq!(cause, Cause::Age);
        gone.await.unwrap();
        Ok(aged(0, 3600))
    };
    sessions.get(key.clone(), 1, Duration::from_secs(300), make).await.unwrap();
    let flight = sessions.flights().get(&key).unwrap().made.clone();
    sessions.withdraw(&Withdrawal::all(&granted));
    go.send(()).unwrap();
    assert!(matches!(flight.await, Err(NoSession::Withdrawn)));
    assert!(sessions.good(&key, MARGIN).is_none());
}

#[tokio::test]
async fn what_aws_decided_is_remembered_for_that_grant_alone() {
    for (decided, failure) in [
        (true, sts(Hop::Customer, refused())),
        (true, sts(Hop::Customer, throttled())),
        (true, sts(Hop::Principal, throttled())),
        (false, sts(Hop::Principal, refused())),
        (false, sts(Hop::Customer, Failure::new(FailureKind::Other, Some("ExpiredToken")))),
        (false, ChainError::Principal(PrincipalError::NotReady)),
    ] {
        let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
        maker.result(&sessions, &key, 0, Err(failure)).await.unwrap_err();
        let again = maker.result(&sessions, &key, 0, Ok(aged(0, 3600))).await;
        assert_eq!(maker.made(), if decided { 1 } else { 2 });
        assert_eq!(matches!(again, Err(NoSession::Chain { remembered: Some(_), .. })), decided);
        let of_next = sessions.get(key.clone(), 2, Duration::ZERO, |_| async { Ok(aged(0, 3600)) }).await;
        assert!(of_next.is_ok(), "the grant has changed");
    }
}

#[tokio::test]
async fn making_that_panics_is_a_failure_like_others() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    let failed = sessions.get(key.clone(), 1, Duration::ZERO, |_| async { panic!("a fault") }).await;
    assert!(matches!(failed, Err(NoSession::Lost)));
    assert!(!maker.get(&sessions, &key, 0, 3600).await);
}

#[tokio::test]
async fn whoever_goes_away_leaves_the_making_going_on() {
    let (sessions, key, maker) = (Sessions::default(), key(&grant(1)), Maker::default());
    let mut first = Box::pin(maker.result(&sessions, &key, 0, Ok(aged(0, 3600))));
    assert!(futures::poll!(&mut first).is_pending());
    drop(first);
    maker.until_made(1).await;
    landed(&sessions).await;
    maker.get(&sessions, &key, 0, 3600).await;
    assert_eq!(maker.made(), 1);
}

#[tokio::test]
async fn with_a_clock_that_is_behind_a_session_ends_when_it_does_at_aws() {
    let clock = AwsClock::default();
    clock.set_ahead(Duration::from_secs(240));
    let (sessions, key, maker) = (Sessions::new(clock), key(&grant(1)), Maker::default());
    assert!(!maker.get(&sessions, &key, 300, 3600).await);
    assert!(maker.get(&sessions, &key, 3200, 3600).await);
    assert!(!maker.get(&sessions, &key, 3361, 3700).await, "what looks like an hour is four minutes less");
    let short = maker.result(&sessions, &key, 3500, Ok(aged(0, 3600))).await;
    assert!(matches!(short, Err(NoSession::TooShort)));
}
