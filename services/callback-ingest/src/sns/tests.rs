use std::{
    collections::HashMap,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, SigningKey as _,
};
use rstest::rstest;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::testing;

const CERTIFICATE: &str = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem";
const ISSUER: &str = "http://crt.r2m01.amazontrust.com/r2m01.cer";

/// A root, an issuer under it, and a signing certificate under that; the files that they lie in; and who asked for them.
struct Authority {
    root: Certificate,
    issuer: Certificate,
    issuer_params: CertificateParams,
    issuer_key: KeyPair,
}

/// What the signing certificate is like.
struct Leaf {
    names: Vec<&'static str>,
    valid: (Duration, Duration),
    names_issuer: bool,
    usage: ExtendedKeyUsagePurpose,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            names: vec!["sns.amazonaws.com"],
            valid: (Duration::days(-1), Duration::days(1)),
            names_issuer: true,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

impl Authority {
    fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let (root_params, issuer_params) = (ca("root"), ca("issuer"));
        let (root_key, issuer_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = root_params.self_signed(&root_key).unwrap();
        let issuer = issuer_params.signed_by(&issuer_key, &Issuer::from_params(&root_params, &root_key)).unwrap();
        Self { root, issuer, issuer_params, issuer_key }
    }

    fn leaf(&self, leaf: &Leaf) -> (Certificate, KeyPair) {
        let names: Vec<String> = leaf.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) =
            (OffsetDateTime::now_utc() + leaf.valid.0, OffsetDateTime::now_utc() + leaf.valid.1);
        params.extended_key_usages = vec![leaf.usage.clone()];
        if leaf.names_issuer {
            params.custom_extensions = vec![issuer_extension(ISSUER)];
        }
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let signer = Issuer::from_params(&self.issuer_params, &self.issuer_key);
        (params.signed_by(&key, &signer).unwrap(), key)
    }
}

/// Authority information access with one place of the issuer (RFC 5280, 4.2.2.1), in DER by hand.
fn issuer_extension(uri: &str) -> CustomExtension {
    let tagged = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let ca_issuers = tagged(0x06, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02]);
    let description = tagged(0x30, &[ca_issuers, tagged(0x86, uri.as_bytes())].concat());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], tagged(0x30, &description))
}

/// Files by URL, counted.
#[derive(Default)]
struct Files {
    files: Mutex<HashMap<String, Result<Vec<u8>, FetchError>>>,
    fetched: AtomicUsize,
}

#[async_trait::async_trait]
impl Fetch for Files {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        self.files.lock().unwrap().get(url.as_str()).cloned().unwrap_or(Err(FetchError::Absent(404)))
    }
}

struct World {
    files: Arc<Files>,
    gate: Gate,
    key: KeyPair,
}

