//! After the Create: Update, Delete, reports that come late, twice or never, and what they do to a connection that serves.

use std::time::Duration;

use contracts::{
    CallbackToken, ExternalId, Timestamp,
    callback::{Answer, CallbackReceived, RequestType},
    connection::{Connection, ConnectionRevoked, ConnectionState, ConnectionVerified, Grant},
    enrollment::EnrollmentOffer,
    verification::{ConfirmDeletion, DeletionReported, Fault, Verdict},
};
use rstest::rstest;
use sea_orm::{EntityTrait, sea_query::Expr};
use tenant_registry::{
    entity::{At, job},
    flow::{callbacks::Handled, reports::Reported},
};

use crate::world::*;

/// A later request of the stack that made `connection`.
pub(crate) fn later(
    offer: &EnrollmentOffer,
    connection: &Connection,
    request_type: RequestType,
    name: &str,
) -> CallbackReceived {
    let mut callback = callback(offer, request_type, connection.account.as_str(), name);
    callback.physical_resource_id = Some(format!("rolebridge-{}", connection.connection));
    callback
}

pub(crate) async fn connected(kind: Kind) -> (World, EnrollmentOffer, Connection) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    (world, offer, connection)
}

pub(crate) async fn now(world: &World, connection: &Connection) -> Connection {
    world.registry.get_connection(connection.tenant, connection.connection).await.unwrap()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_17_an_update_is_verified_first_and_the_old_role_serves_meanwhile(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let new_role = role(CUSTOMER, "new");

    let mut bad = later(&offer, &connection, RequestType::Update, "0a");
    bad.claims.as_mut().unwrap().role_arn = new_role.clone();
    assert_eq!(world.send(&bad).await, Handled::Verifying);
    assert_eq!(now(&world, &connection).await, connection, "nothing changes before the verdict");
    let job = world.job(&new_role).await;
    world.report(&report(&job, REFUSED)).await;
    assert!(world.reason(&bad).await.contains("refuses the provider"));
    let after = now(&world, &connection).await;
    let as_before = Connection { next_probe_at: after.next_probe_at, ..connection.clone() };
    assert_eq!(after, as_before, "a new role that fails leaves the old one serving");

    let mut good = later(&offer, &connection, RequestType::Update, "0a");
    good.claims.as_mut().unwrap().role_arn = new_role.clone();
    world.send(&good).await;
    let job = world.job(&new_role).await;
    world.report(&report(&job, Verdict::Held)).await;
    let after = now(&world, &connection).await;
    assert_eq!((after.state, &after.role_arn), (ConnectionState::Verified, &new_role));
    let [answer] = world.answers(&good).await.try_into().unwrap();
    assert_eq!(answer.physical_resource_id, format!("rolebridge-{}", connection.connection));
    assert_eq!(answer.answer, Answer::Success { connection: Some(connection.connection) });
    let grants = world.bus.of::<Grant>();
    assert_eq!(grants.iter().map(|grant| grant.revision).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(grants[1].role_arn, new_role);
    assert_eq!(world.bus.of::<ConnectionVerified>().len(), 2);

    let mut other_id = later(&offer, &connection, RequestType::Update, "0a");
    other_id.claims.as_mut().unwrap().external_id = ExternalId::generate();
    assert_eq!(world.send(&other_id).await, Handled::Refused);
    assert!(world.reason(&other_id).await.contains("cannot change"));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_same_role_is_probed_anew_and_tells_the_truth(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let update = later(&offer, &connection, RequestType::Update, "0a");
    world.send(&update).await;
    let job = world.job(&connection.role_arn).await;
    world.report(&report(&job, Verdict::Failed { fault: Fault::OpenWithoutId })).await;
    assert!(world.reason(&update).await.contains("without an external ID"));
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Insecure);

    let mended = later(&offer, &connection, RequestType::Update, "0a");
    world.send(&mended).await;
    let job = world.job(&connection.role_arn).await;
    world.report(&report(&job, Verdict::Held)).await;
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Verified);
    let [answer] = world.answers(&mended).await.try_into().unwrap();
    assert_eq!(answer.answer, Answer::Success { connection: Some(connection.connection) });
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_to_a_role_of_another_connection_is_refused(#[case] kind: Kind) {
    let (world, _, first) = connected(kind).await;
    let (_, offer) = world.new_offer("b").await;
    let second = world.connect(&offer, CUSTOMER, "0b").await;
    let mut update = later(&offer, &second, RequestType::Update, "0b");
    update.claims.as_mut().unwrap().role_arn = first.role_arn.clone();
    world.send(&update).await;
    let job = world.job(&first.role_arn).await;
    world.report(&report(&job, Verdict::Held)).await;
    assert!(world.reason(&update).await.contains("in use by another connection"));
    let after = now(&world, &second).await;
    assert_eq!(after, Connection { next_probe_at: after.next_probe_at, ..second });
    assert_eq!(now(&world, &first).await, first);
}

pub(crate) fn gone(job: &ConfirmDeletion, gone: bool) -> DeletionReported {
    DeletionReported { job: job.job, tenant: job.tenant, connection: job.connection, gone, evidence: Vec::new() }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_ends_the_connection_only_when_the_role_refuses_us(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    for (still_there, expected) in [(true, ConnectionState::Verified), (false, ConnectionState::Revoked)] {
        let delete = later(&offer, &connection, RequestType::Delete, "0a");
        assert_eq!(world.send(&delete).await, Handled::Ending);
        let twice = later(&offer, &connection, RequestType::Delete, "0a");
        assert_eq!(world.send(&twice).await, Handled::Ending);
        let [answer] = world.answers(&delete).await.try_into().unwrap();
        assert!(matches!(answer.answer, Answer::Success { .. }), "a Delete is answered at once");
        let job = world.bus.of::<ConfirmDeletion>().pop().unwrap();
        assert_eq!(world.registry.deletion_reported(&gone(&job, !still_there)).await.unwrap(), Reported::Applied);
        assert_eq!(world.registry.deletion_reported(&gone(&job, true)).await.unwrap(), Reported::Late);
        world.flush().await;
        assert_eq!(now(&world, &connection).await.state, expected);
    }
    assert_eq!(world.bus.of::<ConfirmDeletion>().len(), 2, "two Deletes at a time are one watch");
    assert_eq!(world.bus.of::<Grant>().last().unwrap().state, ConnectionState::Revoked);
    assert_eq!(world.bus.of::<ConnectionRevoked>().len(), 1);
    assert!(world.audited(connection.tenant).await.contains(&"connection.delete-unconfirmed".to_owned()));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_08_a_strangers_delete_is_answered_and_changes_nothing(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let mut other_stack = later(&offer, &connection, RequestType::Delete, "0f");
    other_stack.key.stack_id = stack("666666666666", "0f");
    let mut wrong_token = later(&offer, &connection, RequestType::Delete, "0a");
    wrong_token.claims.as_mut().unwrap().token_hash = CallbackToken::generate().hash();
    let mut no_claims = later(&offer, &connection, RequestType::Delete, "0a");
    no_claims.claims = None;
    let mut no_id = wrong_token.clone();
    no_id.key.request_id = "no-id".to_owned();
    no_id.physical_resource_id = Some("something-else".to_owned());
    let mut elsewhere = other_stack.clone();
    elsewhere.key.request_id = "elsewhere".to_owned();
    elsewhere.physical_resource_id = Some("something-else".to_owned());
    for delete in [other_stack, wrong_token, no_claims, no_id, elsewhere] {
        assert_eq!(world.send(&delete).await, Handled::Ignored);
        let [answer] = world.answers(&delete).await.try_into().unwrap();
        assert_eq!(answer.answer, Answer::Success { connection: None });
        assert_eq!(Some(answer.physical_resource_id), delete.physical_resource_id);
    }
    assert!(world.bus.of::<ConfirmDeletion>().is_empty());
    assert_eq!(now(&world, &connection).await, connection);
    assert!(world.audited(connection.tenant).await.contains(&"callback.delete-ignored".to_owned()));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_watched_for_the_role_that_serves_now(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let delete = later(&offer, &connection, RequestType::Delete, "0a");
    assert_eq!(world.send(&delete).await, Handled::Ending);
    let new_role = role(CUSTOMER, "new");
    let mut update = later(&offer, &connection, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = new_role.clone();
    world.send(&update).await;
    world.report(&report(&world.job(&new_role).await, Verdict::Held)).await;
    let really = later(&offer, &connection, RequestType::Delete, "0a");
    assert_eq!(world.send(&really).await, Handled::Ending);
    world.flush().await;
    let watches = world.bus.of::<ConfirmDeletion>();
    let roles: Vec<_> = watches.iter().map(|watch| &watch.role_arn).collect();
    assert_eq!(roles, [&connection.role_arn, &new_role]);
    assert_eq!(world.registry.deletion_reported(&gone(&watches[0], true)).await.unwrap(), Reported::Late);
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Verified);
    assert_eq!(world.registry.deletion_reported(&gone(&watches[1], true)).await.unwrap(), Reported::Applied);
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Revoked);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_watched_anew_when_the_watch_before_is_about_to_end(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    world.send(&later(&offer, &connection, RequestType::Delete, "0a")).await;
    job::Entity::update_many()
        .col_expr(job::Column::Deadline, Expr::value(At(Timestamp::now().plus(Duration::from_secs(60)))))
        .exec(world.store.db())
        .await
        .unwrap();
    world.send(&later(&offer, &connection, RequestType::Delete, "0a")).await;
    world.flush().await;
    let watches = world.bus.of::<ConfirmDeletion>();
    assert_eq!(watches.len(), 2);
    assert_eq!(world.registry.deletion_reported(&gone(&watches[0], false)).await.unwrap(), Reported::Late);
    assert_eq!(world.registry.deletion_reported(&gone(&watches[1], true)).await.unwrap(), Reported::Applied);
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Revoked);
}

/// CloudFormation rolled a Create back before it heard of SUCCESS: its Delete bears a physical ID that CloudFormation made up.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_never_heard_of_its_connection_can_still_delete_it(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let mut delete = later(&offer, &connection, RequestType::Delete, "0a");
    delete.physical_resource_id = Some("rolebridge-Connection-1ABCDEFGHIJKL".to_owned());
    assert_eq!(world.send(&delete).await, Handled::Ending);
    let [answer] = world.answers(&delete).await.try_into().unwrap();
    assert_eq!(Some(answer.physical_resource_id), delete.physical_resource_id, "a Delete is answered with its own ID");
    let watch = world.bus.of::<ConfirmDeletion>().pop().unwrap();
    assert_eq!(watch.connection, connection.connection);
    assert_eq!(now(&world, &connection).await, connection, "the probe decides");
    world.registry.deletion_reported(&gone(&watch, true)).await.unwrap();
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Revoked);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_18_a_delete_after_a_failed_create_succeeds_and_removes_nothing(#[case] kind: Kind) {
    let (world, _, serving) = connected(kind).await;
    let (_, offer) = world.new_offer("b").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0b");
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0b")).await;
    world.report(&report(&job, REFUSED)).await;
    let [failed] = world.answers(&create).await.try_into().unwrap();
    let mut delete = callback(&offer, RequestType::Delete, CUSTOMER, "0b");
    delete.physical_resource_id = Some(failed.physical_resource_id);
    assert_eq!(world.send(&delete).await, Handled::Ignored);
    assert!(matches!(world.answers(&delete).await[0].answer, Answer::Success { .. }));
    assert!(world.bus.of::<ConfirmDeletion>().is_empty());
    assert_eq!(now(&world, &serving).await, serving);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_nobody_reports_is_answered_and_its_late_report_ignored(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    assert_eq!(world.registry.sweep(job.deadline).await.unwrap(), 0, "the broker has a little more time to report");
    assert_eq!(world.registry.sweep(job.deadline.plus(Duration::from_secs(31))).await.unwrap(), 1);
    assert!(world.reason(&create).await.contains("did not answer clearly"));
    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Late);
    assert_eq!(world.connection(&job).await.state, ConnectionState::Rejected);
    assert_eq!(
        world.connect(&offer, CUSTOMER, "0b").await.state,
        ConnectionState::Verified,
        "the offer was given back"
    );
    assert!(world.audited(tenant).await.contains(&"connection.rejected".to_owned()));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_revoked_while_it_is_verified_is_answered_and_stays_revoked(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    world.send(&create).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    let revoked = world.registry.revoke_connection(tenant, job.connection, "fraud").await.unwrap();
    assert_eq!(revoked.state, ConnectionState::Revoked);
    assert_eq!(world.registry.revoke_connection(tenant, job.connection, "fraud").await.unwrap(), revoked, "repeatable");
    assert!(world.reason(&create).await.contains("ended this connection"));
    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Late);
    assert_eq!(world.connection(&job).await.state, ConnectionState::Revoked);
    assert_eq!(world.bus.of::<ConnectionRevoked>().len(), 1);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_report_for_another_tenants_connection_counts_for_nothing(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let other = world.tenant("b").await;
    world.send(&callback(&offer, RequestType::Create, CUSTOMER, "0a")).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    let mut foreign = report(&job, Verdict::Held);
    foreign.tenant = other;
    assert_eq!(world.report(&foreign).await, Reported::Late);
    let mut unknown = report(&job, Verdict::Held);
    unknown.job = no_job();
    assert_eq!(world.report(&unknown).await, Reported::Late);
    assert_eq!(world.connection(&job).await.state, ConnectionState::Verifying);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_17_an_update_cannot_stand_in_for_the_first_verification(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    world.send(&callback(&offer, RequestType::Create, CUSTOMER, "0a")).await;
    let job = world.job(&role(CUSTOMER, "0a")).await;
    let verifying = world.connection(&job).await;
    let mut update = later(&offer, &verifying, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = role(CUSTOMER, "good");
    assert_eq!(world.send(&update).await, Handled::Refused);
    assert!(world.reason(&update).await.contains("for the first time"));
    world.report(&report(&job, REFUSED)).await;
    assert_eq!(now(&world, &verifying).await.state, ConnectionState::Rejected);
    assert!(world.bus.of::<Grant>().is_empty());
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_17_of_two_updates_the_later_one_counts_whatever_is_reported_first(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let mut updates = Vec::new();
    for name in ["one", "two"] {
        let mut update = later(&offer, &connection, RequestType::Update, "0a");
        update.claims.as_mut().unwrap().role_arn = role(CUSTOMER, name);
        assert_eq!(world.send(&update).await, Handled::Verifying);
        updates.push((update, world.job(&role(CUSTOMER, name)).await));
    }
    for (_, job) in updates.iter().rev() {
        assert_eq!(world.report(&report(job, Verdict::Held)).await, Reported::Applied);
    }
    let after = now(&world, &connection).await;
    assert_eq!((after.state, after.role_arn), (ConnectionState::Verified, role(CUSTOMER, "two")));
    assert!(world.reason(&updates[0].0).await.contains("took this one's place"));
    let [answer] = world.answers(&updates[1].0).await.try_into().unwrap();
    assert_eq!(answer.answer, Answer::Success { connection: Some(connection.connection) });
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_makes_a_connection_verified_again_is_audited_as_such(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    world.registry.verify_connection(connection.tenant, connection.connection).await.unwrap();
    let job = world.job(&connection.role_arn).await;
    world.report(&report(&job, Verdict::Failed { fault: Fault::OpenWithoutId })).await;
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Insecure);
    let mut update = later(&offer, &connection, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = role(CUSTOMER, "new");
    world.send(&update).await;
    world.report(&report(&world.job(&role(CUSTOMER, "new")).await, Verdict::Held)).await;
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Verified);
    let audited = world.audited(connection.tenant).await;
    assert_eq!(audited.iter().filter(|action| *action == "connection.verified").count(), 2, "{audited:?}");
}
