//! A registry on a database of its own, with everything around it played by the test.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::{
    AccountId, CloudEvent, EnrollmentId, EventId, ExternalId, JobId, Message, Region, RoleArn, SealedBox, StackId,
    TenantId, Timestamp, TokenHash, TopicArn, UserArn,
    callback::{Answer, CallbackKey, CallbackOutcome, CallbackReceived, Claims, RequestType, ReturnAddress},
    connection::Connection,
    enrollment::{CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
    tenant::{CreateTenantRequest, PrincipalReady},
    verification::{Fault, Verdict, VerificationReported, VerifyConnection},
};
use messaging::{PublishError, RawMessage};
use runtime::quota::PerMinute;
use sandbox::{PostgresServer, Toolbox};
use tempfile::TempDir;
use tenant_registry::{
    bucket::Rate,
    config::{DatabaseUrl, Rules, Watching},
    flow::{Outlet, Registry, callbacks::Handled, reports::Reported},
    metrics::Metrics,
    relay::Relay,
    schedule::Cadence,
    store::Store,
};
use tokio::sync::OnceCell;

/// Which database a test runs on. Every test of the matrix runs on both.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// One server for all tests of the program, a database for each.
static POSTGRES: OnceCell<PostgresServer> = OnceCell::const_new();

/// An empty database; the folder holds it if it is a file.
pub(crate) async fn database(kind: Kind) -> (DatabaseUrl, Option<TempDir>) {
    match kind {
        Kind::Sqlite => {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}?mode=rwc", dir.path().join("registry.db").display());
            (url.parse().unwrap(), Some(dir))
        }
        Kind::Postgres => {
            let server = POSTGRES
                .get_or_init(|| async {
                    let tools =
                        tokio::task::spawn_blocking(|| Toolbox::fetch_test_tools(|_| ()).unwrap()).await.unwrap();
                    PostgresServer::start(&tools).await.unwrap()
                })
                .await;
            (server.create_database().unwrap().parse().unwrap(), None)
        }
    }
}

/// The bus, as a list.
#[derive(Default)]
pub(crate) struct Recorder {
    messages: Mutex<Vec<RawMessage>>,
    pub(crate) down: AtomicBool,
}

#[async_trait]
impl Outlet for Recorder {
    async fn publish(&self, message: &RawMessage) -> Result<(), PublishError> {
        tokio::task::yield_now().await;
        if self.down.load(Ordering::SeqCst) {
            let source = messaging::async_nats::jetstream::context::PublishErrorKind::TimedOut.into();
            return Err(PublishError::NotAcknowledged { subject: message.subject.clone(), source });
        }
        self.messages.lock().unwrap().push(message.clone());
        Ok(())
    }
}

impl Recorder {
    pub(crate) fn all(&self) -> Vec<RawMessage> {
        self.messages.lock().unwrap().clone()
    }

    /// The messages of one type, in the order in which they were published.
    pub(crate) fn of<T: Message>(&self) -> Vec<T> {
        self.all().iter().filter_map(|raw| CloudEvent::<T>::decode(&raw.payload).ok()).map(|event| event.data).collect()
    }

    /// The types of all messages about one connection or callback, in order.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let kind = |raw: &RawMessage| {
            serde_json::from_slice::<serde_json::Value>(&raw.payload).unwrap()["type"].as_str().unwrap().to_owned()
        };
        self.all().iter().map(kind).collect()
    }

    pub(crate) fn ids(&self) -> Vec<EventId> {
        self.all().iter().map(|raw| raw.id).collect()
    }
}

pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) bus: Arc<Recorder>,
    pub(crate) url: DatabaseUrl,
    _dir: Option<TempDir>,
}

pub(crate) const PROVIDER: &str = "111111111111";
pub(crate) const CUSTOMER: &str = "222222222222";
pub(crate) const REGION: &str = "eu-central-1";

pub(crate) fn rules() -> Rules {
    Rules {
        principal_accounts: PROVIDER.parse().unwrap(),
        topics: format!("arn:aws:sns:{REGION}:{PROVIDER}:rolebridge-callbacks").parse().unwrap(),
        template: "https://templates.example/customer.yaml".parse().unwrap(),
        verify_within: Duration::from_secs(240),
        watch: Watching {
            cadence: Cadence { interval: Duration::from_secs(3600), again: Duration::from_secs(60) },
            rate: Rate::per_minute(600),
            equal_answers: 3,
            fatal: Vec::new(),
        },
        strangers: PerMinute { all: 600, each: 30 },
    }
}

pub(crate) fn stack(account: &str, name: &str) -> StackId {
    StackId::parse(&format!("arn:aws:cloudformation:{REGION}:{account}:stack/rolebridge/{name}")).unwrap()
}

pub(crate) fn role(account: &str, name: &str) -> RoleArn {
    RoleArn::parse(&format!("arn:aws:iam::{account}:role/rolebridge/{name}")).unwrap()
}

/// What a stack of an offer sends. Change what you like before sending.
pub(crate) fn callback(
    offer: &EnrollmentOffer,
    request_type: RequestType,
    account: &str,
    name: &str,
) -> CallbackReceived {
    callback_of(&offer.external_id, offer.callback_token.hash(), request_type, account, name)
}

