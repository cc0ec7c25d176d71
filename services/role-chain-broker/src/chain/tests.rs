//! The chain over STS in memory; the fixture serves tests of what stands on the chain, too.

use std::time::Duration;

use contracts::{ConnectionId, credentials::Purpose};

use super::*;
use crate::{
    metrics::Metrics,
    principal::fake::ready_principal,
    probe::{Prober, Suspect},
    sts::fake::{FakeSts, Trust, refused},
};

/// A tenant with a ready principal, one customer role, and STS in memory.
pub struct Fixture {
    pub sts: Arc<FakeSts>,
    pub chain: Arc<Chain>,
    pub metrics: Metrics,
    pub suspect: Suspect,
    pub principal_role: RoleArn,
    pub canary: RoleArn,
}

pub async fn fixture(sts: FakeSts) -> Fixture {
    let tenant = TenantId::new();
    let (principals, principal_role) = ready_principal(tenant).await;
    let role = RoleArn::parse("arn:aws:iam::222222222222:role/rolebridge/rolebridge-stack").unwrap();
    let suspect = Suspect {
        tenant,
        account: role.account().clone(),
        external_id: ExternalId::generate(),
        retired_external_id: None,
        region: Region::parse("eu-central-1").unwrap(),
        role,
    };
    let canary = RoleArn::parse("arn:aws:iam::111111111111:role/rolebridge/rolebridge-canary").unwrap();
    let sts = sts.role(&canary, Trust::Anyone);
    let sts =
        Arc::new(sts.role(&principal_role, Trust::Anyone).role(&suspect.role, Trust::Id(suspect.external_id.clone())));
    let chain = Arc::new(Chain::new(principals, sts.clone(), sts.clone()));
    let metrics = Metrics::new(&opentelemetry::global::meter("test"));
    Fixture { sts, chain, metrics, suspect, principal_role, canary }
}

impl Fixture {
    pub fn prober(&self) -> Prober {
        Prober::new(self.chain.clone(), self.canary.clone(), self.metrics.clone())
    }

    pub fn second_hop(&self) -> SecondHop<'_> {
        SecondHop {
            role: &self.suspect.role,
            external_id: &self.suspect.external_id,
            session_policy: "{}",
            duration: SessionDuration::LONGEST,
            session_name: "rolebridge.cost-read.0123456789ab",
            region: &self.suspect.region,
            tags: None,
        }
    }
}

#[tokio::test]
async fn issuing_and_probing_never_share_a_first_hop() {
    let fixture = fixture(FakeSts::default()).await;
    let suspect = &fixture.suspect;
    let policy: Arc<str> = "bound to the tenant's IDs".into();
    fixture
        .chain
        .probe(suspect.tenant, &suspect.role, Some(&suspect.external_id), None, &suspect.region)
        .await
        .unwrap();
    for _ in 0..3 {
        fixture.chain.issue(suspect.tenant, policy.clone(), &fixture.second_hop()).await.unwrap();
    }
    let first_hops: Vec<_> =
        fixture.sts.calls().into_iter().filter(|call| call.role == fixture.principal_role).collect();
    let policies: Vec<_> = first_hops.iter().map(|call| call.session_policy.as_deref()).collect();
    assert_eq!(policies, [None, Some("bound to the tenant's IDs")]);
}

#[tokio::test]
async fn a_dead_first_hop_is_made_anew() {
    let fixture = fixture(FakeSts::default()).await;
    let expired = Failure::new(aws::FailureKind::Other, Some("ExpiredToken"));
    fixture.sts.trouble([None, Some(expired)]);
    let issue = || fixture.chain.issue(fixture.suspect.tenant, "p".into(), fixture_hop(&fixture));
    assert!(matches!(issue().await, Err(ChainError::Sts { hop: Hop::Customer, .. })));
    issue().await.unwrap();
    assert_eq!(fixture.sts.calls().iter().filter(|call| call.role == fixture.principal_role).count(), 2);
}

fn fixture_hop(fixture: &Fixture) -> &'static SecondHop<'static> {
    Box::leak(Box::new(SecondHop {
        role: Box::leak(Box::new(fixture.suspect.role.clone())),
        external_id: Box::leak(Box::new(fixture.suspect.external_id.clone())),
        region: Box::leak(Box::new(fixture.suspect.region.clone())),
        session_policy: "{}",
        duration: SessionDuration::LONGEST,
        session_name: "rolebridge.cost-read.0123456789ab",
        tags: None,
    }))
}

