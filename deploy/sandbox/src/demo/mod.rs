//! The stages of the demo, in order. Each does one thing for real, checks that it came out as it should, and says what it saw.

mod actors;
mod report;
mod screen;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use client::{Client, IssueError};
use contracts::{
    ConnectionId, ErrorCode, ErrorReply,
    connection::{Connection, ConnectionState},
    credentials::{Purpose, SealedCredentials},
    enrollment::EnrollmentOffer,
    tenant::Tenant,
};
use sandbox::{Account, NatsUser, Operator, StackRequest, System, SystemOptions};

use self::{
    report::{AfterDelete, Attack, ConnectionSeen, CredentialsSeen, Report},
    screen::Screen,
    watch::Watch,
};

const CUSTOMER_ACCOUNT: &str = "222222222222";
const STACK: &str = "rolebridge";
const BUCKET: &str = "acme-cost-exports";
const PREFIX: &str = "cur";
/// Longer than anything takes on a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the broker may take to hear that a connection has ended.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// A cost export that AWS itself wrote (see the licences beside it).
const EXPORT: &[u8] = include_bytes!("../../data/cur-2018/Nov2018-WorkshopCUR-00001.snappy.parquet");
const EXPORT_NAME: &str = "Nov2018-WorkshopCUR-00001.snappy.parquet";

/// Runs all stages; with `keep`, stays until it is cancelled.
pub(crate) async fn run(json: bool, keep: bool) -> Result<()> {
    let started = Instant::now();
    let mut screen = Screen::new();
    screen.line("rolebridge: one customer account connects, is used, is attacked, and leaves\n");
    let system = System::start(SystemOptions::default(), |line| screen.detail(line)).await?;
    screen.stage("start", "nats-server, AWS emulator with IAM on, provider account 111111111111, four services");

    let report = match (Demo { system: &system, screen: &mut screen }).stages().await {
        Ok(report) => report,
        Err(error) => {
            screen.line("\nwhat the services said last that was not routine:");
            actors::complaints(&system.logs(), 12).iter().for_each(|line| screen.detail(line));
            return Err(error);
        }
    };
    screen.line(&format!("\nall stages did what they should, in {:.1} s", started.elapsed().as_secs_f64()));
    if keep {
        actors::how_to_reach(&system, &report, &mut screen)?;
        if json {
            screen.line(&report.finish(screen.stages())?);
        }
        std::future::pending::<()>().await;
    }
    system.stop().await.context("the system did not end in order")?;
    if json {
        screen.line(&report.finish(screen.stages())?);
    }
    Ok(())
}

struct Demo<'a> {
    system: &'a System,
    screen: &'a mut Screen,
}

/// A connected customer.
struct Connected {
    account: Account,
    offer: EnrollmentOffer,
    connection: Connection,
    stack_status: String,
}

