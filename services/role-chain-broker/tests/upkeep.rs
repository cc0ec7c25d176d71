//! The upkeep of principals between a real NATS server and the AWS emulator with IAM on: keys are changed, changes behind our back are told and
//! mended, what was begun is denied, and what has ended is removed.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "upkeep/lease.rs"]
mod lease;
#[path = "upkeep/steps.rs"]
mod steps;

use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_sts::error::ProvideErrorMetadata as _;
use common::{REGION, Tenant, WITHIN, World, bus, job, only_with, world_with};
use contracts::{
    CloudEvent, ExternalId, JobId, Message, TenantId, Timestamp,
    credentials::{CredentialsRevoked, CredentialsRotated},
    revocation::{DenySessions, RemovePrincipal},
    tenant::{Drift, PrincipalDrift, PrincipalRemoved, TenantCreated},
    verification::Verdict,
};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull::OrderedConfig;
use sandbox::{NatsUser, ServiceProcess};
use serde_json::{Value, json};

const PROVIDER: &str = "111111111111";
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn quick(grace: &'static str) -> World {
    let quick = [("ROLEBRIDGE_RECONCILE_INTERVAL", "1"), ("ROLEBRIDGE_KEY_GRACE", grace)];
    world_with(|_| quick.map(|(name, value)| (name, value.to_owned())).into()).await
}

