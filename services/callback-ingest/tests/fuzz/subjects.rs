//! Subjects that are made of what callers name: nothing can add a token, a wildcard or a space.

use contracts::{
    ConnectionId, EnrollmentId, TenantId, catalog,
    credentials::Purpose,
    subject::{Subject, Token, captures},
};
use proptest::{prelude::*, sample::select};

use crate::{fuzz, mutations::edited};

/// Texts that a caller may send where an ID or a purpose is expected.
fn any_text() -> impl Strategy<Value = String> {
    let id = any::<u128>().prop_map(uuid::Uuid::from_u128);
    let form = (id, 0..5_u8).prop_map(|(id, form)| match form {
        0 => id.simple().to_string(),
        1 => id.urn().to_string(),
        2 => id.braced().to_string(),
        3 => id.hyphenated().to_string().to_uppercase(),
        _ => id.hyphenated().to_string(),
    });
    prop_oneof![
        3 => form.clone(),
        2 => edited(form, 2),
        2 => select(vec!["cost-read", "cost-read", "cost-read.x", "*", ">", "cost-*", "Cost-Read", "", "cost-read\r\nPUB x 0", "."]).prop_map(str::to_owned),
        1 => "\\PC{0,40}",
    ]
}

/// The token that a text becomes, if it is what it is to be.
fn token(text: &str, kind: u8) -> Option<Token> {
    Some(match kind {
        0 => text.parse::<TenantId>().ok()?.into(),
        1 => text.parse::<ConnectionId>().ok()?.into(),
        2 => text.parse::<EnrollmentId>().ok()?.into(),
        _ => text.parse::<Purpose>().ok()?.into(),
    })
}

#[test]
fn attack_26_no_text_of_a_caller_adds_anything_to_a_subject() {
    let patterns: Vec<&'static str> = catalog::messages()
        .iter()
        .map(|message| message.subject)
        .chain(catalog::endpoints().iter().map(|endpoint| endpoint.subject))
        .collect();
    let cases = (prop::collection::vec((any_text(), 0..4_u8), 1..5), select(patterns));
    fuzz("subjects", &cases, &["filled", "refused"], |(texts, pattern), tally| {
        let tokens: Vec<Token> = texts.iter().filter_map(|(text, kind)| token(text, *kind)).collect();
        let stars = pattern.split('.').filter(|part| *part == "*").count();
        // Builders take typed values: a text that is none never comes to one.
        let Some(tokens) = tokens.get(..stars) else {
            tally.count("refused");
            return Ok(());
        };
        tally.count("filled");
        let subject = Subject::fill(pattern, tokens);
        let text = subject.as_str();
        prop_assert_eq!(text.split('.').count(), pattern.split('.').count(), "{}", text);
        prop_assert!(
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-'),
            "{}",
            text
        );
        prop_assert!(text.split('.').all(|part| !part.is_empty()), "{}", text);
        prop_assert_eq!(captures(pattern, text).map(|found| found.len()), Some(stars));
        // What nobody built can be asked about as well.
        drop(captures(pattern, &texts[0].0));
        Ok(())
    });
}
