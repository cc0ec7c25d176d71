//! The audit log: one chain, whoever writes; whoever changes it is found; what an older version wrote becomes part of it.

use std::sync::Arc;

use contracts::{
    PageRequest,
    audit::{
        AuditEntry, AuditRecorded,
        verify::{Break, Mark, Verified, Verifier},
    },
    callback::RequestType,
    tenant::CreateTenantRequest,
};
use rstest::rstest;
use sea_orm::{ConnectionTrait, EntityTrait};
use tenant_registry::{
    entity::audit_head,
    flow::Registry,
    store::{Store, StoreError},
};
use tokio::task::JoinSet;

use crate::world::*;

/// The whole log, in small pages.
async fn export(registry: &Registry) -> Vec<AuditEntry> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let page = registry.export_audit(&PageRequest { limit: Some(7), after }).await.unwrap();
        entries.extend(page.items);
        after = page.next;
        if after.is_none() {
            return entries;
        }
    }
}

fn verify(log: &[AuditEntry], noted: Option<&Mark>) -> Result<Verified, Break> {
    let mut verifier = Verifier::new(noted.cloned());
    for entry in log {
        verifier.push(entry.clone())?;
    }
    verifier.finish()
}

async fn run(world: &World, statements: &[&str]) {
    for statement in statements {
        world.store.db().execute_unprepared(statement).await.unwrap();
    }
}

