//! What the tests of the contracts share: where the files are.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use rolebridge_contracts::generate::Examples;
use serde_json::Value;

pub(crate) fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every golden file as it was written, by its name without `.json`.
pub(crate) fn golden_texts() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(home().join("golden/v1")).expect("golden/v1");
    let read = entries.map(|entry| {
        let path = entry.expect("an entry of golden/v1").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".json"))
            .expect("a .json file")
            .to_owned();
        (name, fs::read(&path).expect("a readable golden file"))
    });
    read.collect()
}

pub(crate) fn goldens() -> Examples {
    golden_texts().into_iter().map(|(name, text)| (name, json(&text))).collect()
}

pub(crate) fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON")
}
