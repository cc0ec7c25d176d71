//! The program as it runs: told by an event, with credentials sealed to it over NATS, it reads a bucket and answers; killed, it goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use contracts::connection::{ConnectionRevoked, ConnectionVerified};
use contracts::costs::{CostsFailed, CostsIngested, ExportLocation, QueriedCosts, QueryCosts, QueryCostsRequest};
use contracts::credentials::{IssueCredentials, IssuedCredentials, Purpose, SealedCredentials, SecretText};
use contracts::{CloudEvent, ConnectionId, ErrorCode, ErrorReply, Stream, TenantId, Timestamp};
use futures::StreamExt as _;
use messaging::async_nats::jetstream::consumer::pull;
use messaging::seal::SealSeed;
use messaging::{Bus, Call, EndpointServer, event};
use sandbox::{AwsEmulator, NatsServer, NatsUser, ServiceProcess, Toolbox};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::report::{self, item};
use support::{billed, decimal};
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "222222222222";
const REGION: &str = "eu-central-1";
const BUCKET: &str = "costs-of-a-customer";
const PATIENCE: Duration = Duration::from_secs(60);
const CANARY: &str = "CanarySecretAccessKey0123456789abcdefghij";

struct Flow {
    nats: NatsServer,
    emulator: AwsEmulator,
    service: ServiceProcess,
    registry: Bus,
    operator: Bus,
    events: Bus,
    issued: Arc<AtomicUsize>,
    tenant: TenantId,
    folder: tempfile::TempDir,
}

async fn bus(nats: &NatsServer, user: NatsUser) -> Bus {
    nats.bus(user).await.unwrap()
}

/// Stands for the broker: credentials of the account's root, sealed. The first request of each program comes too early.
async fn broker(nats: &NatsServer, seed: SealSeed, issued: Arc<AtomicUsize>) {
    let bus = bus(nats, NatsUser::RoleChainBroker).await;
    let seed = Arc::new(seed);
    let server = EndpointServer::start(&bus, "role-chain-broker", "A stand-in").await.unwrap();
    let server = server
        .serve::<IssueCredentials, _, _>(move |call: Call<IssueCredentials>| {
            let (seed, issued) = (Arc::clone(&seed), Arc::clone(&issued));
            async move {
                let (tenant, connection): (TenantId, ConnectionId) = (call.token(1)?, call.token(2)?);
                if issued.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err(ErrorReply::new(ErrorCode::NotVerified, "the connection is not verified yet"));
                }
                let expires_at = Timestamp::now().plus(Duration::from_secs(3600));
                let plain = SealedCredentials {
                    tenant,
                    connection,
                    purpose: Purpose::CostRead,
                    access_key_id: ACCOUNT.to_owned(),
                    secret_access_key: SecretText::new(CANARY.to_owned()),
                    session_token: SecretText::new("CanarySessionToken".to_owned()),
                    expires_at,
                    account: None,
                    role_arn: None,
                    region: None,
                };
                let sealed = seed.seal(&call.request.requester_key, &serde_json::to_vec(&plain).unwrap()).unwrap();
                Ok(IssuedCredentials {
                    tenant,
                    connection,
                    purpose: Purpose::CostRead,
                    account: ACCOUNT.parse().unwrap(),
                    role_arn: format!("arn:aws:iam::{ACCOUNT}:role/rolebridge").parse().unwrap(),
                    region: REGION.parse().unwrap(),
                    expires_at,
                    broker_key: seed.public().clone(),
                    sealed,
                })
            }
        })
        .await
        .unwrap();
    tokio::spawn(server.run(CancellationToken::new()));
}

impl Flow {
    async fn start() -> Self {
        let tools = Toolbox::fetch(|line| println!("{line}")).unwrap();
        let (nats, emulator) = (NatsServer::start(&tools).await.unwrap(), AwsEmulator::start(&tools).await.unwrap());
        emulator.account(ACCOUNT, REGION).create_bucket(BUCKET).await.unwrap();
        let (seed, issued) = (SealSeed::generate().unwrap(), Arc::new(AtomicUsize::new(0)));
        let folder = tempfile::tempdir().unwrap();
        let environment = BTreeMap::from([
            ("ROLEBRIDGE_NATS_URL", nats.url()),
            ("ROLEBRIDGE_NATS_SEED_FILE", nats.seed_file(NatsUser::CostIngestion).display().to_string()),
            ("ROLEBRIDGE_COST_TABLE", folder.path().join("costs").display().to_string()),
            ("ROLEBRIDGE_SEALING_KEY", seed.public().to_string()),
            ("ROLEBRIDGE_S3_ENDPOINT", emulator.endpoint()),
            ("ROLEBRIDGE_COST_INTERVAL", "2".to_owned()),
        ]);
        broker(&nats, seed, Arc::clone(&issued)).await;
        let mut service = ServiceProcess::spawn("cost-ingestion", environment).unwrap();
        service.wait_ready(PATIENCE).await.unwrap();
        let registry = bus(&nats, NatsUser::TenantRegistry).await;
        let (operator, events) = (bus(&nats, NatsUser::Operator).await, bus(&nats, NatsUser::Events).await);
        let tenant = TenantId::new();
        Self { nats, emulator, service, registry, operator, events, issued, tenant, folder }
    }

    async fn put(&self, key: &str, bytes: bytes::Bytes) {
        self.emulator.account(ACCOUNT, REGION).put_object(BUCKET, key, bytes.to_vec()).await.unwrap();
    }

