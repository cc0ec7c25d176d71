//! Whatever bytes come: parsers give a value that keeps its text, or an error; never a panic.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use proptest::prelude::*;
use rolebridge_contracts::{
    CallbackToken, ConnectionId, EnrollmentId, ExternalId, PageRequest, SealingKey, Subject, TenantId, Timestamp,
    catalog,
    costs::{Amount, BillingPeriod, Currency, ExportLocation},
    credentials::Purpose,
    subject::{Token, captures},
};

const PATTERNS: [&str; 4] = [
    "rolebridge.rpc.v1.tenants.create",
    "rolebridge.events.v1.tenant.created.*",
    "rolebridge.rpc.v1.connections.get.*.*",
    "rolebridge.rpc.v1.credentials.issue.*.*.*",
];

fn token() -> impl Strategy<Value = Token> {
    let id = any::<u128>().prop_map(uuid::Uuid::from_u128);
    prop_oneof![
        id.clone().prop_map(|id| TenantId::from_uuid(id).into()),
        id.clone().prop_map(|id| ConnectionId::from_uuid(id).into()),
        id.prop_map(|id| EnrollmentId::from_uuid(id).into()),
        Just(Purpose::CostRead.into()),
    ]
}

/// One of the golden files, with some bytes changed.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let goldens: Vec<Vec<u8>> = common::golden_texts().into_values().collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (prop::sample::select(goldens), changes, any::<prop::sample::Index>()).prop_map(|(mut text, changes, cut)| {
        for (place, byte) in changes {
            let place = place.index(text.len());
            text[place] = byte;
        }
        let length = text.len() - cut.index(text.len()) / 8;
        text.truncate(length);
        text
    })
}

proptest! {
    #[test]
    fn a_subject_gives_back_what_it_was_filled_with(tokens in prop::collection::vec(token(), 3)) {
        for pattern in PATTERNS {
            let stars = pattern.matches('*').count();
            let subject = Subject::fill(pattern, &tokens[..stars]);
            let found = captures(pattern, subject.as_str());
            let found = found.ok_or_else(|| TestCaseError::fail(format!("{subject} is not of {pattern}")))?;
            prop_assert_eq!(found.len(), stars);
            prop_assert_eq!(subject.as_str().split('.').count(), pattern.split('.').count());
            prop_assert!(!subject.as_str().contains(['*', '>', ' ', '\n']));
        }
    }

    #[test]
    fn captures_are_whole_tokens_of_the_subject(subject in "[a-z.*>]{0,60}|\\PC{0,60}") {
        for pattern in PATTERNS {
            for found in captures(pattern, &subject).unwrap_or_default() {
                prop_assert!(!found.is_empty() && !found.contains('.'));
                prop_assert!(subject.split('.').any(|token| token == found));
            }
        }
    }

    #[test]
    fn an_external_id_keeps_its_text_and_its_letters(text in "[\\w+=,.@:/-]{0,40}|\\PC{0,40}") {
        if let Ok(id) = ExternalId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(text.len() >= 2 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b)));
        }
    }

    #[test]
    fn a_callback_token_is_ours_or_none(text in "rbt_[A-Za-z0-9_-]{42,44}|\\PC{0,60}") {
        if let Ok(token) = CallbackToken::parse(&text) {
            prop_assert_eq!(token.expose(), &text);
            prop_assert_eq!(text.len(), 47);
            prop_assert_eq!(token.hash().as_str().len(), 64);
        }
    }

    #[test]
    fn a_well_formed_export_location_stays_in_its_bucket(bucket in "[a-z0-9.-]{0,70}", prefix in "[A-Za-z0-9/.%_ -]{0,40}") {
        let location = ExportLocation { bucket: bucket.clone(), prefix: prefix.clone() };
        if location.is_well_formed() {
            prop_assert!((3..=63).contains(&bucket.len()) && !bucket.contains("..") && !bucket.starts_with(['-', '.']) && !bucket.ends_with(['-', '.']));
            prop_assert!(!prefix.contains("..") && !prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains(['%', ' ']));
        }
    }

    #[test]
    fn a_billing_period_is_a_year_and_a_month(text in "[0-9]{4}-[0-9]{2}|\\PC{0,10}") {
        let parsed = text.parse::<BillingPeriod>();
        let month = text.get(5..).and_then(|month| month.parse::<u8>().ok());
        let expected = text.is_ascii() && text.len() == 7 && text.as_bytes()[4] == b'-'
            && text[..4].bytes().chain(text[5..].bytes()).all(|b| b.is_ascii_digit())
            && month.is_some_and(|month| (1..=12).contains(&month));
        prop_assert_eq!(parsed.is_ok(), expected, "{}", text);
        if let Ok(period) = parsed {
            prop_assert_eq!(period.to_string(), text);
        }
    }

    #[test]
    fn other_small_texts_never_panic(text in "\\PC{0,70}") {
        let json = serde_json::to_string(&text).unwrap();
        let _ = (text.parse::<Currency>(), text.parse::<Timestamp>(), SealingKey::parse(&text), text.parse::<TenantId>());
        let _ = (serde_json::from_str::<Amount>(&json), serde_json::from_str::<Timestamp>(&json), serde_json::from_str::<Purpose>(&json));
    }

    #[test]
    fn money_goes_over_the_wire_as_it_is(units in any::<i64>(), scale in 0u32..=18) {
        let amount = Amount::new(rust_decimal::Decimal::new(units, scale));
        let text = serde_json::to_string(&amount).unwrap();
        prop_assert!(text.starts_with('"'), "{} is a number, which loses digits", text);
        let back: Amount = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.to_string(), amount.to_string());
    }

    #[test]
    fn an_instant_reads_back(seconds in 0i64..4_102_444_800, millis in 0i64..1000) {
        let instant = Timestamp::from(time::OffsetDateTime::from_unix_timestamp(seconds).unwrap() + time::Duration::milliseconds(millis));
        prop_assert_eq!(serde_json::from_str::<Timestamp>(&serde_json::to_string(&instant).unwrap()).unwrap(), instant);
        prop_assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
    }

    #[test]
    fn a_page_is_never_larger_than_the_largest(limit in any::<Option<u16>>()) {
        let size = PageRequest { limit, after: None }.size();
        prop_assert!((1..=PageRequest::LARGEST).contains(&size));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for body in catalog::bodies().values() {
            let _ = (body.recode)(&bytes);
        }
    }

    #[test]
    fn no_mangled_message_makes_a_decoder_panic(text in mangled()) {
        for body in catalog::bodies().values() {
            if let Ok(written) = (body.recode)(&text) {
                // What is taken is stable: written out, it is taken again and stays as it is.
                prop_assert_eq!(&(body.recode)(&written).unwrap(), &written);
            }
        }
    }
}

#[test]
fn nesting_does_not_end_the_program() {
    let deep = [b"[".repeat(100_000), b"{\"a\":".repeat(100_000)];
    for (name, body) in catalog::bodies() {
        for text in &deep {
            assert!((body.recode)(text).is_err(), "{name}");
        }
    }
}
