//! A broker at work between a real NATS server and the AWS emulator with IAM on; the test plays the registry.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod gate;
pub(crate) mod job;
pub(crate) mod trouble;

use std::time::Duration;

use aws_sdk_iam::Client as Iam;
use contracts::{
    AccountId, ConnectionId, ExternalId, JobId, Message, Region, RoleArn, Stream, TenantId, Timestamp,
    connection::{ConnectionState, Grant},
    tenant::{PrincipalReady, TenantCreated},
    verification::{
        ConfirmDeletion, ConnectionsUsed, DeletionReported, VerificationReported, VerifyCause, VerifyConnection,
    },
};
use messaging::{Backoff, Bus, ConsumerSpec, Disposition, Router, seal::SealSeed};
use sandbox::{AwsEmulator, NatsServer, NatsUser, Provider, ServiceProcess, Toolbox};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const CUSTOMER: &str = "222222222222";
pub(crate) const REGION: &str = "eu-central-1";
/// What an operator's server has.
pub(crate) const ACCOUNTS: &str = include_str!("../../../../deploy/nats/accounts.conf");
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

/// Dropping it ends everything.
pub(crate) struct World {
    pub(crate) broker: ServiceProcess,
    pub(crate) registry: Bus,
    pub(crate) nats: NatsServer,
    pub(crate) emulator: AwsEmulator,
    pub(crate) provider: Provider,
    pub(crate) broker_key: contracts::SealingKey,
    pub(crate) principals: mpsc::UnboundedReceiver<PrincipalReady>,
    pub(crate) verifications: mpsc::UnboundedReceiver<VerificationReported>,
    pub(crate) deletions: mpsc::UnboundedReceiver<DeletionReported>,
    pub(crate) used: mpsc::UnboundedReceiver<ConnectionsUsed>,
    stop: CancellationToken,
    /// Folder of the files `key` and `seed`.
    pub(crate) keys: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A tenant with its principal's role.
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) role: RoleArn,
}

pub(crate) async fn world() -> World {
    world_with(|_| Vec::new()).await
}

