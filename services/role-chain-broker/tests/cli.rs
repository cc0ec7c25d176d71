//! What the program says when it cannot start: one clear sentence, and a status that is not zero.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_role-chain-broker"));
    command.env_clear();
    command
}

fn configured(folder: &Path) -> Command {
    let (key, seed) = (folder.join("wrapping.key"), folder.join("broker.seed"));
    let mut keygen = program();
    keygen.arg("keygen").env("ROLEBRIDGE_KEY_FILE", &key).env("ROLEBRIDGE_SEAL_SEED_FILE", &seed);
    assert!(keygen.output().unwrap().status.success());
    let mut command = program();
    command
        .env("ROLEBRIDGE_PROVIDER_ACCOUNT", "111111111111")
        .env("ROLEBRIDGE_KEY_FILE", key)
        .env("ROLEBRIDGE_SEAL_SEED_FILE", seed)
        .env("ROLEBRIDGE_AUDIT_JOURNAL", folder.join("journal"))
        .env("ROLEBRIDGE_NATS_URL", "nats://127.0.0.1:9")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    command
}

/// Fails, and says `what` (usage errors, which clap explains, may take more than a line).
fn fails(command: &mut Command, code: i32, what: &str) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.contains(what), "{what:?} is not in {said:?}");
    said
}

/// Fails at the start with one sentence, whose last line is ours; what is before it is log.
fn refuses(command: &mut Command, what: &str) {
    let said = fails(command, 1, what);
    let last = said.trim_end().lines().last().unwrap();
    assert!(last.starts_with("role-chain-broker: ") && last.contains(what), "{said}");
}

#[test]
fn wrong_flags_and_missing_variables() {
    fails(program().arg("--nonsense"), 2, "--nonsense");
    let said = fails(&mut program(), 2, "--provider-account");
    for needed in ["--seal-seed-file", "--audit-journal", "--nats-url", "--key-file", "--kms-key"] {
        assert!(said.contains(needed), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    fails(configured(folder.path()).env_remove("ROLEBRIDGE_NATS_URL"), 2, "--nats-url");
    fails(configured(folder.path()).env_remove("ROLEBRIDGE_KEY_FILE"), 2, "--kms-key");
    fails(configured(folder.path()).env("ROLEBRIDGE_PROVIDER_ACCOUNT", "12"), 2, "twelve digits");
    let accounts = |text: &str| {
        let mut command = configured(folder.path());
        command.env("ROLEBRIDGE_PRINCIPAL_ACCOUNTS", text);
        command
    };
    fails(&mut accounts("12"), 2, "neither an account ID");
    fails(&mut accounts("111111111111,111111111111"), 2, "named twice");
    fails(&mut accounts("111111111111:5001"), 2, "the most that IAM allows");
    refuses(&mut accounts("111111111111,333333333333"), "ARN of its keeper role");
    fails(configured(folder.path()).env("ROLEBRIDGE_PRINCIPALS_PER_ACCOUNT", "5001"), 2, "--principals-per-account");
    fails(
        configured(folder.path()).env("ROLEBRIDGE_PERMISSIONS_BOUNDARY", "boundary"),
        2,
        "not the ARN of a managed policy",
    );
    fails(configured(folder.path()).env("ROLEBRIDGE_PRINCIPAL_PATH", "rolebridge"), 2, "slash");
    fails(configured(folder.path()).env("ROLEBRIDGE_SETTLE_SECONDS", "3600"), 2, "--settle-seconds");
    fails(configured(folder.path()).env("ROLEBRIDGE_NATS_URL", "not a url"), 2, "--nats-url");
}

#[test]
fn keys_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    refuses(configured(folder.path()).env("ROLEBRIDGE_KEY_FILE", folder.path().join("none")), "keygen");
    refuses(configured(folder.path()).env("ROLEBRIDGE_SEAL_SEED_FILE", folder.path().join("none")), "keygen");
    let open = folder.path().join("open");
    std::fs::write(&open, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    refuses(configured(folder.path()).env("ROLEBRIDGE_KEY_FILE", &open), "chmod 600");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&open, "short").unwrap();
    refuses(configured(folder.path()).env("ROLEBRIDGE_KEY_FILE", &open), "32 bytes");
}

#[test]
fn nats_that_is_not_there_or_a_region_that_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    refuses(&mut configured(folder.path()), "cannot connect to NATS at nats://127.0.0.1:9");
    refuses(configured(folder.path()).env_remove("AWS_REGION"), "set AWS_REGION");
}

#[test]
fn a_journal_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    refuses(configured(folder.path()).env("ROLEBRIDGE_AUDIT_JOURNAL", &file), "must be a folder");
    let journal = folder.path().join("journal");
    let _taken = role_chain_broker::journal::Journal::open(&journal, 1 << 20).unwrap();
    refuses(&mut configured(folder.path()), "a folder of its own");
}

#[test]
fn a_port_that_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(configured(folder.path()).env("ROLEBRIDGE_HTTP_ADDR", &address), &format!("cannot listen on {address}"));
}

#[test]
fn keygen_makes_what_is_missing_and_leaves_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (key, seed) = (folder.path().join("key"), folder.path().join("seed"));
    let keygen =
        || program().arg("keygen").arg("--key-file").arg(&key).arg("--seal-seed-file").arg(&seed).output().unwrap();
    let first = keygen();
    let said = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success() && said.contains('X'), "{said}");
    let made = (std::fs::read(&key).unwrap(), std::fs::read(&seed).unwrap());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&seed).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(String::from_utf8(keygen().stdout).unwrap(), said, "the public key is the same again");
    assert_eq!((std::fs::read(&key).unwrap(), std::fs::read(&seed).unwrap()), made);
    fails(program().arg("keygen"), 2, "--key-file");
}
