//! Purposes: whether a customer's role has what they need, what is issued when it has not, and which connections are in use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{CUSTOMER, REGION, WITHIN, World, bus, grant, only_with, verify_job, world};
use contracts::{
    ErrorCode, ExternalId, RoleArn, TenantId,
    connection::{ConnectionState, Grant},
    costs::ExportLocation,
    credentials::{IssueCredentials, IssueRequest, Purpose},
    verification::{PermissionCheck, PurposeOutcome, Verdict, VerificationReported},
};
use messaging::{RequestError, seal::SealSeed};
use role_chain_broker::principal::STRANGER;
use sandbox::NatsUser;
use serde_json::{Value, json};

const BUCKET: &str = "acme-costs";

/// As in the customer template, for the bucket and the prefix `exports/cur`.
fn costs(objects: &str) -> Vec<Value> {
    vec![
        json!({ "Effect": "Allow", "Resource": "*", "Action": [
            "bcm-data-exports:GetExecution", "bcm-data-exports:GetExport", "bcm-data-exports:ListExecutions",
            "bcm-data-exports:ListExports", "ce:GetCostAndUsage", "cur:DescribeReportDefinitions",
        ]}),
        json!({ "Effect": "Allow", "Resource": format!("arn:aws:s3:::{BUCKET}"), "Action": "s3:GetBucketLocation" }),
        json!({ "Effect": "Allow", "Resource": format!("arn:aws:s3:::{BUCKET}"), "Action": "s3:ListBucket",
            "Condition": { "StringLike": { "s3:prefix": "exports/cur/*" } } }),
        json!({ "Effect": "Allow", "Resource": format!("arn:aws:s3:::{BUCKET}/{objects}"), "Action": "s3:GetObject" }),
    ]
}

fn look_at_itself(role: &RoleArn) -> Value {
    json!({ "Effect": "Allow", "Resource": role.as_str(), "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"] })
}

async fn looked_at(
    world: &mut World,
    tenant: TenantId,
    role: &RoleArn,
    id: &ExternalId,
    bucket: Option<&str>,
) -> VerificationReported {
    let mut job = verify_job(tenant, role, id);
    job.cost_export =
        bucket.map(|bucket| ExportLocation { bucket: bucket.to_owned(), prefix: "exports/cur".to_owned() });
    let report = world.verify_as(job).await;
    assert_eq!(report.verdict, Verdict::Held, "permissions never decide about the trust: {:?}", report.evidence);
    assert_eq!(report.purposes.len(), 1, "{}", world.broker.log_text());
    report
}

fn seen(report: &VerificationReported) -> (PermissionCheck, PurposeOutcome, Vec<&str>) {
    let cost_read = &report.purposes[0];
    assert_eq!(cost_read.purpose, Purpose::CostRead);
    (cost_read.check, cost_read.outcome, cost_read.missing.iter().map(String::as_str).collect())
}

#[tokio::test]
async fn a_role_that_looks_at_itself_says_what_is_missing() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    let mut statements = costs("exports/cur/*");
    statements.push(look_at_itself(&role));
    world.allow(&role, json!(statements)).await;

    let report = looked_at(&mut world, tenant.id, &role, &id, Some(BUCKET)).await;
    assert_eq!(seen(&report), (PermissionCheck::Simulation, PurposeOutcome::Complete, vec![]));
    assert_eq!(report.max_session_s, Some(7200));

    // The policy is for another folder of the bucket than the stack names.
    let mut statements = costs("exports/old/*");
    statements.push(look_at_itself(&role));
    world.allow(&role, json!(statements)).await;
    let report = looked_at(&mut world, tenant.id, &role, &id, Some(BUCKET)).await;
    assert_eq!(seen(&report), (PermissionCheck::Simulation, PurposeOutcome::Missing, vec!["s3:GetObject"]));

    // Without an export nothing of S3 is needed.
    world.allow(&role, json!([costs("")[0].clone(), look_at_itself(&role)])).await;
    let report = looked_at(&mut world, tenant.id, &role, &id, None).await;
    assert_eq!(seen(&report), (PermissionCheck::Simulation, PurposeOutcome::Complete, vec![]));
    let report = looked_at(&mut world, tenant.id, &role, &id, Some(BUCKET)).await;
    let s3 = vec!["s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"];
    assert_eq!(seen(&report), (PermissionCheck::Simulation, PurposeOutcome::Missing, s3));
}

