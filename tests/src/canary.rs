//! The search for secrets: every form in which one may have been written down, looked for in every place at once.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, BuildError};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

/// Shorter ones would be found by chance.
const SHORTEST: usize = 8;

/// What is looked for, under the name that it is told by: never by itself.
#[derive(Debug, Default)]
pub struct Canaries {
    all: Vec<(String, Vec<u8>)>,
}

impl Canaries {
    /// Adds every form of `secret`.
    pub fn add(&mut self, what: &str, secret: impl AsRef<[u8]>) {
        self.all.extend(forms(secret.as_ref()).into_iter().map(|form| (what.to_owned(), form)));
    }

    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.all.iter().map(|(what, _)| what.as_str()).collect()
    }

    /// What was found, and where.
    ///
    /// # Errors
    /// There are more forms than can be looked for.
    pub fn find(&self, places: &BTreeMap<String, Vec<u8>>) -> Result<BTreeSet<(String, String)>, BuildError> {
        let search = AhoCorasick::new(self.all.iter().map(|(_, form)| form))?;
        let mut found = BTreeSet::new();
        for (place, bytes) in places {
            for hit in search.find_overlapping_iter(bytes) {
                if let Some((what, _)) = self.all.get(hit.pattern().as_usize()) {
                    found.insert((what.clone(), place.clone()));
                }
            }
        }
        Ok(found)
    }
}

/// As it is; in hexadecimal; percent-encoded; escaped for JSON; in base64 of either alphabet, wherever in what was encoded it may have stood.
fn forms(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = BTreeSet::from([secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()]);
    forms.insert(url::form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes());
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = serde_json::Value::from(text).to_string();
        forms.insert(quoted.trim_matches('"').as_bytes().to_vec());
    }
    for shift in 0..3 {
        let shifted = [vec![0; shift], secret.to_vec()].concat();
        for encoded in [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)] {
            // The letters at either end depend on what stood beside it.
            let known = encoded.get(if shift == 0 { 0 } else { 4 }..encoded.len().saturating_sub(4));
            forms.insert(known.unwrap_or_default().as_bytes().to_vec());
        }
    }
    forms.into_iter().filter(|form| form.len() >= SHORTEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_whatever_form_and_nothing_else_is() {
        let secret = "rbt_a canary/that+sings";
        let mut canaries = Canaries::default();
        canaries.add("the canary", secret);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        let mut hidden = vec![secret.to_owned(), hex, "q=rbt_a+canary%2Fthat%2Bsings&".to_owned()];
        for before in ["", "x", "xy", "xyz"] {
            let whole = format!("{before}{secret}, and more");
            hidden.extend([STANDARD.encode(&whole), URL_SAFE.encode(&whole)]);
        }
        for text in hidden {
            let places = BTreeMap::from([("here".to_owned(), format!("before {text} after").into_bytes())]);
            let found = canaries.find(&places).unwrap();
            assert_eq!(found, BTreeSet::from([("the canary".to_owned(), "here".to_owned())]), "{text}");
        }
        let empty = BTreeMap::from([("there".to_owned(), b"rbt_a canary that does not".to_vec())]);
        assert!(canaries.find(&empty).unwrap().is_empty());
    }
}
