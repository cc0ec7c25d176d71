//! The main job through the whole system, looked at closely; and attacks that only the whole system can answer.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use client::Client;
use common::{
    ANSWERS, Launched, PATIENCE, PREFIX, World,
    crafted::{self, Crafted},
    looks::{audit, job, refusal},
    sqs, until,
};
use contracts::{
    ConnectionId, ErrorCode, Stream, TenantId,
    connection::{Connection, ConnectionState},
    costs::{Amount, ExportLocation},
    credentials::{Purpose, SealedCredentials},
    enrollment::CancelEnrollment,
    tenant::{SuspendTenant, WithReason},
    verification::{Probe, ProbeOutcome},
};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull::OrderedConfig;
use sandbox::{Account, NatsUser, PostgresServer, REGION, StackRequest, System, SystemOptions, Toolbox};

/// A cost export that AWS itself wrote (see the licences beside it), and what it adds up to.
const NOVEMBER: &[u8] = include_bytes!("../../deploy/sandbox/data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet");
const NOVEMBER_TOTAL: &str = "3505.3269681268";
const NOVEMBER_ROWS: u64 = 124_340;
/// Three lines in the form of the samples.
const THREE_LINES: &[u8] = include_bytes!("../data/three-lines.snappy.parquet");
/// A stack without a role that claims another's.
const CLAIM: &str = include_str!("../../deploy/sandbox/src/demo/claim-anothers-role.yaml");

async fn with_export(account: &Account, file: &[u8]) -> ExportLocation {
    let bucket = format!("costs-of-{}", account.id());
    account.create_bucket(&bucket).await.expect("a bucket");
    account.put_object(&bucket, &format!("{PREFIX}/report.snappy.parquet"), file.to_vec()).await.expect("an export");
    ExportLocation { bucket, prefix: PREFIX.to_owned() }
}

/// Connects a new account with this export.
async fn connect(world: &mut World, name: &str, file: &[u8]) -> (Launched, Connection) {
    let tenant = world.tenant(name).await.tenant;
    let account = world.customer().await;
    let offer = world.offer(tenant, Some(with_export(&account, file).await)).await;
    let launched = world.launch(&account, offer).await;
    world.completed(&launched).await;
    let connection = world.only_connection(tenant).await;
    (launched, connection)
}

async fn identity(world: &World, credentials: &SealedCredentials) -> sandbox::CallerIdentity {
    let token = credentials.session_token.expose().to_owned();
    let secret = credentials.secret_access_key.expose();
    let key = aws_credential_types::Credentials::new(&credentials.access_key_id, secret, Some(token), None, "flows");
    world.system.emulator.caller_identity(REGION, key).await.expect("the credentials are good")
}

