use rstest::rstest;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header_exists, method, path, query_param},
};

use super::*;

fn keys() -> Keys {
    Keys {
        access_key_id: "ASIAFAKE".into(),
        secret_access_key: "canary-secret".into(),
        session_token: Some("token".into()),
    }
}

fn reads(endpoint: Option<&str>) -> RealReads {
    let sdk = SdkConfig::builder();
    let sdk = match endpoint {
        Some(url) => sdk.endpoint_url(url),
        None => sdk,
    };
    RealReads::new(&sdk.build()).unwrap()
}

fn list() -> Read {
    Read::ListObjects { bucket: "acme-costs".to_owned(), prefix: "exports/cur (1)".to_owned() }
}

fn region(text: &str) -> Region {
    Region::parse(text).unwrap()
}

#[tokio::test]
async fn a_listing_names_one_object_under_the_prefix_and_is_signed() {
    let server = MockServer::start().await;
    let listing = Mock::given(method("GET"))
        .and(path("/acme-costs"))
        .and(query_param("list-type", "2"))
        .and(query_param("max-keys", "1"))
        .and(query_param("prefix", "exports/cur (1)/"))
        .and(header_exists("authorization"))
        .and(header_exists("x-amz-content-sha256"))
        .and(header_exists("x-amz-security-token"));
    listing
        .respond_with(ResponseTemplate::new(200).insert_header("x-amz-request-id", "r-1"))
        .expect(1)
        .mount(&server)
        .await;
    let answer = reads(Some(&server.uri())).read(&keys(), &region("eu-central-1"), &list()).await.unwrap();
    assert_eq!(answer.request_id.as_deref(), Some("r-1"));
    let request = &server.received_requests().await.unwrap()[0];
    let signature = request.headers["authorization"].to_str().unwrap();
    assert!(signature.contains("/eu-central-1/s3/aws4_request") && !signature.contains("canary"));
}

#[tokio::test]
async fn a_bucket_of_another_region_is_asked_there_once() {
    let server = MockServer::start().await;
    let elsewhere = ResponseTemplate::new(301).insert_header("x-amz-bucket-region", "us-west-2");
    Mock::given(method("GET")).respond_with(elsewhere).expect(2).mount(&server).await;
    let failure = reads(Some(&server.uri())).read(&keys(), &region("eu-central-1"), &list()).await.unwrap_err();
    assert_ne!(failure.kind, FailureKind::Refused);
    let requests = server.received_requests().await.unwrap();
    assert!(requests[1].headers["authorization"].to_str().unwrap().contains("/us-west-2/s3/"));
}

#[rstest]
#[case(403, "<Error><Code>AccessDenied</Code></Error>", FailureKind::Refused)]
#[case(400, r#"{"__type":"com.amazonaws.cur#AccessDeniedException"}"#, FailureKind::Other)]
#[case(403, r#"{"__type":"AccessDeniedException"}"#, FailureKind::Refused)]
#[case(403, "<html>a proxy</html>", FailureKind::Indeterminate(Unclear::Garbage))]
#[case(404, "<Error><Code>NoSuchBucket</Code></Error>", FailureKind::Other)]
#[case(503, "<Error><Code>SlowDown</Code></Error>", FailureKind::Indeterminate(Unclear::Throttled))]
#[case(500, "", FailureKind::Indeterminate(Unclear::ServerFault))]
#[case(302, "<Error><Code>AccessDenied</Code></Error>", FailureKind::Indeterminate(Unclear::Garbage))]
#[tokio::test]
async fn what_answers_mean(#[case] status: u16, #[case] body: &str, #[case] expected: FailureKind) {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(status).set_body_string(body)).mount(&server).await;
    let failure = reads(Some(&server.uri())).read(&keys(), &region("eu-central-1"), &list()).await.unwrap_err();
    assert_eq!(failure.kind, expected);
}

#[test]
fn where_requests_go() {
    let at_aws = reads(None);
    let url = |read: &Read, text: &str| at_aws.request(read, &region(text)).map(|request| request.url);
    let list = Read::ListObjects { bucket: "acme.costs".to_owned(), prefix: String::new() };
    assert_eq!(
        url(&list, "eu-central-1").unwrap(),
        "https://s3.eu-central-1.amazonaws.com/acme.costs?list-type=2&max-keys=1"
    );
    assert!(url(&list, "cn-north-1").unwrap().starts_with("https://s3.cn-north-1.amazonaws.com.cn/"));
    assert_eq!(url(&Read::ReportDefinitions, "eu-central-1").unwrap(), "https://cur.us-east-1.amazonaws.com/");
    assert_eq!(url(&Read::ReportDefinitions, "us-gov-west-1"), None);
}

#[tokio::test]
async fn nobody_there_proves_nothing() {
    let nobody = reads(Some("http://127.0.0.1:9"));
    let failure = nobody.read(&keys(), &region("eu-central-1"), &list()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Indeterminate(Unclear::Unreachable));
}
