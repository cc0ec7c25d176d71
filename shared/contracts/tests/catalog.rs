//! What holds for every contract, whoever adds the next one.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{collections::BTreeSet, str::FromStr};

use rolebridge_contracts::{
    Audience, ConnectionId, EnrollmentId, ErrorCode, ExternalId, Stream, Subject, TenantId,
    catalog::{self, EndpointContract, MessageContract},
    credentials::Purpose,
    subject::{Token, captures},
};

fn stars(subject: &str) -> usize {
    subject.split('.').filter(|token| *token == "*").count()
}

fn tokens(keys: &[&str]) -> Vec<Token> {
    let token = |key: &&str| match *key {
        "tenant" => TenantId::new().into(),
        "connection" => ConnectionId::new().into(),
        "enrollment" => EnrollmentId::new().into(),
        "purpose" => Purpose::CostRead.into(),
        other => panic!("{other} is a key that no test knows how to fill"),
    };
    keys.iter().map(token).collect()
}

fn subjects() -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let messages =
        catalog::messages().into_iter().map(|MessageContract { kind, subject, keys, .. }| (kind, subject, keys));
    let endpoints =
        catalog::endpoints().into_iter().map(|EndpointContract { name, subject, keys, .. }| (name, subject, keys));
    messages.chain(endpoints).collect()
}

#[test]
fn each_pattern_fills_to_a_subject_without_a_star() {
    for (name, pattern, keys) in subjects() {
        assert_eq!(stars(pattern), keys.len(), "{name}: {pattern} and its keys {keys:?} do not fit");
        let subject = Subject::fill(pattern, &tokens(keys));
        assert!(!subject.as_str().contains(['*', '>', ' ']), "{name}: {subject} is no subject to publish to");
        assert!(subject.as_str().split('.').all(|token| !token.is_empty()), "{name}: {subject} has an empty token");
        assert_eq!(captures(pattern, subject.as_str()).map(|found| found.len()), Some(keys.len()), "{name}: {subject}");
    }
}

#[test]
fn a_message_fills_its_own_subject() {
    use rolebridge_contracts::{CloudEvent, Message as _, connection::ConnectionVerified};
    let golden = &common::golden_texts()["rolebridge.connection.verified.v1"];
    let event = CloudEvent::<ConnectionVerified>::decode(golden).unwrap();
    let expected = format!("rolebridge.events.v1.connection.verified.{}.{}", event.data.tenant, event.data.connection);
    assert_eq!(event.data.subject().as_str(), expected);
}

#[test]
fn each_subject_lies_in_its_stream_and_in_no_other() {
    for message in catalog::messages() {
        for stream in Stream::ALL {
            let within = message.subject.starts_with(stream.subjects().trim_end_matches('>'));
            assert_eq!(
                within,
                stream == message.stream,
                "{} ({}) and stream {}",
                message.kind,
                message.subject,
                stream.name()
            );
        }
    }
}

#[test]
fn each_stream_carries_something() {
    let used: BTreeSet<Stream> = catalog::messages().iter().map(|message| message.stream).collect();
    let unused: Vec<&str> = Stream::ALL.into_iter().filter(|stream| !used.contains(stream)).map(Stream::name).collect();
    // Dead letters are whatever could not be handled: they have no contract of their own.
    assert_eq!(unused, ["ROLEBRIDGE_DEAD_LETTERS"]);
}

#[test]
fn each_name_and_each_subject_is_given_once() {
    let (mut names, mut patterns) = (BTreeSet::new(), BTreeSet::new());
    for (name, pattern, _) in subjects() {
        assert!(names.insert(name), "{name} is given twice");
        assert!(patterns.insert(pattern), "{pattern} is given twice");
    }
    let numbers: BTreeSet<usize> = ErrorCode::ALL.into_iter().map(ErrorCode::number).collect();
    assert_eq!(numbers.len(), ErrorCode::ALL.len());
}