#[tokio::test]
async fn a_role_that_may_not_look_at_itself_is_read_from() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    world.emulator.account(CUSTOMER, REGION).create_bucket(BUCKET).await.unwrap();
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    world.allow(&role, json!(costs("exports/cur/*"))).await;

    let report = looked_at(&mut world, tenant.id, &role, &id, Some(BUCKET)).await;
    assert_eq!(seen(&report), (PermissionCheck::Read, PurposeOutcome::Complete, vec![]));
    assert_eq!(report.max_session_s, None);
    let report = looked_at(&mut world, tenant.id, &role, &id, None).await;
    assert_eq!(seen(&report), (PermissionCheck::Read, PurposeOutcome::Complete, vec![]));

    // A bucket that is not there is no question of permissions.
    world.allow(&role, json!([{ "Effect": "Allow", "Action": "s3:*", "Resource": "*" }])).await;
    let report = looked_at(&mut world, tenant.id, &role, &id, Some("nowhere-at-all")).await;
    assert_eq!(seen(&report), (PermissionCheck::Read, PurposeOutcome::Indeterminate, vec![]));
    assert_eq!(report.purposes[0].error_code.as_deref(), Some("NoSuchBucket"));

    world.allow(&role, json!([costs("")[0].clone()])).await;
    let report = looked_at(&mut world, tenant.id, &role, &id, Some(BUCKET)).await;
    assert_eq!(seen(&report), (PermissionCheck::Read, PurposeOutcome::Missing, vec!["s3:ListBucket"]));
}

async fn ask(world: &World, grant: &Grant, seal: &SealSeed) -> Result<(), RequestError> {
    let job = bus(&world.nats, NatsUser::Job).await;
    let request = IssueRequest {
        requester_key: seal.public().clone(),
        requester: "nightly-costs".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, grant.connection);
    job.request::<IssueCredentials>(subject, &request, WITHIN).await.map(drop)
}

#[tokio::test]
async fn nothing_is_issued_for_a_missing_purpose_nor_for_the_stranger() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    world.stranger().await;
    let (id, seal) = (ExternalId::generate(), SealSeed::generate().unwrap());
    let role = world.role(&tenant.role, only_with(&id)).await;
    let first = grant(tenant.id, &role, &id);
    world.publish(first.clone()).await;
    ask(&world, &first, &seal).await.unwrap();
    let calls = async |world: &World| world.counted("rolebridge_sts_calls_total", &[r#"action="AssumeRole""#]).await;
    let before = calls(&world).await;

    let degraded = Grant { revision: 2, state: ConnectionState::Degraded, ..first.clone() };
    world.publish(Grant { missing: vec![Purpose::CostRead], ..degraded.clone() }).await;
    let refusal = loop {
        if let Err(error) = ask(&world, &first, &seal).await {
            break error.refusal().expect("the broker's own word").clone();
        }
    };
    assert_eq!(refusal.code, ErrorCode::Denied);
    assert!(
        refusal.message.contains("cost-read") && refusal.message.contains("connections show"),
        "{}",
        refusal.message
    );

    // It is back, and what was cached under the old word is not handed out again.
    world.publish(Grant { revision: 3, ..degraded }).await;
    while ask(&world, &first, &seal).await.is_err() {}
    assert!(calls(&world).await > before);

    // The registry never grants for it; a grant that were there would not help.
    let strange = Grant { tenant: STRANGER, ..first };
    world.publish(strange.clone()).await;
    let refused = ask(&world, &strange, &seal).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn the_registry_hears_which_connections_are_in_use() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let (id, seal) = (ExternalId::generate(), SealSeed::generate().unwrap());
    let role = world.role(&tenant.role, only_with(&id)).await;
    let (one, other) = (grant(tenant.id, &role, &id), grant(tenant.id, &role, &id));
    for grant in [&one, &other] {
        world.publish(grant.clone()).await;
        while ask(&world, grant, &seal).await.is_err() {}
    }
    // The first at once, the second with the last word: half a minute has not passed.
    let first = World::next(&world.broker, &mut world.used).await;
    assert_eq!(first.used.iter().map(|used| used.connection).collect::<Vec<_>>(), [one.connection]);
    let status = world.broker.terminate(Duration::from_secs(20)).await.unwrap();
    assert!(status.success(), "{}", world.broker.log_text());
    let last = World::next(&world.broker, &mut world.used).await;
    assert_eq!(
        last.used.iter().map(|used| (used.tenant, used.connection)).collect::<Vec<_>>(),
        [(tenant.id, other.connection)]
    );
}