impl Fixture {
    /// Issues with tags; gives them and those that the calls to the customer's role bore, in their order.
    async fn issue_tagged(&self) -> (Result<Session, ChainError>, SessionTags, Vec<Option<SessionTags>>) {
        let tags = SessionTags::of(ConnectionId::new(), Purpose::CostRead);
        let before = self.sts.calls().len();
        let hop = SecondHop { tags: Some(tags), ..self.second_hop() };
        let issued = self.chain.issue(self.suspect.tenant, "p".into(), &hop).await;
        let calls = self.sts.calls().into_iter().skip(before);
        let seen: Vec<_> = calls.filter(|call| call.role == self.suspect.role).map(|call| call.tags).collect();
        (issued, tags, seen)
    }
}

#[tokio::test]
async fn the_last_session_bears_the_tags_and_the_first_none() {
    let fixture = fixture(FakeSts::default()).await;
    let (issued, tags, seen) = fixture.issue_tagged().await;
    assert!(issued.is_ok());
    assert_eq!(seen, [Some(tags)]);
    assert!(
        fixture.sts.calls().iter().filter(|call| call.role == fixture.principal_role).all(|call| call.tags.is_none())
    );
}

#[tokio::test]
async fn a_role_that_does_not_admit_tags_is_served_without_and_asked_once() {
    let fixture = fixture(FakeSts::default()).await;
    fixture.sts.admit_tags(&fixture.suspect.role, false);
    let (issued, tags, seen) = fixture.issue_tagged().await;
    assert!(issued.is_ok());
    assert_eq!(seen, [Some(tags), None]);
    let (issued, _, seen) = fixture.issue_tagged().await;
    assert!(issued.is_ok());
    assert_eq!(seen, [None], "it is known for some time");
}

#[tokio::test]
async fn attack_36_a_refusal_of_another_cause_is_not_taken_for_one_of_the_tags() {
    let fixture = fixture(FakeSts::default()).await;
    fixture.sts.set(&fixture.suspect.role, Trust::Nobody);
    let (issued, tags, seen) = fixture.issue_tagged().await;
    let Err(ChainError::Sts { hop: Hop::Customer, failure }) = issued else { panic!("{issued:?}") };
    assert_eq!(failure.kind, aws::FailureKind::Refused);
    assert_eq!(seen, [Some(tags), None], "once with, once without, and no more");
    // Nothing was learnt of the tags.
    fixture.sts.set(&fixture.suspect.role, Trust::Id(fixture.suspect.external_id.clone()));
    let (issued, tags, seen) = fixture.issue_tagged().await;
    assert!(issued.is_ok());
    assert_eq!(seen, [Some(tags)]);
}

#[tokio::test]
async fn what_is_not_clear_is_no_word_against_tags() {
    let fixture = fixture(FakeSts::default()).await;
    assert!(fixture.issue_tagged().await.0.is_ok(), "the first hop is made");
    let slow = crate::sts::fake::throttled();
    fixture.sts.trouble([Some(slow.clone()), Some(slow.clone()), Some(slow)]);
    let (issued, tags, seen) = fixture.issue_tagged().await;
    assert!(issued.is_err());
    assert_eq!(seen, [Some(tags); 3], "each try of the issue, and none without");
    // Refused with tags, and then unclear without: the answer is the unclear one, and nothing is remembered.
    let unclear = Failure::new(aws::FailureKind::Indeterminate(aws::Unclear::TimedOut), None);
    fixture.sts.trouble([Some(refused()), Some(unclear.clone()), Some(unclear.clone()), Some(unclear)]);
    let (issued, _, _) = fixture.issue_tagged().await;
    let Err(ChainError::Sts { failure, .. }) = issued else { panic!("{issued:?}") };
    assert!(matches!(failure.kind, aws::FailureKind::Indeterminate(_)));
    let (_, tags, seen) = fixture.issue_tagged().await;
    assert_eq!(seen, [Some(tags)]);
}

#[tokio::test]
async fn tags_that_leave_the_policy_no_room_are_left_out() {
    let fixture = fixture(FakeSts::default()).await;
    let full = Failure::new(aws::FailureKind::Other, Some("PackedPolicyTooLarge"));
    fixture.sts.trouble([None, Some(full)]);
    let (issued, tags, seen) = fixture.issue_tagged().await;
    assert!(issued.is_ok());
    assert_eq!(seen, [Some(tags), None]);
}

/// Every wait of a chain has a limit of its own, and together they would be longer than anybody waits.
#[tokio::test(start_paused = true)]
async fn an_issue_has_ended_before_its_requester_gives_up_whatever_sts_does() {
    for (delay, answered) in [(3600, false), (5, true)] {
        let fixture = fixture(FakeSts { delay: Duration::from_secs(delay), ..FakeSts::default() }).await;
        let began = tokio::time::Instant::now();
        let ended = fixture.chain.issue(fixture.suspect.tenant, "p".into(), &fixture.second_hop()).await;
        assert_eq!(ended.is_ok(), answered, "{delay}");
        assert!(began.elapsed() <= super::call::ISSUE_WHOLE + Duration::from_millis(10), "{:?}", began.elapsed());
    }
}