    async fn verify(&self, connection: ConnectionId, prefix: &str) {
        let verified = ConnectionVerified {
            tenant: self.tenant,
            connection,
            account: ACCOUNT.parse().unwrap(),
            partition: "aws".parse().unwrap(),
            region: REGION.parse().unwrap(),
            role_arn: format!("arn:aws:iam::{ACCOUNT}:role/rolebridge").parse().unwrap(),
            cost_export: Some(ExportLocation { bucket: BUCKET.to_owned(), prefix: prefix.to_owned() }),
            verified_at: Timestamp::now(),
        };
        self.registry.publish(&event(verified)).await.unwrap();
    }

    async fn costs(&self) -> Option<QueriedCosts> {
        let request = QueryCostsRequest::default();
        self.operator
            .request::<QueryCosts>(QueryCosts::subject(self.tenant), &request, Duration::from_secs(5))
            .await
            .ok()
    }

    async fn until_billed(&self, wanted: &str) -> QueriedCosts {
        let start = Instant::now();
        loop {
            match self.costs().await {
                Some(costs) if billed(&costs) == decimal(wanted) => return costs,
                costs => {
                    assert!(
                        start.elapsed() < PATIENCE,
                        "{wanted} wanted, {costs:?} found\n{}",
                        self.service.log_text()
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// The next event of this type.
    async fn next<T: contracts::Message>(&self) -> CloudEvent<T> {
        let stream = self.events.jetstream().get_stream(Stream::CostsEvents.name()).await.unwrap();
        let config = pull::Config { filter_subject: T::SUBJECT.to_owned(), ..pull::Config::default() };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect(T::TYPE).unwrap().unwrap();
        CloudEvent::decode(&message.payload).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_event_to_the_answer_and_on_after_a_crash() {
    let mut flow = Flow::start().await;
    flow.put("cur/a.parquet", report::file(&[item("AmazonEC2", "1.5"), item("AmazonS3", "0.25")])).await;
    let connection = ConnectionId::new();
    flow.verify(connection, "cur").await;

    let costs = flow.until_billed("1.75").await;
    assert_eq!((costs.rows, costs.lines[0].of[0].as_str()), (2, "AmazonEC2"));
    assert!(flow.issued.load(Ordering::SeqCst) >= 2, "it asked again after it had come too early");
    let said = flow.next::<CostsIngested>().await.data;
    assert_eq!(
        (said.tenant, said.connection, said.rows, said.totals[0].billed.decimal()),
        (flow.tenant, connection, 2, decimal("1.75"))
    );

    // Another connection has nothing to read: that is said, and nothing dies of it.
    let empty = ConnectionId::new();
    flow.verify(empty, "nothing-here").await;
    let said = flow.next::<CostsFailed>().await.data;
    assert_eq!(said.connection, empty);
    assert!(said.reason.contains("neither a manifest nor a cost file"), "{}", said.reason);

    // What changes in the bucket is found by itself, also by a program that was killed and started again.
    flow.put("cur/a.parquet", report::file(&[item("AmazonEC2", "3")])).await;
    flow.until_billed("3").await;
    flow.service.kill();
    flow.put("cur/a.parquet", report::file(&[item("AmazonEC2", "4")])).await;
    flow.service.restart().unwrap();
    flow.service.wait_ready(PATIENCE).await.unwrap();
    flow.until_billed("4").await;

    // Ended: it is not looked at any more, and what was read stays.
    let revoked = ConnectionRevoked { tenant: flow.tenant, connection, reason: "the stack was deleted".to_owned() };
    flow.registry.publish(&event(revoked)).await.unwrap();
    let known = format!("costs/_rolebridge/connections/{}/{connection}.json", flow.tenant);
    let start = Instant::now();
    while !std::fs::read_to_string(flow.folder.path().join(&known)).unwrap().contains(r#""export":null"#) {
        assert!(start.elapsed() < PATIENCE, "the end of the connection was not heard of");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    flow.until_billed("4").await;

    let bad = QueryCostsRequest { top: Some(0), ..QueryCostsRequest::default() };
    let refused =
        flow.operator.request::<QueryCosts>(QueryCosts::subject(flow.tenant), &bad, PATIENCE).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().code, ErrorCode::InvalidRequest);

    let status = flow.service.terminate(Duration::from_secs(20)).await.unwrap();
    assert!(status.success(), "{}", flow.service.log_text());
    let log = flow.service.log_text();
    assert!(!log.contains("Canary"), "a secret was logged");
    drop(flow.nats);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_one_sentence() {
    let (nowhere, key) = ("nats://127.0.0.1:9", SealSeed::generate().unwrap().public().to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let table = folder.path().join("costs").display().to_string();
    for (nats, table, sentence) in [
        (nowhere, table.as_str(), "cannot connect to NATS at nats://127.0.0.1:9"),
        (nowhere, "gopher://x", "ROLEBRIDGE_COST_TABLE is neither a folder nor an s3:// URL"),
        (nowhere, file.to_str().unwrap(), "the cost table's folder could not be made"),
    ] {
        let environment = [
            ("ROLEBRIDGE_NATS_URL", nats),
            ("ROLEBRIDGE_COST_TABLE", table),
            ("ROLEBRIDGE_SEALING_KEY", key.as_str()),
            ("RUST_LOG", "off"),
        ];
        let mut service = ServiceProcess::spawn("cost-ingestion", environment).unwrap();
        assert!(!service.wait(PATIENCE).await.unwrap().success());
        let log = service.log_text();
        assert!(log.contains(sentence) && log.trim().lines().count() == 1, "{log}");
    }
}
