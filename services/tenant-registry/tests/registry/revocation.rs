//! Taking credentials back, step by step, and the end of a tenant: whatever crashes, is slow or comes twice.

use std::{sync::Arc, time::Duration};

use contracts::{
    ErrorCode, TenantId, Timestamp,
    callback::{CallbackOutcome, RequestType},
    connection::{ConnectionState, Grant, ListConnectionsRequest},
    enrollment::{EnrollmentCancelled, EnrollmentKind, EnrollmentState},
    revocation::{DenySessions, RemovePrincipal, RevocationAction, RevocationReported, RevocationStep},
    tenant::{CreateTenantRequest, PrincipalReady, TenantDeleted, TenantState},
    verification::Verdict,
};
use rstest::rstest;
use tenant_registry::{
    flow::{Registry, callbacks::Handled, reports::Reported},
    store::{Store, StoreError},
};
use tokio::task::JoinSet;

use crate::world::*;

fn code(result: Result<impl std::fmt::Debug, StoreError>) -> ErrorCode {
    match result {
        Err(StoreError::Refused(reply)) => reply.code,
        other => panic!("a refusal expected, but {other:?}"),
    }
}

fn done(steps: &[RevocationStep]) -> Vec<(RevocationAction, bool)> {
    steps.iter().map(|step| (step.action, step.done_at.is_some())).collect()
}

fn denied(job: &DenySessions, done: bool) -> RevocationReported {
    let waiting_for = (!done).then(|| "AWS".to_owned());
    RevocationReported { job: job.job, tenant: job.tenant, action: RevocationAction::SessionsDenied, done, waiting_for }
}

fn removed(job: &RemovePrincipal) -> RevocationReported {
    let action = RevocationAction::PrincipalRemoved;
    RevocationReported { job: job.job, tenant: job.tenant, action, done: true, waiting_for: None }
}

impl World {
    async fn sweep_revocations(&self, later: Duration) -> usize {
        self.registry.sweep_revocations(Timestamp::now().plus(later)).await.unwrap()
    }

