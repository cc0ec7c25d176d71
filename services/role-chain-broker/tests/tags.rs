//! Session tags, in the emulator's own evaluation: a customer's policy that goes by them, roles that do not admit them, and what our own side allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use aws::{Failure, FailureKind};
use common::{CUSTOMER, REGION, Tenant, WITHIN, World, bus, grant, only_with, verify_job, world, world_with};
use contracts::{
    ExternalId, Region, RoleArn,
    connection::Grant,
    credentials::{IssueCredentials, IssueRequest, Purpose, SealedCredentials},
    verification::{Probe, ProbeOutcome, Verdict},
};
use messaging::seal::SealSeed;
use role_chain_broker::{
    look::{Reads as _, RealReads},
    purpose::Read,
    sts::Keys,
    tags,
};
use sandbox::NatsUser;
use serde_json::{Value, json};

const PROVIDER: &str = "111111111111";
const BUCKET: &str = "acme-costs";
const COUNTER: &str = "rolebridge_session_tags_total";

/// A role as templates of version 3 make it, or, without the second statement, of version 2.
async fn role(world: &World, tenant: &Tenant, id: &ExternalId, admits_tags: bool) -> RoleArn {
    let role = world.role(&tenant.role, only_with(id)).await;
    if admits_tags {
        trust(world, tenant, &role, id, &tags::KEYS).await;
    }
    role
}

/// Has the role admit these tags.
async fn trust(world: &World, tenant: &Tenant, role: &RoleArn, id: &ExternalId, keys: &[&str]) {
    let principal = json!({ "AWS": tenant.role.as_str() });
    let trust = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", "Condition": only_with(id) },
        { "Effect": "Allow", "Principal": principal, "Action": "sts:TagSession", "Condition": {
            "ForAllValues:StringEquals": { "aws:TagKeys": keys }, "Null": { "sts:TransitiveTagKeys": "true" } } },
    ]});
    let set = world.iam(CUSTOMER).update_assume_role_policy().role_name(role.name());
    set.policy_document(trust.to_string()).send().await.unwrap();
}

/// A customer that lets its bucket be listed by sessions with these tags alone.
fn only_tagged(grant: &Grant) -> Value {
    json!([{ "Effect": "Allow", "Action": "s3:ListBucket", "Resource": format!("arn:aws:s3:::{BUCKET}"), "Condition": { "StringEquals": {
        "aws:PrincipalTag/rolebridge:connection": grant.connection.to_string(),
        "aws:PrincipalTag/rolebridge:purpose": "cost-read",
    } } }])
}

/// Credentials that have not been asked for yet, because no other request wants so many seconds.
async fn issue(world: &World, grant: &Grant, seconds: u32) -> Keys {
    let (job, seal) = (bus(&world.nats, NatsUser::Job).await, SealSeed::generate().unwrap());
    let request = IssueRequest {
        requester_key: seal.public().clone(),
        requester: "nightly-costs".to_owned(),
        duration_s: Some(seconds),
        min_remaining_s: None,
    };
    let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, grant.connection);
    let began = std::time::Instant::now();
    let issued = loop {
        // The grant may be on its way.
        match job.request::<IssueCredentials>(subject.clone(), &request, WITHIN).await {
            Ok(issued) => break issued,
            Err(error) => assert!(began.elapsed() < WITHIN, "{error}\n{}", world.broker.log_text()),
        }
    };
    let plain = seal.open(&world.broker_key, &issued.sealed).unwrap();
    let opened: SealedCredentials = serde_json::from_slice(&plain).unwrap();
    Keys {
        access_key_id: opened.access_key_id.into(),
        secret_access_key: opened.secret_access_key.expose().into(),
        session_token: Some(opened.session_token.expose().into()),
    }
}

async fn list(world: &World, keys: &Keys) -> Result<(), Failure> {
    let reads = RealReads::new(world.emulator.account(CUSTOMER, REGION).sdk_config()).unwrap();
    let read = Read::ListObjects { bucket: BUCKET.to_owned(), prefix: String::new() };
    reads.read(keys, &Region::parse(REGION).unwrap(), &read).await.map(drop)
}

