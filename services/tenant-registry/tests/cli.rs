//! The program at its start: what is wrong is said in one clear sentence, with a status that is not zero.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail the test"
)]

use std::{
    net::TcpListener,
    process::{Command, Output},
};

use sea_orm::ConnectionTrait;
use tempfile::TempDir;
use tenant_registry::store::Store;

/// A program with everything set, on a database and ports of its own; nothing listens where its NATS should be.
fn program(dir: &TempDir) -> Command {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenant-registry"));
    command
        .env_clear()
        .env("ROLEBRIDGE_DATABASE_URL", database(dir))
        .env("ROLEBRIDGE_NATS_URL", format!("nats://{free}"))
        .env("ROLEBRIDGE_PROVIDER_ACCOUNT", "111111111111")
        .env("ROLEBRIDGE_TOPIC_ARNS", "arn:aws:sns:eu-central-1:111111111111:t")
        .env("ROLEBRIDGE_TEMPLATE_URL", "https://templates.example/customer.yaml")
        .env("RUST_LOG", "off");
    command
}

fn database(dir: &TempDir) -> String {
    format!("sqlite://{}?mode=rwc", dir.path().join("registry.db").display())
}

/// The one sentence on standard error of a program that failed with `status`.
fn sentence(output: &Output, status: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn one_line(output: &Output) -> String {
    let text = sentence(output, 1);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

#[test]
fn wrong_flags_and_missing_variables() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = sentence(&program(&dir).arg("--colour").output().unwrap(), 2);
    assert!(wrong.contains("--colour"), "{wrong}");
    for (variable, flag) in [
        ("ROLEBRIDGE_NATS_URL", "--nats-url"),
        ("ROLEBRIDGE_PROVIDER_ACCOUNT", "--provider-account"),
        ("ROLEBRIDGE_TOPIC_ARNS", "--topic-arns"),
        ("ROLEBRIDGE_TEMPLATE_URL", "--template-url"),
    ] {
        let missing = sentence(&program(&dir).env_remove(variable).output().unwrap(), 2);
        assert!(missing.contains(flag), "{missing}");
    }
}

#[test]
fn values_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, value) in [
        ("ROLEBRIDGE_DATABASE_URL", "mysql://root:hunter2@localhost/x"),
        ("ROLEBRIDGE_PROVIDER_ACCOUNT", "12"),
        ("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", "111111111111,12"),
        ("ROLEBRIDGE_TOPIC_ARNS", "arn:aws:sqs:eu-central-1:111111111111:q"),
        ("ROLEBRIDGE_TEMPLATE_URL", "customer.yaml"),
        ("ROLEBRIDGE_VERIFY_DEADLINE", "9999"),
        ("ROLEBRIDGE_PROBE_INTERVAL", "0"),
        ("ROLEBRIDGE_PROBE_AGAIN", "3601"),
        ("ROLEBRIDGE_PROBES_PER_MINUTE", "0"),
        ("ROLEBRIDGE_EQUAL_ANSWERS", "11"),
        ("ROLEBRIDGE_FATAL_EVIDENCE", "other-principal,everything"),
        ("ROLEBRIDGE_HTTP_ADDR", "here"),
    ] {
        let flag = variable.strip_prefix("ROLEBRIDGE_").unwrap().to_lowercase().replace('_', "-");
        let said = sentence(&program(&dir).env(variable, value).output().unwrap(), 2);
        assert!(said.contains(&flag), "{said}");
    }
}

#[test]
fn help_lists_every_variable_and_shows_no_value_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        program(&dir).env("ROLEBRIDGE_DATABASE_URL", "postgres://u:hunter2@db/x").arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for variable in [
        "DATABASE_URL",
        "PROVIDER_ACCOUNT",
        "TOPIC_ARNS",
        "TEMPLATE_URL",
        "VERIFY_DEADLINE",
        "NATS_URL",
        "HTTP_ADDR",
        "LOG_FORMAT",
    ] {
        assert!(text.contains(&format!("ROLEBRIDGE_{variable}")), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn an_unreachable_nats() {
    let dir = tempfile::tempdir().unwrap();
    let said = one_line(&program(&dir).output().unwrap());
    assert!(said.contains("NATS") && said.contains("ROLEBRIDGE_NATS_URL"), "{said}");
}

#[test]
fn a_used_port() {
    let dir = tempfile::tempdir().unwrap();
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap().to_string();
    let said = one_line(&program(&dir).env("ROLEBRIDGE_HTTP_ADDR", &address).output().unwrap());
    assert!(said.contains(&address) && said.contains("ROLEBRIDGE_HTTP_ADDR"), "{said}");
}

#[test]
fn a_database_that_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("sqlite://{}/no/such/folder/x.db?mode=rwc", dir.path().display());
    let said = one_line(&program(&dir).env("ROLEBRIDGE_DATABASE_URL", nowhere).output().unwrap());
    assert!(said.contains("ROLEBRIDGE_DATABASE_URL"), "{said}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!("postgres://user:hunter2@{closed}/registry");
    let said = one_line(&program(&dir).env("ROLEBRIDGE_DATABASE_URL", &away).output().unwrap());
    assert!(said.contains("cannot open the database") && said.contains(&closed.to_string()), "{said}");
    // Not even when everything is logged.
    let all = program(&dir).env("ROLEBRIDGE_DATABASE_URL", &away).env("RUST_LOG", "trace").output().unwrap();
    let all = String::from_utf8(all.stderr).unwrap();
    assert!(all.lines().count() > 1 && !all.contains("hunter2"), "{all}");
}

#[tokio::test]
async fn a_database_of_a_newer_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&database(&dir).parse().unwrap()).await.unwrap();
    store
        .db()
        .execute_unprepared("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 1)")
        .await
        .unwrap();
    drop(store);
    let said = one_line(&program(&dir).output().unwrap());
    assert!(said.contains("newer tenant-registry") && said.contains("m9999_later"), "{said}");
}
