//! Watching: who is probed again, when, out of which budget, and in which order. What the answers lead to is `answers.rs`.

use std::{collections::BTreeSet, time::Duration};

use contracts::{
    ConnectionId, ErrorCode, RoleArn, TenantId, Timestamp,
    callback::RequestType,
    connection::{Connection, ConnectionState},
    enrollment::EnrollmentKind,
    verification::{ConnectionsUsed, Fault, Used, Verdict, VerifyCause, VerifyConnection},
};
use rstest::rstest;
use sea_orm::ConnectionTrait;
use tenant_registry::{
    bucket::Rate,
    config::Rules,
    flow::{Registry, callbacks::Handled, reports::Reported, watch::Round},
    store::{Store, StoreError},
};

use crate::{
    lifecycle::{connected, later, now},
    world::*,
};

const HOUR: Duration = Duration::from_secs(3600);

fn at_rate(per_minute: u32) -> Rules {
    let mut rules = rules();
    rules.watch.rate = Rate::per_minute(per_minute);
    rules
}

/// So many connections of one tenant.
async fn many(world: &World, count: usize) -> (TenantId, Vec<Connection>) {
    let tenant = world.tenant("many").await;
    let mut connections = Vec::new();
    for number in 0..count {
        let offer = world.offer(tenant, EnrollmentKind::Account).await;
        connections.push(world.connect(&offer, CUSTOMER, &format!("c{number:02}")).await);
    }
    (tenant, connections)
}

/// Jobs that no stack waits for.
async fn scheduled(world: &World) -> Vec<VerifyConnection> {
    world.flush().await;
    world.bus.of::<VerifyConnection>().into_iter().filter(|job| job.cause != VerifyCause::Callback).collect()
}

fn refusal(error: StoreError) -> (ErrorCode, Option<u64>) {
    match error {
        StoreError::Refused(reply) => (reply.code, reply.retry_after_ms),
        other => panic!("{other}"),
    }
}

