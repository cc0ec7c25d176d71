//! The SNS envelope, as it comes out of the queue.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use callback_ingest::sns::{Certificates, Fetch, FetchError, Gate, SignatureCheck, traceparent};
use contracts::TopicArn;
use futures::FutureExt as _;
use proptest::{prelude::*, sample::select};
use serde_json::json;
use url::Url;

use crate::{
    callbacks, fuzz,
    mutations::{edited, mangled},
};

const TOPICS: [&str; 2] = [
    "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks",
    "arn:aws-cn:sns:cn-north-1:111111111111:rolebridge-callbacks",
];
const FOREIGN: [&str; 5] = [
    "arn:aws:sns:eu-central-1:111111111111:rolebridge-callback",
    "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks.evil",
    "arn:aws:sns:eu-west-1:111111111111:rolebridge-callbacks",
    "arn:aws:sns:eu-central-1:999999999999:rolebridge-callbacks",
    "ARN:aws:sns:eu-central-1:111111111111:rolebridge-callbacks",
];
/// The only places that a certificate may be fetched from, for the topics above.
const CERTIFICATES: [&str; 2] = ["sns.eu-central-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"];

fn certificate_url() -> impl Strategy<Value = String> {
    let hosts = select(vec![
        CERTIFICATES[0],
        CERTIFICATES[0],
        CERTIFICATES[0],
        CERTIFICATES[0],
        CERTIFICATES[1],
        CERTIFICATES[1],
        CERTIFICATES[1],
        CERTIFICATES[1],
        "sns.eu-west-1.amazonaws.com",
        "evil.example",
        "169.254.169.254",
        "[::1]",
        "sns.eu-central-1.amazonaws.com.evil.example",
        "sns.eu-central-1.amazonaws.com.",
        "sns-eu-central-1.amazonaws.com",
        "evil.s3.eu-central-1.amazonaws.com",
        "evil@sns.eu-central-1.amazonaws.com",
        "sns.eu-central-1.amazonaws.com@evil.example",
    ]);
    let paths = select(vec![
        "/SimpleNotificationService-0a1b.pem",
        "/SimpleNotificationService-0a1b.pem",
        "/SimpleNotificationService-0a1b.pem",
        "/SimpleNotificationService-0a1b.pem",
        "/SimpleNotificationService-.pem",
        "/evil.pem",
        "/SimpleNotificationService-../x.pem",
        "/SimpleNotificationService-a.pem?x",
        "/SimpleNotificationService-a.pem#x",
    ]);
    let url = (
        select(vec!["https://", "https://", "https://", "http://"]),
        hosts,
        select(vec!["", "", ":443", ":8443"]),
        paths,
    )
        .prop_map(|(scheme, host, port, path)| format!("{scheme}{host}{port}{path}"));
    prop_oneof![3 => url.clone(), 1 => edited(url, 2)]
}

fn envelope() -> impl Strategy<Value = String> {
    let topic = prop_oneof![4 => select(&TOPICS[..]), 1 => select(&FOREIGN[..])];
    let kind = prop_oneof![9 => Just("Notification"), 1 => select(vec!["SubscriptionConfirmation", "UnsubscribeConfirmation", ""])];
    let version = prop_oneof![4 => Just("2"), 1 => select(vec!["1", "", "02", "2 ", "3"])];
    let signature = prop_oneof![3 => Just("RkFLRQ==".to_owned()), 1 => "\\PC{0,20}"];
    (topic, kind, version, signature, certificate_url(), callbacks::request(), any::<bool>()).prop_map(
        |(topic, kind, version, signature, certificate, request, subject)| {
            let mut envelope = json!({
                "Type": kind, "MessageId": "m-1", "TopicArn": topic, "Message": request.to_string(),
                "Timestamp": "2026-11-01T00:00:00.000Z", "SignatureVersion": version, "Signature": signature,
                "SigningCertURL": certificate, "MessageAttributes": {"traceparent": {"Type": "String", "Value": "00-x"}},
            });
            if subject {
                envelope["Subject"] = "AWS CloudFormation custom resource request".into();
            }
            envelope.to_string()
        },
    )
}

fn any_body() -> BoxedStrategy<String> {
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    prop_oneof![
        4000 => envelope(),
        2000 => edited(envelope(), 3),
        1000 => mangled(envelope()).prop_map(lossy),
        500 => callbacks::any_bytes().prop_map(lossy),
        500 => "\\PC{0,200}",
        2 => select(vec!["[", "{\"a\":", "{\"Type\":["]).prop_map(|open| open.repeat(10_000)),
        2 => envelope().prop_map(|envelope| envelope.replace("m-1", &"m".repeat(1_000_000))),
    ]
    .boxed()
}

/// Notes who is asked for a certificate, and has none.
#[derive(Default)]
struct Noted(Mutex<Vec<Url>>);

#[async_trait]
impl Fetch for Noted {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.0.lock().expect("a list").push(url.clone());
        Err(FetchError::Absent(404))
    }
}

#[test]
fn attack_12_no_envelope_panics_comes_in_unsigned_or_makes_us_fetch_elsewhere() {
    let topics: Vec<TopicArn> = TOPICS.iter().map(|topic| TopicArn::parse(topic).expect("a topic")).collect();
    let noted = Arc::new(Noted::default());
    let roots = Certificates::new(noted.clone(), Vec::new());
    let strict = Gate::new(topics.clone(), SignatureCheck::Verify(roots));
    let sandbox = Gate::new(topics, SignatureCheck::SandboxSkip);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    fuzz("envelope", &any_body(), &["of our topic", "refused", "fetched and refused"], |body, tally| {
        // Also read before anything is known of the message.
        drop(traceparent(&body));
        let opened = runtime.block_on(strict.open(&body));
        prop_assert!(opened.is_err(), "an unsigned envelope came in");
        let fetched = std::mem::take(&mut *noted.0.lock().expect("a list"));
        for url in &fetched {
            let fine = url.scheme() == "https"
                && CERTIFICATES.iter().any(|host| url.host_str() == Some(host))
                && url.port().is_none()
                && url.username().is_empty()
                && url.path().ends_with(".pem");
            prop_assert!(fine, "fetched from {}", url);
        }
        match sandbox.open(&body).now_or_never().expect("nothing to wait for") {
            Ok(opened) => {
                tally.count(if fetched.is_empty() { "of our topic" } else { "fetched and refused" });
                prop_assert!(TOPICS.contains(&opened.topic.as_str()));
                prop_assert!(opened.message.len() <= body.len());
            }
            Err(_) => tally.count("refused"),
        }
        Ok(())
    });
}
