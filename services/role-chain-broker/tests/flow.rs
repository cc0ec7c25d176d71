//! The broker between a real NATS server, under the operators' own permissions, and the AWS emulator with IAM on.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use aws_credential_types::Credentials;
use common::{CUSTOMER, REGION, Tenant, WITHIN, World, bus, grant, only_with, world};
use contracts::{
    ErrorCode, ExternalId, JobId, Message as _, RoleArn, TenantId, Timestamp,
    connection::{ConnectionState, Grant},
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials},
    revocation::DenySessions,
    tenant::TenantCreated,
    verification::{Fault, ProbeOutcome, Verdict},
};
use futures::{StreamExt as _, TryStreamExt as _};
use messaging::{Bus, RequestError, seal::SealSeed};
use role_chain_broker::{
    purpose::first_hop_policy,
    wrap::{KeyWrapper as _, KmsKey},
};
use sandbox::NatsUser;
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_gets_one_principal_with_one_wrapped_key() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    // The same event again, as after a crash before the acknowledgement.
    world.publish(TenantCreated { tenant: tenant.id, name: "A tenant".to_owned() }).await;
    let again = World::next(&world.broker, &mut world.principals).await;
    assert_eq!((again.tenant, &again.role_arn), (tenant.id, &tenant.role));

    let (iam, name) = (world.iam("111111111111"), format!("rolebridge-{}", tenant.id));
    let keys = iam.list_access_keys().user_name(&name).send().await.unwrap();
    assert_eq!(keys.access_key_metadata().len(), 1);
    let key_id = keys.access_key_metadata()[0].access_key_id().unwrap().to_owned();

    let bucket = bus(&world.nats, NatsUser::RoleChainBroker).await.key_value("rolebridge-principals", 1).await.unwrap();
    let stored = String::from_utf8(bucket.get(tenant.id.to_string()).await.unwrap().unwrap().to_vec()).unwrap();
    let record: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!((&record["version"], &record["state"]), (&json!("1"), &json!("ready")));
    assert!(record["key"]["by"].as_str().unwrap().starts_with("local:"));
    assert!(!stored.contains(&key_id), "the key is not in clear");
    assert!(!world.broker.log_text().contains(&key_id), "nor in the log");
}

#[tokio::test]
async fn attack_01_one_tenants_principal_gets_nowhere_in_anothers_role() {
    let mut world = world().await;
    let (anna, mallory) = (world.tenant().await, world.tenant().await);
    let (hers, his) = (ExternalId::generate(), ExternalId::generate());
    let role = world.role(&anna.role, only_with(&hers)).await;
    for id in [&his, &hers] {
        let report = world.verify(mallory.id, &role, id).await;
        assert_eq!(report.verdict, Verdict::Failed { fault: Fault::Refused });
    }
    assert_eq!(world.verify(anna.id, &role, &hers).await.verdict, Verdict::Held);
}

#[tokio::test]
async fn attack_22_a_role_that_is_late_is_waited_for() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    // The tenant hears of its principal and the job at the same time: the job waits for the principal.
    let unknown = TenantId::new();
    let (id, role) = (ExternalId::generate(), world.role(&tenant.role, Value::Null).await);
    world.publish(TenantCreated { tenant: unknown, name: "Late".to_owned() }).await;
    let report = world.verify(unknown, &role, &id).await;
    assert_eq!(report.verdict, Verdict::Failed { fault: Fault::Refused });
    assert!(report.evidence.len() >= 2, "a refusal counts only when it lasts: {:?}", report.evidence);
}

#[tokio::test]
async fn a_deletion_is_confirmed_by_a_refusal_alone() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let (stays, goes) =
        (world.role(&tenant.role, only_with(&id)).await, world.role(&tenant.role, only_with(&id)).await);

    let job = world.confirm(tenant.id, &stays, &id, Duration::from_secs(5)).await;
    let report = World::next(&world.broker, &mut world.deletions).await;
    assert_eq!((report.job, report.gone), (job, false));

    let job = world.confirm(tenant.id, &goes, &id, WITHIN).await;
    // It is asked at least once while the role is there.
    while world.counted("rolebridge_probes_total", &[r#"outcome="succeeded""#, r#"probe="right-id""#]).await < 2 {
        tokio::task::yield_now().await;
    }
    world.iam(CUSTOMER).delete_role().role_name(goes.name()).send().await.unwrap();
    let report = World::next(&world.broker, &mut world.deletions).await;
    assert_eq!((report.job, report.gone), (job, true));
    assert_eq!(report.evidence.last().unwrap().outcome, ProbeOutcome::Refused);
}

