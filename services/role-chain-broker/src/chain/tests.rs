//! The chain over STS in memory; the fixture serves tests of what stands on the chain, too.

use super::*;
use crate::{
    metrics::Metrics,
    principal::fake::ready_principal,
    probe::{Prober, Suspect},
    sts::fake::{FakeSts, Trust},
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
        }
    }
}

#[tokio::test]
async fn issuing_and_probing_never_share_a_first_hop() {
    let fixture = fixture(FakeSts::default()).await;
    let suspect = &fixture.suspect;
    let policy: Arc<str> = "bound to the tenant's IDs".into();
    fixture.chain.probe(suspect.tenant, &suspect.role, Some(&suspect.external_id), &suspect.region).await.unwrap();
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
    }))
}