pub(crate) fn callback_of(
    external_id: &ExternalId,
    token_hash: TokenHash,
    request_type: RequestType,
    account: &str,
    name: &str,
) -> CallbackReceived {
    CallbackReceived {
        key: CallbackKey { stack_id: stack(account, name), request_id: uuid::Uuid::new_v4().to_string() },
        request_type,
        physical_resource_id: None,
        claims: Some(Claims {
            external_id: external_id.clone(),
            previous_external_id: None,
            token_hash,
            role_arn: role(account, name),
            account: AccountId::parse(account).unwrap(),
            region: Region::parse(REGION).unwrap(),
            cost_export: None,
            template_version: Some(2),
        }),
        return_address: ReturnAddress {
            logical_resource_id: "Connection".to_owned(),
            sealed_url: SealedBox::from_bytes(name.as_bytes()),
        },
        topic: TopicArn::parse(&format!("arn:aws:sns:{REGION}:{PROVIDER}:rolebridge-callbacks")).unwrap(),
        received_at: Timestamp::now(),
    }
}

pub(crate) fn report(job: &VerifyConnection, verdict: Verdict) -> VerificationReported {
    VerificationReported {
        job: job.job,
        tenant: job.tenant,
        connection: job.connection,
        role_arn: job.role_arn.clone(),
        verdict,
        evidence: Vec::new(),
        purposes: Vec::new(),
        max_session_s: None,
        aws_ms: 1,
    }
}

pub(crate) const REFUSED: Verdict = Verdict::Failed { fault: Fault::Refused };

impl World {
    pub(crate) async fn new(kind: Kind) -> Self {
        Self::with(kind, rules()).await
    }

    pub(crate) async fn with(kind: Kind, rules: Rules) -> Self {
        let (url, dir) = database(kind).await;
        let store = Store::open(&url).await.unwrap();
        let bus = Arc::new(Recorder::default());
        let registry = Registry::new(store.clone(), rules, bus.clone());
        Self { registry, store, bus, url, _dir: dir }
    }

    pub(crate) fn relay(&self) -> Relay {
        Relay::new(self.store.clone(), self.bus.clone(), Metrics::new())
    }

    /// Publishes everything that waits.
    pub(crate) async fn flush(&self) {
        let relay = self.relay();
        while relay.round().await.unwrap() > 0 {}
    }

    pub(crate) async fn tenant(&self, name: &str) -> TenantId {
        let request = CreateTenantRequest { name: name.to_owned(), idempotency_key: None };
        let tenant = self.registry.create_tenant(&request).await.unwrap().tenant;
        let role_arn = RoleArn::parse(&format!("arn:aws:iam::{PROVIDER}:role/rolebridge/{name}")).unwrap();
        let user_arn = UserArn::parse(&format!("arn:aws:iam::{PROVIDER}:user/rolebridge/{name}")).unwrap();
        self.registry.principal_ready(&PrincipalReady { tenant, user_arn, role_arn }).await.unwrap();
        tenant
    }

    pub(crate) async fn offer(&self, tenant: TenantId, kind: EnrollmentKind) -> EnrollmentOffer {
        let request =
            CreateEnrollmentRequest { kind, region: None, account: None, cost_export: None, expires_in_s: None };
        self.registry.create_enrollment(tenant, &request).await.unwrap()
    }

    /// A new tenant's offer.
    pub(crate) async fn new_offer(&self, name: &str) -> (TenantId, EnrollmentOffer) {
        let tenant = self.tenant(name).await;
        (tenant, self.offer(tenant, EnrollmentKind::Account).await)
    }

    pub(crate) async fn send(&self, callback: &CallbackReceived) -> Handled {
        self.registry.callback(callback).await.unwrap()
    }

    /// The job that was handed out last for this role.
    pub(crate) async fn job(&self, role: &RoleArn) -> VerifyConnection {
        self.flush().await;
        self.bus
            .of::<VerifyConnection>()
            .into_iter()
            .rfind(|job| &job.role_arn == role)
            .expect("no verify job for the role")
    }

    pub(crate) async fn report(&self, report: &VerificationReported) -> Reported {
        self.registry.verification_reported(report).await.unwrap()
    }

    /// A stack of the offer that reaches CREATE_COMPLETE.
    pub(crate) async fn connect(&self, offer: &EnrollmentOffer, account: &str, name: &str) -> Connection {
        let create = callback(offer, RequestType::Create, account, name);
        assert_eq!(self.send(&create).await, Handled::Verifying);
        let job = self.job(&role(account, name)).await;
        assert_eq!(self.report(&report(&job, Verdict::Held)).await, Reported::Applied);
        self.flush().await;
        self.connection(&job).await
    }

    pub(crate) async fn connection(&self, job: &VerifyConnection) -> Connection {
        self.registry.get_connection(job.tenant, job.connection).await.unwrap()
    }

    /// What a request was answered, each time it was.
    pub(crate) async fn answers(&self, callback: &CallbackReceived) -> Vec<CallbackOutcome> {
        self.flush().await;
        self.bus.of::<CallbackOutcome>().into_iter().filter(|outcome| outcome.key == callback.key).collect()
    }

    /// The one answer that a request got, when it was FAILED.
    pub(crate) async fn reason(&self, callback: &CallbackReceived) -> String {
        match self.answers(callback).await.as_slice() {
            [CallbackOutcome { answer: Answer::Failed { reason }, .. }] => reason.clone(),
            other => panic!("one FAILED expected, but {other:?}"),
        }
    }

    pub(crate) async fn audited(&self, tenant: TenantId) -> Vec<String> {
        let page =
            self.registry.list_audit(tenant, &contracts::PageRequest { limit: Some(500), after: None }).await.unwrap();
        page.items.into_iter().map(|entry| entry.action).collect()
    }

    pub(crate) async fn enrollment_state(
        &self,
        tenant: TenantId,
        id: EnrollmentId,
    ) -> contracts::enrollment::EnrollmentState {
        self.registry.get_enrollment(tenant, id).await.unwrap().state
    }
}

/// A job that nobody handed out.
pub(crate) fn no_job() -> JobId {
    JobId::new()
}
