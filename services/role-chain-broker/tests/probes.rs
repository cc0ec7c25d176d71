//! What the probes make of customers' trust policies, in the AWS emulator's own evaluation of them, and of trouble on the way to STS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{collections::HashMap, time::Duration};

use common::{
    CUSTOMER, WITHIN, World, only_with,
    trouble::{self, Trouble, Way},
    verify_job, world, world_with,
};
use contracts::{
    ExternalId, JobId, Timestamp,
    verification::{Fault, Probe, ProbeEvidence, ProbeOutcome, Verdict, VerificationReported},
};
use serde_json::{Value, json};

fn failed(fault: Fault) -> Verdict {
    Verdict::Failed { fault }
}

/// Each condition in a role of its own. A clear verdict needs no second look.
async fn verdicts(cases: &[(&str, Value, Verdict)], id: &ExternalId) {
    let mut world = world().await;
    let tenant = world.tenant().await;
    for (case, condition, expected) in cases {
        let role = world.role(&tenant.role, condition.clone()).await;
        let report = world.verify(tenant.id, &role, id).await;
        assert_eq!(report.verdict, *expected, "{case}: {:?}", report.evidence);
        assert!(report.evidence.iter().all(|evidence| evidence.outcome != ProbeOutcome::Indeterminate), "{case}");
        assert_eq!(report.evidence[0].probe, Probe::RightId);
    }
}

#[tokio::test]
async fn attack_03_a_role_without_the_condition_is_let_in_without_an_id_and_fails() {
    let (id, other) = (ExternalId::generate(), ExternalId::generate());
    let elsewhere = json!({ "StringEquals": { "aws:PrincipalAccount": "111111111111" } });
    let cases = [
        ("right", only_with(&id), Verdict::Held),
        ("no condition", Value::Null, failed(Fault::OpenWithoutId)),
        ("a condition on something else", elsewhere, failed(Fault::OpenWithoutId)),
        ("another's ID", only_with(&other), failed(Fault::Refused)),
    ];
    verdicts(&cases, &id).await;
}

#[tokio::test]
async fn attack_04_a_condition_that_is_there_and_useless_fails() {
    let id = ExternalId::generate();
    let on_id = |operator: &str, value: Value| json!({ operator: { "sts:ExternalId": value } });
    let cases = [
        ("any ID", on_id("StringLike", json!("*")), failed(Fault::OpenWithRandomId)),
        (
            "any ID that begins as ours might",
            on_id("StringLike", json!(["?*", id.as_str()])),
            failed(Fault::OpenWithRandomId),
        ),
        ("only if given", on_id("StringEqualsIfExists", json!(id.as_str())), failed(Fault::OpenWithoutId)),
        ("any if given", on_id("StringLikeIfExists", json!("*")), failed(Fault::OpenWithoutId)),
        ("given, whatever it is", on_id("Null", json!("false")), failed(Fault::OpenWithRandomId)),
        ("any but one", on_id("StringNotEquals", json!("no")), failed(Fault::OpenWithoutId)),
        ("not given", on_id("Null", json!("true")), failed(Fault::Refused)),
    ];
    verdicts(&cases, &id).await;
}

/// What the probes do not see, so that nobody believes they do: a second literal value beside ours opens the role to whoever knows that value
/// *and* is this tenant's principal, which nobody but the broker is; and the broker sends no value but its own.
#[tokio::test]
async fn attack_04_a_second_literal_value_is_not_seen() {
    let id = ExternalId::generate();
    let list = json!({ "StringEquals": { "sts:ExternalId": [id.as_str(), "acme-corp"] } });
    verdicts(&[("a list with a guessable value", list, Verdict::Held)], &id).await;
}

fn outcome(report: &VerificationReported, probe: Probe) -> Option<ProbeOutcome> {
    report.evidence.iter().rev().find(|evidence| evidence.probe == probe).map(|evidence| evidence.outcome)
}