/// The rule that a first hop for issuing is bound by, in the emulator's own evaluation: without it the tests above would prove less than they say.
#[tokio::test]
async fn a_first_hop_that_is_bound_to_ids_can_use_no_other() {
    let world = world().await;
    let account = world.emulator.account("111111111111", REGION);
    let (iam, sts) = (world.iam("111111111111"), aws_sdk_sts::Client::new(account.sdk_config()));
    let allowed = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*" }] });
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111111111111:root" }, "Action": "sts:AssumeRole",
    }]});
    let made =
        iam.create_role().role_name("principal").assume_role_policy_document(trust.to_string()).send().await.unwrap();
    iam.put_role_policy()
        .role_name("principal")
        .policy_name("p")
        .policy_document(allowed.to_string())
        .send()
        .await
        .unwrap();
    let principal = RoleArn::parse(made.role().unwrap().arn()).unwrap();
    let (mine, others) = (ExternalId::generate(), ExternalId::generate());
    let roles = [
        (&mine, world.role(&principal, only_with(&mine)).await),
        (&others, world.role(&principal, only_with(&others)).await),
    ];

    let policy = first_hop_policy(principal.partition(), &[], &mine);
    let first =
        sts.assume_role().role_arn(principal.as_str()).role_session_name("first").policy(policy).send().await.unwrap();
    let keys = first.credentials().unwrap();
    let keys = Credentials::new(
        keys.access_key_id(),
        keys.secret_access_key(),
        Some(keys.session_token().to_owned()),
        None,
        "test",
    );
    let bound = aws_sdk_sts::Client::new(&world.emulator.sdk_config(REGION, keys));
    for (id, role) in roles {
        let hop = bound.assume_role().role_arn(role.as_str()).role_session_name("second").external_id(id.as_str());
        assert_eq!(hop.send().await.is_ok(), *id == mine);
    }
}

struct Job {
    bus: Bus,
    seal: SealSeed,
}

impl Job {
    async fn new(world: &World) -> Self {
        Self { bus: bus(&world.nats, NatsUser::Job).await, seal: SealSeed::generate().unwrap() }
    }

    async fn ask(&self, grant: &Grant) -> Result<IssuedCredentials, RequestError> {
        let request = IssueRequest {
            requester_key: self.seal.public().clone(),
            requester: "nightly-costs".to_owned(),
            duration_s: Some(43_200),
            min_remaining_s: None,
        };
        let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, grant.connection);
        self.bus.request::<IssueCredentials>(subject, &request, WITHIN).await
    }

    async fn refused(&self, grant: &Grant) -> ErrorCode {
        self.ask(grant).await.unwrap_err().refusal().expect("the broker's own word").code
    }
}

async fn connected(world: &mut World) -> (Tenant, Grant) {
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    let grant = grant(tenant.id, &role, &id);
    (tenant, grant)
}

#[tokio::test]
async fn credentials_come_sealed_and_work_and_end_with_the_grant() {
    let mut world = world().await;
    let (_, first) = connected(&mut world).await;
    let job = Job::new(&world).await;
    assert_eq!(job.refused(&first).await, ErrorCode::NotFound);
    world.publish(first.clone()).await;

    let issued = job.ask(&first).await.unwrap();
    assert_eq!(issued.broker_key, world.broker_key);
    let plain = job.seal.open(&world.broker_key, &issued.sealed).unwrap();
    let opened: SealedCredentials = serde_json::from_slice(&plain).unwrap();
    let credentials = Credentials::new(
        &opened.access_key_id,
        opened.secret_access_key.expose(),
        Some(opened.session_token.expose().to_owned()),
        None,
        "test",
    );
    let who = world.emulator.caller_identity(REGION, credentials).await.unwrap();
    assert_eq!(who.account, CUSTOMER);
    assert!(who.arn.contains("/rolebridge.cost-read."), "{}", who.arn);

    // Attack 29: neither the session nor its parts are in the log, which here holds everything down to debug.
    let log = world.broker.log_text();
    for canary in [opened.access_key_id.as_str(), opened.secret_access_key.expose(), opened.session_token.expose()] {
        assert!(!log.contains(canary), "a credential is in the log");
    }

    // Attack 31: the registry takes its word back; what is cached is not handed out again.
    world.publish(Grant { revision: 2, state: ConnectionState::Insecure, ..first.clone() }).await;
    assert_eq!(until_refused(&job, &first).await, ErrorCode::NotVerified);
    // A word that is older than the last changes nothing.
    world.publish(Grant { revision: 1, ..first.clone() }).await;
    world.publish(Grant { revision: 3, tenant_active: false, ..first.clone() }).await;
    while job.refused(&first).await != ErrorCode::Denied {}
}