async fn until<T>(world: &World, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come; the broker says:\n{}", world.broker.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The tenant's events of this type, oldest first, as a reader of events finds them.
async fn told<T: Message>(world: &World, tenant: TenantId) -> Vec<T> {
    let reader = bus(&world.nats, NatsUser::Events).await;
    let stream = reader.jetstream().get_stream(T::STREAM.name()).await.unwrap();
    let filter_subject = T::SUBJECT.replace('*', &tenant.to_string());
    let name = Some(format!("test-{}", JobId::new()));
    let consumer =
        stream.create_consumer(OrderedConfig { name, filter_subject, ..OrderedConfig::default() }).await.unwrap();
    let count = consumer.cached_info().num_pending;
    let messages = consumer.messages().await.unwrap().take(usize::try_from(count).unwrap());
    let told = messages.map(|message| CloudEvent::<T>::decode(&message.unwrap().payload).unwrap().data);
    told.collect().await
}

/// The principal's record in the bucket, changed by `change` as long as it says so.
async fn record(world: &World, tenant: TenantId, change: impl Fn(&mut Value) -> bool) -> Value {
    let broker = bus(&world.nats, NatsUser::RoleChainBroker).await;
    let bucket = broker.key_value("rolebridge-principals", 1).await.unwrap();
    loop {
        let entry = bucket.entry(tenant.to_string()).await.unwrap().unwrap();
        let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
        if !change(&mut record) {
            return record;
        }
        let text = record.to_string().into();
        if bucket.update(tenant.to_string(), text, entry.revision).await.is_ok() {
            return record;
        }
    }
}

/// As if the key had been made long ago: its change is due.
async fn age(world: &World, tenant: TenantId) {
    record(world, tenant, |record| {
        record["made_at"] = json!("2020-01-01T00:00:00Z");
        true
    })
    .await;
}

fn name(tenant: TenantId) -> String {
    format!("rolebridge-{tenant}")
}

async fn keys(world: &World, tenant: TenantId) -> Vec<String> {
    let listed = world.iam(PROVIDER).list_access_keys().user_name(name(tenant)).send().await.unwrap();
    listed.access_key_metadata().iter().map(|key| key.access_key_id().unwrap().to_owned()).collect()
}

async fn issue_anew(world: &World, tenant: &Tenant) -> Result<(), String> {
    job::issue_anew(world, tenant, WITHIN).await.map(drop).map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn attack_30_keys_are_changed_under_requests_without_one_failure() {
    // Long enough that many requests fall into the change.
    let mut world = quick("5").await;
    let tenant = world.tenant().await;
    issue_anew(&world, &tenant).await.unwrap();
    for rotations in 1..3 {
        let before = keys(&world, tenant.id).await;
        assert_eq!(before.len(), 1);
        age(&world, tenant.id).await;
        let began = Instant::now();
        let mut asked = 0;
        while told::<CredentialsRotated>(&world, tenant.id).await.len() < rotations {
            for issued in futures::future::join_all([(); 3].map(|()| issue_anew(&world, &tenant))).await {
                issued.unwrap_or_else(|error| panic!("while the key was changed: {error}"));
                asked += 1;
            }
            assert!(keys(&world, tenant.id).await.len() <= 2);
            assert!(began.elapsed() < PATIENCE, "no end; the broker says:\n{}", world.broker.log_text());
        }
        assert!(asked > 3, "only {asked} requests fell into the change");
        let after = keys(&world, tenant.id).await;
        assert_eq!(after.len(), 1);
        assert_ne!(before, after);
        issue_anew(&world, &tenant).await.unwrap();
    }
    assert!(told::<PrincipalDrift>(&world, tenant.id).await.is_empty(), "our own work is no drift");
}

#[tokio::test]
async fn attack_30_two_brokers_change_each_of_many_keys_once() {
    let mut world = quick("1").await;
    let mut tenants = Vec::new();
    for _ in 0..6 {
        tenants.push(world.tenant().await);
    }
    let mut twin = world.broker.twin([("ROLEBRIDGE_AUDIT_JOURNAL", world.keys.path().join("twin"))]).unwrap();
    twin.wait_ready(PATIENCE).await.unwrap();
    let mut before = Vec::new();
    for tenant in &tenants {
        before.push(keys(&world, tenant.id).await);
    }
    // Neither is at work while all become due, and both find all of them.
    world.broker.kill();
    twin.kill();
    for tenant in &tenants {
        record(&world, tenant.id, |record| record.as_object_mut().unwrap().remove("lease").is_some()).await;
        age(&world, tenant.id).await;
    }
    world.broker.restart().unwrap();
    twin.restart().unwrap();
    for tenant in &tenants {
        until(&world, "the end of the change", async || {
            for tenant in &tenants {
                assert!((1..=2).contains(&keys(&world, tenant.id).await.len()), "never none, never a third");
            }
            (!told::<CredentialsRotated>(&world, tenant.id).await.is_empty()).then_some(())
        })
        .await;
    }
    // And after each has been looked at again, by whichever of them.
    for (tenant, before) in tenants.iter().zip(before) {
        let looked = record(&world, tenant.id, |_| false).await["looked_at"].clone();
        until(&world, "another look", async || {
            let now = record(&world, tenant.id, |_| false).await;
            (now["looked_at"] != looked && now.get("rotation").is_none()).then_some(())
        })
        .await;
        let after = keys(&world, tenant.id).await;
        assert_eq!(after.len(), 1);
        assert_ne!(before, after);
        issue_anew(&world, tenant).await.unwrap();
        assert_eq!(told::<CredentialsRotated>(&world, tenant.id).await.len(), 1, "it is told once");
        assert!(told::<PrincipalDrift>(&world, tenant.id).await.is_empty(), "the other's work is no drift");
    }
    let made = |broker: &ServiceProcess| broker.log_text().matches("a second access key is made").count();
    let (ours, twins) = (made(&world.broker), made(&twin));
    assert_eq!(ours + twins, tenants.len(), "{ours} and {twins}: none was made in vain");
}

#[tokio::test]
async fn attack_23_what_is_changed_behind_our_back_is_told_and_mended() {
    let mut world = quick("1").await;
    let tenant = world.tenant().await;
    let (iam, name) = (world.iam(PROVIDER), name(tenant.id));
    until(&world, "a first look", async || record(&world, tenant.id, |_| false).await["role_id"].as_str().map(drop))
        .await;
    let wide = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] });
    let open = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": { "AWS": "arn:aws:iam::999999999999:root" } }] });
    for (alarms, drift) in
        [Drift::RolePolicy, Drift::RoleTrust, Drift::AccessKeyForeign, Drift::UserPolicy, Drift::RoleMissing]
            .into_iter()
            .enumerate()
    {
        match drift {
            Drift::RolePolicy => {
                let put = iam.put_role_policy().role_name(&name).policy_name("rolebridge-chain");
                put.policy_document(wide.to_string()).send().await.map(drop).unwrap();
            }
            Drift::RoleTrust => {
                let set = iam.update_assume_role_policy().role_name(&name).policy_document(open.to_string());
                set.send().await.map(drop).unwrap();
            }
            Drift::AccessKeyForeign => iam.create_access_key().user_name(&name).send().await.map(drop).unwrap(),
            Drift::UserPolicy => {
                let attach = iam.attach_user_policy().user_name(&name);
                attach.policy_arn("arn:aws:iam::aws:policy/AdministratorAccess").send().await.map(drop).unwrap();
            }
            _ => {
                let delete = iam.delete_role_policy().role_name(&name).policy_name("rolebridge-chain");
                delete.send().await.unwrap();
                iam.delete_role().role_name(&name).send().await.unwrap();
            }
        }
        let alarm = until(&world, "the alarm", async || {
            let told = told::<PrincipalDrift>(&world, tenant.id).await;
            told.into_iter().find(|told| told.found.contains(&drift))
        })
        .await;
        let lost = drift == Drift::RoleMissing;
        assert_eq!(alarm.mended, !lost, "{alarm:?}");
        assert_eq!(alarm.reason.contains("updating its stack"), lost);
        assert!(alarms < told::<PrincipalDrift>(&world, tenant.id).await.len());
        assert_eq!(keys(&world, tenant.id).await.len(), 1);
        until(&world, "credentials after it", async || issue_anew(&world, &tenant).await.ok()).await;
    }
    assert!(world.counted("rolebridge_principal_drifts_total", &[r#"mended="false""#]).await >= 1);
}

/// In the template's own words: what the emulator does not enforce, since it leaves paths out and does not know the condition.
#[tokio::test]
async fn the_broker_makes_and_writes_bounded_principals_alone() {
    let mut world = common::world().await;
    let (tenant, iam) = (world.tenant().await, world.iam(PROVIDER));
    let boundary = world.provider.principal_boundary_arn.as_str();
    let user = iam.get_user().user_name(name(tenant.id)).send().await.unwrap().user.unwrap();
    let role = iam.get_role().role_name(name(tenant.id)).send().await.unwrap().role.unwrap();
    for bound in [user.permissions_boundary, role.permissions_boundary] {
        assert_eq!(bound.unwrap().permissions_boundary_arn(), Some(boundary));
    }
    // Within it the chain works.
    issue_anew(&world, &tenant).await.unwrap();

    let arn = world.provider.role_chain_broker_policy_arn.as_str();
    let version = iam.get_policy_version().policy_arn(arn).version_id("v1").send().await.unwrap();
    let document = version.policy_version.unwrap().document.unwrap();
    let document = percent_encoding::percent_decode_str(&document).decode_utf8().unwrap().into_owned();
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut bounded = 0;
    for statement in document["Statement"].as_array().unwrap() {
        let actions: Vec<_> =
            statement["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap()).collect();
        for action in &actions {
            assert!(!action.contains('*'), "{action}");
            assert!(!action.contains("DeleteUserPermissions") && !action.contains("DeleteRolePermissions"), "{action}");
            assert!(
                !["iam:AttachUserPolicy", "iam:AttachRolePolicy", "iam:CreatePolicyVersion"].contains(action),
                "{action}"
            );
            if ["iam:CreateUser", "iam:CreateRole"].contains(action) || action.starts_with("iam:Put") {
                assert_eq!(statement["Condition"]["StringEquals"]["iam:PermissionsBoundary"], boundary, "{action}");
                bounded += 1;
            }
        }
    }
    assert_eq!(bounded, 6);
}

async fn assume(world: &World, with: Credentials, role: &str, id: Option<&ExternalId>) -> Result<Credentials, String> {
    let client = aws_sdk_sts::Client::new(&world.emulator.sdk_config(REGION, with));
    let call = client.assume_role().role_arn(role).role_session_name("captured");
    let answer = call.set_external_id(id.map(|id| id.as_str().to_owned())).send().await;
    let answer = answer.map_err(|error| error.code().unwrap_or("no code").to_owned())?;
    let keys = answer.credentials().unwrap();
    let token = Some(keys.session_token().to_owned());
    Ok(Credentials::new(keys.access_key_id(), keys.secret_access_key(), token, None, "captured"))
}

#[tokio::test]
async fn attack_31_what_was_begun_before_is_denied_and_what_comes_after_works() {
    let mut world = common::world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    assert_eq!(world.verify(tenant.id, &role, &id).await.verdict, Verdict::Held);
    issue_anew(&world, &tenant).await.unwrap();
    // Whoever had got hold of a session of the principal's role.
    let key = world.iam(PROVIDER).create_access_key().user_name(name(tenant.id)).send().await.unwrap();
    let key = key.access_key().unwrap();
    let user = Credentials::new(key.access_key_id(), key.secret_access_key(), None, None, "captured");
    let captured = assume(&world, user.clone(), tenant.role.as_str(), None).await.unwrap();
    assume(&world, captured.clone(), role.as_str(), Some(&id)).await.expect("before, it works");

    let before = Timestamp::now();
    for job in 0..2 {
        // The second one, of an earlier instant, changes nothing.
        let before = Timestamp::from(before.inner() - Duration::from_secs(job * 3600));
        world.publish(DenySessions { job: JobId::new(), tenant: tenant.id, connection: None, before }).await;
    }
    let revoked = until(&world, "the word that it is done", async || {
        let told = told::<CredentialsRevoked>(&world, tenant.id).await;
        (told.len() == 2).then_some(told)
    })
    .await;
    assert!(revoked.iter().all(|revoked| revoked.before >= before), "{revoked:?}");
    assert_eq!(assume(&world, captured, role.as_str(), Some(&id)).await.unwrap_err(), "AccessDenied");

    // What the broker itself had begun is not taken for the customer's refusal, and what it begins now works.
    assert_eq!(world.verify(tenant.id, &role, &id).await.verdict, Verdict::Held);
    issue_anew(&world, &tenant).await.unwrap();
    until(&world, "a new session", async || {
        let session = assume(&world, user.clone(), tenant.role.as_str(), None).await.unwrap();
        assume(&world, session, role.as_str(), Some(&id)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn attack_31_the_principal_of_an_ended_tenant_is_gone_for_good() {
    let mut world = common::world().await;
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    world.publish(RemovePrincipal { job: JobId::new(), tenant: tenant.id }).await;
    until(&world, "the removal", async || told::<PrincipalRemoved>(&world, tenant.id).await.pop()).await;
    let iam = world.iam(PROVIDER);
    let there = async |tenant: TenantId| {
        let user = iam.get_user().user_name(name(tenant)).send().await.is_ok();
        (user, iam.get_role().role_name(name(tenant)).send().await.is_ok())
    };
    assert_eq!(there(tenant.id).await, (false, false));
    assert_eq!(there(other.id).await, (true, true), "nobody else's");
    // Once more, and the event that it was made for as well: the tenant that comes after it shows that it was handled.
    world.publish(RemovePrincipal { job: JobId::new(), tenant: tenant.id }).await;
    world.publish(TenantCreated { tenant: tenant.id, name: "A tenant".to_owned() }).await;
    world.tenant().await;
    until(&world, "the log's word", async || {
        world.broker.log_text().contains("its principal is not made again").then_some(())
    })
    .await;
    assert_eq!(there(tenant.id).await, (false, false));
}
