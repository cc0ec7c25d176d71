//! What operators ask: tenants, offers, lists; and what the database itself forbids.

use contracts::{
    ErrorCode, PageRequest,
    callback::RequestType,
    connection::{ConnectionState, Grant, ListConnectionsRequest},
    enrollment::{CreateEnrollmentRequest, EnrollmentKind, EnrollmentState},
    tenant::{CreateTenantRequest, TenantResumed, TenantState, TenantSuspended},
    verification::{Probe, ProbeEvidence, ProbeOutcome, Verdict},
};
use rstest::rstest;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait};
use tenant_registry::{
    entity::{Json, connection, tenant},
    store::{OpenError, Store, StoreError},
};

use crate::world::*;

fn code(error: StoreError) -> ErrorCode {
    match error {
        StoreError::Refused(reply) => reply.code,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_once_for_a_key(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let request = CreateTenantRequest { name: "Example".to_owned(), idempotency_key: Some("k".to_owned()) };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (registry, request) = (world.registry.clone(), request.clone());
        tasks.spawn(async move { registry.create_tenant(&request).await.unwrap().tenant });
    }
    let made = tasks.join_all().await;
    assert!(made.iter().all(|tenant| *tenant == made[0]), "{made:?}");
    assert_eq!(tenant::Entity::find().count(world.store.db()).await.unwrap(), 1);
    let other = CreateTenantRequest { name: "Other".to_owned(), ..request };
    assert_eq!(code(world.registry.create_tenant(&other).await.unwrap_err()), ErrorCode::Conflict);
    let nameless = CreateTenantRequest { name: String::new(), idempotency_key: None };
    assert_eq!(code(world.registry.create_tenant(&nameless).await.unwrap_err()), ErrorCode::InvalidRequest);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_waits_for_the_principal_and_keeps_no_secret(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let early = world
        .registry
        .create_tenant(&CreateTenantRequest { name: "early".to_owned(), idempotency_key: None })
        .await
        .unwrap()
        .tenant;
    let request = CreateEnrollmentRequest {
        kind: EnrollmentKind::Account,
        region: None,
        account: None,
        cost_export: None,
        expires_in_s: None,
    };
    match world.registry.create_enrollment(early, &request).await.unwrap_err() {
        StoreError::Refused(reply) => {
            assert_eq!((reply.code, reply.retry_after_ms.is_some()), (ErrorCode::Unavailable, true))
        }
        other => panic!("{other:?}"),
    }
    let (_, offer) = world.new_offer("a").await;
    assert_eq!(offer.parameters["ExternalId"], offer.external_id.as_str());
    assert_eq!(offer.parameters["CallbackToken"], offer.callback_token.expose());
    assert!(!offer.quick_create_url.contains(offer.callback_token.expose()));

    let backend = world.store.db().get_database_backend();
    let dump = world
        .store
        .db()
        .query_all_raw(sea_orm::Statement::from_string(backend, "SELECT token_hash FROM enrollments"))
        .await
        .unwrap();
    let stored: String = dump[0].try_get("", "token_hash").unwrap();
    assert_eq!(stored, offer.callback_token.hash().as_str());
    world.flush().await;
    for raw in world.bus.all() {
        assert!(!String::from_utf8(raw.payload).unwrap().contains(offer.callback_token.expose()));
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_its_tenants_alone_and_keeps_to_the_limits(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let request = CreateEnrollmentRequest {
        kind: EnrollmentKind::Account,
        region: None,
        account: None,
        cost_export: None,
        expires_in_s: None,
    };
    let id = offer.enrollment.enrollment;
    let other = world.tenant("b").await;
    assert_eq!(code(world.registry.get_enrollment(other, id).await.unwrap_err()), ErrorCode::NotFound);
    assert_eq!(code(world.registry.cancel_enrollment(other, id, "mine").await.unwrap_err()), ErrorCode::NotFound);
    for _ in 0..2 {
        assert_eq!(
            world.registry.cancel_enrollment(tenant, id, "no longer wanted").await.unwrap().state,
            EnrollmentState::Cancelled
        );
    }
    for wrong in [
        CreateEnrollmentRequest { region: contracts::Region::parse("us-east-1").ok(), ..request.clone() },
        CreateEnrollmentRequest { expires_in_s: Some(59), ..request.clone() },
        CreateEnrollmentRequest {
            kind: EnrollmentKind::Organization,
            account: contracts::AccountId::parse(CUSTOMER).ok(),
            ..request.clone()
        },
    ] {
        assert_eq!(
            code(world.registry.create_enrollment(tenant, &wrong).await.unwrap_err()),
            ErrorCode::InvalidRequest
        );
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_31_suspending_a_tenant_withdraws_its_grants_and_resuming_gives_them_back(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let connection = world.connect(&offer, CUSTOMER, "0a").await;
    // One that is not granted yet hears of it when it is.
    let second = world.offer(tenant, EnrollmentKind::Account).await;
    world.send(&callback(&second, RequestType::Create, "333333333333", "0b")).await;
    let job = world.job(&role("333333333333", "0b")).await;

    for _ in 0..2 {
        assert_eq!(world.registry.suspend_tenant(tenant, "unpaid").await.unwrap().state, TenantState::Suspended);
    }
    world.report(&report(&job, Verdict::Held)).await;
    assert_eq!(
        code(
            world
                .registry
                .create_enrollment(
                    tenant,
                    &CreateEnrollmentRequest {
                        kind: EnrollmentKind::Account,
                        region: None,
                        account: None,
                        cost_export: None,
                        expires_in_s: None
                    }
                )
                .await
                .unwrap_err()
        ),
        ErrorCode::Denied
    );
    world.registry.resume_tenant(tenant, "paid").await.unwrap();
    world.flush().await;
    let of = |id| {
        world
            .bus
            .of::<Grant>()
            .into_iter()
            .filter(move |grant| grant.connection == id)
            .map(|grant| (grant.tenant_active, grant.revision))
    };
    assert_eq!(of(connection.connection).collect::<Vec<_>>(), [(true, 1), (false, 2), (true, 3)]);
    assert_eq!(of(job.connection).collect::<Vec<_>>(), [(false, 1), (true, 2)]);
    assert_eq!((world.bus.of::<TenantSuspended>().len(), world.bus.of::<TenantResumed>().len()), (1, 1));
    assert!(world.registry.suspend_tenant(contracts::TenantId::new(), "who").await.is_err());
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_only_grows(#[case] kind: Kind) {
    let world = World::new(kind).await;
    world.tenant("a").await;
    let db = world.store.db();
    for statement in ["UPDATE audit SET reason = 'nothing happened'", "DELETE FROM audit"] {
        let error = db.execute_unprepared(statement).await.unwrap_err();
        assert!(error.to_string().contains("only ever added to"), "{error}");
    }
    let (again, head_again) = match kind {
        Kind::Sqlite => (
            "REPLACE INTO audit (sequence, at, actor, action, reason, hash) \
             SELECT sequence, at, actor, action, 'nothing happened', hash FROM audit WHERE sequence = 1",
            "REPLACE INTO audit_head (id, sequence, hash) VALUES (1, 0, '')",
        ),
        Kind::Postgres => (
            "INSERT INTO audit (sequence, at, actor, action, reason, hash) \
             SELECT sequence, at, actor, action, 'nothing happened', hash FROM audit WHERE sequence = 1 \
             ON CONFLICT (sequence) DO UPDATE SET reason = EXCLUDED.reason",
            "INSERT INTO audit_head (id, sequence, hash) VALUES (1, 0, '') \
             ON CONFLICT (id) DO UPDATE SET sequence = EXCLUDED.sequence",
        ),
    };
    for statement in [
        again,
        head_again,
        "DELETE FROM audit_head",
        "UPDATE audit_head SET sequence = sequence - 1",
        "UPDATE audit_head SET hash = 'another'",
        "UPDATE audit_head SET id = 2, sequence = sequence + 1",
    ] {
        let error = db.execute_unprepared(statement).await.unwrap_err();
        assert!(error.to_string().contains("only ever added to"), "{statement}: {error}");
    }
    if matches!(kind, Kind::Postgres) {
        assert!(db.execute_unprepared("TRUNCATE audit_head").await.is_err());
        assert!(db.execute_unprepared("TRUNCATE audit").await.is_err());
    }
    assert!(tenant_registry::entity::audit::Entity::find().count(db).await.unwrap() > 0);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_that_fit_a_message(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let mut made = Vec::new();
    for number in 0..12u64 {
        let connection = world.connect(&offer, &format!("{}", 300_000_000_000 + number), "0a").await;
        fatten(&world, connection.connection).await;
        made.push(connection.connection);
    }
    let mut request = ListConnectionsRequest {
        state: Some(ConnectionState::Verified),
        page: PageRequest { limit: Some(500), after: None },
    };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = world.registry.list_connections(tenant, &request).await.unwrap();
        assert!(serde_json::to_vec(&page).unwrap().len() < 1024 * 1024, "a page that NATS would not carry");
        seen.extend(page.items.iter().map(|connection| connection.connection));
        pages += 1;
        match page.next {
            Some(next) => request.page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, made);
    assert!(pages > 1);

    let (mut actions, mut after) = (0, None);
    loop {
        let page = world.registry.list_audit(tenant, &PageRequest { limit: Some(7), after }).await.unwrap();
        assert!(page.items.len() <= 7);
        actions += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(actions, world.audited(tenant).await.len());
    let nonsense = PageRequest { limit: None, after: Some("x' OR 1=1".to_owned()) };
    assert_eq!(code(world.registry.list_tenants(&nonsense).await.unwrap_err()), ErrorCode::InvalidRequest);
    assert!(
        world
            .registry
            .list_connections(world.tenant("b").await, &ListConnectionsRequest::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

/// Evidence of about 100 KB.
async fn fatten(world: &World, id: contracts::ConnectionId) {
    let probe = ProbeEvidence {
        probe: Probe::NoId,
        outcome: ProbeOutcome::Refused,
        at: contracts::Timestamp::now(),
        aws_request_id: Some("r".repeat(500)),
        error_code: Some("AccessDenied".to_owned()),
    };
    let row =
        connection::Entity::find_by_id(tenant_registry::entity::Id(id)).one(world.store.db()).await.unwrap().unwrap();
    let mut row = row.into_active_model();
    row.evidence = Set(Json(vec![probe; 160]));
    row.update(world.store.db()).await.unwrap();
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_left_alone(#[case] kind: Kind) {
    let world = World::new(kind).await;
    Store::open(&world.url).await.expect("a second start finds everything in place");
    world
        .store
        .db()
        .execute_unprepared("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 1)")
        .await
        .unwrap();
    match Store::open(&world.url).await.unwrap_err() {
        OpenError::Newer { step, .. } => assert_eq!(step, "m9999_later"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_at_once_make_the_tables_once() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (url, _dir) = database(kind).await;
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let url = url.clone();
            starts.spawn(async move { Store::open(&url).await.map(|_| ()) });
        }
        for started in starts.join_all().await {
            started.unwrap();
        }
    }
}