#[test]
fn each_message_names_its_version_and_says_what_it_is() {
    for message in catalog::messages() {
        let MessageContract { kind, subject, .. } = message;
        assert!(kind.starts_with("rolebridge.") && kind.ends_with(".v1"), "{kind}");
        let area = match message.audience {
            Audience::Public => "rolebridge.events.v1.",
            Audience::Internal => "rolebridge.internal.v1.",
        };
        assert!(subject.starts_with(area), "{kind}: {subject}");
        assert!(message.summary.ends_with('.'), "{kind}: the summary is no sentence");
        // `rolebridge.connection.verified.v1` and `rolebridge.events.v1.connection.verified.*.*` say the same.
        if message.audience == Audience::Public {
            let event = kind.trim_start_matches("rolebridge.").trim_end_matches(".v1");
            let tail = subject.strip_prefix(&format!("rolebridge.events.v1.{event}"));
            assert!(tail.is_some_and(|tail| tail.is_empty() || tail.starts_with('.')), "{kind}: {subject}");
        }
    }
    for endpoint in catalog::endpoints() {
        assert!(endpoint.subject.starts_with("rolebridge.rpc.v1."), "{}: {}", endpoint.name, endpoint.subject);
        assert!(endpoint.summary.ends_with('.'), "{}: the summary is no sentence", endpoint.name);
        assert!(
            endpoint.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{}: no name for ADR-32",
            endpoint.name
        );
    }
}

#[test]
fn what_only_our_services_may_see_is_internal() {
    let of = |kind: &str| {
        catalog::messages().into_iter().find(|message| message.kind == kind).map(|message| message.audience)
    };
    for kind in [
        "rolebridge.internal.callback-received.v1",
        "rolebridge.internal.callback-outcome.v1",
        "rolebridge.internal.grant.v1",
    ] {
        assert_eq!(of(kind), Some(Audience::Internal), "{kind}");
    }
    // An external ID in a public event could be logged beside a role ARN by anybody.
    let public = catalog::messages().into_iter().filter(|message| message.audience == Audience::Public);
    for message in public {
        let schema = (message.envelope.schema)(&mut catalog::generator());
        let text = serde_json::to_string(&schema).unwrap();
        for word in ["external_id", "token", "sealed_url", "secret"] {
            assert!(!text.contains(&format!("\"{word}")), "{} carries {word}", message.kind);
        }
    }
}

/// Attack row 2: a caller of the API supplies or changes an external ID. There is no such field, in any request.
#[test]
fn attack_02_a_caller_cannot_supply_an_external_id() {
    let bodies = catalog::bodies();
    let goldens = common::goldens();
    for endpoint in catalog::endpoints() {
        let name = format!("{}.request", endpoint.name);
        for field in ["external_id", "externalId", "ExternalId", "external-id"] {
            let mut request = goldens[&name].clone();
            request[field] = serde_json::json!(ExternalId::generate().as_str());
            let refused = (bodies[&name].recode)(&serde_json::to_vec(&request).unwrap());
            assert!(refused.is_err(), "{name} takes {field}");
        }
    }
}

#[test]
fn each_request_refuses_what_it_does_not_know() {
    let bodies = catalog::bodies();
    for (name, golden) in
        common::goldens().into_iter().filter(|(name, _)| bodies.contains_key(name) && name.ends_with(".request"))
    {
        let mut request = golden;
        request["unknown"] = serde_json::json!(1);
        let text = serde_json::to_vec(&request).unwrap();
        assert!((bodies[&name].recode)(&text).is_err(), "{name} lets an unknown field through");
        let schema = common::json(&std::fs::read(common::home().join(format!("schemas/{name}.json"))).unwrap());
        assert!(!jsonschema::is_valid(&schema, &request), "the schema of {name} lets an unknown field through");
    }
}

#[test]
fn a_purpose_reads_back() {
    for purpose in Purpose::ALL {
        assert_eq!(Purpose::from_str(&purpose.to_string()), Ok(purpose));
        assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.as_str());
    }
    assert!(Purpose::from_str("cost-write").is_err());
}