#[tokio::test]
async fn attack_31_a_grant_in_words_that_this_broker_does_not_know_takes_the_one_before_back() {
    let mut world = world().await;
    let (_, first) = connected(&mut world).await;
    let job = Job::new(&world).await;
    world.publish(first.clone()).await;
    job.ask(&first).await.unwrap();

    let newer = messaging::event(Grant { revision: 2, ..first.clone() }).encode().unwrap();
    let mut newer: Value = serde_json::from_slice(&newer).unwrap();
    newer["data"]["missing"] = json!(["a-purpose-of-tomorrow"]);
    let sent = world.registry.jetstream().publish(first.subject().as_str().to_owned(), newer.to_string().into()).await;
    sent.unwrap().await.unwrap();
    assert_eq!(until_refused(&job, &first).await, ErrorCode::Unavailable);
    // One that can be read is believed again.
    world.publish(Grant { revision: 3, ..first.clone() }).await;
    while job.ask(&first).await.is_err() {}
}

async fn until_refused(job: &Job, grant: &Grant) -> ErrorCode {
    let began = std::time::Instant::now();
    loop {
        match job.ask(grant).await {
            Ok(_) => assert!(began.elapsed() < WITHIN, "it is still issued for"),
            Err(error) => return error.refusal().expect("the broker's own word").code,
        }
    }
}

