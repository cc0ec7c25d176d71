//! Access keys wrapped by AWS KMS: for one tenant alone, through troubles of KMS, and on the way there from a key file.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{
    Tenant, WITHIN, World, bus, job,
    trouble::{self, Way},
    world_under_kms, world_with,
};
use contracts::{ErrorCode, ErrorReply, TenantId};
use messaging::RequestError;
use role_chain_broker::wrap::LocalKey;
use sandbox::NatsUser;
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

const QUICK: [(&str, &str); 2] = [("ROLEBRIDGE_RECONCILE_INTERVAL", "1"), ("ROLEBRIDGE_KEY_GRACE", "0")];

fn quick() -> Vec<(&'static str, String)> {
    QUICK.map(|(name, value)| (name, value.to_owned())).into()
}

/// With a way to KMS of the test's own.
async fn under_kms(more: Vec<(&'static str, String)>) -> (World, Way) {
    let mut way = None;
    let world = world_under_kms(|emulator, _| {
        let kms = way.insert(Way::to(&emulator.endpoint()));
        let mut more = more;
        more.push(("AWS_ENDPOINT_URL_KMS", kms.url()));
        more
    })
    .await;
    (world, way.unwrap())
}

/// Changes the principal's record in the bucket, and gives it.
async fn amend(world: &World, tenant: TenantId, change: impl Fn(&mut Value)) -> Value {
    let broker = bus(&world.nats, NatsUser::RoleChainBroker).await;
    let bucket = broker.key_value("rolebridge-principals", 1).await.unwrap();
    loop {
        let entry = bucket.entry(tenant.to_string()).await.unwrap().unwrap();
        let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
        change(&mut record);
        if bucket.update(tenant.to_string(), record.to_string().into(), entry.revision).await.is_ok() {
            return record;
        }
    }
}

async fn record(world: &World, tenant: TenantId) -> Value {
    let broker = bus(&world.nats, NatsUser::RoleChainBroker).await;
    let bucket = broker.key_value("rolebridge-principals", 1).await.unwrap();
    serde_json::from_slice(&bucket.get(tenant.to_string()).await.unwrap().unwrap()).unwrap()
}

fn wrapped_by(record: &Value) -> &str {
    record["key"]["by"].as_str().unwrap()
}

async fn keys(world: &World, tenant: TenantId) -> usize {
    let iam = world.iam("111111111111");
    let listed = iam.list_access_keys().user_name(format!("rolebridge-{tenant}")).send().await.unwrap();
    listed.access_key_metadata().len()
}

/// Has the key changed, and gives the record afterwards.
async fn rotate(world: &World, tenant: TenantId) -> Value {
    let before = amend(world, tenant, |record| record["made_at"] = json!("2020-01-01T00:00:00Z")).await;
    let began = Instant::now();
    loop {
        let now = record(world, tenant).await;
        if now["key"] != before["key"] && now.get("rotation").is_none() {
            return now;
        }
        assert!(began.elapsed() < PATIENCE, "the key was not changed; the broker says:\n{}", world.broker.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn issue_anew(world: &World, tenant: &Tenant) -> Result<(), ErrorReply> {
    match job::issue_anew(world, tenant, PATIENCE).await {
        Ok(_) => Ok(()),
        Err(RequestError::Refused(refusal)) => Err(refusal),
        Err(error) => panic!("{error:?}; the broker says:\n{}", world.broker.log_text()),
    }
}

#[tokio::test]
async fn a_principals_whole_life_under_kms_and_its_key_is_its_tenants_alone() {
    let (mut world, way) = under_kms(quick()).await;
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let heard = asked.clone();
    way.when(trouble::Trouble::Closed, move |body| {
        heard.lock().unwrap().push(serde_json::from_str(body).unwrap());
        false
    });
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    let kms = format!("kms:{}", world.provider.wrapping_key_arn);
    let made = record(&world, tenant.id).await;
    assert_eq!(wrapped_by(&made), kms);
    issue_anew(&world, &tenant).await.unwrap();
    issue_anew(&world, &other).await.unwrap();

    let changed = rotate(&world, tenant.id).await;
    assert_eq!(wrapped_by(&changed), kms);
    assert_eq!(keys(&world, tenant.id).await, 1);
    issue_anew(&world, &tenant).await.unwrap();

    // One tenant's box in the other's place.
    let stolen = amend(&world, other.id, |record| record["key"] = changed["key"].clone()).await;
    assert_eq!(wrapped_by(&stolen), kms);
    let refused = issue_anew(&world, &other).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal, "{refused:?}");
    assert!(world.broker.log_text().contains("AWS KMS did not unwrap the access key"), "{}", world.broker.log_text());
    issue_anew(&world, &tenant).await.unwrap();

    // Whatever the emulator makes of it: each call named one tenant, in the context, and its box went out with no other name but the other's.
    let asked = asked.lock().unwrap();
    let of = |tenant: &Tenant| json!({ "rolebridge:tenant": tenant.id });
    for call in asked.iter() {
        assert!(call["EncryptionContext"]["rolebridge:tenant"].is_string(), "{}", call["EncryptionContext"]);
        assert_eq!(call["EncryptionContext"].as_object().unwrap().len(), 1);
        assert_eq!(call["KeyId"], json!(world.provider.wrapping_key_arn));
    }
    let opened = |of: &Value, with: &Value| {
        asked.iter().any(|call| call["EncryptionContext"] == *of && call["CiphertextBlob"] == with["key"]["sealed"])
    };
    assert!(opened(&of(&tenant), &changed) && opened(&of(&other), &changed) && !opened(&of(&other), &made));
}

#[tokio::test]
async fn while_kms_gives_no_clear_answer_it_is_said_when_to_ask_again() {
    let (mut world, way) = under_kms(Vec::new()).await;
    let tenant = world.tenant().await;
    issue_anew(&world, &tenant).await.unwrap();
    for trouble in trouble::ALL {
        way.when(trouble, |_| true);
        let refused = issue_anew(&world, &tenant).await.expect_err("KMS does not answer");
        assert_eq!(refused.code, ErrorCode::Unavailable, "{trouble:?}: {refused:?}");
        assert!(refused.retry_after_ms.is_some_and(|wait| wait > 0) && refused.message.contains("KMS"), "{refused:?}");
        way.is_mended();
        issue_anew(&world, &tenant).await.unwrap_or_else(|refused| panic!("after {trouble:?}: {refused:?}"));
    }
}

#[tokio::test]
async fn from_a_key_file_to_kms_each_key_moves_when_it_is_changed() {
    let mut world = world_with(|_| quick()).await;
    let tenant = world.tenant().await;
    let made = record(&world, tenant.id).await;
    assert!(wrapped_by(&made).starts_with("local:"), "{}", wrapped_by(&made));

    world.broker.terminate(PATIENCE).await.unwrap();
    world.broker.set_variable("ROLEBRIDGE_KMS_KEY", world.provider.wrapping_key_arn.clone());
    world.broker.restart().unwrap();
    world.broker.wait_ready(WITHIN).await.unwrap();
    issue_anew(&world, &tenant).await.unwrap();
    let new = world.tenant().await;
    let kms = format!("kms:{}", world.provider.wrapping_key_arn);
    assert_eq!(wrapped_by(&record(&world, new.id).await), kms);
    assert_eq!(wrapped_by(&record(&world, tenant.id).await), wrapped_by(&made), "it moves when it is changed");
    let moved = rotate(&world, tenant.id).await;
    assert_eq!(wrapped_by(&moved), kms);
    issue_anew(&world, &tenant).await.unwrap();

    // The old file is not needed any more: there is another one in its place. What it alone opened is refused, and is not taken for the new one's.
    world.broker.terminate(PATIENCE).await.unwrap();
    let file = world.keys.path().join("key");
    std::fs::rename(&file, world.keys.path().join("old")).unwrap();
    LocalKey::create(&file).unwrap();
    amend(&world, new.id, |record| record["key"] = made["key"].clone()).await;
    world.broker.restart().unwrap();
    world.broker.wait_ready(WITHIN).await.unwrap();
    issue_anew(&world, &tenant).await.unwrap();
    let refused = issue_anew(&world, &new).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal, "{refused:?}");
    assert!(world.broker.log_text().contains(wrapped_by(&made)), "{}", world.broker.log_text());
}
