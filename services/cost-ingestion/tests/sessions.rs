//! Credentials that end while a file is read: the read goes on with the next session, and nothing is lost or counted twice.
//!
//! The bucket is a stand-in that holds S3 to its word: a request of a session that has ended is answered `ExpiredToken`. It keeps some answers back until the
//! session that asked has ended, so that the reading of the file outlives it for certain.
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
use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use contracts::costs::ExportLocation;
use cost_ingestion::credentials::{CredentialError, CredentialSource, Credentials, Scope};
use cost_ingestion::export::{Discovered, Export, Limits, S3Exports};
use cost_ingestion::ingest::{Ingestor, Payers};
use cost_ingestion::table::CostTable;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::report::{self, item};
use support::{decimal, ingested};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Long enough that a loaded machine signs and sends a request within the last third of it.
const LIFE: Duration = Duration::from_secs(6);
/// Answers that are kept back until their session has ended.
const KEPT_BACK: usize = 2;

#[derive(Default)]
struct State {
    /// When each session ends.
    sessions: BTreeMap<String, OffsetDateTime>,
    /// Those that have read something.
    used: BTreeSet<String>,
    kept_back: usize,
    expired: usize,
}

/// The broker and S3, as far as they agree on sessions.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[async_trait]
impl CredentialSource for World {
    async fn credentials(&self, _: Scope) -> Result<Credentials, CredentialError> {
        let mut state = self.0.lock().unwrap();
        let access_key_id = format!("ASIASESSION{}", state.sessions.len());
        let expires_at = OffsetDateTime::now_utc() + LIFE;
        state.sessions.insert(access_key_id.clone(), expires_at);
        let (secret_access_key, session_token) = ("secret".into(), format!("token of {access_key_id}").into());
        Ok(Credentials { access_key_id, secret_access_key, session_token, expires_at })
    }
}

impl World {
    async fn answer(self, bytes: Arc<Vec<u8>>, method: Method, headers: HeaderMap) -> Response<Body> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let signed = header("authorization").unwrap();
        let key = signed.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_owned();
        assert_eq!(header("x-amz-security-token"), Some(format!("token of {key}")));
        let ends = self.0.lock().unwrap().sessions[&key];
        if OffsetDateTime::now_utc() >= ends {
            self.0.lock().unwrap().expired += 1;
            let error = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
            return Response::builder().status(StatusCode::BAD_REQUEST).body(Body::from(error)).unwrap();
        }
        let builder =
            Response::builder().header("etag", "\"1\"").header("last-modified", "Sun, 01 Nov 2026 00:00:00 GMT");
        if method == Method::HEAD {
            return builder.header("content-length", bytes.len()).body(Body::empty()).unwrap();
        }
        let range = header("range").unwrap();
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse::<usize>().unwrap().min(bytes.len() - 1));
        let keeps_back = {
            let mut state = self.0.lock().unwrap();
            let first = state.used.insert(key);
            let keeps_back = first && state.kept_back < KEPT_BACK;
            state.kept_back += usize::from(keeps_back);
            keeps_back
        };
        if keeps_back {
            let left = ends - OffsetDateTime::now_utc() + Duration::from_millis(50);
            tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        }
        builder
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", format!("bytes {from}-{to}/{}", bytes.len()))
            .header("content-length", to - from + 1)
            .body(Body::from(bytes[from..=to].to_vec()))
            .unwrap()
    }

    /// A bucket that holds nothing but these bytes.
    async fn bucket(&self, bytes: Vec<u8>) -> Url {
        let (world, bytes) = (self.clone(), Arc::new(bytes));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let app = axum::Router::new().fallback(move |method: Method, headers: HeaderMap| {
            world.clone().answer(Arc::clone(&bytes), method, headers)
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        url
    }
}

/// Row groups of a row each: each is asked for by itself.
fn parquet(groups: usize) -> Vec<u8> {
    let items: Vec<_> = (0..groups).map(|at| item("AmazonEC2", &format!("{at}.25"))).collect();
    let rows = report::batch(&items);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// More than two of the ranges in which packed files are asked for: what cannot be packed well.
fn csv() -> (Vec<u8>, u64) {
    let header = "bill_payer_account_id,line_item_product_code,line_item_unblended_cost,line_item_usage_start_date,line_item_usage_end_date,line_item_resource_id\n";
    let mut text = header.to_owned();
    let rows = 12_000;
    for at in 0..rows {
        text += &format!("222222222222,AmazonEC2,0.25,2018-11-01T00:00:00Z,2018-11-01T01:00:00Z,{at:0>1000}\n");
    }
    (text.into_bytes(), rows)
}

async fn survives(name: &str, bytes: Vec<u8>, rows: u64, billed: &str) {
    let world = World::default();
    let url = world.bucket(bytes).await;
    let exports = Arc::new(S3Exports::new(Arc::new(world.clone()), Some(url)));
    let table_store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = CostTable::with_store(table_store, &Url::parse("memory:///costs/").unwrap()).await.unwrap();
    let ingestor = Ingestor::new(exports, Arc::new(table), Limits::default(), Payers::default());
    let order = cost_ingestion::ingest::Order {
        location: ExportLocation { bucket: "costs-of-a-customer".into(), prefix: "cur".into() },
        ..support::order("222222222222")
    };
    let store = ingestor.open(&order).await.unwrap();
    let file = store.head(&Path::from(name)).await.unwrap();
    let found = Discovered { export: Export::named("x"), period: None, files: vec![file], thorough: false };
    let reports = ingestor.ingest_found(&store, &order, vec![Ok(found)], &CancellationToken::new()).await.unwrap();
    assert_eq!(ingested(&reports[0]), (rows, decimal(billed)), "{name}");
    let state = world.0.lock().unwrap();
    assert!(state.used.len() > KEPT_BACK && state.kept_back == KEPT_BACK, "{name}: {:?}", state.sessions);
    assert_eq!(state.expired, 0, "{name}: no request is made with a session that has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_reading_outlives_two_sessions_is_read_whole() {
    let (text, lines) = csv();
    let groups = 600_000 / 250_000 + 6;
    tokio::join!(
        survives("cur/a.parquet", parquet(groups), groups as u64, "30.0"),
        survives("cur/a.csv", text, lines, "3000.00"),
    );
}
