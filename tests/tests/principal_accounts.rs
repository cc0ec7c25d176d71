//! Principals in two accounts of the provider's, in the whole system: a tenant does not notice in which one its principal lives.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use aws_credential_types::Credentials;
use common::{PATIENCE, World, looks::job, metrics, until};
use contracts::credentials::Purpose;
use sandbox::{PROVIDER_ACCOUNT, REGION, Service, SystemOptions, keeper_role};

const SECOND: &str = "333333333333";

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_in_each_of_two_provider_accounts_gets_credentials() {
    // The principal that is no tenant's takes a place in each, so the first has room for one tenant.
    let accounts = format!("{PROVIDER_ACCOUNT}:2,{}:2", keeper_role(SECOND));
    let mut options = SystemOptions { further_accounts: vec![SECOND.to_owned()], ..SystemOptions::default() };
    for (name, value) in [("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", accounts.as_str()), ("ROLEBRIDGE_RECONCILE_INTERVAL", "1")]
    {
        options.environment.insert(name.to_owned(), value.to_owned());
    }
    let mut world = World::with(options).await;
    let strangers = until(PATIENCE, async || {
        let log = world.system.service(Service::RoleChainBroker).expect("the broker").log_text();
        log.matches("the principal for probes by another stands").count() == 2
    });
    assert!(strangers.await, "{}", world.complaints());

    let mut homes = Vec::new();
    for name in ["Anna", "Bert"] {
        let (launched, connection) = world.connect(name).await;
        let tenant = world.operator.principal_ready(launched.tenant, PATIENCE).await.expect("its principal");
        homes.push(tenant.principal_role.expect("its role").account().to_string());
        let (about, credentials) = job(&world)
            .await
            .issue(launched.tenant, connection.connection, Purpose::CostRead)
            .await
            .expect("credentials");
        let secret = credentials.secret_access_key.expose();
        let token = Some(credentials.session_token.expose().to_owned());
        let keys = Credentials::new(&credentials.access_key_id, secret, token, None, "job");
        let identity = world.system.emulator.caller_identity(REGION, keys).await.expect("they work");
        assert_eq!(identity.account, connection.account.as_str(), "the customer's own account");
        assert_eq!((about.account, about.role_arn), (connection.account, connection.role_arn));
    }
    homes.sort_unstable();
    assert_eq!(homes, [PROVIDER_ACCOUNT, SECOND]);

    let mut text = String::new();
    let full = until(PATIENCE, async || {
        text = metrics(&mut world.system, Service::RoleChainBroker).await;
        let is_two = |name: &str, account: &str| {
            let label = format!("account=\"{account}\"");
            text.lines().any(|line| line.starts_with(name) && line.contains(&label) && line.ends_with(" 2"))
        };
        let names = ["rolebridge_principals{", "rolebridge_principals_capacity{"];
        names.iter().all(|name| [PROVIDER_ACCOUNT, SECOND].iter().all(|account| is_two(name, account)))
    });
    let full = full.await;
    assert!(full, "each account holds two of two:\n{text}");
}
