//! Writes the contracts down for readers who are not Rust: a JSON Schema for each document, and one AsyncAPI document for all.
//!
//! Pure: from the types (and the golden files, which become examples) to text. `bin/write-contracts.rs` puts it on disk, `tests/drift.rs`
//! compares it with what is committed.

mod asyncapi;

use std::collections::BTreeMap;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::catalog::{self, Body};

/// Examples by the name of their file without `.json`: `tenants-create.request`, `error-reply.not-verified`.
pub type Examples = BTreeMap<String, Value>;

/// Every generated file: its path within the crate, and its text. The same on every machine and in every build.
#[must_use]
pub fn files(examples: &Examples) -> BTreeMap<String, String> {
    let schemas = catalog::bodies().into_iter().map(|(name, body)| {
        let schema = document_schema(&name, body, &mut catalog::generator());
        (format!("schemas/{name}.json"), text(schema))
    });
    let asyncapi = ("asyncapi.json".to_owned(), text(asyncapi::document(examples)));
    schemas.chain([asyncapi]).collect()
}

/// The document that `example` is an example of: the longest name that it is, or that it begins with before a dot.
#[must_use]
pub fn document_of<'n>(example: &str, names: impl Iterator<Item = &'n String>) -> Option<&'n String> {
    let fits = |name: &&String| {
        example.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    names.filter(fits).max_by_key(|name| name.len())
}

/// The schema of one document; a message's pins its type and version.
fn document_schema(name: &str, body: Body, generator: &mut SchemaGenerator) -> Value {
    let mut schema = (body.schema)(generator).to_value();
    let message = catalog::messages().into_iter().find(|message| message.kind == name);
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), json!(name));
        if let Some(message) = message {
            object.insert("description".to_owned(), json!(message.summary));
            pin(object, "type", message.kind);
            pin(object, "specversion", "1.0");
            pin(object, "datacontenttype", "application/json");
        }
    }
    schema
}

fn pin(schema: &mut Map<String, Value>, property: &str, value: &str) {
    let found = schema.get_mut("properties").and_then(|properties| properties.get_mut(property));
    if let Some(property) = found.and_then(Value::as_object_mut) {
        property.insert("const".to_owned(), json!(value));
    }
}

/// A generator whose references point into an AsyncAPI document.
fn component_generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// Indented, keys in order, a line feed at the end: whether serde_json keeps the order of insertion depends on which other crates are built with it.
fn text(value: Value) -> String {
    format!("{:#}\n", sorted(value))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<String, Value> =
                object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
