//! Somebody changes a tenant's principal behind the back of the whole system: it is never silent.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, World, shell::Shell};
use contracts::{
    CloudEvent, JobId, Message, TenantId,
    principal::{LookOutcome, PrincipalFindings, PrincipalReconciled},
    tenant::{Drift, PrincipalDrift},
};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull::OrderedConfig;
use sandbox::{NatsUser, PROVIDER_ACCOUNT, REGION, SystemOptions};

/// One call of IAM as the provider's root, whose signature the emulator does not check. By hand: the SDK for IAM belongs to the broker alone.
async fn iam(world: &World, action: &str, parameters: &[(&str, &str)]) -> String {
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
    let (status, text) = (response.status(), response.text().await.unwrap_or_default());
    assert!(status.is_success(), "{action}: {status} {text}");
    text
}

/// The tenant's events of this type, as a downstream team reads them.
async fn told<T: Message>(world: &World, tenant: TenantId) -> Vec<T> {
    let reader = world.system.bus(NatsUser::Events).await.expect("a reader of events");
    let stream = reader.jetstream().get_stream(T::STREAM.name()).await.expect("the stream");
    let filter_subject = T::SUBJECT.replace('*', &tenant.to_string());
    let name = Some(format!("test-{}", JobId::new()));
    let config = OrderedConfig { name, filter_subject, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let count = usize::try_from(consumer.cached_info().num_pending).expect("few");
    let messages = consumer.messages().await.expect("messages").take(count);
    let told = messages
        .map(|message| CloudEvent::decode(&message.expect("a message").payload).expect("an event"))
        .map(|event: CloudEvent<T>| event.data)
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
        if let Some(alarm) = told::<PrincipalDrift>(&world, tenant).await.into_iter().find(of_role) {
            break alarm;
        }
        assert!(began.elapsed() < PATIENCE, "silent:\n{}", world.complaints());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(!alarm.mended, "on AWS customers' roles refuse the new role");
    assert!(alarm.reason.contains("updating its stack"), "{}", alarm.reason);
    assert!(told::<PrincipalDrift>(&world, bystander).await.is_empty());
}

#[tokio::test]
async fn attack_23_a_look_that_an_operator_asks_for_finds_mends_and_tells() {
    let world = World::start().await;
    let (shell, tenant) = (Shell::new(&world.system), world.tenant("Anna").await.tenant);
    let (id, name) = (tenant.to_string(), format!("rolebridge-{tenant}"));
    let reconcile = ["principals", "reconcile", &id];
    let look = async || -> PrincipalFindings {
        let began = Instant::now();
        loop {
            let findings = serde_json::from_value(shell.json(&reconcile).await).expect("findings");
            let PrincipalFindings { outcome, again_after_ms, .. } = &findings;
            if ![LookOutcome::Settling, LookOutcome::JustLookedAt, LookOutcome::Busy].contains(outcome) {
                return findings;
            }
            assert!(began.elapsed() < PATIENCE, "{findings:?}\n{}", world.complaints());
            tokio::time::sleep(Duration::from_millis(again_after_ms.expect("when to ask again"))).await;
        }
    };
    let policy = async || {
        let text = iam(&world, "GetRolePolicy", &[("RoleName", &name), ("PolicyName", "rolebridge-chain")]).await;
        let (_, text) = text.split_once("<PolicyDocument>").expect("a document");
        text.split_once("</PolicyDocument>").expect("its end").0.to_owned()
    };
    assert_eq!(look().await.outcome, LookOutcome::InOrder);
    let before = policy().await;
    let wide = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let put = [("RoleName", name.as_str()), ("PolicyName", "rolebridge-chain"), ("PolicyDocument", wide)];
    iam(&world, "PutRolePolicy", &put).await;
    assert_ne!(policy().await, before);

    // The rounds come every ten minutes only: what is found is found because somebody asks.
    let found = look().await;
    assert_eq!((found.outcome, found.found.as_slice()), (LookOutcome::Mended, [Drift::RolePolicy].as_slice()));
    assert_eq!(policy().await, before, "it is as it was");
    let alarms = told::<PrincipalDrift>(&world, tenant).await;
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!((alarms[0].found.as_slice(), alarms[0].mended), ([Drift::RolePolicy].as_slice(), true));
    assert_eq!(look().await.outcome, LookOutcome::InOrder);
    let asked = told::<PrincipalReconciled>(&world, tenant).await;
    assert!(asked.iter().all(|asked| asked.user.as_deref() == Some("operator")), "{asked:?}");
    let mended = asked.iter().filter(|asked| asked.outcome == LookOutcome::Mended).count();
    assert_eq!(mended, 1, "{asked:?}");

    let said = shell.run("operator", &["principals", "reconcile", &TenantId::new().to_string()]).await;
    assert!(said.code == 1 && said.err.contains("has no principal"), "{}", said.err);
    let denied = shell.run("job", &reconcile).await;
    assert!(denied.code == 1 && denied.err.contains("may not publish"), "{}{}", denied.out, denied.err);
}