async fn used(world: &World, connection: &Connection, at: Timestamp) {
    let used = vec![Used { tenant: connection.tenant, connection: connection.connection, at }];
    world.registry.connections_used(&ConnectionsUsed { used }).await.unwrap();
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_probed_when_its_time_has_come_and_once(#[case] kind: Kind) {
    let (world, _, connection) = connected(kind).await;
    let due = connection.next_probe_at.expect("it is watched");
    assert!(due > Timestamp::now() && due <= Timestamp::now().plus(HOUR), "{due}");
    let early = Timestamp::from(due.inner() - Duration::from_millis(1));
    assert_eq!(world.registry.watch_round(early).await.unwrap(), Round::default());
    assert_eq!(world.registry.watch_round(due).await.unwrap().ordered, 1);
    // While it is being probed, also long after.
    assert_eq!(world.registry.watch_round(due.plus(HOUR * 3)).await.unwrap(), Round::default());
    let [job] = scheduled(&world).await.try_into().unwrap();
    assert_eq!((job.cause, &job.role_arn), (VerifyCause::Schedule, &connection.role_arn));
    assert_eq!(job.deadline, due.plus(Duration::from_secs(240)));
    assert_eq!(now(&world, &connection).await.next_probe_at, Some(due.plus(HOUR)));

    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Applied);
    let after = now(&world, &connection).await;
    assert_eq!((after.state, after.verified_at), (ConnectionState::Verified, connection.verified_at));
    assert!(after.probed_at > connection.probed_at);
    assert_eq!(world.registry.watch_round(due.plus(HOUR * 3)).await.unwrap().ordered, 1, "and again");
    // One that nobody reports is ended, and its time comes again.
    let job = scheduled(&world).await.pop().unwrap();
    assert_eq!(world.registry.sweep(job.deadline.plus(Duration::from_secs(31))).await.unwrap(), 1);
    let unclear = now(&world, &connection).await;
    assert_eq!((unclear.state, unclear.probed_at), (after.state, after.probed_at), "silence is no verdict");
    assert_eq!(world.registry.watch_round(due.plus(HOUR * 6)).await.unwrap().ordered, 1);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn two_instances_probe_each_connection_once_and_out_of_one_budget(#[case] kind: Kind) {
    // A probe a second, and at most ten at once.
    let world = World::with(kind, at_rate(60)).await;
    let (_, connections) = many(&world, 25).await;
    let other = Registry::new(Store::open(&world.url).await.unwrap(), at_rate(60), world.bus.clone());
    let start = Timestamp::now().plus(HOUR * 2);
    let (mut ordered, mut seconds) = (0, 0);
    while ordered < connections.len() {
        let at = start.plus(Duration::from_secs(seconds));
        let (one, two) = tokio::join!(world.registry.watch_round(at), other.watch_round(at));
        let (one, two) = (one.unwrap(), two.unwrap());
        ordered += one.ordered + two.ordered;
        assert!(ordered <= 10 + seconds as usize, "{ordered} after {seconds} s");
        assert!(ordered == connections.len() || one.exhausted || two.exhausted);
        assert!(seconds < 60, "only {ordered} after a minute");
        seconds += 3;
    }
    let probed: BTreeSet<ConnectionId> = scheduled(&world).await.iter().map(|job| job.connection).collect();
    assert_eq!((ordered, probed.len(), scheduled(&world).await.len()), (25, 25, 25), "each once");
    let state = world.registry.watch_state(start).await.unwrap();
    assert_eq!((state.by_state, state.due), (vec![(ConnectionState::Verified, 25)], 0));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn those_in_use_are_probed_first_then_the_longest_due(#[case] kind: Kind) {
    // Two at once, and then none for a while.
    let world = World::with(kind, at_rate(1)).await;
    let (_, mut connections) = many(&world, 5).await;
    connections.sort_by_key(|connection| connection.next_probe_at);
    let (longest, latest) = (&connections[0], &connections[4]);
    used(&world, latest, Timestamp::now()).await;
    // Used once, and not lately.
    used(&world, &connections[3], Timestamp::from(Timestamp::now().inner() - HOUR * 48)).await;
    let at = Timestamp::now().plus(HOUR * 2);
    let state = world.registry.watch_state(at).await.unwrap();
    assert!(state.due == 5 && state.overdue >= HOUR, "{state:?}");
    assert_eq!(world.registry.watch_round(at).await.unwrap(), Round { ordered: 2, exhausted: true });
    let probed: BTreeSet<ConnectionId> = scheduled(&world).await.iter().map(|job| job.connection).collect();
    assert_eq!(probed, BTreeSet::from([latest.connection, longest.connection]));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_noted_forward_only_and_for_its_own_tenant(#[case] kind: Kind) {
    let (world, _, connection) = connected(kind).await;
    assert_eq!(connection.used_at, None);
    let ago = |seconds| Timestamp::from(Timestamp::now().inner() - Duration::from_secs(seconds));
    let whole = |at: Timestamp| at.inner().unix_timestamp();
    let (earlier, later) = (ago(600), ago(60));
    used(&world, &connection, later).await;
    used(&world, &connection, earlier).await;
    assert_eq!(now(&world, &connection).await.used_at.map(whole), Some(whole(later)));
    let mut foreign = connection.clone();
    foreign.tenant = world.tenant("b").await;
    used(&world, &foreign, Timestamp::now()).await;
    assert_eq!(now(&world, &connection).await.used_at.map(whole), Some(whole(later)));
    used(&world, &connection, Timestamp::now().plus(HOUR)).await;
    assert!(now(&world, &connection).await.used_at.unwrap() <= Timestamp::now(), "not in the future");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_on_demand_is_ordered_once_and_only_for_what_is_watched(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let verify = async |tenant, id| world.registry.verify_connection(tenant, id).await;
    for _ in 0..2 {
        let shown = verify(connection.tenant, connection.connection).await.unwrap();
        assert_eq!((shown.connection, shown.probed_at), (connection.connection, connection.probed_at));
    }
    let [job] = scheduled(&world).await.try_into().unwrap();
    assert_eq!((job.cause, &job.external_id), (VerifyCause::Request, &offer.external_id));
    world.report(&report(&job, Verdict::Held)).await;
    assert!(now(&world, &connection).await.probed_at > connection.probed_at);
    let requests = world.audited(connection.tenant).await;
    assert_eq!(requests.iter().filter(|action| *action == "connection.verify-requested").count(), 1);

    let other = world.tenant("b").await;
    let of = async |tenant, id| refusal(verify(tenant, id).await.unwrap_err()).0;
    assert_eq!(of(other, connection.connection).await, ErrorCode::NotFound);
    let (tenant, second) = world.new_offer("c").await;
    world.send(&callback(&second, RequestType::Create, CUSTOMER, "0c")).await;
    let verifying = world.job(&role(CUSTOMER, "0c")).await;
    assert_eq!(of(tenant, verifying.connection).await, ErrorCode::Conflict);
    world.registry.suspend_tenant(connection.tenant, "unpaid").await.unwrap();
    assert_eq!(of(connection.tenant, connection.connection).await, ErrorCode::Conflict);
    assert_eq!(world.registry.watch_round(Timestamp::now().plus(HOUR * 2)).await.unwrap(), Round::default());
    world.registry.resume_tenant(connection.tenant, "paid").await.unwrap();
    assert_eq!(world.registry.watch_round(Timestamp::now().plus(HOUR * 2)).await.unwrap().ordered, 1);
    world.registry.revoke_connection(connection.tenant, connection.connection, "end").await.unwrap();
    assert_eq!(of(connection.tenant, connection.connection).await, ErrorCode::Conflict);
    assert_eq!(now(&world, &connection).await.next_probe_at, None);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn stacks_are_never_kept_waiting_requests_are_and_the_schedule_keeps_its_share(#[case] kind: Kind) {
    let world = World::with(kind, at_rate(1)).await;
    // Three stacks call back in a minute that has one probe.
    let (tenant, connections) = many(&world, 3).await;
    let error = world.registry.verify_connection(tenant, connections[0].connection).await.unwrap_err();
    let (code, retry_after) = refusal(error);
    assert_eq!(code, ErrorCode::Throttled);
    assert!(retry_after.unwrap() > 60_000, "{retry_after:?}");
    assert!(scheduled(&world).await.is_empty());
    // What is refused leaves nothing behind.
    assert_eq!(now(&world, &connections[0]).await, connections[0]);
    let due = connections.iter().map(|connection| connection.next_probe_at.unwrap()).max().unwrap();
    assert!(world.registry.watch_round(due).await.unwrap().ordered > 0);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_late_report_of_the_old_role_does_not_bring_it_back(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    world.registry.watch_round(connection.next_probe_at.unwrap()).await.unwrap();
    let [overtaken] = scheduled(&world).await.try_into().unwrap();
    let new_role: RoleArn = role(CUSTOMER, "new");
    let mut update = later(&offer, &connection, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = new_role.clone();
    assert_eq!(world.send(&update).await, Handled::Verifying);
    let job = world.job(&new_role).await;
    assert_eq!(world.report(&report(&job, Verdict::Held)).await, Reported::Applied);
    let open = Verdict::Failed { fault: Fault::OpenWithoutId };
    assert_eq!(world.report(&report(&overtaken, open)).await, Reported::Applied);
    let after = now(&world, &connection).await;
    assert_eq!((after.state, after.role_arn), (ConnectionState::Verified, new_role));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_06_updates_that_name_another_role_keep_nothing_from_being_probed(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let due = connection.next_probe_at.unwrap();
    let mut update = later(&offer, &connection, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = role(CUSTOMER, "other");
    assert_eq!(world.send(&update).await, Handled::Verifying);
    // The stack's own probe is under way, and the role that serves is probed all the same.
    assert_eq!(world.registry.watch_state(due).await.unwrap().due, 1);
    assert_eq!(world.registry.watch_round(due).await.unwrap().ordered, 1);
    let [job] = scheduled(&world).await.try_into().unwrap();
    assert_eq!(job.role_arn, connection.role_arn);
    assert_eq!(world.registry.watch_round(due.plus(HOUR * 3)).await.unwrap(), Round::default());
    // Another such Update does not take that probe's report away.
    update.key.request_id = "again".to_owned();
    assert_eq!(world.send(&update).await, Handled::Verifying);
    let open = Verdict::Failed { fault: Fault::OpenWithoutId };
    assert_eq!(world.report(&report(&job, open)).await, Reported::Applied);
    assert_eq!(now(&world, &connection).await.state, ConnectionState::Insecure);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_06_an_update_that_fails_brings_the_next_probe_forward(#[case] kind: Kind) {
    let (world, offer, connection) = connected(kind).await;
    let mut update = later(&offer, &connection, RequestType::Update, "0a");
    update.claims.as_mut().unwrap().role_arn = role(CUSTOMER, "other");
    world.send(&update).await;
    let job = world.job(&role(CUSTOMER, "other")).await;
    world.report(&report(&job, REFUSED)).await;
    assert_eq!(world.registry.watch_round(Timestamp::now()).await.unwrap().ordered, 1);
    let [job] = scheduled(&world).await.try_into().unwrap();
    assert_eq!(job.role_arn, connection.role_arn);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_earlier_version_come_due_within_the_hour(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    let (_, offer) = world.new_offer("b").await;
    world.send(&callback(&offer, RequestType::Create, CUSTOMER, "0b")).await;
    let verifying = world.job(&role(CUSTOMER, "0b")).await;

    // As the first version left it.
    let columns = ["purposes", "missing", "max_session_s", "probed_at", "next_probe_at", "used_at", "streak"];
    let mut statements = vec!["DROP INDEX connections_due".to_owned(), "DROP TABLE budgets".to_owned()];
    statements.extend(columns.map(|column| format!("ALTER TABLE connections DROP COLUMN {column}")));
    statements.push("DELETE FROM seaql_migrations WHERE version = 'm0002_watch'".to_owned());
    for statement in statements {
        world.store.db().execute_unprepared(&statement).await.unwrap();
    }

    let before = Timestamp::now();
    Store::open(&world.url).await.unwrap();
    let after = now(&world, &connection).await;
    assert_eq!(after.state, ConnectionState::Verified);
    let wait = before.until(after.next_probe_at.expect("it is watched"));
    assert!(wait <= HOUR, "{wait:?}");
    assert_eq!(world.connection(&verifying).await.next_probe_at, None, "not verified yet");
}
