//! Somebody changes a tenant's principal behind the back of the whole system: it is never silent.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Instant;

use common::{PATIENCE, World};
use contracts::{
    CloudEvent, JobId, Message as _, TenantId,
    tenant::{Drift, PrincipalDrift},
};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull::OrderedConfig;
use sandbox::{NatsUser, PROVIDER_ACCOUNT, REGION, SystemOptions};

/// One call of IAM as the provider's root, whose signature the emulator does not check. By hand: the SDK for IAM belongs to the broker alone.
async fn iam(world: &World, action: &str, parameters: &[(&str, &str)]) {
    let scope = format!("{PROVIDER_ACCOUNT}/20260101/{REGION}/iam/aws4_request");
    let mut form = vec![("Action", action), ("Version", "2010-05-08")];
    form.extend(parameters);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client
        .post(world.system.emulator.endpoint())
        .header(
            "Authorization",
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked"),
        )
        .header("X-Amz-Date", "20260101T000000Z")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await
        .expect("IAM answers");
    let status = response.status();
    assert!(status.is_success(), "{action}: {status} {}", response.text().await.unwrap_or_default());
}

/// The alarms of the tenant, as a downstream team reads them.
async fn alarms(world: &World, tenant: TenantId) -> Vec<PrincipalDrift> {
    let reader = world.system.bus(NatsUser::Events).await.expect("a reader of events");
    let stream = reader.jetstream().get_stream(PrincipalDrift::STREAM.name()).await.expect("the stream");
    let filter_subject = PrincipalDrift::SUBJECT.replace('*', &tenant.to_string());
    let name = Some(format!("test-{}", JobId::new()));
    let config = OrderedConfig { name, filter_subject, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let count = usize::try_from(consumer.cached_info().num_pending).expect("few");
    let messages = consumer.messages().await.expect("messages").take(count);
    let told = messages
        .map(|message| CloudEvent::decode(&message.expect("a message").payload).expect("an alarm"))
        .map(|event: CloudEvent<PrincipalDrift>| event.data)
        .collect()
        .await;
    reader.close().await;
    told
}

#[tokio::test]
async fn attack_23_a_principals_role_that_is_replaced_is_an_alarm_with_what_to_do() {
    let mut options = SystemOptions::default();
    options.environment.insert("ROLEBRIDGE_RECONCILE_INTERVAL".to_owned(), "1".to_owned());
    let mut world = World::with(options).await;
    let (launched, _) = world.connect("Anna").await;
    let (tenant, bystander) = (launched.tenant, world.tenant("Bert").await.tenant);
    let name = format!("rolebridge-{tenant}");
    iam(&world, "DeleteRolePolicy", &[("RoleName", &name), ("PolicyName", "rolebridge-chain")]).await;
    iam(&world, "DeleteRole", &[("RoleName", &name)]).await;
    let began = Instant::now();
    let alarm = loop {
        let of_role = |alarm: &PrincipalDrift| {
            alarm.found.iter().any(|found| matches!(found, Drift::RoleMissing | Drift::RoleReplaced))
        };
        if let Some(alarm) = alarms(&world, tenant).await.into_iter().find(of_role) {
            break alarm;
        }
        assert!(began.elapsed() < PATIENCE, "silent:\n{}", world.complaints());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(!alarm.mended, "on AWS customers' roles refuse the new role");
    assert!(alarm.reason.contains("updating its stack"), "{}", alarm.reason);
    assert!(alarms(&world, bystander).await.is_empty());
}
