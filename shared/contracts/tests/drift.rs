//! What is committed under `schemas/` and in `asyncapi.json` is what the types say.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{collections::BTreeSet, fs};

use rolebridge_contracts::generate;

const COMMAND: &str = "cargo run -p rolebridge-contracts --bin write-contracts";

#[test]
fn the_committed_files_are_those_that_the_types_give() {
    let wanted = generate::files(&common::goldens());
    for (name, text) in &wanted {
        let found = fs::read_to_string(common::home().join(name)).unwrap_or_default();
        assert!(
            found == *text,
            "{name} is not what the types say. Run `{COMMAND}`, look at the difference, and commit it."
        );
    }
    let entries = fs::read_dir(common::home().join("schemas")).expect("schemas");
    let found: BTreeSet<String> =
        entries.map(|entry| format!("schemas/{}", entry.unwrap().file_name().to_string_lossy())).collect();
    let wanted: BTreeSet<String> = wanted.into_keys().filter(|name| name.starts_with("schemas/")).collect();
    assert_eq!(
        found, wanted,
        "schemas/ holds files of contracts that are no more. Run `{COMMAND}` and commit what it removes."
    );
}