async fn counted(world: &World) -> [u64; 3] {
    let of = async |result| world.counted(COUNTER, &[&format!(r#"result="{result}""#)]).await;
    [of("carried").await, of("refused").await, of("known-refused").await]
}

#[tokio::test]
async fn a_customer_may_go_by_the_tags_of_a_session_and_a_role_of_before_has_none() {
    let mut world = world().await;
    world.emulator.account(CUSTOMER, REGION).create_bucket(BUCKET).await.unwrap();
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    for (admits, expected) in [(true, [1, 0, 0]), (false, [1, 0, 0])] {
        let role = role(&world, &tenant, &id, admits).await;
        let grant = Grant { session_tags: admits, ..grant(tenant.id, &role, &id) };
        world.allow(&role, only_tagged(&grant)).await;
        world.publish(grant.clone()).await;
        let listed = list(&world, &issue(&world, &grant, 3600).await).await;
        match admits {
            true => listed.unwrap(),
            false => assert_eq!(listed.unwrap_err().kind, FailureKind::Refused),
        }
        assert_eq!(counted(&world).await, expected);
    }
    // The first hop is ours, and bears none: its session could bear no others than those that the customer's role admits.
    assert!(!world.broker.log_text().contains("does not admit session tags"));
}

#[tokio::test]
async fn attack_36_a_grant_that_promises_too_much_costs_the_tags_and_not_the_job() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = role(&world, &tenant, &id, false).await;
    let grant = Grant { session_tags: true, ..grant(tenant.id, &role, &id) };
    world.publish(grant.clone()).await;
    issue(&world, &grant, 3600).await;
    assert_eq!(counted(&world).await, [0, 1, 0]);
    issue(&world, &grant, 900).await;
    assert_eq!(counted(&world).await, [0, 1, 1], "it is known, and not tried again");
    assert!(world.broker.log_text().contains("does not admit session tags"));
}

#[tokio::test]
async fn whether_a_role_admits_tags_is_seen_and_decides_nothing() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let tagless = role(&world, &tenant, &id, false).await;
    let others = role(&world, &tenant, &id, false).await;
    trust(&world, &tenant, &others, &id, &["Department"]).await;
    let cases = [
        (role(&world, &tenant, &id, true).await, true, Some(ProbeOutcome::Succeeded)),
        (tagless.clone(), true, Some(ProbeOutcome::Refused)),
        (others, true, Some(ProbeOutcome::Refused)),
        (tagless, false, None),
    ];
    for (role, session_tags, expected) in cases {
        let job = contracts::verification::VerifyConnection { session_tags, ..verify_job(tenant.id, &role, &id) };
        let report = world.verify_as(job).await;
        assert_eq!(report.verdict, Verdict::Held, "{:?}", report.evidence);
        let seen = report.evidence.iter().find(|seen| seen.probe == Probe::SessionTags).map(|seen| seen.outcome);
        assert_eq!(seen, expected, "{:?}", report.evidence);
    }
}

/// An account's template of before: its boundary lets no tag out. That is no word about the customer's role.
#[tokio::test]
async fn attack_36_a_refusal_of_our_own_side_is_no_word_about_the_customers_role() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let id = ExternalId::generate();
    let role = role(&world, &tenant, &id, true).await;
    let boundary = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/rolebridge/rolebridge-*" },
    ]});
    let set = world.iam(PROVIDER).create_policy_version().policy_arn(&world.provider.principal_boundary_arn);
    set.policy_document(boundary.to_string()).set_as_default(true).send().await.unwrap();
    let job = contracts::verification::VerifyConnection { session_tags: true, ..verify_job(tenant.id, &role, &id) };
    let report = world.verify_as(job).await;
    assert_eq!(report.verdict, Verdict::Held, "{:?}", report.evidence);
    let seen = report.evidence.iter().find(|seen| seen.probe == Probe::SessionTags).unwrap();
    assert_eq!(seen.outcome, ProbeOutcome::Indeterminate);
    // And what is issued meanwhile goes out without.
    let grant = Grant { session_tags: true, ..grant(tenant.id, &role, &id) };
    world.publish(grant.clone()).await;
    issue(&world, &grant, 3600).await;
    assert_eq!(counted(&world).await[1], 1);
}

/// What a broker of before wrote is renewed by the first round, and nobody is alarmed.
#[tokio::test]
async fn a_principal_of_an_earlier_version_is_renewed_in_silence() {
    let mut world = world_with(|_| vec![("ROLEBRIDGE_RECONCILE_INTERVAL", "1".to_owned())]).await;
    let tenant = world.tenant().await;
    let (iam, name) = (world.iam(PROVIDER), format!("rolebridge-{}", tenant.id));
    let earlier = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/rolebridge/rolebridge-*" },
    ]});
    let put = iam.put_role_policy().role_name(&name).policy_name("rolebridge-chain");
    put.policy_document(earlier.to_string()).send().await.unwrap();
    let began = std::time::Instant::now();
    while world.counted("rolebridge_principal_upgrades_total", &[]).await == 0 {
        assert!(began.elapsed() < 3 * WITHIN, "it was not renewed:\n{}", world.broker.log_text());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let found = iam.get_role_policy().role_name(&name).policy_name("rolebridge-chain").send().await.unwrap();
    assert!(found.policy_document().contains("TagSession"), "{}", found.policy_document());
    assert_eq!(world.counted("rolebridge_principal_drifts_total", &[]).await, 0);
    assert!(!world.broker.log_text().contains("behind our back"));
}