#[tokio::test]
async fn a_trust_that_names_more_than_the_tenants_role_is_seen_and_does_not_decide() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    world.stranger().await;
    let id = ExternalId::generate();
    let everyone_of_the_path = json!({
        "StringEquals": { "sts:ExternalId": id.as_str() },
        // The second is how the emulator names a session; AWS goes by the first.
        "ArnLike": { "aws:PrincipalArn": [
            "arn:aws:iam::111111111111:role/rolebridge/*", "arn:aws:sts::111111111111:assumed-role/rolebridge-*/*",
        ]},
    });
    let cases = [
        ("exactly the tenant's role", json!({ "AWS": tenant.role.as_str() }), only_with(&id), ProbeOutcome::Refused),
        (
            "the whole account",
            json!({ "AWS": "arn:aws:iam::111111111111:root" }),
            only_with(&id),
            ProbeOutcome::Succeeded,
        ),
        ("everyone of the path", json!({ "AWS": "*" }), everyone_of_the_path, ProbeOutcome::Succeeded),
    ];
    for (case, principal, condition, expected) in cases {
        let role = world.role_trusting(principal, condition).await;
        let report = world.verify(tenant.id, &role, &id).await;
        assert_eq!(report.verdict, Verdict::Held, "{case}: {:?}", report.evidence);
        assert_eq!(outcome(&report, Probe::OtherPrincipal), Some(expected), "{case}: {:?}", report.evidence);
    }
    // No customer's name gets into another's CloudTrail: whoever asked there is nobody's.
    let users = world.iam("111111111111").list_users().send().await.unwrap();
    let strangers = users.users().iter().filter(|user| user.user_name().ends_with("-8000-b374-7261-6e67-6572"));
    assert!(strangers.count() <= 1);
}

#[tokio::test]
async fn a_retired_id_must_be_refused_in_the_end() {
    let mut world = world().await;
    let tenant = world.tenant().await;
    let (id, retired) = (ExternalId::generate(), ExternalId::generate());
    let both = json!({ "StringEquals": { "sts:ExternalId": [id.as_str(), retired.as_str()] } });
    let cases = [
        (only_with(&id), Verdict::Held, ProbeOutcome::Refused),
        (both, failed(Fault::OpenWithRetiredId), ProbeOutcome::Succeeded),
    ];
    for (condition, expected, seen) in cases {
        let role = world.role(&tenant.role, condition).await;
        let mut job = verify_job(tenant.id, &role, &id);
        job.retired_external_id = Some(retired.clone());
        let report = world.verify_as(job).await;
        assert_eq!(report.verdict, expected, "{:?}", report.evidence);
        assert_eq!(outcome(&report, Probe::RetiredId), Some(seen));
        let order: Vec<Probe> = report.evidence.iter().map(|evidence| evidence.probe).take(5).collect();
        assert_eq!(order, [Probe::RightId, Probe::CallerIdentity, Probe::NoId, Probe::RandomId, Probe::RetiredId]);
    }
}

