//! Secrets do not print: not by themselves, not within what holds them, not in the errors of their parsers.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use rolebridge_contracts::{
    CallbackToken, CloudEvent, ExternalId, SealedBox,
    callback::CallbackReceived,
    connection::Grant,
    credentials::{SealedCredentials, SecretText},
    enrollment::EnrollmentOffer,
};

#[test]
fn none_prints_by_itself() {
    let token = CallbackToken::generate();
    let body = &token.expose()["rbt_".len()..];
    assert!(!format!("{token:?}").contains(body));
    let id = ExternalId::generate();
    assert!(!format!("{id:?} {id:#?}").contains(id.as_str()));
    assert!(!format!("{:?}", SecretText::new("canary-7f3a".to_owned())).contains("canary"));
    let sealed = SealedBox::from_bytes(b"https://bucket.example/?signature=canary");
    assert!(!format!("{sealed:?}").contains(sealed.as_str()));
}

#[test]
fn none_prints_within_what_holds_it() {
    let golden = common::golden_texts();
    let offer: EnrollmentOffer = serde_json::from_slice(&golden["enrollments-create.response"]).unwrap();
    let printed = format!("{offer:?} {offer:#?}");
    assert!(!printed.contains(offer.callback_token.expose()), "the offer prints its token");
    assert!(!printed.contains(offer.external_id.as_str()), "the offer prints its external ID");

    let callback = CloudEvent::<CallbackReceived>::decode(&golden["rolebridge.internal.callback-received.v1"]).unwrap();
    let printed = format!("{callback:?} {callback:#?}");
    let claims = callback.data.claims.as_ref().unwrap();
    assert!(!printed.contains(claims.external_id.as_str()), "the callback prints its external ID");
    assert!(
        !printed.contains(callback.data.return_address.sealed_url.as_str()),
        "the callback prints its sealed answer address"
    );

    let grant = CloudEvent::<Grant>::decode(&golden["rolebridge.internal.grant.v1"]).unwrap();
    assert!(!format!("{grant:?}").contains(grant.data.external_id.as_str()), "the grant prints its external ID");

    let credentials: SealedCredentials = serde_json::from_slice(&golden["sealed-credentials"]).unwrap();
    let printed = format!("{credentials:?} {credentials:#?}");
    for secret in
        [credentials.secret_access_key.expose(), credentials.session_token.expose(), &credentials.access_key_id]
    {
        assert!(!printed.contains(secret), "the credentials print {secret}");
    }
}

#[test]
fn none_prints_in_the_error_of_its_parser() {
    let canary = "canary 7f3a is no token";
    let json = serde_json::to_string(canary).unwrap();
    let errors = [
        CallbackToken::parse(canary).unwrap_err().to_string(),
        ExternalId::parse(canary).unwrap_err().to_string(),
        serde_json::from_str::<CallbackToken>(&json).unwrap_err().to_string(),
        serde_json::from_str::<ExternalId>(&json).unwrap_err().to_string(),
    ];
    for error in errors {
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn two_are_never_alike() {
    let (a, b) = (CallbackToken::generate(), CallbackToken::generate());
    assert_ne!(a.expose(), b.expose());
    assert!(!a.hash().matches(&b.hash()));
    assert!(a.hash().matches(&CallbackToken::parse(a.expose()).unwrap().hash()));
    assert_ne!(ExternalId::generate(), ExternalId::generate());
}
