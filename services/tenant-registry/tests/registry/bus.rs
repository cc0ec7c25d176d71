//! The program itself, as a process, on a real nats-server with the permissions of `deploy/nats`. The test plays callback-ingest, the broker and an operator.

use std::{path::PathBuf, time::Duration};

use contracts::{
    CloudEvent, ConnectionId, Endpoint as _, ErrorCode, Message, PageRequest, RoleArn, Stream, TenantId, UserArn,
    audit::{AuditRecorded, ListAudit},
    callback::{Answer, CallbackOutcome, CallbackReceived, RequestType},
    connection::{ConnectionState, GetConnection, RevokeConnection},
    enrollment::{CancelEnrollment, CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
    tenant::{
        CreateTenant, CreateTenantRequest, Empty, GetTenant, PrincipalReady, ResumeTenant, SuspendTenant, WithReason,
    },
    verification::{Verdict, VerifyConnection},
};
use futures::StreamExt;
use messaging::{
    Bus, RawMessage,
    async_nats::{
        self,
        jetstream::consumer::{DeliverPolicy, pull},
    },
};
use sandbox::{NatsServer, NatsUser, ServiceProcess, Toolbox};
use tempfile::TempDir;
use tenant_registry::config::DatabaseUrl;

use crate::world::{CUSTOMER, PROVIDER, REGION, callback, report, role};

const WITHIN: Duration = Duration::from_secs(30);
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) struct Bed {
    nats: NatsServer,
    pub(crate) registry: ServiceProcess,
    operator: Bus,
    pub(crate) ingest: Bus,
    pub(crate) broker: Bus,
    dir: TempDir,
}

async fn connect(nats: &NatsServer, user: NatsUser) -> Bus {
    nats.bus(user).await.unwrap()
}

