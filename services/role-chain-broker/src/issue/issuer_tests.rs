use std::time::Duration;

use aws::{Failure, FailureKind, Unclear};
use contracts::{AccountId, Timestamp, connection::ConnectionState};

use super::*;
use crate::{
    chain::tests::{Fixture, fixture},
    denials::Denials,
    grants::Book,
    principal::fake::{Cut, ready_bench},
    sts::fake::{FakeSts, Trust, throttled},
};

struct Bench {
    fixture: Fixture,
    book: Arc<Book>,
    issuer: Issuer,
    grant: Grant,
    requester: SealSeed,
    _folder: tempfile::TempDir,
}

async fn bench(sts: FakeSts) -> Bench {
    let fixture = fixture(sts).await;
    let suspect = &fixture.suspect;
    let grant = Grant {
        tenant: suspect.tenant,
        connection: ConnectionId::new(),
        state: ConnectionState::Verified,
        tenant_active: true,
        account: suspect.account.clone(),
        region: suspect.region.clone(),
        role_arn: suspect.role.clone(),
        external_id: suspect.external_id.clone(),
        missing: Vec::new(),
        session_tags: false,
        revision: 1,
    };
    let book = Arc::new(Book::default());
    book.accept(grant.clone());
    let (journal, folder) = crate::journal::tests::journal();
    let issuer = Issuer {
        grants: book.clone(),
        sessions: Sessions::default(),
        chain: fixture.chain.clone(),
        seal: SealSeed::generate().unwrap(),
        used: UsedConnections::default(),
        journal,
        metrics: fixture.metrics.clone(),
    };
    Bench { fixture, book, issuer, grant, requester: SealSeed::generate().unwrap(), _folder: folder }
}

impl Bench {
    async fn issue_as(&self, requester: &str, duration_s: Option<u32>) -> Result<IssuedCredentials, ErrorReply> {
        let request = IssueRequest {
            requester_key: self.requester.public().clone(),
            requester: requester.to_owned(),
            duration_s,
            min_remaining_s: None,
        };
        self.issuer.issue(Purpose::CostRead, self.grant.tenant, self.grant.connection, Some("job"), request).await
    }

    fn now(&self, change: impl FnOnce(&mut Grant)) {
        let mut grant = Grant { revision: self.grant.revision + 1, ..self.grant.clone() };
        change(&mut grant);
        self.book.accept(grant);
    }
}

#[tokio::test]
async fn attack_24_a_thousand_at_once_are_one_chain() {
    let bench = bench(FakeSts { delay: Duration::from_millis(20), ..FakeSts::default() }).await;
    let names: Vec<String> = (0..1000).map(|n| format!("job-{n}")).collect();
    let all = futures::future::join_all(names.iter().map(|name| bench.issue_as(name, None))).await;
    assert!(all.iter().all(Result::is_ok));
    let calls = bench.fixture.sts.calls();
    assert_eq!(calls.len(), 2, "one first hop and one second");
    assert!(calls.iter().all(|call| call.seconds == 3600));
}

#[tokio::test]
async fn the_first_hop_is_bound_to_the_tenants_ids_and_the_second_to_the_purpose() {
    let bench = bench(FakeSts::default()).await;
    bench.issue_as("job", Some(43_200)).await.unwrap();
    let calls = bench.fixture.sts.calls();
    let first = calls[0].session_policy.as_ref().unwrap();
    assert!(first.contains("sts:ExternalId") && first.contains(bench.grant.external_id.as_str()));
    let second = calls[1].session_policy.as_ref().unwrap();
    assert!(second.contains("s3:GetObject") && !second.contains("sts:"));
    assert_eq!(calls[1].external_id.as_ref(), Some(&bench.grant.external_id));
    assert!(calls[1].session_name.starts_with("rolebridge.cost-read."));
    assert!(calls[0].by.starts_with("AKIA") && calls[1].by.starts_with("ASIA-111111111111"));
}