    async fn revocation(&self, tenant: TenantId) -> Vec<(RevocationAction, bool)> {
        done(&self.registry.get_tenant(tenant).await.unwrap().revocation)
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_31_a_revocation_shows_its_steps_and_is_tried_until_each_is_done(#[case] kind: Kind) {
    use RevocationAction::{GrantWithdrawn, SessionsDenied};
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    let id = world.connect(&offer, CUSTOMER, "0a").await.connection;
    let before = Timestamp::now();
    let revoked = world.registry.revoke_connection(tenant, id, "fraud").await.unwrap();
    assert_eq!(done(&revoked.revocation), [(GrantWithdrawn, false), (SessionsDenied, false)]);
    assert!(revoked.revocation.iter().all(|step| step.waiting_for.is_some()), "{:?}", revoked.revocation);
    world.sweep_revocations(Duration::ZERO).await;
    let steps = async || world.registry.get_connection(tenant, id).await.unwrap().revocation;
    assert_eq!(done(&steps().await)[0], (GrantWithdrawn, false), "its grant is not published yet");
    world.flush().await;
    world.sweep_revocations(Duration::ZERO).await;
    assert_eq!(done(&steps().await)[0], (GrantWithdrawn, true));

    let [job]: [DenySessions; 1] = world.bus.of().try_into().unwrap();
    assert_eq!((job.tenant, job.connection), (tenant, Some(id)));
    assert!(job.before >= Timestamp::from(before.inner() - Duration::from_millis(1)));
    let kinds = world.bus.kinds();
    let last = |kind: &str| kinds.iter().rposition(|found| found == kind).unwrap();
    assert!(
        last("rolebridge.internal.grant.v1") < last("rolebridge.internal.deny-sessions.v1"),
        "the grant goes first"
    );

    // Nobody reports: the same job again, after a minute, then after two.
    for (seconds, jobs) in [(50, 1), (70, 2), (80, 2), (130, 2), (150, 3)] {
        world.sweep_revocations(Duration::from_secs(seconds)).await;
        world.flush().await;
        let all = world.bus.of::<DenySessions>();
        assert_eq!(all.len(), jobs, "after {seconds} s");
        assert!(all.iter().all(|again| *again == job));
    }
    let ids: std::collections::BTreeSet<_> = world.bus.ids().into_iter().map(|id| id.to_string()).collect();
    assert_eq!(ids.len(), world.bus.ids().len(), "each time a new message");

    let foreign = RevocationReported { tenant: world.tenant("b").await, ..denied(&job, true) };
    let other = RevocationReported { action: RevocationAction::PrincipalRemoved, ..denied(&job, true) };
    for (report, expected) in [
        (foreign, Reported::Late),
        (other, Reported::Late),
        (denied(&job, false), Reported::Applied),
        (denied(&job, true), Reported::Applied),
        (denied(&job, true), Reported::Late),
        (denied(&job, false), Reported::Late),
    ] {
        assert_eq!(world.registry.revocation_reported(&report).await.unwrap(), expected, "{report:?}");
        let step = steps().await.pop().unwrap();
        if report.waiting_for.is_some() && expected == Reported::Applied {
            assert_eq!(step.waiting_for.as_deref(), Some("AWS"));
        }
    }
    assert_eq!(done(&steps().await), [(GrantWithdrawn, true), (SessionsDenied, true)]);
    assert_eq!(world.sweep_revocations(Duration::from_secs(9_999)).await, 0);
    world.registry.revoke_connection(tenant, id, "fraud").await.unwrap();
    assert_eq!(
        done(&steps().await),
        [(GrantWithdrawn, true), (SessionsDenied, true)],
        "repeatable, and not begun again"
    );
}

async fn world_report(world: &World, report: RevocationReported) -> Reported {
    world.registry.revocation_reported(&report).await.unwrap()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_31_each_suspension_denies_what_was_begun_before_it(#[case] kind: Kind) {
    use RevocationAction::{GrantWithdrawn, SessionsDenied};
    let world = World::new(kind).await;
    let (tenant, offer) = world.new_offer("a").await;
    world.connect(&offer, CUSTOMER, "0a").await;
    for round in 1..=2usize {
        let suspended = world.registry.suspend_tenant(tenant, "unpaid").await.unwrap();
        assert_eq!(done(&suspended.revocation), [(GrantWithdrawn, false), (SessionsDenied, false)]);
        world.flush().await;
        world.sweep_revocations(Duration::ZERO).await;
        let jobs = world.bus.of::<DenySessions>();
        assert_eq!((jobs.len(), jobs[round - 1].connection), (round, None));
        if round == 2 {
            assert!(jobs[1].before >= jobs[0].before && jobs[1].job != jobs[0].job);
            assert_eq!(world_report(&world, denied(&jobs[0], true)).await, Reported::Late, "made way for the second");
        }
        world_report(&world, denied(&jobs[round - 1], true)).await;
        assert_eq!(world.revocation(tenant).await, [(GrantWithdrawn, true), (SessionsDenied, true)]);
        let list = world.registry.list_tenants(&contracts::PageRequest::default()).await.unwrap().items;
        assert_eq!(done(&list[0].revocation), [(GrantWithdrawn, true), (SessionsDenied, true)]);
        let resumed = world.registry.resume_tenant(tenant, "paid").await.unwrap();
        assert_eq!((resumed.state, resumed.revocation.len()), (TenantState::Active, 0));
        world.flush().await;
        assert!(world.bus.of::<Grant>().last().unwrap().tenant_active);
    }
}

/// The same database, after the program was killed.
async fn born_again(world: &World) -> Registry {
    let store = Store::open(&world.url).await.unwrap();
    Registry::new(store, rules(), world.bus.clone())
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_31_a_tenant_is_deleted_step_by_step_whatever_crashes_between(#[case] kind: Kind) {
    use RevocationAction::{GrantWithdrawn, PrincipalRemoved, SessionsDenied};
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let open = world.offer(tenant, EnrollmentKind::Account).await;
    for number in 0..30u64 {
        world.connect(&offer, &format!("{}", 300_000_000_000 + number), &format!("{number}")).await;
    }
    // Killed somewhere in the middle of the request.
    let registry = world.registry.clone();
    let request = tokio::spawn(async move { registry.delete_tenant(tenant, "the contract ended").await.map(drop) });
    while world.registry.get_tenant(tenant).await.unwrap().state == TenantState::Active {
        tokio::task::yield_now().await;
    }
    request.abort();
    let _ = request.await;

    let now = Timestamp::now;
    let registry = born_again(&world).await;
    registry.sweep_revocations(now()).await.unwrap();
    let all = registry.list_connections(tenant, &ListConnectionsRequest::default()).await.unwrap().items;
    assert!(all.iter().all(|connection| connection.state == ConnectionState::Revoked), "{all:?}");
    assert_eq!(world.enrollment_state(tenant, open.enrollment.enrollment).await, EnrollmentState::Cancelled);
    assert_eq!(
        world.revocation(tenant).await,
        [(GrantWithdrawn, false), (SessionsDenied, false), (PrincipalRemoved, false)]
    );
    assert!(world.bus.of::<DenySessions>().is_empty(), "nothing is denied by time before the last grant is withdrawn");

    world.flush().await;
    born_again(&world).await.sweep_revocations(now()).await.unwrap();
    assert_eq!(world.revocation(tenant).await[0], (GrantWithdrawn, true));
    world.flush().await;
    let [deny]: [DenySessions; 1] = world.bus.of().try_into().unwrap();
    for _ in 0..2 {
        born_again(&world).await.sweep_revocations(now()).await.unwrap();
        world.flush().await;
    }
    assert!(world.bus.of::<RemovePrincipal>().is_empty(), "the principal stays until its sessions are denied");

    let registry = born_again(&world).await;
    assert_eq!(registry.revocation_reported(&denied(&deny, true)).await.unwrap(), Reported::Applied);
    world.flush().await;
    let [remove]: [RemovePrincipal; 1] = world.bus.of().try_into().unwrap();
    assert_eq!(world.registry.get_tenant(tenant).await.unwrap().state, TenantState::Deleting);
    born_again(&world).await.sweep_revocations(now().plus(Duration::from_secs(61))).await.unwrap();
    world.flush().await;
    assert_eq!(world.bus.of::<RemovePrincipal>(), [remove.clone(), remove.clone()], "the same job again");

    let registry = born_again(&world).await;
    assert_eq!(registry.revocation_reported(&removed(&remove)).await.unwrap(), Reported::Applied);
    assert_eq!(registry.revocation_reported(&removed(&remove)).await.unwrap(), Reported::Late);
    let deleted = registry.delete_tenant(tenant, "again").await.unwrap();
    assert_eq!((deleted.state, deleted.principal_role), (TenantState::Deleted, None));
    assert_eq!(done(&deleted.revocation), [(GrantWithdrawn, true), (SessionsDenied, true), (PrincipalRemoved, true)]);
    world.flush().await;
    let [event]: [TenantDeleted; 1] = world.bus.of().try_into().unwrap();
    assert_eq!(event.reason, "the contract ended");
    assert_eq!(world.bus.of::<EnrollmentCancelled>().len(), 2);
    let audited = world.audited(tenant).await;
    let told = |action: &str| audited.iter().filter(|line| *line == action).count();
    assert_eq!((told("tenant.deleting"), told("connection.revoked"), told("tenant.deleted")), (1, 30, 1));
    let revoked = world.bus.of::<Grant>();
    assert_eq!(revoked.iter().filter(|grant| grant.state == ConnectionState::Revoked).count(), 30, "each once");
    assert_eq!(registry.sweep_revocations(now()).await.unwrap(), 0);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn attack_34_nothing_brings_a_deleted_tenant_back(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let request = CreateTenantRequest { name: "Example".to_owned(), idempotency_key: Some("k".to_owned()) };
    let tenant = world.registry.create_tenant(&request).await.unwrap().tenant;
    let ready: PrincipalReady = {
        world.tenant("other").await;
        let role_arn = contracts::RoleArn::parse(&format!("arn:aws:iam::{PROVIDER}:role/rolebridge/x")).unwrap();
        let user_arn = contracts::UserArn::parse(&format!("arn:aws:iam::{PROVIDER}:user/rolebridge/x")).unwrap();
        PrincipalReady { tenant, user_arn, role_arn }
    };
    let elsewhere = contracts::AccountId::parse("999999999999").unwrap();
    let foreign = PrincipalReady { role_arn: ready.role_arn.in_account(&elsewhere), ..ready.clone() };
    assert_eq!(code(world.registry.principal_ready(&foreign).await), ErrorCode::Denied, "none of the listed accounts");
    world.registry.principal_ready(&ready).await.unwrap();
    let organization = world.offer(tenant, EnrollmentKind::Organization).await;
    let connection = world.connect(&organization, CUSTOMER, "0a").await;
    world.registry.suspend_tenant(tenant, "unpaid").await.unwrap();
    world.registry.delete_tenant(tenant, "the contract ended").await.unwrap();

    let offer = contracts::enrollment::CreateEnrollmentRequest {
        kind: EnrollmentKind::Account,
        region: None,
        account: None,
        cost_export: None,
        expires_in_s: None,
    };
    let mut stage = 0;
    loop {
        assert_eq!(code(world.registry.create_enrollment(tenant, &offer).await), ErrorCode::Conflict);
        assert_eq!(code(world.registry.resume_tenant(tenant, "please").await), ErrorCode::Conflict);
        assert_eq!(code(world.registry.suspend_tenant(tenant, "please").await), ErrorCode::Conflict);
        assert_eq!(code(world.registry.create_tenant(&request).await), ErrorCode::Conflict);
        let id = organization.enrollment.enrollment;
        assert_eq!(code(world.registry.rotate_external_id(tenant, id, "please").await), ErrorCode::Conflict);
        world.registry.principal_ready(&ready).await.unwrap();
        for request_type in [RequestType::Create, RequestType::Update] {
            let mut late = callback(&organization, request_type, CUSTOMER, "0a");
            if request_type == RequestType::Update {
                late.physical_resource_id = Some(format!("rolebridge-{}", connection.connection));
            }
            assert_eq!(world.send(&late).await, Handled::Refused);
            assert!(world.reason(&late).await.contains("no longer serves"), "{request_type:?}");
        }
        if stage == 1 {
            break;
        }
        stage += 1;
        world.flush().await;
        world.sweep_revocations(Duration::ZERO).await;
        world.flush().await;
        let deny = world.bus.of::<DenySessions>().pop().unwrap();
        world_report(&world, denied(&deny, true)).await;
        world.flush().await;
        world_report(&world, removed(&world.bus.of::<RemovePrincipal>()[0])).await;
    }
    let gone = world.registry.get_tenant(tenant).await.unwrap();
    assert_eq!((gone.state, gone.principal_role, gone.name.as_str()), (TenantState::Deleted, None, "Example"));
}

/// Creates and reports of an organization while its tenant is deleted, twice at once, on two instances.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_while_a_tenant_is_deleted_nothing_of_it_is_left(#[case] kind: Kind) {
    let world = World::new(kind).await;
    let tenant = world.tenant("a").await;
    let offer = world.offer(tenant, EnrollmentKind::Organization).await;
    let mut early: Vec<_> = (0..12u64)
        .map(|number| callback(&offer, RequestType::Create, &format!("{}", 300_000_000_000 + number), "0a"))
        .collect();
    let stacks = early.len();
    let late = early.split_off(6);
    let mut reports = Vec::new();
    for create in &early {
        world.send(create).await;
        reports.push(report(&world.job(&create.claims.as_ref().unwrap().role_arn).await, Verdict::Held));
    }
    let mut storm = JoinSet::new();
    for held in reports {
        let registry = world.registry.clone();
        storm.spawn(async move {
            registry.verification_reported(&held).await.unwrap();
        });
    }
    for create in late {
        let registry = world.registry.clone();
        storm.spawn(async move {
            registry.callback(&create).await.unwrap();
        });
    }
    let second = Arc::new(born_again(&world).await);
    for registry in [Arc::new(world.registry.clone()), second.clone()] {
        storm.spawn(async move { drop(registry.delete_tenant(tenant, "the end").await.unwrap()) });
    }
    storm.join_all().await;
    world.flush().await;
    second.sweep_revocations(Timestamp::now()).await.unwrap();
    world.flush().await;

    let all = world.registry.list_connections(tenant, &ListConnectionsRequest::default()).await.unwrap().items;
    assert!(all.iter().all(|connection| connection.state == ConnectionState::Revoked), "{all:?}");
    assert_eq!(world.bus.of::<CallbackOutcome>().len(), stacks, "each stack has its answer");
    for connection in &all {
        let last = world.bus.of::<Grant>().into_iter().rfind(|grant| grant.connection == connection.connection);
        assert!(last.is_none_or(|grant| grant.state == ConnectionState::Revoked));
    }
    assert_eq!(world.bus.of::<DenySessions>().len(), 1);
}