impl Demo<'_> {
    async fn stages(&mut self) -> Result<Report> {
        let operator = Operator::new(self.system.bus(NatsUser::Operator).await?);
        let mut watch = Watch::start(&self.system.bus(NatsUser::Events).await?).await?;

        let (tenant, offer) = self.enroll(&operator, "Acme").await?;
        let begun = Instant::now();
        let customer = self.connect(&operator, &mut watch, offer).await?;
        let verified_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (client, arn, credentials) = self.use_credentials(&customer).await?;
        let costs = self.read_costs(&operator, &mut watch, &customer).await?;
        let attack = self.attack(&operator, &customer).await?;
        let after_delete = self.leave(&operator, &client, &customer).await?;

        Ok(Report {
            tenant: tenant.tenant,
            connection: ConnectionSeen {
                connection_id: customer.connection.connection,
                account_id: customer.connection.account.clone(),
                state: customer.connection.state,
                verified_ms,
            },
            stack_status: customer.stack_status,
            credentials: CredentialsSeen { arn, expires_at: credentials.expires_at },
            costs,
            attack,
            after_delete,
        })
    }

    /// A tenant, its principal, an offer.
    async fn enroll(&mut self, operator: &Operator, name: &str) -> Result<(Tenant, EnrollmentOffer)> {
        let tenant = operator.create_tenant(name).await?;
        let tenant = operator.principal_ready(tenant.tenant, PATIENCE).await?;
        let role = tenant.principal_role.as_ref().context("the tenant has no principal")?;
        self.screen.stage(
            "tenant",
            &format!("{name} is tenant {}; the broker made its IAM User and Role {role}", tenant.tenant),
        );
        let offer = operator.offer(tenant.tenant, BUCKET, PREFIX).await?;
        self.screen.stage("enrollment", "an offer to connect, as the customer sees it:");
        self.screen.detail(&format!("external ID     {}", offer.external_id.as_str()));
        self.screen.detail(&format!(
            "callback token  {} (single use, shown once; the quick-create page asks for it)",
            offer.callback_token.expose()
        ));
        self.screen.detail(&format!("quick-create    {}", offer.quick_create_url));
        for command in &offer.commands {
            self.screen.detail(&format!("or              {command}"));
        }
        Ok((tenant, offer))
    }

    /// The customer launches the stack; it calls back; the role is proven; CloudFormation is answered.
    async fn connect(&mut self, operator: &Operator, watch: &mut Watch, offer: EnrollmentOffer) -> Result<Connected> {
        let account = self.system.customer(CUSTOMER_ACCOUNT).await?;
        account.create_bucket(BUCKET).await?;
        account.put_object(BUCKET, &format!("{PREFIX}/{EXPORT_NAME}"), EXPORT.to_vec()).await?;
        self.screen.stage(
            "customer",
            &format!("account {CUSTOMER_ACCOUNT} has a cost export of its own in s3://{BUCKET}/{PREFIX}"),
        );

        let request = System::customer_stack(STACK, &offer.parameters);
        let stack = account.create_stack(&request).await?;
        self.screen.stage(
            "launch",
            &format!(
                "CloudFormation in account {CUSTOMER_ACCOUNT} makes the role, then calls back through SNS and SQS"
            ),
        );
        let verified = watch.verified(offer.enrollment.tenant, PATIENCE).await?;
        self.screen.stage(
            "verified",
            "right external ID let in; none refused; a random one refused; the account is the expected one",
        );
        let state = account.wait_stack(&stack, PATIENCE, sandbox_final).await?;
        ensure!(state.status == "CREATE_COMPLETE", "the stack is {}: {}", state.status, reason(state.failure.as_ref()));
        let connection = operator.connection(offer.enrollment.tenant, verified).await?;
        ensure!(connection.state == ConnectionState::Verified, "the connection is {}", connection.state);
        self.screen.stage(
            "stack",
            &format!(
                "CloudFormation was answered: {} ({} probes kept as evidence)",
                state.status,
                connection.evidence.len()
            ),
        );
        Ok(Connected { account, offer, connection, stack_status: state.status })
    }

    /// A job asks the broker, and uses what it gets.
    async fn use_credentials(&mut self, customer: &Connected) -> Result<(Client, String, SealedCredentials)> {
        let bus = self.system.bus(NatsUser::Job).await?;
        let client = Client::new(bus, self.system.sealing_key().clone(), "demo-job")?;
        let (tenant, connection) = customer.ids();
        let (_, credentials) = client.issue(tenant, connection, Purpose::CostRead).await?;
        let identity = actors::caller_identity(self.system, &credentials).await?;
        ensure!(identity.account == CUSTOMER_ACCOUNT, "the credentials are account {}'s", identity.account);
        self.screen.stage(
            "credentials",
            &format!("cost-read, sealed to the job: {} until {}", identity.arn, credentials.expires_at),
        );
        Ok((client, identity.arn, credentials))
    }

    /// cost-ingestion has heard the event too, and reads the export with credentials of its own.
    async fn read_costs(
        &mut self,
        operator: &Operator,
        watch: &mut Watch,
        customer: &Connected,
    ) -> Result<report::CostsSeen> {
        watch.costs(customer.ids(), PATIENCE).await?;
        let costs = operator.costs(customer.ids().0).await?;
        let seen = report::CostsSeen::of(&costs).context("the export was read, but holds no costs")?;
        self.screen
            .stage("costs", &format!("{} rows of {} read from the customer's bucket:", seen.rows, seen.periods_text()));
        for line in seen.table() {
            self.screen.detail(&line);
        }
        Ok(seen)
    }

    /// Mallory is a tenant too, may launch stacks in the same account, and claims Acme's role as hers.
    async fn attack(&mut self, operator: &Operator, victim: &Connected) -> Result<Attack> {
        let mallory = operator.create_tenant("Mallory").await?;
        let mallory = operator.principal_ready(mallory.tenant, PATIENCE).await?.tenant;
        let offer = operator.offer(mallory, BUCKET, PREFIX).await?;
        let mut request = StackRequest::new("mallory", actors::CLAIM_ANOTHERS_ROLE);
        request.parameters.clone_from(&offer.parameters);
        request = request.parameter("ClaimedRoleArn", victim.connection.role_arn.to_string());
        let stack = victim.account.create_stack(&request).await?;
        let state = victim.account.wait_stack(&stack, PATIENCE, sandbox_final).await?;
        let reason = reason(state.failure.as_ref());
        let claims = operator.connections(mallory).await?;
        let Some(claim) = claims.first() else { bail!("Mallory's claim left no trace: {reason}") };
        ensure!(claim.state == ConnectionState::Rejected, "Mallory's claim is {}", claim.state);
        ensure!(state.status == "ROLLBACK_COMPLETE", "Mallory's stack is {}", state.status);
        let (tenant, connection) = victim.ids();
        let untouched = operator.connection(tenant, connection).await?;
        ensure!(untouched.state == ConnectionState::Verified, "Acme's connection became {}", untouched.state);
        self.screen.stage(
            "attack",
            &format!("a second tenant, Mallory, claims Acme's role: {}, her stack is {}", claim.state, state.status),
        );
        self.screen.detail(&format!("the reason she is shown: {reason}"));
        Ok(Attack { state: claim.state, stack_status: state.status, reason })
    }

    /// The customer deletes the stack.
    async fn leave(&mut self, operator: &Operator, client: &Client, customer: &Connected) -> Result<AfterDelete> {
        let (tenant, connection) = customer.ids();
        customer.account.delete_stack(STACK).await?;
        let state = operator.in_state(tenant, connection, ConnectionState::Revoked, PATIENCE).await?;
        let refusal = refused(client, (tenant, connection)).await?;
        ensure!(
            matches!(refusal.code, ErrorCode::NotVerified | ErrorCode::NotFound),
            "the broker refused with {}",
            refusal.code
        );
        self.screen.stage(
            "leave",
            &format!(
                "the customer deletes the stack: the connection is {}, credentials are refused: {refusal}",
                state.state
            ),
        );
        Ok(AfterDelete { state: state.state, credentials_error: refusal.code })
    }
}

/// The broker's refusal. The registry's word reaches it over the bus, milliseconds after the registry has decided: until then it issues.
async fn refused(client: &Client, (tenant, connection): (contracts::TenantId, ConnectionId)) -> Result<ErrorReply> {
    let until = Instant::now() + HEARD_WITHIN;
    loop {
        match client.issue(tenant, connection, Purpose::CostRead).await {
            Err(IssueError::Request(error)) => {
                return error.refusal().cloned().with_context(|| format!("the broker did not refuse: {error}"));
            }
            Err(error) => return Err(error.into()),
            Ok(_) if Instant::now() > until => bail!("the broker issues credentials for a connection that has ended"),
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Connected {
    fn ids(&self) -> (contracts::TenantId, ConnectionId) {
        (self.offer.enrollment.tenant, self.connection.connection)
    }
}

fn sandbox_final(state: &sandbox::StackState) -> bool {
    state.is_final()
}

fn reason(failure: Option<&sandbox::ResourceFailure>) -> String {
    failure.map_or_else(|| "no reason was given".to_owned(), |failure| failure.reason.clone())
}