fn environment(nats: &NatsServer, database: PathBuf) -> Vec<(&'static str, String)> {
    vec![
        ("ROLEBRIDGE_NATS_URL", nats.url()),
        ("ROLEBRIDGE_NATS_SEED_FILE", nats.seed_file(NatsUser::TenantRegistry).display().to_string()),
        ("ROLEBRIDGE_DATABASE_URL", format!("sqlite://{}?mode=rwc", database.display())),
        ("ROLEBRIDGE_PROVIDER_ACCOUNT", PROVIDER.to_owned()),
        ("ROLEBRIDGE_TOPIC_ARNS", format!("arn:aws:sns:{REGION}:{PROVIDER}:rolebridge-callbacks")),
        ("ROLEBRIDGE_TEMPLATE_URL", "https://templates.example/customer.yaml".to_owned()),
    ]
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|_| ()).unwrap()).await.unwrap();
        let nats = NatsServer::start(&tools).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut registry =
            ServiceProcess::spawn("tenant-registry", environment(&nats, dir.path().join("registry.db"))).unwrap();
        registry.wait_ready(WITHIN).await.unwrap();
        let (operator, ingest, broker) = (
            connect(&nats, NatsUser::Operator).await,
            connect(&nats, NatsUser::CallbackIngest).await,
            connect(&nats, NatsUser::RoleChainBroker).await,
        );
        Self { nats, registry, operator, ingest, broker, dir }
    }

    pub(crate) fn database(&self) -> DatabaseUrl {
        format!("sqlite://{}?mode=rwc", self.dir.path().join("registry.db").display()).parse().unwrap()
    }

    pub(crate) async fn offer(&self) -> (TenantId, EnrollmentOffer) {
        let request = CreateTenantRequest { name: "Example".to_owned(), idempotency_key: None };
        let tenant =
            self.operator.request::<CreateTenant>(CreateTenant::subject(), &request, WITHIN).await.unwrap().tenant;
        let role_arn = RoleArn::parse(&format!("arn:aws:iam::{PROVIDER}:role/rolebridge/{tenant}")).unwrap();
        let user_arn = UserArn::parse(&format!("arn:aws:iam::{PROVIDER}:user/rolebridge/{tenant}")).unwrap();
        self.broker.publish(&CloudEvent::new(PrincipalReady { tenant, user_arn, role_arn })).await.unwrap();
        let request = CreateEnrollmentRequest {
            kind: EnrollmentKind::Account,
            region: None,
            account: None,
            cost_export: None,
            expires_in_s: None,
        };
        let offer = async {
            loop {
                match self
                    .operator
                    .request::<CreateEnrollment>(CreateEnrollment::subject(tenant), &request, WITHIN)
                    .await
                {
                    Ok(offer) => return offer,
                    Err(error) => assert_eq!(error.refusal().unwrap().code, ErrorCode::Unavailable),
                }
            }
        };
        (tenant, tokio::time::timeout(WITHIN, offer).await.expect("the principal was never noted"))
    }

    /// The next `count` messages of one type, read and acknowledged as the service would that `bus` plays.
    pub(crate) async fn read<T: Message>(
        &self,
        bus: &Bus,
        count: usize,
    ) -> Vec<(async_nats::jetstream::Message, CloudEvent<T>)> {
        let stream = bus.jetstream().get_stream(T::STREAM.name()).await.unwrap();
        let durable =
            if T::STREAM == Stream::Callbacks { "callback-ingest-outcomes" } else { "role-chain-broker-jobs" };
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            filter_subject: T::SUBJECT.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut found = Vec::new();
        let reading = async {
            while found.len() < count {
                let message = messages.next().await.unwrap().unwrap();
                message.ack().await.unwrap();
                let event = CloudEvent::decode(&message.payload).unwrap();
                found.push((message, event));
            }
        };
        tokio::time::timeout(WITHIN, reading).await.unwrap_or_else(|_| panic!("fewer than {count} {} came", T::TYPE));
        found
    }

    async fn send(&self, callback: &CallbackReceived) {
        let raw = RawMessage::encode(&CloudEvent {
            traceparent: Some(TRACEPARENT.to_owned()),
            ..CloudEvent::new(callback.clone())
        })
        .unwrap();
        self.ingest.publish_raw(&raw).await.unwrap();
    }

    async fn state(&self, tenant: TenantId, connection: ConnectionId) -> ConnectionState {
        let subject = GetConnection::subject(tenant, connection);
        self.operator.request::<GetConnection>(subject, &Empty {}, WITHIN).await.unwrap().state
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_from_callback_to_answer_in_one_trace() {
    let mut bed = Bed::start().await;
    let (tenant, offer) = bed.offer().await;
    let create = callback(&offer, RequestType::Create, CUSTOMER, "0a");
    bed.send(&create).await;
    let (_, job) = bed.read::<VerifyConnection>(&bed.broker, 1).await.remove(0);
    assert_eq!(job.data.external_id, offer.external_id);
    bed.broker.publish(&CloudEvent::new(report(&job.data, Verdict::Held))).await.unwrap();
    let (message, outcome) = bed.read::<CallbackOutcome>(&bed.ingest, 1).await.remove(0);
    assert_eq!(outcome.data.answer, Answer::Success { connection: Some(job.data.connection) });
    assert_eq!(bed.state(tenant, job.data.connection).await, ConnectionState::Verified);

    let trace = |text: &str| text.split('-').nth(1).unwrap().to_owned();
    assert_eq!(trace(&job.traceparent.unwrap()), trace(TRACEPARENT), "the job goes on in the callback's trace");
    assert!(message.headers.as_ref().unwrap().get("traceparent").is_some());

    // A duplicate gets the same answer.
    bed.send(&create).await;
    let (_, again) = bed.read::<CallbackOutcome>(&bed.ingest, 1).await.remove(0);
    assert_eq!(again.data, outcome.data);

    let status = bed.registry.terminate(WITHIN).await.unwrap();
    assert!(status.success(), "{}", bed.registry.log_text());
    let log = bed.registry.log_text();
    for secret in [offer.callback_token.expose(), offer.callback_token.hash().as_str(), offer.external_id.as_str()] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_02_an_external_id_of_the_callers_choice_is_an_unknown_field() {
    let bed = Bed::start().await;
    let (tenant, _) = bed.offer().await;
    let subject = CreateEnrollment::subject(tenant);
    let body = r#"{"kind":"account","external_id":"chosen-by-the-caller"}"#;
    let reply = bed.operator.client().request(subject.as_str().to_owned(), body.into()).await.unwrap();
    let headers = reply.headers.unwrap();
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "400");
    assert!(headers.get("Nats-Service-Error").unwrap().as_str().contains("external_id"));

    let unknown =
        bed.operator.request::<GetTenant>(GetTenant::subject(TenantId::new()), &Empty {}, WITHIN).await.unwrap_err();
    assert_eq!(unknown.refusal().unwrap().code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_stages_it_goes_on_where_it_was() {
    let mut bed = Bed::start().await;
    let (tenant, offer) = bed.offer().await;
    let creates: Vec<_> =
        (0..3u8).map(|number| callback(&offer, RequestType::Create, CUSTOMER, &format!("a{number}"))).collect();

    // While it is down.
    bed.registry.kill();
    bed.send(&creates[0]).await;
    bed.registry.restart().unwrap();
    let (_, job) = bed.read::<VerifyConnection>(&bed.broker, 1).await.remove(0);
    // Between job and report.
    bed.registry.kill();
    bed.broker.publish(&CloudEvent::new(report(&job.data, Verdict::Held))).await.unwrap();
    bed.registry.restart().unwrap();
    // While it answers: whatever was committed is published by the next one, and the answer is the same however often it comes.
    bed.send(&creates[1]).await;
    bed.send(&creates[2]).await;
    bed.registry.kill();
    bed.registry.restart().unwrap();
    let outcomes = bed.read::<CallbackOutcome>(&bed.ingest, 3).await;
    for create in &creates {
        let answers: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.data.key == create.key).collect();
        assert_eq!(answers.len(), 1, "{}", bed.registry.log_text());
        let success = matches!(answers[0].1.data.answer, Answer::Success { .. });
        assert_eq!(success, create.key == creates[0].key, "one offer, one connection");
    }
    assert_eq!(bed.state(tenant, job.data.connection).await, ConnectionState::Verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_for_a_while_nothing_is_lost() {
    let mut bed = Bed::start().await;
    let (_, offer) = bed.offer().await;
    bed.send(&callback(&offer, RequestType::Create, CUSTOMER, "0a")).await;
    bed.nats.kill();
    bed.nats.restart().await.unwrap();
    let (_, job) = bed.read::<VerifyConnection>(&bed.broker, 1).await.remove(0);
    assert_eq!(job.data.role_arn, role(CUSTOMER, "0a"));
    bed.broker.publish(&CloudEvent::new(report(&job.data, Verdict::Held))).await.unwrap();
    let (_, outcome) = bed.read::<CallbackOutcome>(&bed.ingest, 1).await.remove(0);
    assert!(matches!(outcome.data.answer, Answer::Success { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_leaves_a_line_with_who_what_why_and_trace() {
    let bed = Bed::start().await;
    let (tenant, offer) = bed.offer().await;
    bed.send(&callback(&offer, RequestType::Create, CUSTOMER, "0a")).await;
    let (_, job) = bed.read::<VerifyConnection>(&bed.broker, 1).await.remove(0);
    let why = |reason: &str| WithReason { reason: reason.to_owned() };
    let subject = RevokeConnection::subject(tenant, job.data.connection);
    bed.operator.request::<RevokeConnection>(subject, &why("contract ended"), WITHIN).await.unwrap();
    let request = CreateEnrollmentRequest {
        kind: EnrollmentKind::Account,
        region: None,
        account: None,
        cost_export: None,
        expires_in_s: None,
    };
    let subject = CreateEnrollment::subject(tenant);
    let second =
        bed.operator.request::<CreateEnrollment>(subject, &request, WITHIN).await.unwrap().enrollment.enrollment;
    let subject = CancelEnrollment::subject(tenant, second);
    bed.operator.request::<CancelEnrollment>(subject, &why("not wanted"), WITHIN).await.unwrap();
    bed.operator.request::<SuspendTenant>(SuspendTenant::subject(tenant), &why("unpaid"), WITHIN).await.unwrap();
    // With a trace, as any client may send one.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT);
    let request = async_nats::Request::new().headers(headers).payload(r#"{"reason":"paid"}"#.into());
    let subject = ResumeTenant::subject(tenant).as_str().to_owned();
    bed.operator.client().send_request(subject, request).await.unwrap();

    let subject = ListAudit::subject(tenant);
    let log = bed.operator.request::<ListAudit>(subject, &PageRequest::default(), WITHIN).await.unwrap().items;
    let asked: Vec<_> = log
        .iter()
        .filter(|entry| entry.actor == "operator")
        .map(|entry| (entry.action.as_str(), entry.user.as_deref(), entry.reason.as_str()))
        .collect();
    let operator = Some("operator");
    assert_eq!(
        asked,
        [
            ("tenant.created", operator, "Asked for by a caller of tenants.create."),
            ("enrollment.created", operator, "Asked for by a caller of enrollments.create."),
            ("connection.revoked", operator, "contract ended"),
            ("enrollment.created", operator, "Asked for by a caller of enrollments.create."),
            ("enrollment.cancelled", operator, "not wanted"),
            ("tenant.suspended", operator, "unpaid"),
            ("tenant.resumed", operator, "paid"),
        ]
    );
    assert!(log.iter().filter(|entry| entry.actor != "operator").all(|entry| entry.user.is_none()));
    let last = log.last().unwrap();
    assert_eq!(last.trace_id.as_deref(), TRACEPARENT.split('-').nth(1), "{}", ResumeTenant::NAME);

    // Who may read events hears of each line, in order.
    let stream = bed.operator.jetstream().get_stream(AuditRecorded::STREAM.name()).await.unwrap();
    let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap();
    let told = consumer
        .messages()
        .await
        .unwrap()
        .map(|message| CloudEvent::<AuditRecorded>::decode(&message.unwrap().payload).unwrap().data.entry);
    let told: Vec<_> = tokio::time::timeout(WITHIN, told.take(log.len()).collect()).await.expect("too few events");
    assert_eq!(told, log);
}