/// With more variables for the broker, which may replace those below.
pub(crate) async fn world_with(more: impl FnOnce(&AwsEmulator) -> Vec<(&'static str, String)>) -> World {
    world_of(ACCOUNTS, &[], |emulator, _| more(emulator)).await
}

/// With other accounts on the bus than an operator's.
pub(crate) async fn world_under(
    accounts: &str,
    more: impl FnOnce(&AwsEmulator) -> Vec<(&'static str, String)>,
) -> World {
    world_of(accounts, &[], |emulator, _| more(emulator)).await
}

/// With further AWS accounts in which the broker may keep principals.
pub(crate) async fn world_over(
    further: &[&str],
    more: impl FnOnce(&AwsEmulator) -> Vec<(&'static str, String)>,
) -> World {
    world_of(ACCOUNTS, further, |emulator, _| more(emulator)).await
}

/// With access keys wrapped by AWS KMS alone, of which `more` is told the provider's key.
pub(crate) async fn world_under_kms(
    more: impl FnOnce(&AwsEmulator, &Provider) -> Vec<(&'static str, String)>,
) -> World {
    world_of(ACCOUNTS, &[], |emulator, provider| {
        let mut more = more(emulator, provider);
        more.push(("ROLEBRIDGE_KMS_KEY", provider.wrapping_key_arn.clone()));
        more.push(("ROLEBRIDGE_KEY_FILE", ABSENT.to_owned()));
        more
    })
    .await
}

/// A variable that is not set.
const ABSENT: &str = "";

async fn world_of(
    accounts: &str,
    further: &[&str],
    more: impl FnOnce(&AwsEmulator, &Provider) -> Vec<(&'static str, String)>,
) -> World {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|_| {})).await.unwrap().unwrap();
    let nats = NatsServer::start_with(&tools, accounts).await.unwrap();
    let emulator = AwsEmulator::start(&tools).await.unwrap();
    // Without IAM every refusal below would be an accident.
    emulator.assert_iam_is_on().await.unwrap();
    let provider = Provider::deploy_with(&emulator, "111111111111", REGION, further).await.unwrap();
    let keys = tempfile::tempdir().unwrap();
    let file = |name: &str| keys.path().join(name).display().to_string();
    let keygen = std::process::Command::new(env!("CARGO_BIN_EXE_role-chain-broker"))
        .args(["keygen", "--key-file", &file("key"), "--seal-seed-file", &file("seed")])
        .output()
        .unwrap();
    assert!(keygen.status.success());
    let broker_key = SealSeed::from_file(keys.path().join("seed").as_path()).unwrap().public().clone();
    let registry = bus(&nats, NatsUser::TenantRegistry).await;
    for stream in [Stream::TenantEvents, Stream::PrincipalEvents, Stream::Jobs, Stream::Reports, Stream::Grants] {
        registry.ensure_stream(stream).await.unwrap();
    }
    let credentials = &provider.role_chain_broker;
    let mut environment = vec![
        ("ROLEBRIDGE_NATS_URL", nats.url()),
        ("ROLEBRIDGE_NATS_SEED_FILE", nats.seed_file(NatsUser::RoleChainBroker).display().to_string()),
        ("ROLEBRIDGE_PROVIDER_ACCOUNT", "111111111111".to_owned()),
        ("ROLEBRIDGE_KEY_FILE", file("key")),
        ("ROLEBRIDGE_SEAL_SEED_FILE", file("seed")),
        ("ROLEBRIDGE_AUDIT_JOURNAL", file("journal")),
        ("ROLEBRIDGE_SETTLE_SECONDS", "1".to_owned()),
        ("ROLEBRIDGE_PERMISSIONS_BOUNDARY", provider.principal_boundary_arn.clone()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ENDPOINT_URL", emulator.endpoint()),
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key().to_owned()),
        (
            "RUST_LOG",
            "debug,async_nats=info,hyper=info,hyper_util=info,aws_smithy_runtime=info,aws_config=info,aws_runtime=info"
                .to_owned(),
        ),
    ];
    environment.extend(more(&emulator, &provider));
    let absent: Vec<_> = environment.iter().filter(|(_, value)| value == ABSENT).map(|(name, _)| *name).collect();
    environment.retain(|(name, _)| !absent.contains(name));
    let mut broker = ServiceProcess::spawn("role-chain-broker", environment).unwrap();
    broker.wait_ready(WITHIN).await.unwrap();
    let stop = CancellationToken::new();
    let principals = hear(&registry, Stream::PrincipalEvents, "tenant-registry-principals", &stop);
    let (verifications, deletions, used) = hear_reports(&registry, &stop);
    World {
        broker,
        registry,
        nats,
        emulator,
        provider,
        broker_key,
        principals,
        verifications,
        deletions,
        used,
        stop,
        keys,
    }
}

pub(crate) async fn bus(nats: &NatsServer, user: NatsUser) -> Bus {
    nats.bus(user).await.unwrap()
}

fn spec(stream: Stream, durable: &'static str) -> ConsumerSpec {
    ConsumerSpec {
        stream,
        durable,
        filters: Vec::new(),
        in_flight: 8,
        ack_wait: Duration::from_secs(10),
        max_deliver: 5,
        backoff: Backoff { first: Duration::from_millis(50), most: Duration::from_secs(1) },
    }
}

fn into<T: Message>(router: Router) -> (Router, mpsc::UnboundedReceiver<T>) {
    let (tell, told) = mpsc::unbounded_channel();
    let router = router.on::<T, _, _>(move |event, _| {
        drop(tell.send(event.data));
        std::future::ready(Disposition::Done)
    });
    (router, told)
}

fn hear<T: Message>(
    bus: &Bus,
    stream: Stream,
    durable: &'static str,
    stop: &CancellationToken,
) -> mpsc::UnboundedReceiver<T> {
    let (router, told) = into(Router::new());
    tokio::spawn(messaging::consume(bus.clone(), spec(stream, durable), router, stop.clone()));
    told
}

type Told<T> = mpsc::UnboundedReceiver<T>;

fn hear_reports(
    bus: &Bus,
    stop: &CancellationToken,
) -> (Told<VerificationReported>, Told<DeletionReported>, Told<ConnectionsUsed>) {
    let (router, verifications) = into(Router::new());
    let (router, deletions) = into(router);
    let (router, used) = into(router);
    tokio::spawn(messaging::consume(
        bus.clone(),
        spec(Stream::Reports, "tenant-registry-reports"),
        router,
        stop.clone(),
    ));
    (verifications, deletions, used)
}

impl World {
    pub(crate) async fn publish<T: Message>(&self, data: T) {
        self.registry.publish(&messaging::event(data)).await.unwrap();
    }

    /// The next of `heard`, or the broker's log.
    pub(crate) async fn next<T>(broker: &ServiceProcess, heard: &mut mpsc::UnboundedReceiver<T>) -> T {
        match tokio::time::timeout(WITHIN, heard.recv()).await {
            Ok(Some(message)) => message,
            _ => panic!("nothing came within {WITHIN:?}; the broker says:\n{}", broker.log_text()),
        }
    }

    pub(crate) async fn tenant(&mut self) -> Tenant {
        let id = TenantId::new();
        self.publish(TenantCreated { tenant: id, name: "A tenant".to_owned() }).await;
        let ready = Self::next(&self.broker, &mut self.principals).await;
        assert_eq!(ready.tenant, id);
        Tenant { id, role: ready.role_arn }
    }

    pub(crate) fn iam(&self, account: &str) -> Iam {
        Iam::new(self.emulator.account(account, REGION).sdk_config())
    }

    /// A role in the customer's account, named as the customer template does, that trusts `principal` under `condition`.
    pub(crate) async fn role(&self, principal: &RoleArn, condition: Value) -> RoleArn {
        self.role_trusting(json!({ "AWS": principal.as_str() }), condition).await
    }

    /// A role as before, that trusts whomever a `Principal` element names.
    pub(crate) async fn role_trusting(&self, principal: Value, condition: Value) -> RoleArn {
        let mut statement = json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
        if !condition.is_null() {
            statement["Condition"] = condition;
        }
        let trust = json!({ "Version": "2012-10-17", "Statement": [statement] });
        let name = format!("rolebridge-{}", JobId::new());
        let create = self.iam(CUSTOMER).create_role().role_name(name).path("/rolebridge/").max_session_duration(7200);
        let made = create.assume_role_policy_document(trust.to_string()).send().await.unwrap();
        RoleArn::parse(made.role().unwrap().arn()).unwrap()
    }

    /// Waits until there is the principal that is no tenant's.
    pub(crate) async fn stranger(&self) {
        let began = std::time::Instant::now();
        while !self.broker.log_text().contains("the principal for probes by another stands") {
            assert!(began.elapsed() < WITHIN, "it does not stand:\n{}", self.broker.log_text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Gives the customer's role an inline policy of these statements.
    pub(crate) async fn allow(&self, role: &RoleArn, statements: Value) {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put = self.iam(CUSTOMER).put_role_policy().role_name(role.name()).policy_name("test");
        put.policy_document(policy).send().await.unwrap();
    }

    /// Has the role verified, and gives the report.
    pub(crate) async fn verify(&mut self, tenant: TenantId, role: &RoleArn, id: &ExternalId) -> VerificationReported {
        self.verify_as(verify_job(tenant, role, id)).await
    }

    pub(crate) async fn verify_as(&mut self, job: VerifyConnection) -> VerificationReported {
        self.publish(job.clone()).await;
        let report = Self::next(&self.broker, &mut self.verifications).await;
        assert_eq!((report.job, report.connection), (job.job, job.connection));
        report
    }

    pub(crate) async fn confirm(&self, tenant: TenantId, role: &RoleArn, id: &ExternalId, within: Duration) -> JobId {
        let job = ConfirmDeletion {
            job: JobId::new(),
            tenant,
            connection: ConnectionId::new(),
            role_arn: role.clone(),
            external_id: id.clone(),
            region: Region::parse(REGION).unwrap(),
            deadline: Timestamp::now().plus(within),
        };
        self.publish(job.clone()).await;
        job.job
    }

    /// The value of a counter with these labels on the broker's `/metrics`; 0 when it is not there yet.
    pub(crate) async fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let url = format!("http://{}/metrics", self.broker.http_address());
        let text =
            reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap().text().await.unwrap();
        let of_labels = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().filter(of_labels).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

pub(crate) fn verify_job(tenant: TenantId, role: &RoleArn, id: &ExternalId) -> VerifyConnection {
    VerifyConnection {
        job: JobId::new(),
        tenant,
        connection: ConnectionId::new(),
        cause: VerifyCause::Callback,
        role_arn: role.clone(),
        external_id: id.clone(),
        account: role.account().clone(),
        region: Region::parse(REGION).unwrap(),
        retired_external_id: None,
        cost_export: None,
        session_tags: false,
        deadline: Timestamp::now().plus(WITHIN),
    }
}

pub(crate) fn only_with(id: &ExternalId) -> Value {
    json!({ "StringEquals": { "sts:ExternalId": id.as_str() } })
}

pub(crate) fn grant(tenant: TenantId, role: &RoleArn, id: &ExternalId) -> Grant {
    Grant {
        tenant,
        connection: ConnectionId::new(),
        state: ConnectionState::Verified,
        tenant_active: true,
        account: AccountId::parse(role.account().as_str()).unwrap(),
        region: Region::parse(REGION).unwrap(),
        role_arn: role.clone(),
        external_id: id.clone(),
        missing: Vec::new(),
        session_tags: false,
        revision: 1,
    }
}