#[tokio::test]
async fn attack_24_a_thousand_requests_are_two_calls() {
    let mut world = world().await;
    let (_, grant) = connected(&mut world).await;
    world.publish(grant.clone()).await;
    let job = Job::new(&world).await;
    let calls = async |world: &World| world.counted("rolebridge_sts_calls_total", &[r#"action="AssumeRole""#]).await;
    let before = calls(&world).await;
    let answers: Vec<_> =
        futures::stream::iter(0..1000).map(|_| job.ask(&grant)).buffer_unordered(1000).collect().await;
    let failed = answers.iter().filter_map(|answer| answer.as_ref().err()).next();
    assert!(failed.is_none(), "{failed:?}; the broker says:\n{}", world.broker.log_text());
    assert_eq!(calls(&world).await - before, 2);
    assert_eq!(world.counted("rolebridge_issue_cache_total", &[r#"hit="true""#]).await, 999);
}

#[tokio::test]
async fn attack_26_who_may_ask_is_decided_by_the_bus_and_by_the_broker() {
    let mut world = world().await;
    let (_, grant) = connected(&mut world).await;
    let (_, others) = connected(&mut world).await;
    world.publish(grant.clone()).await;
    world.publish(others.clone()).await;
    let job = Job::new(&world).await;
    job.ask(&grant).await.unwrap();
    // The other tenant's connection under this tenant's name, and the other way round.
    assert_eq!(job.refused(&Grant { connection: others.connection, ..grant.clone() }).await, ErrorCode::NotFound);
    assert_eq!(job.refused(&Grant { tenant: others.tenant, ..grant.clone() }).await, ErrorCode::NotFound);

    // A purpose that there is not: an operator may ask for anything, and the broker denies it.
    let operator = bus(&world.nats, NatsUser::Operator).await;
    let subject = format!("rolebridge.rpc.v1.credentials.issue.root.{}.{}", grant.tenant, grant.connection);
    let body = json!({ "requester_key": job.seal.public(), "requester": "operator" }).to_string();
    let reply = operator.client().request(subject, body.into()).await.unwrap();
    assert_eq!(reply.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "403");
    // Somebody who only reads events does not even reach it.
    let reader = bus(&world.nats, NatsUser::Events).await;
    let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, grant.connection);
    let request = IssueRequest {
        requester_key: job.seal.public().clone(),
        requester: "events".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let unheard = reader.request::<IssueCredentials>(subject, &request, Duration::from_secs(60)).await;
    assert!(matches!(unheard, Err(RequestError::Denied { .. })), "{unheard:?}");
}

/// The consumers of the stream, as the server names them.
async fn consumers(world: &World, stream: &str) -> BTreeSet<String> {
    let operator = bus(&world.nats, NatsUser::Operator).await;
    let stream = operator.jetstream().get_stream(stream).await.unwrap();
    let names = stream.consumer_names().try_collect().await.unwrap();
    operator.close().await;
    names
}

/// Takes all consumers of the stream away at the server.
async fn lose_consumers(world: &World, stream: &str) -> BTreeSet<String> {
    let lost = consumers(world, stream).await;
    assert!(!lost.is_empty(), "nobody follows {stream}");
    let broker = bus(&world.nats, NatsUser::RoleChainBroker).await;
    let stream = broker.jetstream().get_stream(stream).await.unwrap();
    for name in &lost {
        assert!(stream.delete_consumer(name).await.unwrap().success);
    }
    broker.close().await;
    lost
}

async fn eventually<T>(world: &World, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(began.elapsed() < 3 * WITHIN, "{what} did not come; the broker says:\n{}", world.broker.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn attack_31_consumers_that_the_server_loses_are_made_anew_and_answers_stay_right() {
    let mut world = world().await;
    let (tenant, first) = connected(&mut world).await;
    let job = Job::new(&world).await;
    world.publish(first.clone()).await;
    let key = async || {
        let issued = job.ask(&first).await.ok()?;
        let plain = job.seal.open(&world.broker_key, &issued.sealed).unwrap();
        Some(serde_json::from_slice::<SealedCredentials>(&plain).unwrap().access_key_id)
    };
    eventually(&world, "a first session", &key).await;
    let made_anew = async |stream: &str, lost: BTreeSet<String>| {
        eventually(&world, "another consumer", async || {
            let now = consumers(&world, stream).await;
            (!now.is_empty() && now.is_disjoint(&lost)).then_some(())
        })
        .await;
    };

    let lost = lose_consumers(&world, "ROLEBRIDGE_GRANTS").await;
    world.publish(Grant { revision: 2, state: ConnectionState::Insecure, ..first.clone() }).await;
    assert_eq!(until_refused(&job, &first).await, ErrorCode::NotVerified);
    made_anew("ROLEBRIDGE_GRANTS", lost).await;
    world.publish(Grant { revision: 3, ..first.clone() }).await;
    let before = eventually(&world, "credentials under the new grant", &key).await;

    let principals = "KV_rolebridge-principals";
    let lost = lose_consumers(&world, principals).await;
    world
        .publish(DenySessions { job: JobId::new(), tenant: tenant.id, connection: None, before: Timestamp::now() })
        .await;
    let after = async || key().await.filter(|now| *now != before);
    eventually(&world, "a session of after the denial", after).await;
    made_anew(principals, lost).await;
    world.broker.wait_ready(3 * WITHIN).await.unwrap();
    key().await.expect("it goes on");
}

#[tokio::test]
async fn it_drains_on_sigterm_and_knows_its_grants_after_a_restart() {
    let mut world = world().await;
    let (_, grant) = connected(&mut world).await;
    world.publish(grant.clone()).await;
    let job = Job::new(&world).await;
    job.ask(&grant).await.unwrap();
    let status = world.broker.terminate(Duration::from_secs(20)).await.unwrap();
    assert!(status.success(), "{}", world.broker.log_text());
    world.broker.restart().unwrap();
    world.broker.wait_ready(WITHIN).await.unwrap();
    job.ask(&grant).await.unwrap();
}

#[tokio::test]
async fn kms_wraps_for_one_tenant_alone() {
    let world = world().await;
    // With the rights of the broker, and nothing more.
    let sdk = world.emulator.sdk_config(REGION, world.provider.role_chain_broker.clone());
    let key = KmsKey::new(&sdk, world.provider.wrapping_key_arn.clone());
    let (tenant, other) = (TenantId::new(), TenantId::new());
    let wrapped = key.wrap(tenant, b"canary").await.unwrap();
    assert!(wrapped.by.starts_with("kms:") && !serde_json::to_string(&wrapped).unwrap().contains("canary"));
    assert_eq!(&**key.unwrap(tenant, &wrapped).await.unwrap(), b"canary");
    assert!(key.unwrap(other, &wrapped).await.is_err());
}