#[tokio::test]
async fn what_is_in_the_box_is_for_the_requester_and_says_what_it_is_for() {
    let bench = bench(FakeSts::default()).await;
    let reply = bench.issue_as("job", None).await.unwrap();
    assert!(!serde_json::to_string(&reply).unwrap().contains("canary"));
    let plain = bench.requester.open(bench.issuer.seal.public(), &reply.sealed).unwrap();
    let opened: SealedCredentials = serde_json::from_slice(&plain).unwrap();
    assert_eq!((opened.tenant, opened.connection, opened.purpose), (reply.tenant, reply.connection, reply.purpose));
    assert_eq!(opened.session_token.expose(), "canary-token");
    let bound = (opened.account.as_ref(), opened.role_arn.as_ref(), opened.region.as_ref());
    assert_eq!(bound, (Some(&reply.account), Some(&reply.role_arn), Some(&reply.region)));
    assert!(opened.agree_with(&reply));
    assert!(SealSeed::generate().unwrap().open(bench.issuer.seal.public(), &reply.sealed).is_err());
}

#[tokio::test]
async fn attack_31_a_withdrawn_grant_is_never_issued_for_though_the_session_is_cached() {
    let bench = bench(FakeSts::default()).await;
    bench.issue_as("job", None).await.unwrap();
    bench.now(|grant| grant.tenant_active = false);
    assert_eq!(bench.issue_as("job", None).await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn attack_31_a_session_of_before_a_revocation_is_not_handed_out_though_no_grant_told_of_it() {
    let mut bench = bench(FakeSts::default()).await;
    let (behind, principals, _) = ready_bench(bench.grant.tenant).await;
    let sts = bench.fixture.sts.clone();
    bench.issuer.chain = Arc::new(Chain::new(principals, sts.clone(), sts.clone()));
    let made = || sts.calls().iter().filter(|call| call.external_id.is_some()).count();
    bench.issue_as("job", None).await.unwrap();
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(made(), 1, "it is cached");
    behind.revoker.deny(bench.grant.tenant, Timestamp::now()).await.unwrap();
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(made(), 2, "the one of before is dropped");
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(made(), 2, "the one of after is kept");
}

#[tokio::test]
async fn attack_31_a_denial_that_is_known_from_memory_ends_what_is_cached() {
    let mut bench = bench(FakeSts::default()).await;
    let (behind, principals, _) = ready_bench(bench.grant.tenant).await;
    let (sts, denials) = (bench.fixture.sts.clone(), Denials::default());
    let chain = Chain::new(principals, sts.clone(), sts.clone()).remembering(denials.clone());
    bench.issuer.chain = Arc::new(chain);
    let made = || sts.calls().iter().filter(|call| call.external_id.is_some()).count();
    bench.issue_as("job", None).await.unwrap();
    denials.pretend(bench.grant.tenant, None);
    // Whatever the bucket says meanwhile: what is in memory is current, and it is not asked.
    behind.knife.set(Some(Cut::DeadBefore(0)));
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(made(), 1);
    behind.knife.set(None);
    let denied = Timestamp::now();
    behind.revoker.deny(bench.grant.tenant, denied).await.unwrap();
    denials.pretend(bench.grant.tenant, Some(denied));
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(made(), 2, "the one of before is dropped");
}

#[tokio::test]
async fn attack_31_a_session_that_a_revocation_met_while_it_was_made_is_given_to_nobody() {
    let mut bench = bench(FakeSts { delay: Duration::from_millis(50), ..FakeSts::default() }).await;
    let (behind, principals, _) = ready_bench(bench.grant.tenant).await;
    let sts = bench.fixture.sts.clone();
    bench.issuer.chain = Arc::new(Chain::new(principals, sts.clone(), sts.clone()));
    let (issued, denied) = tokio::join!(bench.issue_as("job", None), async {
        // The second hop is being asked for: whatever is looked at before it was.
        while sts.calls().len() < 2 {
            tokio::task::yield_now().await;
        }
        let denied = Timestamp::now();
        behind.revoker.deny(bench.grant.tenant, denied).await.unwrap();
        denied
    });
    assert!(issued.unwrap().expires_at >= denied.plus(Duration::from_secs(3600)), "it began after the revocation");
    assert_eq!(sts.calls().len(), 4, "both hops were begun anew");
}

#[tokio::test]
async fn a_grant_withdrawn_while_sts_is_asked_gives_nothing() {
    let bench = bench(FakeSts { delay: Duration::from_millis(50), ..FakeSts::default() }).await;
    let (issued, ()) = tokio::join!(bench.issue_as("job", None), async {
        while bench.fixture.sts.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        bench.now(|grant| grant.state = ConnectionState::Revoked);
    });
    assert_eq!(issued.unwrap_err().code, ErrorCode::NotVerified);
    // Nor does it stay in the cache.
    bench.book.accept(Grant { revision: 9, ..bench.grant.clone() });
    bench.issue_as("job", None).await.unwrap();
    assert_eq!(bench.fixture.sts.calls().len(), 3, "the first hop is kept, the second made anew");
}

#[tokio::test]
async fn another_tenants_connection_is_not_found() {
    let bench = bench(FakeSts::default()).await;
    let request = IssueRequest {
        requester_key: bench.requester.public().clone(),
        requester: "job".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let refused = bench.issuer.issue(Purpose::CostRead, TenantId::new(), bench.grant.connection, None, request).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    assert!(bench.fixture.sts.calls().is_empty());
}

#[tokio::test]
async fn a_requester_key_with_a_wrong_checksum_is_refused_before_anything_costs() {
    let bench = bench(FakeSts::default()).await;
    let mut text = bench.requester.public().as_str().to_owned();
    let last = if text.ends_with('A') { "B" } else { "A" };
    text.replace_range(55.., last);
    let request = IssueRequest {
        requester_key: contracts::SealingKey::parse(&text).unwrap(),
        requester: "job".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let (tenant, connection) = (bench.grant.tenant, bench.grant.connection);
    let refused = bench.issuer.issue(Purpose::CostRead, tenant, connection, None, request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.contains("checksum"), "{}", refused.message);
    assert!(bench.fixture.sts.calls().is_empty());
}

#[tokio::test]
async fn nothing_is_ever_issued_for_the_principal_that_is_no_tenants() {
    let bench = bench(FakeSts::default()).await;
    bench.book.accept(Grant { tenant: crate::principal::STRANGER, ..bench.grant.clone() });
    let request = IssueRequest {
        requester_key: bench.requester.public().clone(),
        requester: "job".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let refused =
        bench.issuer.issue(Purpose::CostRead, crate::principal::STRANGER, bench.grant.connection, None, request).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    assert!(bench.fixture.sts.calls().is_empty());
}

#[tokio::test]
async fn what_sts_says_becomes_what_to_do() {
    let other = |code| Failure::new(FailureKind::Other, Some(code));
    let unreachable = Failure::new(FailureKind::Indeterminate(Unclear::Unreachable), None);
    for (trouble, code, again) in [
        (vec![Some(throttled()); 3], ErrorCode::Throttled, true),
        (vec![None, Some(throttled()), Some(throttled()), Some(throttled())], ErrorCode::Throttled, true),
        (vec![None, Some(throttled()), Some(unreachable.clone()), Some(unreachable)], ErrorCode::Unavailable, true),
        (vec![Some(other("InvalidClientTokenId"))], ErrorCode::Unavailable, true),
        (vec![None, Some(other("ExpiredToken"))], ErrorCode::Unavailable, true),
        (vec![None, Some(other("ValidationError"))], ErrorCode::Internal, false),
    ] {
        let bench = bench(FakeSts::default()).await;
        let tries = trouble.len();
        bench.fixture.sts.trouble(trouble);
        let refused = bench.issue_as("job", None).await.unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms.is_some()), (code, again));
        assert_eq!(bench.fixture.sts.calls().len(), tries, "what is clear is not asked again");
        if code == ErrorCode::Throttled {
            let calls = bench.fixture.sts.calls().len();
            let again = bench.issue_as("job", None).await.unwrap_err();
            assert!(again.code == code && again.retry_after_ms <= refused.retry_after_ms);
            assert_eq!(bench.fixture.sts.calls().len(), calls, "whoever does not wait costs nothing");
            bench.now(|_| ());
        }
        // Nothing else of a failure is kept.
        assert!(bench.issue_as("job", None).await.is_ok());
    }
    let bench = bench(FakeSts::default()).await;
    bench.fixture.sts.set(&bench.grant.role_arn, Trust::Nobody);
    assert_eq!(bench.issue_as("job", None).await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn bad_requests_cost_no_call() {
    let bench = bench(FakeSts::default()).await;
    assert_eq!(bench.issue_as("no spaces", None).await.unwrap_err().code, ErrorCode::InvalidRequest);
    bench.now(|grant| grant.account = AccountId::parse("333333333333").unwrap());
    assert_eq!(bench.issue_as("job", None).await.unwrap_err().code, ErrorCode::Denied);
    assert!(bench.fixture.sts.calls().is_empty());
}
