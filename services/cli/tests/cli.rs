//! What the command line says when it is held wrong.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests, where a panic is the verdict")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use contracts::audit::{AuditEntry, GENESIS, chain};

fn rolebridge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rolebridge")).args(arguments).env_clear().output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_an_address_it_says_which_variable_is_missing() {
    let output = rolebridge(&["tenants", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("ROLEBRIDGE_NATS_URL"), "{}", said(&output));
}

#[test]
fn an_unreachable_server_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = rolebridge(&["tenants", "list", "--nats-url", &format!("nats://{free}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&free.to_string()), "{}", said(&output));
}

#[test]
fn a_malformed_id_is_refused_with_an_example() {
    let output = rolebridge(&["tenants", "show", "acme"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("01890a5d-ac96-774b-bcce-b302099a8057"), "{}", said(&output));
}

/// A copy of a log, as `audit export` writes it.
fn copy(to: &Path, change: impl FnOnce(&mut Vec<AuditEntry>)) -> String {
    let mut previous = GENESIS.to_owned();
    let mut entries: Vec<AuditEntry> = (1..=5)
        .map(|sequence| {
            let text = format!(
                r#"{{"sequence":{sequence},"at":"2026-11-12T09:00:00.1Z","actor":"operator","action":"tenant.created","reason":"r"}}"#
            );
            let mut entry: AuditEntry = serde_json::from_str(&text).unwrap();
            entry.hash = chain(&previous, &entry);
            previous.clone_from(&entry.hash);
            entry
        })
        .collect();
    change(&mut entries);
    let lines: String = entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
    fs::write(to, lines).unwrap();
    format!("5:{previous}")
}

#[test]
fn a_copy_of_the_audit_log_is_verified_without_a_bus() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let file = path.to_str().unwrap();
    let head = copy(&path, |_| ());
    let fine = rolebridge(&["audit", "verify", "--file", file, "--head", &head]);
    assert!(fine.status.success(), "{}", said(&fine));
    let shown = String::from_utf8(fine.stdout).unwrap();
    assert!(shown.contains(&head) && shown.contains("5 at 2026-11-12T09:00:00.1Z"), "{shown}");
    let json = rolebridge(&["audit", "verify", "--file", file, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json["entries"].as_u64(), json["head"].as_str()), (Some(5), Some(head.as_str())));

    type Change = fn(&mut Vec<AuditEntry>);
    let broken: [(Change, &str); 4] = [
        (|log| log[2].reason = "other".to_owned(), "entry 3 is not what was written"),
        (|log| drop(log.remove(1)), "entries 2 to 2 are missing"),
        (|log| log.insert(3, log[0].clone()), "entry 1 was put in"),
        (|log| log.truncate(4), "the log ends with entry 4"),
    ];
    for (change, expected) in broken {
        copy(&path, change);
        let output = rolebridge(&["audit", "verify", "--file", file, "--head", &head]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains(expected) && said(&output).contains("rolebridge audit export"),
            "{}",
            said(&output)
        );
    }
    fs::write(&path, "{}\n").unwrap();
    assert!(said(&rolebridge(&["audit", "verify", "--file", file])).contains("line 1"));
    assert_eq!(rolebridge(&["audit", "verify", "--file", file, "--head", "5"]).status.code(), Some(2));
}
