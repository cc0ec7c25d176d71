//! What the command line says when it is held wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the verdict")]

use std::process::{Command, Output};

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
