//! Principals in several accounts of the provider's, from the operators' own templates, in the AWS emulator with IAM on.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{CUSTOMER, Tenant, WITHIN, World, bus, job, only_with, world_over};
use contracts::{
    ExternalId, JobId, TenantId, Timestamp,
    revocation::{DenySessions, RemovePrincipal},
    tenant::TenantCreated,
    verification::{Probe, ProbeOutcome, Verdict},
};
use sandbox::{NatsUser, keeper_role};
use serde_json::{Value, json};

const OWN: &str = "111111111111";
const SECOND: &str = "333333333333";
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

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

/// Two accounts that take so many each, the principals that are no tenants' included.
async fn two_accounts(own: u32, second: u32) -> World {
    let accounts = format!("{OWN}:{own},{}:{second}", keeper_role(SECOND));
    let quick = [
        ("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", accounts),
        ("ROLEBRIDGE_RECONCILE_INTERVAL", "1".to_owned()),
        ("ROLEBRIDGE_KEY_GRACE", "0".to_owned()),
    ];
    let world = world_over(&[SECOND], |_| quick.into()).await;
    until(&world, "a stranger in each account", async || {
        (world.broker.log_text().matches("the principal for probes by another stands").count() == 2).then_some(())
    })
    .await;
    world
}

/// Users and roles of principals in the account.
async fn there(world: &World, account: &str) -> (usize, usize) {
    let iam = world.iam(account);
    let users = iam.list_users().send().await.unwrap();
    let roles = iam.list_roles().send().await.unwrap();
    let is_one = |name: &str| name.strip_prefix("rolebridge-").is_some_and(|id| id.parse::<TenantId>().is_ok());
    let users = users.users().iter().filter(|user| is_one(user.user_name())).count();
    (users, roles.roles().iter().filter(|role| is_one(role.role_name())).count())
}

async fn keys(world: &World, account: &str, tenant: TenantId) -> Vec<String> {
    let listed = world.iam(account).list_access_keys().user_name(format!("rolebridge-{tenant}")).send().await.unwrap();
    listed.access_key_metadata().iter().map(|key| key.access_key_id().unwrap().to_owned()).collect()
}

/// Changes the principal's record in the bucket.
async fn amend(world: &World, tenant: TenantId, change: impl Fn(&mut Value)) {
    let broker = bus(&world.nats, NatsUser::RoleChainBroker).await;
    let bucket = broker.key_value("rolebridge-principals", 1).await.unwrap();
    loop {
        let entry = bucket.entry(tenant.to_string()).await.unwrap().unwrap();
        let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
        change(&mut record);
        if bucket.update(tenant.to_string(), record.to_string().into(), entry.revision).await.is_ok() {
            return;
        }
    }
}

