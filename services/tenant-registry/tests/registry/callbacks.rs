//! Create: who is connected, who is turned away, and that neither depends on how often or in what order things arrive.

use contracts::{
    CallbackToken,
    callback::{Answer, RequestType},
    connection::{ConnectionRejected, ConnectionState, ConnectionVerified, Grant, ListConnectionsRequest},
    enrollment::{EnrollmentCancelled, EnrollmentKind, EnrollmentState},
    verification::{Fault, Verdict, VerifyConnection},
};
use rstest::rstest;
use sea_orm::{EntityTrait, PaginatorTrait};
use tenant_registry::{
    entity,
    flow::{callbacks::Handled, reports::Reported},
};

use crate::world::*;

pub(crate) async fn kept_callbacks(world: &World) -> u64 {
    entity::callback::Entity::find().count(world.store.db()).await.unwrap()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_connects_and_everything_follows_in_order(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    assert_eq!(world.send(&create).await, Handled::Verifying);
    let job = world.job(&role(CUSTOMER, "0a")).await;
    assert_eq!((job.tenant, &job.external_id), (tenant, &offer.external_id));
    assert_eq!(world.connection(&job).await.state, ConnectionState::Verifying);
    assert!(world.bus.of::<Grant>().is_empty(), "nothing may be granted before it is proven");

    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Applied);
    world.flush().await;
    let expected = [
        "rolebridge.connection.registered.v1",
        "rolebridge.internal.verify-connection.v1",
        "rolebridge.internal.grant.v1",
        "rolebridge.connection.verified.v1",
        "rolebridge.internal.callback-outcome.v1",
    ];
    let about: Vec<_> = world.bus.kinds().into_iter().filter(|kind| expected.contains(&kind.as_str())).collect();
    assert_eq!(about, expected);

    let [outcome] = world.answers(&create).await.try_into().unwrap();
    assert_eq!(outcome.answer, Answer::Success { connection: Some(job.connection) });
    assert_eq!(outcome.physical_resource_id, format!("rolebridge-{}", job.connection));
    assert_eq!(outcome.return_address, create.return_address);
    let [grant] = world.bus.of::<Grant>().try_into().unwrap();
    assert_eq!((grant.state, grant.tenant_active, grant.revision), (ConnectionState::Verified, true, 1));
    assert_eq!(world.enrollment_state(tenant, offer.enrollment.enrollment).await, EnrollmentState::Used);
    assert!(
        world.audited(tenant).await.ends_with(&["connection.registered".to_owned(), "connection.verified".to_owned()])
    );
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_09_duplicates_make_one_connection_and_get_the_same_answer(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (registry, create) = (world.registry.clone(), create.clone());
        tasks.spawn(async move { registry.callback(&create).await.unwrap() });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|result| **result == Handled::Verifying).count(), 1, "{results:?}");
    let job = world.job(&role(CUSTOMER, "0a")).await;
    assert_eq!(world.bus.of::<VerifyConnection>().len(), 1);

    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Applied);
    assert_eq!(
        world.report(&report(&job, REFUSED)).await,
        Reported::Late,
        "the second report of a job counts for nothing"
    );
    // A duplicate cannot send the answer elsewhere.
    let mut again = create.clone();
    again.return_address.logical_resource_id = "Elsewhere".to_owned();
    assert_eq!(world.send(&again).await, Handled::Repeated);
    let answers = world.answers(&create).await;
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    let listed = world.registry.list_connections(tenant, &ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);

    // The used token, replayed by another stack.
    let replay = callback(&offer, RequestType::Create, CUSTOMER, "0b");
    assert_eq!(world.send(&replay).await, Handled::Refused);
    assert!(world.reason(&replay).await.contains("used by another stack"));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_35_of_many_stacks_with_one_account_offer_exactly_one_connects(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let creates: Vec<_> = (0..12)
        .map(|number| {
            callback(
                &offer,
                RequestType::Create,
                &format!("{:012}", 200_000_000_000u64 + number % 3),
                &format!("a{number:x}"),
            )
        })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for create in creates.clone() {
        let registry = world.registry.clone();
        tasks.spawn(async move { (create.key.stack_id.clone(), registry.callback(&create).await.unwrap()) });
    }
    let results = tasks.join_all().await;
    let chosen: Vec<_> = results.iter().filter(|(_, handled)| *handled == Handled::Verifying).collect();
    assert_eq!(chosen.len(), 1, "{results:?}");
    for create in creates.iter().filter(|create| create.key.stack_id != chosen[0].0) {
        assert!(world.reason(create).await.contains("used by another stack"));
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_07_a_forged_callback_leaves_the_victims_offer_open(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("victim").await;
    let forged =
        callback_of(&offer.external_id, CallbackToken::generate().hash(), RequestType::Create, "666666666666", "0f");
    assert_eq!(world.send(&forged).await, Handled::Stranger);
    let unknown = callback_of(
        &contracts::ExternalId::generate(),
        offer.callback_token.hash(),
        RequestType::Create,
        "666666666666",
        "0e",
    );
    assert_eq!(world.send(&unknown).await, Handled::Stranger);
    assert_eq!(
        world.reason(&forged).await,
        world.reason(&unknown).await,
        "the difference would tell which external IDs exist"
    );
    assert_eq!(kept_callbacks(&world).await, 0);
    assert_eq!(world.enrollment_state(tenant, offer.enrollment.enrollment).await, EnrollmentState::Open);
    assert!(world.audited(tenant).await.contains(&"callback.refused".to_owned()), "the victim's operator can see it");
    assert_eq!(world.connect(&offer, CUSTOMER, "0a").await.state, ConnectionState::Verified);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_01_a_second_tenants_claim_of_a_role_is_rejected_and_the_first_untouched(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer_a) = world.new_offer("a").await;
    let (tenant_b, offer_b) = world.new_offer("b").await;
    let first = world.connect(&offer_a, CUSTOMER, "0a").await;

    for (stack_name, verdict, said) in
        [("0b", REFUSED, "refuses the provider"), ("0c", Verdict::Held, "in use by another connection")]
    {
        let mut claim = callback(&offer_b, RequestType::Create, CUSTOMER, stack_name);
        claim.claims.as_mut().unwrap().role_arn = first.role_arn.clone();
        assert_eq!(world.send(&claim).await, Handled::Verifying);
        let job = world.job(&first.role_arn).await;
        assert_eq!((job.tenant, &job.external_id), (tenant_b, &offer_b.external_id), "the probe is B's own");
        world.report(&report(&job, verdict)).await;
        let reason = world.reason(&claim).await;
        assert!(reason.contains(said), "{reason}");
        assert!(!reason.contains(&first.tenant.to_string()) && !reason.contains(&first.connection.to_string()));
        assert_eq!(world.connection(&job).await.state, ConnectionState::Rejected);
    }
    assert!(world.audited(tenant_b).await.contains(&"connection.role-claimed-twice".to_owned()));
    assert_eq!(world.registry.get_connection(first.tenant, first.connection).await.unwrap(), first);
    assert_eq!(world.bus.of::<ConnectionVerified>().len(), 1);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_verified_for_one_connection_even_when_two_hold_at_once(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let mut jobs = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let (_, offer) = world.new_offer(name).await;
        let mut claim = callback(&offer, RequestType::Create, CUSTOMER, &format!("0{name}"));
        claim.claims.as_mut().unwrap().role_arn = role(CUSTOMER, "same");
        world.send(&claim).await;
        jobs.push(world.job(&role(CUSTOMER, "same")).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for job in &jobs {
        let (registry, report) = (world.registry.clone(), report(job, Verdict::Held));
        tasks.spawn(async move { registry.verification_reported(&report).await.unwrap() });
    }
    tasks.join_all().await;
    let mut states = Vec::new();
    for job in &jobs {
        states.push(world.connection(job).await.state);
    }
    states.sort_unstable();
    assert_eq!(
        states,
        [ConnectionState::Verified, ConnectionState::Rejected, ConnectionState::Rejected, ConnectionState::Rejected]
    );
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_03_a_faulty_role_is_rejected_with_what_mends_it_and_the_offer_given_back(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let faults = [
        (Verdict::Failed { fault: Fault::OpenWithoutId }, "without an external ID"),
        (Verdict::Failed { fault: Fault::OpenWithRandomId }, "with any external ID"),
        (Verdict::Failed { fault: Fault::WrongAccount }, "another AWS account"),
        (REFUSED, "refuses the provider"),
        (Verdict::Indeterminate, "did not answer clearly"),
    ];
    for (number, (verdict, said)) in faults.into_iter().enumerate() {
        let name = format!("a{number}");
        let create = callback(&offer, RequestType::Create, CUSTOMER, &name);
        assert_eq!(world.send(&create).await, Handled::Verifying, "the offer was given back");
        let job = world.job(&role(CUSTOMER, &name)).await;
        world.report(&report(&job, verdict)).await;
        assert!(world.reason(&create).await.contains(said));
        assert_eq!(world.connection(&job).await.state, ConnectionState::Rejected);
        assert_eq!(world.enrollment_state(tenant, offer.enrollment.enrollment).await, EnrollmentState::Open);
        let fault = match verdict {
            Verdict::Failed { fault } => Some(fault),
            _ => None,
        };
        assert_eq!(world.bus.of::<ConnectionRejected>().last().unwrap().fault, fault);
    }
    assert!(world.bus.of::<Grant>().is_empty());
    assert_eq!(world.connect(&offer, CUSTOMER, "ff").await.state, ConnectionState::Verified);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_34_an_offer_that_ended_is_refused_with_the_reason(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, cancelled) = world.new_offer("a").await;
    world.registry.cancel_enrollment(tenant, cancelled.enrollment.enrollment, "asked by mail").await.unwrap();
    let expired = world.offer(tenant, EnrollmentKind::Account).await;
    expire(&world, &expired).await;
    let (suspended_tenant, suspended) = world.new_offer("b").await;
    world.registry.suspend_tenant(suspended_tenant, "unpaid").await.unwrap();

    for (offer, said) in [(cancelled, "withdrawn"), (expired, "expired"), (suspended, "suspended")] {
        let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
        assert_eq!(world.send(&create).await, Handled::Refused);
        assert!(world.reason(&create).await.contains(said));
        // The answer is kept: the same request gets it again, whatever has changed.
        assert_eq!(world.send(&create).await, Handled::Repeated);
        assert_eq!(world.answers(&create).await.len(), 2);
    }
    assert!(world.bus.of::<VerifyConnection>().is_empty());
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_34_an_offer_withdrawn_while_its_stack_is_verified_stays_withdrawn(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let enrollment = offer.enrollment.enrollment;
    world.send(&callback(&offer, RequestType::Create, CUSTOMER, "0a")).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    for _ in 0..2 {
        let withdrawn = world.registry.cancel_enrollment(tenant, enrollment, "sent to the wrong person").await.unwrap();
        assert_eq!(withdrawn.state, EnrollmentState::Cancelled);
    }
    world.report(&report(&job, REFUSED)).await;
    assert_eq!(world.enrollment_state(tenant, enrollment).await, EnrollmentState::Cancelled);
    let again = callback(&offer, RequestType::Create, CUSTOMER, "0b");
    assert_eq!(world.send(&again).await, Handled::Refused);
    assert!(world.reason(&again).await.contains("withdrawn"));
    assert_eq!(world.bus.of::<EnrollmentCancelled>().len(), 1);
    let audited = world.audited(tenant).await;
    assert_eq!(audited.iter().filter(|action| *action == "enrollment.cancelled").count(), 1);

    // What was used is no offer any more: its connection is what can be taken back, and the operator is told so.
    let used = world.offer(tenant, EnrollmentKind::Account).await;
    world.connect(&used, CUSTOMER, "0c").await;
    let refused = world.registry.cancel_enrollment(tenant, used.enrollment.enrollment, "no").await.unwrap_err();
    assert!(refused.to_string().contains("revoke its connection"), "{refused}");
    assert_eq!(world.enrollment_state(tenant, used.enrollment.enrollment).await, EnrollmentState::Used);
}

async fn expire(world: &World, offer: &contracts::enrollment::EnrollmentOffer) {
    use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
    let row = entity::enrollment::Entity::find_by_id(entity::Id(offer.enrollment.enrollment))
        .one(world.store.db())
        .await
        .unwrap()
        .unwrap();
    let mut row = row.into_active_model();
    row.expires_at = Set(entity::At(offer.enrollment.created_at));
    row.update(world.store.db()).await.unwrap();
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_15_claims_that_differ_are_refused_and_the_offer_stays_open(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let mut other_account = callback(&offer, RequestType::Create, CUSTOMER, "01");
    other_account.claims.as_mut().unwrap().account = contracts::AccountId::parse("999999999999").unwrap();
    let mut other_role = callback(&offer, RequestType::Create, CUSTOMER, "02");
    other_role.claims.as_mut().unwrap().role_arn = role("999999999999", "r");
    for create in [other_account, other_role] {
        assert_eq!(world.send(&create).await, Handled::Refused);
        assert!(world.reason(&create).await.contains("999999999999"));
    }
    assert_eq!(world.enrollment_state(tenant, offer.enrollment.enrollment).await, EnrollmentState::Open);
    assert!(world.bus.of::<VerifyConnection>().is_empty());
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_organizations_offer_connects_each_account_once(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let accounts: Vec<String> = (0..6).map(|number| format!("{}", 300_000_000_000u64 + number)).collect();
    for account in &accounts {
        assert_eq!(world.connect(&offer, account, "0a").await.state, ConnectionState::Verified);
    }
    let second = callback(&offer, RequestType::Create, &accounts[0], "0b");
    assert_eq!(world.send(&second).await, Handled::Refused);
    assert!(world.reason(&second).await.contains("already"));
    assert_eq!(world.enrollment_state(tenant, offer.enrollment.enrollment).await, EnrollmentState::Open);
    let listed = world.registry.list_connections(tenant, &ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.items.len(), accounts.len());
}