impl World {
    fn new(leaf: &Leaf) -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.leaf(leaf);
        Self::with(&authority, &authority.root, &certificate, key)
    }

    fn with(authority: &Authority, trusted: &Certificate, certificate: &Certificate, key: KeyPair) -> Self {
        let files = Arc::new(Files::default());
        files.put(CERTIFICATE, Ok(certificate.pem().into_bytes()));
        files.put(ISSUER, Ok(authority.issuer.der().to_vec()));
        let root = webpki::anchor_from_trusted_cert(trusted.der()).unwrap().to_owned();
        let certificates = Certificates::new(files.clone(), vec![root]);
        Self { gate: Gate::new(vec![testing::topic()], SignatureCheck::Verify(certificates)), files, key }
    }

    /// The envelope of `message`, signed as SNS does it.
    fn envelope(&self, message: &str) -> Value {
        let mut envelope = unsigned(message);
        self.sign(&mut envelope);
        envelope
    }

    fn sign(&self, envelope: &mut Value) {
        let text = |field: &str| envelope[field].as_str().unwrap().to_owned();
        let mut canonical = String::new();
        for field in ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"] {
            if envelope.get(field).is_some() {
                canonical += &format!("{field}\n{}\n", text(field));
            }
        }
        envelope["Signature"] = json!(STANDARD.encode(self.key.sign(canonical.as_bytes()).unwrap()));
    }

    async fn open(&self, envelope: &Value) -> Result<Opened, OpenError> {
        self.gate.open(&envelope.to_string()).await
    }

    /// The reason for which `envelope` goes to dead letters.
    async fn refusal(&self, envelope: &Value) -> String {
        match self.open(envelope).await {
            Err(OpenError::Refused(refusal)) => refusal.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

impl World {
    /// The reason for which `envelope` stays in the queue.
    async fn kept(&self, envelope: &Value) -> String {
        match self.open(envelope).await {
            Err(OpenError::Later(error)) => error.to_string(),
            other => panic!("not kept: {other:?}"),
        }
    }
}

impl Files {
    fn put(&self, url: &str, file: Result<Vec<u8>, FetchError>) {
        self.files.lock().unwrap().insert(url.to_owned(), file);
    }
}

fn unsigned(message: &str) -> Value {
    json!({
        "Type": "Notification", "MessageId": "0b1c", "TopicArn": testing::topic().as_str(), "Subject": "AWS CloudFormation custom resource request",
        "Message": message, "Timestamp": "2026-11-20T10:00:00.123Z", "SignatureVersion": "2", "SigningCertURL": CERTIFICATE,
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
    })
}

#[tokio::test]
async fn a_message_that_sns_signed_comes_in_and_its_certificate_is_fetched_once() {
    let world = World::new(&Leaf::default());
    let first = world.open(&world.envelope("{\"a\":\"line\\nbreak\"}")).await.unwrap();
    assert_eq!((first.message.as_str(), first.topic), ("{\"a\":\"line\\nbreak\"}", testing::topic()));
    let mut without_subject = unsigned("other");
    without_subject.as_object_mut().unwrap().remove("Subject");
    without_subject["MessageId"] = json!("0b1d");
    world.sign(&mut without_subject);
    let second = world.open(&without_subject).await.unwrap();
    assert_ne!(first.event_id, second.event_id);
    assert_eq!(world.open(&without_subject).await.unwrap().event_id, second.event_id);
    assert_eq!(world.files.fetched.load(Ordering::SeqCst), 2, "the certificate and its issuer, once each");
}

#[rstest]
#[case::regional("sns-signing.eu-central-1.amazonaws.com")]
#[case::host("sns.eu-central-1.amazonaws.com")]
#[tokio::test]
async fn the_names_that_regions_have(#[case] name: &'static str) {
    let world = World::new(&Leaf { names: vec![name], ..Leaf::default() });
    world.open(&world.envelope("m")).await.unwrap();
}

#[rstest]
#[case::other_host("https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-01.pem")]
#[case::other_service("https://s3.amazonaws.com/bucket/SimpleNotificationService-01.pem")]
#[case::other_region("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem")]
#[case::other_partition("https://sns.eu-central-1.amazonaws.com.cn/SimpleNotificationService-01.pem")]
#[case::http("http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem")]
#[case::user("https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem")]
#[case::empty_user("https://@sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem")]
#[case::port("https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-01.pem")]
#[case::not_pem("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.txt")]
#[case::path("https://sns.eu-central-1.amazonaws.com/x/../?Action=Publish&x=.pem")]
#[case::query("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem?x=1")]
#[case::metadata("https://169.254.169.254/SimpleNotificationService-01.pem")]
#[case::nonsense("nonsense")]
#[tokio::test]
async fn attack_12_a_certificate_from_elsewhere_is_not_even_fetched(#[case] url: &str) {
    let world = World::new(&Leaf::default());
    let mut envelope = world.envelope("m");
    envelope["SigningCertURL"] = json!(url);
    assert!(world.refusal(&envelope).await.contains("SigningCertURL"));
    assert_eq!(world.files.fetched.load(Ordering::SeqCst), 0);
}

#[rstest]
#[case::version_1("SignatureVersion", json!("1"), "signature version 1")]
#[case::topic("TopicArn", json!("arn:aws:sns:eu-central-1:111111111111:other"), "ROLEBRIDGE_TOPIC_ARNS")]
#[case::body("Message", json!("edited"), "signature is not of this message")]
#[case::subject("Subject", json!("edited"), "signature is not of this message")]
#[case::time("Timestamp", json!("2026-11-21T10:00:00.123Z"), "signature is not of this message")]
#[case::id("MessageId", json!("other"), "signature is not of this message")]
#[case::no_signature("Signature", json!(""), "signature is not of this message")]
#[case::fake("Signature", json!("F*KE"), "not base64")]
#[case::subscription("Type", json!("SubscriptionConfirmation"), "no notification")]
#[case::unsubscription("Type", json!("UnsubscribeConfirmation"), "no notification")]
#[case::wrong_type("Message", json!({ "a": 1 }), "no SNS envelope")]
#[tokio::test]
async fn attack_12_an_edited_envelope_is_refused(#[case] field: &str, #[case] value: Value, #[case] why: &str) {
    let world = World::new(&Leaf::default());
    let mut envelope = world.envelope("m");
    envelope[field] = value;
    let reason = world.refusal(&envelope).await;
    assert!(reason.contains(why), "{reason}");
}

#[rstest]
#[case::expired(Leaf { valid: (Duration::days(-2), Duration::days(-1)), ..Leaf::default() }, "expired")]
#[case::not_yet(Leaf { valid: (Duration::days(1), Duration::days(2)), ..Leaf::default() }, "not yet valid")]
#[case::other_name(Leaf { names: vec!["evil.example"], ..Leaf::default() }, "not issued to SNS")]
#[case::other_region(Leaf { names: vec!["sns-signing.af-south-1.amazonaws.com"], ..Leaf::default() }, "not issued to SNS")]
#[case::other_use(Leaf { usage: ExtendedKeyUsagePurpose::CodeSigning, ..Leaf::default() }, "does not chain")]
#[tokio::test]
async fn attack_12_a_certificate_that_does_not_hold(#[case] leaf: Leaf, #[case] why: &str) {
    let world = World::new(&leaf);
    let reason = world.refusal(&world.envelope("m")).await;
    assert!(reason.contains(why), "{reason}");
}

#[tokio::test]
async fn attack_12_a_certificate_that_names_no_issuer_never_lets_in() {
    let world = World::new(&Leaf { names_issuer: false, ..Leaf::default() });
    assert!(world.kept(&world.envelope("m")).await.contains("no chain to a public root"));
}

#[tokio::test]
async fn attack_12_a_foreign_root_or_a_self_signed_certificate_never_lets_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = theirs.leaf(&Leaf::default());
    let world = World::with(&theirs, &ours.root, &certificate, key);
    assert!(world.kept(&world.envelope("m")).await.contains("no chain to a public root"));

    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let own = CertificateParams::new(vec!["sns.amazonaws.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    let world = World::with(&ours, &ours.root, &own, key);
    assert!(world.kept(&world.envelope("m")).await.contains("no chain to a public root"));
}

#[tokio::test]
async fn attack_12_another_key_of_the_same_authority_is_refused() {
    let authority = Authority::new();
    let (certificate, _) = authority.leaf(&Leaf::default());
    let (_, other_key) = authority.leaf(&Leaf::default());
    let world = World::with(&authority, &authority.root, &certificate, other_key);
    assert!(world.refusal(&world.envelope("m")).await.contains("signature is not of this message"));
}

#[rstest]
#[case::unreachable(Err(FetchError::Unreachable("timed out".to_owned())))]
#[case::blocked(Err(FetchError::Absent(403)))]
#[case::too_long(Err(FetchError::TooLong))]
#[case::a_page_of_a_proxy(Ok(b"<html>blocked</html>".to_vec()))]
#[tokio::test]
async fn attack_12_one_bad_answer_for_a_certificate_loses_no_message(
    #[case] bad: Result<Vec<u8>, FetchError>,
    #[values(CERTIFICATE, ISSUER)] url: &str,
) {
    let world = World::new(&Leaf::default());
    let good = world.files.files.lock().unwrap()[url].clone();
    let envelope = world.envelope("m");
    world.files.put(url, bad);
    for _ in 0..2 {
        assert!(matches!(world.open(&envelope).await, Err(OpenError::Later(_))), "it stays in the queue");
    }
    world.files.put(url, good);
    world.open(&envelope).await.unwrap();
}

/// An issuer comes over plain http: whoever sits between may put any certificate there.
#[tokio::test]
async fn attack_12_a_forged_issuer_loses_no_message() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.leaf(&Leaf::default());
    let world = World::with(&ours, &ours.root, &certificate, key);
    world.files.put(ISSUER, Ok(theirs.issuer.der().to_vec()));
    assert!(matches!(world.open(&world.envelope("m")).await, Err(OpenError::Later(_))));
    world.files.put(ISSUER, Ok(ours.issuer.der().to_vec()));
    world.open(&world.envelope("m")).await.unwrap();
}

#[tokio::test]
async fn attack_14_what_was_put_into_the_queue_directly_is_refused() {
    let world = World::new(&Leaf::default());
    let request = testing::request("Create", &contracts::CallbackToken::generate());
    assert!(world.refusal(&request).await.contains("no SNS envelope"));
    assert!(world.refusal(&json!("text")).await.contains("no SNS envelope"));
    assert!(matches!(world.gate.open("").await, Err(OpenError::Refused(Refusal::NotAnEnvelope))));
    assert!(matches!(world.gate.open(&"[".repeat(10_000)).await, Err(OpenError::Refused(Refusal::NotAnEnvelope))));
    assert!(matches!(world.gate.open(&" ".repeat(1024 * 1024)).await, Err(OpenError::Refused(Refusal::TooLong))));
}

#[tokio::test]
async fn the_sandbox_skips_the_signature_and_nothing_else() {
    let gate = Gate::new(vec![testing::topic()], SignatureCheck::SandboxSkip);
    let mut envelope = unsigned("m");
    envelope["SignatureVersion"] = json!("1");
    envelope["Signature"] = json!("FAKE");
    assert!(gate.open(&envelope.to_string()).await.is_ok());
    envelope["TopicArn"] = json!("arn:aws:sns:eu-central-1:111111111111:other");
    assert!(matches!(gate.open(&envelope.to_string()).await, Err(OpenError::Refused(Refusal::ForeignTopic))));
}

#[test]
fn the_publishers_trace_is_found() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut envelope = unsigned("m");
    assert_eq!(traceparent(&envelope.to_string()), None);
    envelope["MessageAttributes"] = json!({ "traceparent": { "Type": "String", "Value": trace } });
    assert_eq!(traceparent(&envelope.to_string()).as_deref(), Some(trace));
    assert_eq!(traceparent("garbage"), None);
}
