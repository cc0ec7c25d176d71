//! The command line against a running system, the way an operator and a job use it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, where a panic is the verdict"
)]

mod common;

use std::time::Duration;

use common::shell::{Shell, text};
use contracts::connection::ConnectionState;
use sandbox::{NatsUser, Operator, System, SystemOptions};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_and_a_job_at_the_command_line() {
    let system = System::start(SystemOptions::default(), |line| eprintln!("{line}")).await.unwrap();
    let (shell, operator) = (Shell::new(&system), Operator::new(system.bus(NatsUser::Operator).await.unwrap()));

    let created = shell.json(&["tenants", "create", "Acme", "--idempotency-key", "acme-1"]).await;
    let again = shell.json(&["tenants", "create", "Acme", "--idempotency-key", "acme-1"]).await;
    assert_eq!(created["tenant"], again["tenant"]);
    let tenant = text(&created["tenant"]).to_owned();
    operator.principal_ready(tenant.parse().unwrap(), PATIENCE).await.unwrap();
    assert!(text(&shell.json(&["tenants", "show", &tenant]).await["principal_role"]).contains(":role/rolebridge/"));

    let offer = shell.json(&["enrollments", "create", &tenant, "--account", "222222222222"]).await;
    let parameters = serde_json::from_value(offer["parameters"].clone()).unwrap();
    let account = system.customer("222222222222").await.unwrap();
    account.deploy(&System::customer_stack("acme", &parameters)).await.unwrap();

    let listed = shell.json(&["connections", "list", &tenant, "--state", "verified"]).await;
    let connection = text(&listed["items"][0]["connection"]).to_owned();
    let shown = shell.run("operator", &["connections", "show", &tenant, &connection]).await;
    for expected in ["verified", "222222222222", "right-id succeeded", "no-id refused", "random-id refused"] {
        assert!(shown.out.contains(expected), "{expected} is not in:\n{}", shown.out);
    }
    assert!(!shown.out.contains(text(&offer["external_id"])), "the external ID stands beside the role ARN");

    let key = system.sealing_key().to_string();
    let process = ["credentials", "process", &tenant, &connection, "--sealing-key", &key, "--requester", "a-job"];
    let given = shell.run("job", &process).await;
    let credentials: Value = serde_json::from_str(&given.out).unwrap_or_else(|_| panic!("{}", given.err));
    assert_eq!(credentials["Version"], 1);
    let names = ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"];
    assert!(names.iter().all(|name| !text(&credentials[name]).is_empty()));

    let other_key = messaging::seal::SealSeed::generate().unwrap().public().to_string();
    let wrong_pin = ["credentials", "process", &tenant, &connection, "--sealing-key", &other_key];
    let refused = shell.run("job", &wrong_pin).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("pinned"), "{}", refused.err);

    let denied = shell.run("job", &["tenants", "list"]).await;
    assert_eq!(denied.code, 1, "a job listed tenants: {}", denied.out);

    let revoked = shell.json(&["connections", "revoke", &tenant, &connection, "--reason", "the contract ended"]).await;
    assert_eq!(revoked["state"], ConnectionState::Revoked.as_str());
    // The registry's word reaches the broker over the bus, milliseconds after the registry has decided.
    let heard = async {
        loop {
            let late = shell.run("job", &process).await;
            if late.code != 0 {
                return late;
            }
        }
    };
    let late = tokio::time::timeout(PATIENCE, heard).await.expect("credentials are issued after the revocation");
    assert_eq!(late.code, 1);
    assert!(late.err.contains("not-verified") && late.err.lines().count() == 1, "{}", late.err);

    let audit = shell.run("operator", &["audit", "list", &tenant]).await;
    assert!(audit.out.contains("the contract ended"), "{}", audit.out);
    let unknown = shell.run("operator", &["connections", "show", &tenant, &tenant]).await;
    assert!(unknown.code == 1 && unknown.err.contains("not-found"), "{}", unknown.err);
    assert_eq!(shell.json(&["dead-letters", "list"]).await, Value::Array(Vec::new()));
    system.stop().await.unwrap();
}