/// What the owner of the database can do and nobody else.
async fn lift_the_guard(world: &World, kind: Kind) {
    match kind {
        Kind::Sqlite => run(world, &["DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"]).await,
        Kind::Postgres => run(world, &["DROP TRIGGER audit_no_change ON audit"]).await,
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn two_instances_write_one_chain_whatever_runs_at_once(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let second = Registry::new(Store::open(&world.url).await.unwrap(), rules(), world.bus.clone());
    let (tenant, offer) = world.new_offer("a").await;
    let mut storm = JoinSet::new();
    for number in 0..12u64 {
        for (instance, registry) in [world.registry.clone(), second.clone()].into_iter().enumerate() {
            let registry = registry.asked_by(Some(["one", "two"][instance]));
            let create = callback(&offer, RequestType::Create, CUSTOMER, &format!("{instance}{number}"));
            storm.spawn(async move {
                let name = format!("t-{instance}-{number}");
                let made = registry.create_tenant(&CreateTenantRequest { name, idempotency_key: None }).await.unwrap();
                registry.suspend_tenant(made.tenant, "off").await.unwrap();
                // Rolled back: it must leave neither a line nor a gap.
                let refused = registry.suspend_tenant(contracts::TenantId::new(), "who").await;
                assert!(matches!(refused, Err(StoreError::Refused(_))));
                registry.resume_tenant(tenant, "on").await.unwrap();
                registry.callback(&create).await.unwrap();
            });
        }
    }
    storm.join_all().await;

    let log = export(&world.registry).await;
    let verified = verify(&log, None).unwrap();
    assert!(verified.entries > 24 * 2, "{}", verified.entries);
    let head = audit_head::Entity::find_by_id(audit_head::THE_ONE).one(world.store.db()).await.unwrap().unwrap();
    assert_eq!(verified.head, Some(Mark { sequence: head.sequence, hash: head.hash }));
    assert!(log.is_sorted_by_key(|entry| entry.at));
    for user in ["one", "two"] {
        let suspended = |entry: &&AuditEntry| entry.action == "tenant.suspended" && entry.user.as_deref() == Some(user);
        assert_eq!(log.iter().filter(suspended).count(), 12);
    }

    // Each line is an event, published in the log's order by however many relays.
    let mut relays = JoinSet::new();
    for _ in 0..3 {
        let (relay, store) = (world.relay(), Arc::new(world.store.clone()));
        relays.spawn(async move {
            while store.outbox_backlog().await.unwrap().rows > 0 {
                relay.round().await.unwrap();
            }
        });
    }
    relays.join_all().await;
    let told: Vec<_> = world.bus.of::<AuditRecorded>().into_iter().map(|event| event.entry).collect();
    assert_eq!(told, log);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_the_log_is_found(#[case] kind: Kind) {
    let world = World::new(kind).await;
    for number in 0..5 {
        world.tenant(&format!("t{number}")).await;
    }
    let verified = verify(&export(&world.registry).await, None).unwrap();
    let head = verified.head.unwrap();
    let last = head.sequence;
    assert!(last >= 10);
    lift_the_guard(&world, kind).await;

    // From the end to the beginning: a verification tells of the first break.
    run(&world, &[&format!("DELETE FROM audit WHERE sequence = {last}")]).await;
    let log = export(&world.registry).await;
    assert!(verify(&log, None).is_ok(), "by itself nothing tells that the end is missing");
    assert_eq!(verify(&log, Some(&head)), Err(Break::CutOff { last: last - 1, noted: head.clone() }));
    world.tenant("next").await;
    let removed = Break::Removed { from: last, to: last };
    assert_eq!(verify(&export(&world.registry).await, None), Err(removed), "until the next line is written");

    for (statement, found) in [
        ("UPDATE audit SET reason = 'nothing happened' WHERE sequence = 9", Break::Changed { sequence: 9 }),
        ("UPDATE audit SET at = at + 1 WHERE sequence = 8", Break::Changed { sequence: 8 }),
        ("UPDATE audit SET \"user\" = 'somebody else' WHERE sequence = 7", Break::Changed { sequence: 7 }),
        ("DELETE FROM audit WHERE sequence IN (5, 6)", Break::Removed { from: 5, to: 6 }),
        (
            "UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 1) WHERE sequence = 3",
            Break::HashChanged { sequence: 3 },
        ),
        (
            "INSERT INTO audit (sequence, at, actor, action, reason, hash) \
             SELECT 0, at, actor, action, 'forged', hash FROM audit WHERE sequence = 1",
            Break::Inserted { sequence: 0 },
        ),
    ] {
        run(&world, &[statement]).await;
        assert_eq!(verify(&export(&world.registry).await, None), Err(found), "{statement}");
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_a_hash_is_refused(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let as_before =
        "INSERT INTO audit (sequence, at, actor, action, reason, hash) VALUES (99, 1, 'operator', 'x', 'y', '')";
    assert!(world.store.db().execute_unprepared(as_before).await.is_err());
}

/// The log as the first version kept it, with the gaps that rolled-back transactions left.
async fn back_to_the_first_version(world: &World, kind: Kind) {
    lift_the_guard(world, kind).await;
    let statements: &[&str] = match kind {
        Kind::Sqlite => &[
            "DROP TRIGGER audit_hashed",
            "DROP TRIGGER audit_no_replace",
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'only ever added to'); END",
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'only ever added to'); END",
        ],
        Kind::Postgres => &[
            "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
        ],
    };
    run(world, &["DROP TABLE audit_head", "DELETE FROM seaql_migrations WHERE version >= 'm0005'"]).await;
    run(world, statements).await;
    run(world, &["ALTER TABLE audit DROP COLUMN hash", "ALTER TABLE audit DROP COLUMN \"user\""]).await;
    // What came after the log's steps, too.
    for column in [
        "connections DROP COLUMN template_version",
        "connections DROP COLUMN session_tags",
        "jobs DROP COLUMN template_version",
    ] {
        run(world, &[&format!("ALTER TABLE {column}")]).await;
    }
    let shared = "INSERT INTO audit (sequence, at, actor, action, reason) VALUES";
    for sequence in (1..1300).filter(|sequence| sequence % 7 != 3) {
        let row = format!(
            "{shared} ({}, 1790000000{:03}, 'stack', 'callback.refused', 'r{sequence}')",
            100 + sequence,
            sequence % 1000
        );
        run(world, &[&row]).await;
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_wrote_becomes_part_of_the_chain(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("before").await;
    let before = export(&world.registry).await;
    back_to_the_first_version(&world, kind).await;

    let store = Store::open(&world.url).await.unwrap();
    let registry = Registry::new(store, rules(), world.bus.clone());
    let migrated = export(&registry).await;
    let verified = verify(&migrated, None).unwrap();
    assert_eq!(verified.entries as usize, before.len() + (1..1300).filter(|sequence| sequence % 7 != 3).count());
    assert_eq!(migrated[0].tenant, Some(tenant));
    assert_eq!(migrated[before.len()].reason, "r1");
    assert_eq!(migrated.last().unwrap().reason, "r1299");

    registry.suspend_tenant(tenant, "unpaid").await.unwrap();
    let log = export(&registry).await;
    assert_eq!(verify(&log, verified.head.as_ref()).unwrap().entries, verified.entries + 1);
    let change = registry.store().db().execute_unprepared("UPDATE audit SET reason = 'x' WHERE sequence = 1").await;
    assert!(change.unwrap_err().to_string().contains("only ever added to"));
}