/// Types of all events of the tenant, in the order in which the streams took them.
async fn events(world: &World, tenant: TenantId) -> Vec<String> {
    let bus = world.system.bus(NatsUser::Events).await.expect("a reader of events");
    let mut all = BTreeMap::new();
    for stream in Stream::ALL.into_iter().filter(|stream| stream.name().starts_with("ROLEBRIDGE_EVENTS_")) {
        let count = world.held(stream.name()).await;
        let stream = bus.jetstream().get_stream(stream.name()).await.expect("the stream");
        let config = OrderedConfig { name: Some(format!("test-{}", uuid::Uuid::now_v7())), ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.expect("a consumer");
        let mut messages = consumer.messages().await.expect("messages").take(usize::try_from(count).expect("few"));
        while let Some(message) = messages.next().await {
            let message = message.expect("a message");
            if message.subject.contains(&tenant.to_string()) {
                let subject = message.subject.trim_start_matches("rolebridge.events.v1.").to_owned();
                let event = subject.split('.').take(2).collect::<Vec<_>>().join(".");
                // How far reading is, is told once a second while it lasts.
                if event != "costs.progress" {
                    all.insert(message.info().expect("of a stream").published, event);
                }
            }
        }
    }
    all.into_values().collect()
}

async fn costs_ingested(world: &World, tenant: TenantId) {
    let subject = format!("rolebridge.events.v1.costs.ingested.{tenant}.*");
    let read = until(PATIENCE, async || world.held_on(Stream::CostsEvents, &subject).await > 0).await;
    assert!(read, "the costs were read\n{}", world.complaints());
}

async fn the_main_job(mut world: World) {
    let (acme, connection) = connect(&mut world, "Acme", NOVEMBER).await;
    let other = world.connect("Globex").await;
    let (tenant, id) = (acme.tenant, connection.connection);

    assert_eq!((connection.state, connection.account.as_str()), (ConnectionState::Verified, acme.account.id()));
    let probes: Vec<_> = connection.evidence.iter().map(|evidence| (evidence.probe, evidence.outcome)).collect();
    let right = (Probe::RightId, ProbeOutcome::Succeeded);
    let expected =
        [right, (Probe::CallerIdentity, ProbeOutcome::Succeeded), (Probe::SessionTags, ProbeOutcome::Succeeded)];
    assert!(expected.iter().all(|probe| probes.contains(probe)), "{probes:?}");
    let refused = [Probe::NoId, Probe::RandomId, Probe::OtherPrincipal].map(|probe| (probe, ProbeOutcome::Refused));
    assert!(refused.iter().all(|probe| probes.contains(probe)), "{probes:?}");
    assert_eq!((probes.len(), probes[0]), (6, right), "the refusals count only after the success");

    let client = job(&world).await;
    let (issued, credentials) = client.issue(tenant, id, Purpose::CostRead).await.expect("credentials");
    assert_eq!((issued.tenant, issued.connection, issued.account.as_str()), (tenant, id, acme.account.id()));
    let seen = identity(&world, &credentials).await;
    assert_eq!(seen.account, acme.account.id());
    let role = connection.role_arn.to_string();
    let role = role.rsplit('/').next().expect("a name");
    assert!(seen.arn.contains(&format!("assumed-role/{role}/")), "{}", seen.arn);

    costs_ingested(&world, tenant).await;
    let costs = world.operator.costs(tenant).await.expect("costs");
    assert_eq!((costs.rows, costs.totals.len(), costs.periods.len()), (NOVEMBER_ROWS, 1, 1));
    assert_eq!((costs.totals[0].billed.to_string().as_str(), costs.periods[0].as_str()), (NOVEMBER_TOTAL, "2018-11"));
    let sum = costs.lines.iter().fold(Amount::default().decimal(), |sum, line| sum + line.sum.billed.decimal());
    assert_eq!(sum, costs.totals[0].billed.decimal());
    assert_eq!(costs.lines.iter().map(|line| line.sum.rows).sum::<u64>(), NOVEMBER_ROWS);

    world.quiet().await;
    // The audit of credentials follows in its own time: the broker's journal tells it.
    let mut told = events(&world, tenant).await;
    told.retain(|event| !event.starts_with("credentials."));
    assert_eq!(
        told,
        [
            "tenant.created",
            "principal.ready",
            "enrollment.created",
            "connection.registered",
            "connection.verified",
            "costs.ingested"
        ]
    );
    let lines = audit(&world, tenant).await;
    let actions: Vec<&str> = lines.iter().map(|(_, action)| action.as_str()).collect();
    assert_eq!(
        actions,
        ["tenant.created", "principal.ready", "enrollment.created", "connection.registered", "connection.verified"]
    );
    assert_eq!(world.held(Stream::DeadLetters.name()).await, 0, "{}", world.complaints());
    tenants_are_apart(&world, &client, (tenant, id), &other).await;
}

/// What the one tenant may ask for shows nothing of the other.
async fn tenants_are_apart(
    world: &World,
    client: &Client,
    acme: (TenantId, ConnectionId),
    other: &(Launched, Connection),
) {
    let (tenant, id) = (other.0.tenant, other.1.connection);
    let costs = world.operator.costs(tenant).await.expect("costs");
    assert_eq!((costs.rows, costs.totals.len(), costs.lines.len()), (0, 0, 0));
    assert_ne!(world.only_connection(tenant).await.connection, acme.1);
    let crossed = world.operator.connection(tenant, acme.1).await.expect_err("another tenant's connection");
    assert!(format!("{crossed:?}").contains("NotFound"), "{crossed:?}");
    assert_eq!(refusal(client.issue(tenant, acme.1, Purpose::CostRead).await), ErrorCode::NotFound);
    assert_eq!(refusal(client.issue(acme.0, id, Purpose::CostRead).await), ErrorCode::NotFound);
    let acme_text = acme.0.to_string();
    assert!(audit(world, tenant).await.iter().all(|(actor, action)| !format!("{actor} {action}").contains(&acme_text)));
    let (_, credentials) = client.issue(tenant, id, Purpose::CostRead).await.expect("its own credentials");
    assert_eq!(identity(world, &credentials).await.account, other.0.account.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_sqlite() {
    the_main_job(World::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_postgresql() {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch_test_tools(|_| ())).await.expect("joins").expect("tools");
    let server = PostgresServer::start(&tools).await.expect("PostgreSQL starts");
    let database_url = Some(server.create_database().expect("a database"));
    the_main_job(World::with(SystemOptions { database_url, ..SystemOptions::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_with_an_unchanged_role_keeps_the_connection_and_a_delete_ends_it() {
    let mut world = World::start().await;
    let (launched, before) = world.connect("Acme").await;
    let (tenant, id) = (launched.tenant, before.connection);
    let client = job(&world).await;

    // Only the export is new.
    let export = with_export(&launched.account, THREE_LINES).await;
    let mut request = System::customer_stack("rolebridge", &launched.offer.parameters);
    request = request.parameter("CostBucket", &export.bucket).parameter("CostPrefix", &export.prefix);
    launched.account.update_stack(&request).await.expect("an update begins");
    let updated = launched
        .account
        .wait_stack(&launched.stack, PATIENCE, |state| state.status.starts_with("UPDATE_") && state.is_final());
    assert_eq!(updated.await.expect("an end").status, "UPDATE_COMPLETE", "{}", world.complaints());
    world.quiet().await;
    let after = world.only_connection(tenant).await;
    assert_eq!((after.connection, after.state, &after.role_arn), (id, ConnectionState::Verified, &before.role_arn));
    assert_eq!(after.cost_export, Some(export));
    costs_ingested(&world, tenant).await;
    assert_eq!(world.operator.costs(tenant).await.expect("costs").rows, 3);
    client.issue(tenant, id, Purpose::CostRead).await.expect("credentials after the update");

    launched.account.delete_stack(&launched.stack).await.expect("a delete begins");
    let ended = world.operator.in_state(tenant, id, ConnectionState::Revoked, PATIENCE).await.expect("revoked");
    assert!(ended.reason.is_some());
    let gone = launched.account.wait_stack(&launched.stack, PATIENCE, |state| state.status == "DELETE_COMPLETE").await;
    gone.expect("the stack is gone");
    // The grant is on its way when the state is seen.
    let code = async || client.issue(tenant, id, Purpose::CostRead).await.map(drop);
    assert!(until(PATIENCE, async || code().await.is_err()).await, "credentials are refused");
    assert_eq!(refusal(code().await), ErrorCode::NotVerified);
    let revoked = format!("rolebridge.events.v1.connection.revoked.{tenant}.{id}");
    assert_eq!(world.held_on(Stream::ConnectionEvents, &revoked).await, 1);
}

/// Launches Mallory's stack, which claims the role of `victim`, in `account`; gives her tenant and what her stack was told.
async fn claim(world: &World, account: &Account, victim: &Connection) -> (TenantId, String) {
    let mallory = world.tenant("Mallory").await.tenant;
    let offer = world.offer(mallory, None).await;
    let mut request = StackRequest::new("mallory", CLAIM);
    request.parameters.clone_from(&offer.parameters);
    request = request.parameter("ClaimedRoleArn", victim.role_arn.to_string());
    let stack = account.create_stack(&request).await.expect("launched");
    let state = account.wait_stack(&stack, PATIENCE, sandbox::StackState::is_final).await.expect("an end");
    assert_eq!(state.status, "ROLLBACK_COMPLETE");
    (mallory, state.failure.expect("a reason").reason)
}

async fn is_untouched(world: &World, victim: &(Launched, Connection)) {
    world.quiet().await;
    let now = world.only_connection(victim.0.tenant).await;
    assert_eq!(now, victim.1);
    let client = job(world).await;
    client.issue(victim.0.tenant, now.connection, Purpose::CostRead).await.expect("credentials as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_01_a_claim_of_anothers_role_is_rejected_by_the_whole_system() {
    let mut world = World::start().await;
    let victim = world.connect("Acme").await;
    let (mallory, reason) = claim(&world, &victim.0.account, &victim.1).await;
    assert!(reason.contains("The role refuses the provider"), "{reason}");
    let claimed = world.only_connection(mallory).await;
    assert_eq!(claimed.state, ConnectionState::Rejected);
    assert_eq!(claimed.evidence[0].error_code.as_deref(), Some("AccessDenied"));
    assert!(audit(&world, mallory).await.contains(&("broker".to_owned(), "connection.rejected".to_owned())));
    let asked = job(&world).await.issue(mallory, claimed.connection, Purpose::CostRead).await;
    assert_eq!(refusal(asked), ErrorCode::NotFound, "nothing was ever granted");
    is_untouched(&world, &victim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_15_a_stack_that_claims_a_role_of_another_account_fails_with_the_reason() {
    let mut world = World::start().await;
    let victim = world.connect("Acme").await;
    let elsewhere = world.customer().await;
    let (mallory, reason) = claim(&world, &elsewhere, &victim.1).await;
    let said =
        format!("The role belongs to account {}, not to the stack's own account {}", victim.1.account, elsewhere.id());
    assert!(reason.contains(&said), "{reason}");
    assert!(world.operator.connections(mallory).await.expect("a list").is_empty());
    assert!(audit(&world, mallory).await.contains(&("stack".to_owned(), "callback.refused".to_owned())));
    is_untouched(&world, &victim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_09_the_same_callback_published_twice_connects_once_and_is_answered_once() {
    let mut world = World::start().await;
    let tenant = world.tenant("Acme").await;
    let offer = world.offer(tenant.tenant, None).await;
    let account = world.customer().await;
    let role = crafted::role(&account, &offer, &tenant.principal_role.expect("a principal").to_string()).await;
    let create = Crafted::create(&world.system, &account, &offer, &role);
    for _ in 0..2 {
        sqs::publish(&world.system, &account, &create.request).await;
    }
    let connected = until(PATIENCE, async || !create.answers(&world.system).is_empty()).await;
    assert!(connected, "the callback was answered\n{}", world.complaints());
    world.quiet().await;
    let received = "rolebridge.internal.v1.callbacks.received";
    assert_eq!(world.held_on(Stream::Callbacks, received).await, 2, "two messages of SNS came through");
    let connection = world.only_connection(tenant.tenant).await;
    assert_eq!(connection.state, ConnectionState::Verified, "{:?}", connection.reason);
    assert_eq!(world.verified_events(tenant.tenant, connection.connection).await, 1);
    assert_eq!(create.answers(&world.system).len(), 1, "answers to CloudFormation");
    assert_eq!(world.stored(ANSWERS).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_18_and_19_a_delete_of_nothing_of_ours_is_answered_success_and_removes_nothing() {
    let mut world = World::start().await;
    let victim = world.connect("Acme").await;
    let stranger = world.customer().await;
    let success = r#"rolebridge_ingest_answers_total{result="success""#;
    let before = common::metric(&mut world.system, sandbox::Service::CallbackIngest, success).await;
    // After a Create that failed; of a connection that never was; of the victim's, by another stack.
    let victims = format!("rolebridge-{}", victim.1.connection);
    let ids = ["rolebridge-none".to_owned(), format!("rolebridge-{}", ConnectionId::new()), victims];
    let mut deletes = Vec::new();
    for id in ids {
        let offer = &victim.0.offer;
        let delete = Crafted::delete(&world.system, &stranger, offer, &victim.1.role_arn.to_string(), &id);
        sqs::publish(&world.system, &stranger, &delete.request).await;
        deletes.push(delete);
    }
    let answered =
        until(PATIENCE, async || deletes.iter().all(|delete| !delete.answers(&world.system).is_empty())).await;
    assert!(answered, "each was answered\n{}", world.complaints());
    world.quiet().await;
    let after = common::metric(&mut world.system, sandbox::Service::CallbackIngest, success).await;
    assert_eq!(after - before, 3.0, "each with SUCCESS");
    is_untouched(&world, &victim).await;
    let ignored = ("stack".to_owned(), "callback.delete-ignored".to_owned());
    assert!(audit(&world, victim.0.tenant).await.contains(&ignored), "the one that named a living connection is noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_34_a_cancelled_offer_and_a_suspended_tenants_fail_the_stack_with_the_reason() {
    let mut world = World::start().await;
    let tenant = world.tenant("Acme").await.tenant;
    let reason = WithReason { reason: "a test".to_owned() };
    let (cancelled, suspended) = (world.offer(tenant, None).await, world.offer(tenant, None).await);
    let subject = CancelEnrollment::subject(tenant, cancelled.enrollment.enrollment);
    world.bus.request::<CancelEnrollment>(subject, &reason, PATIENCE).await.expect("cancelled");
    let account = world.customer().await;
    let launched = world.launch(&account, cancelled).await;
    assert_failed(&world, &launched, "The offer was withdrawn by the provider").await;

    world.bus.request::<SuspendTenant>(SuspendTenant::subject(tenant), &reason, PATIENCE).await.expect("suspended");
    let account = world.customer().await;
    let launched = world.launch(&account, suspended).await;
    assert_failed(&world, &launched, "The provider has suspended this customer for now").await;
    assert!(world.operator.connections(tenant).await.expect("a list").is_empty());
}

async fn assert_failed(world: &World, launched: &Launched, why: &str) {
    let state = world.ended(launched).await;
    let failure = state.failure.expect("a reason");
    assert_eq!((state.status.as_str(), failure.logical_id.as_str()), ("ROLLBACK_COMPLETE", "Connection"));
    assert!(failure.reason.contains(why), "{}", failure.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_35_of_two_stacks_of_one_offer_at_the_same_time_exactly_one_completes() {
    let mut world = World::start().await;
    let tenant = world.tenant("Acme").await.tenant;
    let offer = world.offer(tenant, None).await;
    let accounts = [world.customer().await, world.customer().await];
    let [one, two] = &accounts;
    let both = tokio::join!(world.launch(one, offer.clone()), world.launch(two, offer.clone()));
    let ends = [(world.ended(&both.0).await, one), (world.ended(&both.1).await, two)];
    let (won, lost): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(state, _)| state.status == "CREATE_COMPLETE");
    assert_eq!((won.len(), lost.len()), (1, 1), "{lost:?}");
    let (loser, winner) = (&lost[0].0, won[0].1);
    assert_eq!(loser.status, "ROLLBACK_COMPLETE");
    let reason = &loser.failure.as_ref().expect("a reason").reason;
    assert!(reason.contains("The offer was used by another stack already"), "{reason}");
    world.quiet().await;
    let connection = world.only_connection(tenant).await;
    assert_eq!((connection.state, connection.account.as_str()), (ConnectionState::Verified, winner.id()));
}
