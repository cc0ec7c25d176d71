//! What the program says when it cannot start: one clear sentence, and a status that is not zero.

#![cfg(test)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callback-ingest"));
    command.env_clear();
    command
}

fn configured(folder: &Path) -> Command {
    let key = folder.join("ingest.seed");
    if !key.exists() {
        assert!(program().arg("keygen").arg("--out").arg(&key).output().unwrap().status.success());
    }
    let mut command = program();
    command
        .env("ROLEBRIDGE_CALLBACK_QUEUE_URL", "http://127.0.0.1:9/111111111111/q")
        .env("ROLEBRIDGE_TOPIC_ARNS", "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks")
        .env("ROLEBRIDGE_INGEST_KEY_FILE", key)
        .env("ROLEBRIDGE_NATS_URL", "nats://127.0.0.1:9");
    command
}

/// Fails, and says `what` in one line (usage errors, which clap explains, may take more).
fn fails(command: &mut Command, code: i32, what: &str) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.contains(what), "{what:?} is not in {said:?}");
    said
}

/// The last line: what is before it is log.
fn sentence(said: &str) -> &str {
    said.trim_end().lines().last().unwrap()
}

#[test]
fn wrong_flags_and_missing_variables() {
    fails(program().arg("--nonsense"), 2, "--nonsense");
    let said = fails(&mut program(), 2, "--callback-queue-url");
    assert!(
        said.contains("--topic-arns") && said.contains("--ingest-key-file") && said.contains("--nats-url"),
        "{said}"
    );
    let folder = tempfile::tempdir().unwrap();
    fails(configured(folder.path()).env_remove("ROLEBRIDGE_TOPIC_ARNS"), 2, "--topic-arns");
    fails(configured(folder.path()).env("ROLEBRIDGE_TOPIC_ARNS", "arn:aws:sqs:x"), 2, "an SNS topic ARN expected");
    fails(configured(folder.path()).env("ROLEBRIDGE_SQS_POLLERS", "0"), 2, "--sqs-pollers");
    fails(configured(folder.path()).env("ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN", "127.0.0.1"), 2, "scheme, host and port");
}

#[test]
fn skipping_signatures_outside_a_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let said = fails(
        configured(folder.path()).env("ROLEBRIDGE_SNS_SIGNATURE", "sandbox-skip"),
        1,
        "only be skipped in a sandbox",
    );
    assert!(sentence(&said).starts_with("callback-ingest: "), "{said}");
}

#[test]
fn a_missing_or_wrong_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let said = fails(configured(folder.path()).env("ROLEBRIDGE_INGEST_KEY_FILE", &missing), 1, "keygen");
    assert!(sentence(&said).contains("missing"), "{said}");
    std::fs::write(&missing, "no seed").unwrap();
    fails(configured(folder.path()).env("ROLEBRIDGE_INGEST_KEY_FILE", &missing), 1, "holds no X25519 seed");
}

#[test]
fn nats_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let said = fails(&mut configured(folder.path()), 1, "cannot connect to NATS at nats://127.0.0.1:9");
    assert!(sentence(&said).starts_with("callback-ingest: cannot connect"), "{said}");
}

#[test]
fn a_used_port() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = fails(configured(folder.path()).env("ROLEBRIDGE_HTTP_ADDR", &address), 1, &address);
    assert!(sentence(&said).contains("cannot listen"), "{said}");
}

#[test]
fn keygen_makes_a_private_file_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let made = program().arg("keygen").arg("--out").arg(&key).output().unwrap();
    assert!(made.status.success());
    let seed = std::fs::read_to_string(&key).unwrap();
    assert!(seed.trim().starts_with("SX"));
    assert!(!String::from_utf8(made.stdout).unwrap().contains(seed.trim()), "the seed was printed");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fails(program().arg("keygen").arg("--out").arg(&key), 1, "cannot write");
}