/// Our own role refuses calls without an external ID, or all of them: neither is the customer's word, and the next look mends it.
#[tokio::test]
async fn attack_04_what_our_own_role_refuses_is_not_the_customers_refusal() {
    let mut world = world().await;
    let id = ExternalId::generate();
    let if_given = json!({ "StringEqualsIfExists": { "sts:ExternalId": id.as_str() } });
    let allow = json!({ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/rolebridge/rolebridge-*" });
    let mut with_an_id = allow.clone();
    with_an_id["Condition"] = json!({ "Null": { "sts:ExternalId": "false" } });
    let mut denied = allow;
    denied["Effect"] = json!("Deny");
    for (ours, condition, right) in
        [(with_an_id, if_given, failed(Fault::OpenWithoutId)), (denied, only_with(&id), Verdict::Held)]
    {
        let tenant = world.tenant().await;
        let role = world.role(&tenant.role, condition).await;
        let policy = json!({ "Version": "2012-10-17", "Statement": [ours] }).to_string();
        let put = world.iam("111111111111").put_role_policy().role_name(tenant.role.name());
        put.policy_name("rolebridge-chain").policy_document(policy).send().await.unwrap();
        let mut job = verify_job(tenant.id, &role, &id);
        job.deadline = Timestamp::now().plus(Duration::from_secs(8));
        let report = world.verify_as(job).await;
        assert!([right, Verdict::Indeterminate].contains(&report.verdict), "{:?}", report.evidence);
        let unheard = |seen: &ProbeEvidence| {
            seen.outcome == ProbeOutcome::Indeterminate && seen.error_code.as_deref() == Some("AccessDenied")
        };
        assert!(report.evidence.iter().any(unheard), "it met our own refusal: {:?}", report.evidence);
    }
}

/// A role, the trouble that its probes meet, and the job.
async fn in_trouble(world: &World, way: &Way, tenant: &common::Tenant) -> HashMap<JobId, (String, Retry)> {
    let mut jobs = HashMap::new();
    for trouble in trouble::ALL {
        let every = [Probe::RightId, Probe::CallerIdentity, Probe::NoId, Probe::RandomId];
        for meets in [&every[..], &[Probe::NoId], &[Probe::RandomId]] {
            let meets = meets.to_vec();
            let id = ExternalId::generate();
            let role = world.role(&tenant.role, only_with(&id)).await;
            let (name, mine) = (role.name().to_owned(), id.as_str().to_owned());
            let these = meets.clone();
            way.when(trouble, move |body| {
                let probe = match body.contains("ExternalId=") {
                    true if body.contains(&mine) => Probe::RightId,
                    true => Probe::RandomId,
                    false => Probe::NoId,
                };
                body.contains(&name) && these.contains(&probe)
            });
            let mut job = verify_job(tenant.id, &role, &id);
            // With the time that is kept for the report: four seconds of probes.
            job.deadline = Timestamp::now().plus(Duration::from_secs(6));
            jobs.insert(job.job, (format!("{trouble:?} on {meets:?}"), Retry { job, trouble, meets }));
        }
    }
    jobs
}

struct Retry {
    job: contracts::verification::VerifyConnection,
    trouble: Trouble,
    meets: Vec<Probe>,
}

#[tokio::test]
async fn attack_05_trouble_on_the_way_to_sts_is_indeterminate_and_passes() {
    let mut way = None;
    let mut world = world_with(|emulator| {
        let to_sts = way.insert(Way::to(&emulator.endpoint()));
        vec![("AWS_ENDPOINT_URL_STS", to_sts.url())]
    })
    .await;
    let way = way.unwrap();
    let tenant = world.tenant().await;
    let jobs = in_trouble(&world, &way, &tenant).await;
    for (_, retry) in jobs.values() {
        let deadline = Timestamp::now().plus(Duration::from_secs(6));
        world.publish(contracts::verification::VerifyConnection { deadline, ..retry.job.clone() }).await;
    }
    for _ in 0..jobs.len() {
        let report = World::next(&world.broker, &mut world.verifications).await;
        let (case, retry) = &jobs[&report.job];
        assert_eq!(report.verdict, Verdict::Indeterminate, "{case}: {:?}", report.evidence);
        // The one that is in trouble was never heard; a slow machine may not have come so far.
        let met = report.evidence.iter().filter(|evidence| retry.meets.contains(&evidence.probe));
        for evidence in met {
            assert_eq!(evidence.outcome, ProbeOutcome::Indeterminate, "{case}: {:?}", report.evidence);
        }
        if retry.trouble == Trouble::Throttled && retry.meets.contains(&Probe::RightId) {
            let throttled = |evidence: &ProbeEvidence| evidence.error_code.as_deref() == Some("Throttling");
            assert!(report.evidence.iter().any(throttled), "{case}: {:?}", report.evidence);
        }
        assert!(report.purposes.is_empty(), "{case}: nothing is looked at in a role that did not hold");
    }
    way.is_mended();
    for (case, retry) in jobs.into_values() {
        let job = contracts::verification::VerifyConnection {
            job: JobId::new(),
            deadline: Timestamp::now().plus(WITHIN),
            ..retry.job
        };
        let report = world.verify_as(job).await;
        assert_eq!(report.verdict, Verdict::Held, "{case}, mended: {:?}", report.evidence);
    }
}

/// The other way round: a role that is wide open stays one, whatever trouble there is between the probes.
#[tokio::test]
async fn attack_05_trouble_does_not_hide_an_open_role() {
    let mut way = None;
    let mut world = world_with(|emulator| {
        let to_sts = way.insert(Way::to(&emulator.endpoint()));
        vec![("AWS_ENDPOINT_URL_STS", to_sts.url())]
    })
    .await;
    let way = way.unwrap();
    let tenant = world.tenant().await;
    let (id, role) = (ExternalId::generate(), world.role(&tenant.role, Value::Null).await);
    // Every second call is throttled.
    let (name, calls) = (role.name().to_owned(), std::sync::atomic::AtomicUsize::new(0));
    way.when(Trouble::Throttled, move |body| {
        body.contains(&name) && calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(2)
    });
    let report = world.verify(tenant.id, &role, &id).await;
    assert_eq!(report.verdict, failed(Fault::OpenWithoutId), "{:?}", report.evidence);
    assert!(report.evidence.iter().any(|evidence| evidence.outcome == ProbeOutcome::Indeterminate));
    assert_eq!(report.role_arn.account().as_str(), CUSTOMER);
}
