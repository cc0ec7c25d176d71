//! What stands between a customer's bucket and us is said once with its reason, shown to whoever asks, and said again when it has changed.
//!
//! S3 is a stand-in that answers as S3 does: the client's own reading of its errors is part of what is tested.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode};
use contracts::Stream;
use contracts::costs::{CostsFailed, CostsIngested, PeriodState};
use cost_ingestion::credentials::{CredentialError, CredentialSource, Credentials, Scope};
use cost_ingestion::export::S3Exports;
use flate2::write::GzEncoder;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::decimal;
use support::report::{self, item};
use support::yard::{ACCOUNT, Customer, PATIENCE, Yard};
use time::OffsetDateTime;
use url::Url;

struct Known;

#[async_trait]
impl CredentialSource for Known {
    async fn credentials(&self, _: Scope) -> Result<Credentials, CredentialError> {
        Ok(Credentials {
            access_key_id: "ASIA".to_owned(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            expires_at: OffsetDateTime::now_utc() + Duration::from_secs(3600),
        })
    }
}

type Fault = (StatusCode, &'static str);

const NO_BUCKET: Fault = (StatusCode::NOT_FOUND, "NoSuchBucket");
const DENIED: Fault = (StatusCode::FORBIDDEN, "AccessDenied");
const ELSEWHERE: Fault = (StatusCode::MOVED_PERMANENTLY, "PermanentRedirect");
const MALFORMED: Fault = (StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed");

/// Answers everything with the fault of the moment.
async fn s3(fault: Arc<Mutex<Fault>>) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let app = axum::Router::new().fallback(move || {
        let (status, code) = *fault.lock().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words of AWS</Message></Error>");
        async move { (status, headers, body) }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// What is shown of a customer: the reasons of what failed.
async fn shown(yard: &Yard, customer: Customer) -> Vec<String> {
    let shown = yard.exports(customer.tenant).await;
    let failed = shown.into_iter().filter(|shown| shown.state == PeriodState::Failed);
    failed.map(|failed| failed.reason.unwrap()).collect()
}

/// Looks once more, and waits until that look is through.
async fn look(yard: &Yard, customer: Customer) {
    yard.look(customer).await;
    yard.until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_refuses_is_said_once_with_what_to_do_and_again_when_it_has_changed() {
    let (yard, customer, fault) = (Yard::new().await, Customer::new(), Arc::new(Mutex::new(NO_BUCKET)));
    let exports = S3Exports::new(Arc::new(Known), Some(s3(Arc::clone(&fault)).await));
    let _program = yard.program_with(1, Arc::clone(&yard.store), Arc::new(exports));
    for (number, (of, words)) in [
        (NO_BUCKET, "there is no such bucket; check the bucket name given to the stack"),
        (DENIED, "must allow s3:ListBucket on the bucket"),
        (ELSEWHERE, "the bucket lies in another region"),
        (NO_BUCKET, "there is no such bucket"),
        (MALFORMED, "the bucket lies in another region"),
    ]
    .into_iter()
    .enumerate()
    {
        *fault.lock().unwrap() = of;
        look(&yard, customer).await;
        let said = yard.until::<CostsFailed>(number + 1).await;
        let said = &said[number].data;
        assert!(said.reason.contains("listing the export failed") && said.reason.contains(words), "{}", said.reason);
        assert_eq!(said.export.as_deref(), Some(format!("s3://{}", customer.bucket()).as_str()));
        assert_eq!((said.connection, said.period.is_none()), (customer.connection, true));
        assert!(!said.reason.contains("words of AWS"), "S3's own words may hold request details: {}", said.reason);
        assert_eq!(shown(&yard, customer).await, [said.reason.as_str()]);
        // The schedule looks again and again: it is no news, and still shown.
        for _ in 0..2 {
            look(&yard, customer).await;
        }
        assert_eq!(yard.events::<CostsFailed>().await.len(), number + 1, "{words}");
        assert_eq!(shown(&yard, customer).await.len(), 1);
    }
    assert_eq!(yard.held(Stream::DeadLetters).await, 0);
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_period_is_said_once_and_shown_and_keeps_no_other_out() {
    let (yard, customer) = (Yard::new().await, Customer::new());
    let bucket = yard.buckets.bucket(&customer.bucket());
    let put = async |path: &str, bytes: Vec<u8>| bucket.put(&Path::from(path), bytes.into()).await.unwrap();
    yard.put(customer, "good", "2018-10", &[item("AmazonEC2", "1.25")]).await;
    // Its file goes after the manifest was written.
    yard.put(customer, "gone", "2018-09", &[item("AmazonEC2", "1")]).await;
    bucket.delete(&Path::from("gone/data/2018-09.parquet")).await.unwrap();
    put("broken/20180801-20180901/x-Manifest.json", b"{\"account\": \"222222222222\"".to_vec()).await;
    let whole = report::file_of("2018-07", &[item("AmazonEC2", "1")]);
    yard.put_file(customer, "cut", "2018-07", whole.slice(..whole.len() - 20)).await;
    let line = |at: u32| {
        format!(
            "222222222222,AmazonEC2,0.1,2018-06-01T00:00:00Z,2018-06-01T01:00:00Z,{}\n",
            at.wrapping_mul(2_654_435_761)
        )
    };
    let header = "bill_payer_account_id,line_item_product_code,line_item_unblended_cost,line_item_usage_start_date,line_item_usage_end_date,line_item_resource_id\n";
    let text = header.to_owned() + &(0..5000).map(line).collect::<String>();
    let packed = gzipped(&text);
    put("packed/20180601-20180701/a.csv.gz", packed[..packed.len() / 2].to_vec()).await;
    let manifest = serde_json::json!({
        "account": ACCOUNT, "compression": "GZIP", "billingPeriod": {"start": "20180601T000000.000Z"},
        "reportKeys": ["packed/20180601-20180701/a.csv.gz"],
    });
    put("packed/20180601-20180701/x-Manifest.json", manifest.to_string().into_bytes()).await;

    let _program = yard.program(2, Arc::clone(&yard.store));
    look(&yard, customer).await;
    yard.until::<CostsIngested>(1).await;
    let wanted = [
        ("2018-09", "names a file that is not in the bucket (report key number 1)"),
        ("2018-08", "x-Manifest.json cannot be used: it is not the JSON of a Cost and Usage Report's manifest"),
        ("2018-07", "2018-07.parquet is not a complete Parquet file"),
        ("2018-06", "a.csv.gz cannot be used: it is damaged or cut off"),
    ];
    let said = yard.until::<CostsFailed>(wanted.len()).await;
    for (period, words) in wanted {
        let of = |said: &&contracts::CloudEvent<CostsFailed>| said.data.period.as_ref().unwrap().as_str() == period;
        let reason = &said.iter().find(of).unwrap().data.reason;
        assert!(reason.contains(words), "{period}: {reason}");
        assert!(shown(&yard, customer).await.contains(reason), "{period} is shown");
    }
    for _ in 0..2 {
        look(&yard, customer).await;
    }
    assert_eq!(yard.events::<CostsFailed>().await.len(), wanted.len(), "each is said once");
    assert_eq!(yard.billed(customer).await, decimal("1.25"));

    // Mended, they are read; and what breaks in another way is news.
    put("packed/20180601-20180701/a.csv.gz", packed).await;
    yard.put(customer, "gone", "2018-09", &[item("AmazonEC2", "2")]).await;
    put(
        "broken/20180801-20180901/x-Manifest.json",
        manifest.to_string().replace("222222222222", "333333333333").into_bytes(),
    )
    .await;
    look(&yard, customer).await;
    let start = Instant::now();
    while yard.billed(customer).await != decimal("503.25") {
        assert!(start.elapsed() < PATIENCE, "what was mended is read: {}", yard.billed(customer).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = yard.until::<CostsFailed>(wanted.len() + 1).await;
    assert!(said[wanted.len()].data.reason.contains("its account is not the connection's"), "{:?}", said.last());
    assert_eq!((shown(&yard, customer).await.len(), yard.held(Stream::DeadLetters).await), (2, 0));
}
