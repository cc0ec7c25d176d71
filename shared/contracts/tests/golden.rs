//! Golden messages: what programs of a released version have sent. Each must decode for ever; within a version only optional fields are added.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use rolebridge_contracts::{catalog, generate};

#[test]
fn each_decodes_and_is_written_out_again_as_it_was() {
    let bodies = catalog::bodies();
    for (name, text) in common::golden_texts() {
        let document = generate::document_of(&name, bodies.keys())
            .unwrap_or_else(|| panic!("golden/v1/{name}.json is of no contract"));
        let written = (bodies[document].recode)(&text)
            .unwrap_or_else(|error| panic!("golden/v1/{name}.json: {error}: {:?}", std::error::Error::source(&error)));
        assert_eq!(
            common::json(&written),
            common::json(&text),
            "golden/v1/{name}.json is changed by being read and written"
        );
    }
}

#[test]
fn each_contract_has_one() {
    let goldens = common::goldens();
    let bodies = catalog::bodies();
    let missing: Vec<&String> = bodies.keys().filter(|name| !goldens.contains_key(*name)).collect();
    assert!(missing.is_empty(), "contracts without a golden file: {missing:?}. Write golden/v1/<name>.json by hand.");
}

#[test]
fn each_keeps_to_its_schema() {
    let bodies = catalog::bodies();
    for (name, value) in common::goldens() {
        let document = generate::document_of(&name, bodies.keys()).unwrap();
        let path = common::home().join(format!("schemas/{document}.json"));
        let schema = common::json(&std::fs::read(path).unwrap());
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|error| panic!("schemas/{document}.json: {error}"));
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
        assert!(errors.is_empty(), "golden/v1/{name}.json: {errors:?}");
    }
}

#[test]
fn a_schema_refuses_another_type() {
    let schema =
        common::json(&std::fs::read(common::home().join("schemas/rolebridge.tenant.created.v1.json")).unwrap());
    let goldens = common::goldens();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&goldens["rolebridge.tenant.created.v1"]));
    assert!(!validator.is_valid(&goldens["rolebridge.tenant.suspended.v1"]));
}

#[test]
fn a_field_of_a_later_version_does_no_harm_in_a_message() {
    let bodies = catalog::bodies();
    for message in catalog::messages() {
        let mut value = common::goldens()[message.kind].clone();
        value["added-later"] = serde_json::json!({ "a": [1, 2] });
        value["data"]["added_later"] = serde_json::json!("text");
        let text = serde_json::to_vec(&value).unwrap();
        assert!((bodies[message.kind].recode)(&text).is_ok(), "{} does not let an unknown field through", message.kind);
    }
}
