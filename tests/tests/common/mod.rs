//! What the tests of the whole system share: a running system with a person at its command line, customers with stacks, and looks at what is stored.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod crafted;
pub(crate) mod iam;
pub(crate) mod job;
pub(crate) mod looks;
pub(crate) mod shell;
pub(crate) mod sqs;

use std::time::{Duration, Instant};

use contracts::{
    ConnectionId, Stream, TenantId,
    connection::Connection,
    costs::ExportLocation,
    enrollment::{CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
    tenant::Tenant,
};
use futures::{StreamExt as _, TryStreamExt as _};
use messaging::Bus;
use sandbox::{Account, NatsUser, Operator, Service, StackState, System, SystemOptions};

/// Longer than anything takes on a loaded machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The bucket in which callback-ingest remembers what it has answered, as a stream.
pub(crate) const ANSWERS: &str = "KV_rolebridge-answers";
pub(crate) const PREFIX: &str = "cur";

/// A running system, and the provider's person at the command line.
pub(crate) struct World {
    pub(crate) system: System,
    pub(crate) operator: Operator,
    pub(crate) bus: Bus,
    customers: u64,
}

/// A stack that was launched with an offer.
pub(crate) struct Launched {
    pub(crate) tenant: TenantId,
    pub(crate) offer: EnrollmentOffer,
    pub(crate) account: Account,
    pub(crate) stack: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(SystemOptions::default()).await
    }

    pub(crate) async fn with(mut options: SystemOptions) -> Self {
        // What a killed callback-ingest had taken (or was about to be given, by a poll that outlives it) comes again after so long.
        options.environment.entry("ROLEBRIDGE_SQS_VISIBILITY".to_owned()).or_insert_with(|| "5".to_owned());
        let system = System::start(options, |line| eprintln!("{line}")).await.expect("the system starts");
        let bus = system.bus(NatsUser::Operator).await.expect("the operator connects");
        Self { operator: Operator::new(bus.clone()), system, bus, customers: 0 }
    }

    /// A tenant with its principal.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let tenant = self.operator.create_tenant(name).await.expect("a tenant");
        self.operator.principal_ready(tenant.tenant, PATIENCE).await.expect("its principal")
    }

    pub(crate) async fn offer(&self, tenant: TenantId, cost_export: Option<ExportLocation>) -> EnrollmentOffer {
        let request = CreateEnrollmentRequest {
            kind: EnrollmentKind::Account,
            region: None,
            account: None,
            cost_export,
            expires_in_s: None,
        };
        self.bus
            .request::<CreateEnrollment>(CreateEnrollment::subject(tenant), &request, PATIENCE)
            .await
            .expect("an offer")
    }

    /// A customer account that no test has used yet.
    pub(crate) async fn customer(&mut self) -> Account {
        self.customers += 1;
        self.system.customer(&format!("2{:011}", self.customers)).await.expect("a customer account")
    }

    /// Launches the customer's template with the parameters of the offer.
    pub(crate) async fn launch(&self, account: &Account, offer: EnrollmentOffer) -> Launched {
        let request = System::customer_stack("rolebridge", &offer.parameters);
        let stack = account.create_stack(&request).await.expect("the stack is launched");
        Launched { tenant: offer.enrollment.tenant, offer, account: account.clone(), stack }
    }

    /// Launches with a new tenant's offer in a new account, and waits until it is connected.
    pub(crate) async fn connect(&mut self, name: &str) -> (Launched, Connection) {
        let tenant = self.tenant(name).await.tenant;
        let offer = self.offer(tenant, None).await;
        let account = self.customer().await;
        let launched = self.launch(&account, offer).await;
        self.completed(&launched).await;
        let connection = self.only_connection(tenant).await;
        (launched, connection)
    }

    /// The stack once CloudFormation will do nothing more, which must be `CREATE_COMPLETE`.
    pub(crate) async fn completed(&self, launched: &Launched) -> StackState {
        let state = self.ended(launched).await;
        assert_eq!(state.status, "CREATE_COMPLETE", "{:?}\n{}", state.failure, self.complaints());
        state
    }

    pub(crate) async fn ended(&self, launched: &Launched) -> StackState {
        let waited = launched.account.wait_stack(&launched.stack, PATIENCE, StackState::is_final).await;
        waited.unwrap_or_else(|error| panic!("{error}\n{}", self.complaints()))
    }

    pub(crate) async fn only_connection(&self, tenant: TenantId) -> Connection {
        let found = self.operator.connections(tenant).await.expect("connections");
        assert_eq!(found.len(), 1, "one connection of {tenant}: {found:?}");
        found.into_iter().next().expect("one")
    }

    /// The highest sequence number that the stream has given: it grows by one with every message stored.
    pub(crate) async fn stored(&self, stream: &str) -> u64 {
        let found = self.bus.jetstream().get_stream(stream).await.expect("the stream");
        found.cached_info().state.last_sequence
    }

    /// Messages that the stream holds, over all subjects.
    pub(crate) async fn held(&self, stream: &str) -> u64 {
        let found = self.bus.jetstream().get_stream(stream).await.expect("the stream");
        found.cached_info().state.messages
    }

    /// Messages that the stream holds on subjects of this form.
    pub(crate) async fn held_on(&self, stream: Stream, subjects: &str) -> usize {
        let found = self.bus.jetstream().get_stream(stream.name()).await.expect("the stream");
        let counts = found.info_with_subjects(subjects).await.expect("the stream's subjects");
        counts.try_fold(0, |sum, (_, count)| async move { Ok(sum + count) }).await.expect("the stream's subjects")
    }

    /// Events `verified` of the connection.
    pub(crate) async fn verified_events(&self, tenant: TenantId, connection: ConnectionId) -> usize {
        let subject = format!("rolebridge.events.v1.connection.verified.{tenant}.{connection}");
        self.held_on(Stream::ConnectionEvents, &subject).await
    }

    /// Waits until nothing is left to be done: every durable consumer has handled everything, and the callback queue is empty.
    pub(crate) async fn quiet(&self) {
        let (mut left, mut before, mut calm) = (String::new(), Vec::new(), 0);
        let all_done = until(PATIENCE, async || {
            left = self.left().await;
            let now = self.sequences().await;
            // A message may have been on its way from one look to the next: nothing may have moved for a few of them.
            calm = if left.is_empty() && now == before { calm + 1 } else { 0 };
            before = now;
            calm >= 3
        });
        assert!(all_done.await, "still to be done: {left}\n{}", self.complaints());
    }

    async fn sequences(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for stream in Stream::ALL {
            all.push(self.stored(stream.name()).await);
        }
        all
    }

    async fn left(&self) -> String {
        for stream in Stream::ALL {
            let found = self.bus.jetstream().get_stream(stream.name()).await.expect("the stream");
            let mut consumers = found.consumers();
            while let Some(consumer) = consumers.next().await {
                let consumer = consumer.expect("a consumer");
                // Those without a name of their own are somebody's look, and acknowledge nothing.
                let durable = consumer.config.durable_name.is_some();
                if durable && (consumer.num_pending > 0 || consumer.num_ack_pending > 0) {
                    return format!(
                        "{} on {}: {} new, {} in hand",
                        consumer.name,
                        stream.name(),
                        consumer.num_pending,
                        consumer.num_ack_pending
                    );
                }
            }
        }
        match sqs::waiting(&self.system).await {
            0 => String::new(),
            waiting => format!("{waiting} messages in the callback queue"),
        }
    }

    /// Ends `service` as a crash would, and starts it again.
    pub(crate) async fn strike(&mut self, service: Service) {
        self.kill(service);
        self.start_again(service).await;
    }

    pub(crate) fn kill(&mut self, service: Service) {
        self.system.service(service).expect("a service").kill();
    }

    pub(crate) async fn start_again(&mut self, service: Service) {
        let process = self.system.service(service).expect("a service");
        process.restart().expect("it starts");
        process.wait_ready(PATIENCE).await.expect("it is ready");
    }

    /// Starts all services that are not running.
    pub(crate) async fn start_missing(&mut self) {
        for service in Service::ALL {
            if !self.system.service(service).expect("a service").is_running() {
                self.start_again(service).await;
            }
        }
    }

    /// The last warnings and errors in the services' logs.
    pub(crate) fn complaints(&self) -> String {
        let logs = self.system.logs();
        let mut lines: Vec<&str> = logs.lines().filter(|line| !line.contains(r#""level":"INFO""#)).collect();
        lines.sort_unstable();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// Looks until `done`, at most for `within`; whether it came to be.
pub(crate) async fn until(within: Duration, mut done: impl AsyncFnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done().await {
            return true;
        }
        if start.elapsed() > within {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the service serves at `/metrics`.
pub(crate) async fn metrics(system: &mut System, service: Service) -> String {
    let address = system.service(service).expect("a service").http_address();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(format!("http://{address}/metrics")).send().await.expect("it answers");
    answer.text().await.expect("text")
}

/// The sum of the samples whose line starts like this.
pub(crate) async fn metric(system: &mut System, service: Service, start: &str) -> f64 {
    let text = metrics(system, service).await;
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
    text.lines().filter(|line| line.starts_with(start)).map(value).sum()
}
