//! Watching: who is probed again, when, out of which budget, and what the answers lead to.

use contracts::connection::ConnectionState;
use rstest::rstest;
use sea_orm::ConnectionTrait;
use tenant_registry::store::Store;

use crate::world::*;

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_earlier_version_come_due_within_the_hour(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (_, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    let (_, offer) = world.new_offer("b").await;
    world.send(&callback(&offer, contracts::callback::RequestType::Create, CUSTOMER, "0b")).await;
    let verifying = world.job(&role(CUSTOMER, "0b")).await;

    // As the first version left it.
    let columns = ["purposes", "missing", "max_session_s", "probed_at", "next_probe_at", "used_at", "streak"];
    let mut statements = vec!["DROP INDEX connections_due".to_owned(), "DROP TABLE budgets".to_owned()];
    statements.extend(columns.map(|column| format!("ALTER TABLE connections DROP COLUMN {column}")));
    statements.push("DELETE FROM seaql_migrations WHERE version = 'm0002_watch'".to_owned());
    for statement in statements {
        world.store.db().execute_unprepared(&statement).await.unwrap();
    }

    let before = contracts::Timestamp::now();
    Store::open(&world.url).await.unwrap();
    let after = world.registry.get_connection(connection.tenant, connection.connection).await.unwrap();
    assert_eq!(after.state, ConnectionState::Verified);
    let wait = before.until(after.next_probe_at.expect("it is watched"));
    assert!(wait.as_secs() <= 3600, "{wait:?}");
    assert_eq!(world.connection(&verifying).await.next_probe_at, None, "not verified yet");
}