async fn issue(world: &World, tenant: &Tenant) -> Result<(), String> {
    match job::issue_anew(world, tenant, WITHIN).await {
        Ok(issued) if issued.account.as_str() == CUSTOMER => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn when_the_first_account_is_full_a_tenants_whole_life_is_in_the_second() {
    let mut world = two_accounts(2, 2).await;
    let first = world.tenant().await;
    let second = world.tenant().await;
    assert_eq!((first.role.account().as_str(), second.role.account().as_str()), (OWN, SECOND));
    assert_eq!((there(&world, OWN).await, there(&world, SECOND).await), ((2, 2), (2, 2)));
    let role = world.iam(SECOND).get_role().role_name(format!("rolebridge-{}", second.id)).send().await.unwrap();
    let bound = role.role.unwrap().permissions_boundary.unwrap();
    let boundary = format!("arn:aws:iam::{SECOND}:policy/rolebridge-principal-boundary");
    assert_eq!(bound.permissions_boundary_arn(), Some(boundary.as_str()), "its own account's");
    // A third one has no place, and nobody is silent about it.
    let third = TenantId::new();
    world.publish(TenantCreated { tenant: third, name: "A tenant".to_owned() }).await;
    until(&world, "the word that there is no room", async || {
        let said = world.broker.log_text().contains("no provider account has room");
        (said && world.counted("rolebridge_principal_placements_total", &[r#"result="full""#]).await > 0).then_some(())
    })
    .await;
    for (account, name) in [OWN, SECOND]
        .into_iter()
        .flat_map(|account| ["rolebridge_principals{", "rolebridge_principals_capacity{"].map(|name| (account, name)))
    {
        let label = format!("account=\"{account}\"");
        until(&world, name, async || (world.counted(name, &[&label]).await == 2).then_some(())).await;
    }

    // Verified: and who is no tenant, of this very account, is refused by a role that trusts one principal.
    let id = ExternalId::generate();
    let role = world.role(&second.role, only_with(&id)).await;
    let report = world.verify(second.id, &role, &id).await;
    assert_eq!(report.verdict, Verdict::Held, "{report:?}");
    let other = |report: &contracts::verification::VerificationReported| {
        report.evidence.iter().rfind(|seen| seen.probe == Probe::OtherPrincipal).map(|seen| seen.outcome)
    };
    assert_eq!(other(&report), Some(ProbeOutcome::Refused));
    let whole_account = json!({ "AWS": format!("arn:aws:iam::{SECOND}:root") });
    let loose = world.role_trusting(whole_account, only_with(&id)).await;
    let report = world.verify(second.id, &loose, &id).await;
    assert_eq!(other(&report), Some(ProbeOutcome::Succeeded), "a trust in the whole account is seen");
    issue(&world, &second).await.unwrap();

    // Its key is changed.
    let before = keys(&world, SECOND, second.id).await;
    amend(&world, second.id, |record| record["made_at"] = json!("2020-01-01T00:00:00Z")).await;
    until(&world, "another key", async || {
        let now = keys(&world, SECOND, second.id).await;
        (now.len() == 1 && now != before).then_some(())
    })
    .await;
    issue(&world, &second).await.unwrap();

    // What it has begun is denied.
    world
        .publish(DenySessions { job: JobId::new(), tenant: second.id, connection: None, before: Timestamp::now() })
        .await;
    let iam = world.iam(SECOND);
    until(&world, "the denial", async || {
        let policy = iam.get_role_policy().role_name(format!("rolebridge-{}", second.id));
        policy.policy_name("rolebridge-revoked-sessions").send().await.ok()
    })
    .await;
    // The first one goes, for which nothing may be issued.
    world.publish(RemovePrincipal { job: JobId::new(), tenant: first.id }).await;
    until(&world, "the removal", async || (there(&world, OWN).await == (1, 1)).then_some(())).await;
    // There is room again, and whoever waited for it is served without a hand.
    let ready = tokio::time::timeout(PATIENCE, world.principals.recv()).await.expect("in time").unwrap();
    assert_eq!((ready.tenant, ready.role_arn.account().as_str()), (third, OWN));
}

#[tokio::test]
async fn an_account_with_principals_cannot_be_taken_off_the_list() {
    let mut world = two_accounts(1, 2).await;
    let tenant = world.tenant().await;
    assert_eq!(tenant.role.account().as_str(), SECOND);
    world.broker.terminate(PATIENCE).await.unwrap();
    world.broker.set_variable("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", OWN);
    world.broker.restart().unwrap();
    let status = world.broker.wait(PATIENCE).await.unwrap();
    assert!(!status.success());
    let said = world.broker.log_text();
    let last = said.trim_end().lines().last().unwrap();
    assert!(last.contains("2 principals live in account 333333333333"), "{last}");
    // Kept, and closed for new ones.
    world.broker.set_variable("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", format!("{OWN},{}:0", keeper_role(SECOND)));
    world.broker.restart().unwrap();
    world.broker.wait_ready(PATIENCE).await.unwrap();
    issue(&world, &tenant).await.unwrap();
    assert_eq!(world.tenant().await.role.account().as_str(), OWN);
}

#[tokio::test]
async fn a_keeper_that_cannot_be_assumed_keeps_nobody_from_his_principal() {
    let accounts = format!("{OWN}:10,{}:900", keeper_role("444444444444"));
    let mut world = world_over_not_ready(accounts).await;
    assert_eq!(world.tenant().await.role.account().as_str(), OWN, "the one with more room does not answer");
    assert!(world.counted("rolebridge_principal_placements_total", &[r#"result="unreachable""#]).await > 0);
    let health = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = health.get(format!("http://{}/readyz", world.broker.http_address())).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("444444444444"));
}

/// A broker with an account that does not let it in is at work, though it does not say that it is ready.
async fn world_over_not_ready(accounts: String) -> World {
    let mut world = world_over(&[], |_| Vec::new()).await;
    world.broker.terminate(PATIENCE).await.unwrap();
    world.broker.set_variable("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", accounts);
    world.broker.restart().unwrap();
    world
}
