//! Credentials are taken back, and tenants end, in the whole system: every step is seen where it takes effect.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use client::{Client, IssueError};
use common::{
    Launched, PATIENCE, World, iam,
    looks::{audit, job, refusal},
    until,
};
use contracts::{
    ConnectionId, ErrorCode, Stream, TenantId,
    connection::{ConnectionState, RevokeConnection},
    credentials::Purpose,
    enrollment::{CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind},
    revocation::{RevocationAction, RevocationStep},
    tenant::{DeleteTenant, Empty, GetTenant, ResumeTenant, SuspendTenant, Tenant, TenantState, WithReason},
};
use sandbox::{Service, ServiceProcess};
use serde_json::{Value, json};

const BROKER: Service = Service::RoleChainBroker;
/// The policy that denies sessions of before.
const REVOKED: &str = "rolebridge-revoked-sessions";
const TWO_STEPS: [RevocationAction; 2] = [RevocationAction::GrantWithdrawn, RevocationAction::SessionsDenied];
/// In a row: that one of two instances, chosen at random, has not answered any of them is out of the question.
const OFTEN: usize = 40;

fn because(reason: &str) -> WithReason {
    WithReason { reason: reason.to_owned() }
}

/// Two instances of the broker, and a job.
struct Brokers {
    world: World,
    other: ServiceProcess,
    client: Client,
}

impl Brokers {
    async fn start() -> Self {
        let mut world = World::start().await;
        let other = world.system.another(BROKER).await.expect("one more broker");
        let client = job(&world).await;
        Self { world, other, client }
    }

    /// Requests that each of the two has answered so, or in any way when there is no word for it.
    async fn answered(&mut self, result: &str) -> [f64; 2] {
        let first = self.world.system.service(BROKER).expect("a broker").http_address();
        let mut counts = [0.0; 2];
        for (count, address) in counts.iter_mut().zip([first, self.other.http_address()]) {
            let http = reqwest::Client::builder().no_proxy().build().expect("a client");
            let answer = http.get(format!("http://{address}/metrics")).send().await.expect("it answers");
            let text = answer.text().await.expect("text");
            let of_result =
                |line: &&str| line.starts_with("rolebridge_issue_duration_seconds_count{") && line.contains(result);
            let value =
                |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
            *count = text.lines().filter(of_result).map(value).sum();
        }
        counts
    }

    async fn issue(&self, tenant: TenantId, connection: ConnectionId) -> Result<(), IssueError> {
        self.client.issue(tenant, connection, Purpose::CostRead).await.map(drop)
    }

    /// Both have issued since now: what they issued is in their caches.
    async fn both_issue(&mut self, tenant: TenantId, connection: ConnectionId) {
        let issued = "result=\"issued\"";
        let before = self.answered(issued).await;
        let both = until(PATIENCE, async || {
            let asked = self.issue(tenant, connection).await;
            let now = self.answered(issued).await;
            asked.is_ok() && now[0] > before[0] && now[1] > before[1]
        });
        assert!(both.await, "both issue\n{}", self.world.complaints());
    }

    /// Both refuse, and never issue again from the first refusals on.
    async fn both_refuse(&mut self, tenant: TenantId, connection: ConnectionId, code: ErrorCode) {
        let refused = until(PATIENCE, async || self.issue(tenant, connection).await.is_err()).await;
        assert!(refused, "issued after it was revoked");
        // The other one may have heard a moment later.
        let mut in_a_row = 0;
        let all = until(PATIENCE, async || {
            in_a_row = if self.issue(tenant, connection).await.is_err() { in_a_row + 1 } else { 0 };
            in_a_row >= OFTEN
        });
        assert!(all.await, "one of them issues still");
        let before = self.answered("").await;
        for _ in 0..OFTEN {
            assert_eq!(refusal(self.issue(tenant, connection).await), code);
        }
        let after = self.answered("").await;
        assert!(after[0] > before[0] && after[1] > before[1], "both were asked: {before:?}, {after:?}");
    }
}

async fn tenant(world: &World, id: TenantId) -> Tenant {
    world.bus.request::<GetTenant>(GetTenant::subject(id), &Empty {}, PATIENCE).await.expect("the tenant")
}

fn all_done(steps: &[RevocationStep], expected: &[RevocationAction]) -> bool {
    steps.iter().map(|step| step.action).eq(expected.iter().copied()) && steps.iter().all(|step| step.done_at.is_some())
}

/// The instant before which sessions of the tenant's role are denied, as IAM has it.
async fn denied_before(world: &World, tenant: TenantId) -> Option<String> {
    let role = format!("rolebridge-{tenant}");
    let parameters = [("RoleName", role.as_str()), ("PolicyName", REVOKED)];
    let answer = iam::look(&world.system, &world.system.provider.account, "GetRolePolicy", &parameters).await?;
    let (_, document) = answer.split_once("<PolicyDocument>").expect("a document");
    let (document, _) = document.split_once("</PolicyDocument>").expect("its end");
    let decoded =
        url::form_urlencoded::parse(format!("d={document}").as_bytes()).next().expect("a text").1.into_owned();
    let policy: Value = serde_json::from_str(&decoded.replace("&quot;", "\"")).expect("a policy");
    let statement = &policy["Statement"][0];
    assert_eq!((&statement["Effect"], &statement["Action"]), (&json!("Deny"), &json!("*")));
    statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"].as_str().map(ToOwned::to_owned)
}

/// Events of this form about the tenant, once there are so many.
async fn told(world: &World, stream: Stream, subject: &str, tenant: TenantId, count: usize) {
    let subject = format!("rolebridge.events.v1.{subject}.{tenant}");
    let there = until(PATIENCE, async || world.held_on(stream, &subject).await >= count).await;
    assert!(there, "{subject}\n{}", world.complaints());
    assert_eq!(world.held_on(stream, &subject).await, count, "{subject}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_31_a_revoked_connection_and_a_suspended_tenant_are_denied_everywhere() {
    let mut brokers = Brokers::start().await;
    let (revoked, connection) = brokers.world.connect("Acme").await;
    let (suspended, kept) = brokers.world.connect("Globex").await;
    brokers.both_issue(revoked.tenant, connection.connection).await;
    brokers.both_issue(suspended.tenant, kept.connection).await;
    assert_eq!(denied_before(&brokers.world, revoked.tenant).await, None);

    let subject = RevokeConnection::subject(revoked.tenant, connection.connection);
    let bus = brokers.world.bus.clone();
    bus.request::<RevokeConnection>(subject, &because("the contract ended"), PATIENCE).await.expect("revoked");
    brokers.both_refuse(revoked.tenant, connection.connection, ErrorCode::NotVerified).await;
    let world = &brokers.world;
    let done = until(PATIENCE, async || {
        let now = world.only_connection(revoked.tenant).await;
        now.state == ConnectionState::Revoked && all_done(&now.revocation, &TWO_STEPS)
    });
    assert!(done.await, "{:?}\n{}", world.only_connection(revoked.tenant).await.revocation, world.complaints());
    assert!(denied_before(world, revoked.tenant).await.is_some(), "IAM denies what was begun before");
    told(world, Stream::CredentialsEvents, "credentials.revoked", revoked.tenant, 1).await;
    assert_eq!(denied_before(world, suspended.tenant).await, None, "nobody else's");

    let subject = SuspendTenant::subject(suspended.tenant);
    bus.request::<SuspendTenant>(subject, &because("unpaid"), PATIENCE).await.expect("suspended");
    brokers.both_refuse(suspended.tenant, kept.connection, ErrorCode::Denied).await;
    let world = &brokers.world;
    let done = until(PATIENCE, async || all_done(&tenant(world, suspended.tenant).await.revocation, &TWO_STEPS));
    assert!(done.await, "{:?}\n{}", tenant(world, suspended.tenant).await.revocation, world.complaints());
    let first = denied_before(world, suspended.tenant).await.expect("IAM denies what was begun before");
    told(world, Stream::CredentialsEvents, "credentials.revoked", suspended.tenant, 1).await;

    // Resumed, both issue again, though the policy stays; suspended again, a later instant replaces it.
    let subject = ResumeTenant::subject(suspended.tenant);
    let resumed = bus.request::<ResumeTenant>(subject, &because("paid"), PATIENCE).await.expect("resumed");
    assert!(resumed.state == TenantState::Active && resumed.revocation.is_empty(), "{resumed:?}");
    brokers.both_issue(suspended.tenant, kept.connection).await;
    assert_eq!(brokers.world.only_connection(suspended.tenant).await.state, ConnectionState::Verified);
    let subject = SuspendTenant::subject(suspended.tenant);
    bus.request::<SuspendTenant>(subject, &because("unpaid again"), PATIENCE).await.expect("suspended");
    brokers.both_refuse(suspended.tenant, kept.connection, ErrorCode::Denied).await;
    told(&brokers.world, Stream::CredentialsEvents, "credentials.revoked", suspended.tenant, 2).await;
    let second = denied_before(&brokers.world, suspended.tenant).await.expect("as before");
    assert!(second > first, "{first}, then {second}");
    assert_eq!(brokers.world.held(Stream::DeadLetters.name()).await, 0);
}

/// User, role and access keys of the tenant's principal that are in IAM.
async fn principal_in_iam(world: &World, tenant: TenantId) -> [bool; 3] {
    let name = format!("rolebridge-{tenant}");
    let (system, account) = (&world.system, &world.system.provider.account);
    let keys = iam::look(system, account, "ListAccessKeys", &[("UserName", &name)]).await;
    [
        iam::look(system, account, "GetUser", &[("UserName", &name)]).await.is_some(),
        iam::look(system, account, "GetRole", &[("RoleName", &name)]).await.is_some(),
        keys.is_some_and(|keys| keys.contains("<AccessKeyId>")),
    ]
}

/// A tenant with a connection that serves and an offer that is open, and another tenant.
struct Ending {
    world: World,
    connected: Launched,
    connection: ConnectionId,
    open: contracts::enrollment::EnrollmentOffer,
    other: (Launched, ConnectionId),
}

impl Ending {
    async fn begin() -> Self {
        let mut world = World::start().await;
        let (connected, connection) = world.connect("Acme").await;
        let other = world.connect("Globex").await;
        let open = world.offer(connected.tenant, None).await;
        let issued = job(&world).await.issue(connected.tenant, connection.connection, Purpose::CostRead).await;
        issued.expect("credentials");
        assert_eq!(principal_in_iam(&world, connected.tenant).await, [true; 3]);
        Self { world, connected, connection: connection.connection, open, other: (other.0, other.1.connection) }
    }

    async fn delete(&self) -> Tenant {
        let subject = DeleteTenant::subject(self.connected.tenant);
        let deleted = self.world.bus.request::<DeleteTenant>(subject, &because("they left"), PATIENCE).await;
        deleted.expect("it is being deleted")
    }

    /// Everything of it is gone, but its name and its audit log; and nothing of the other one's.
    async fn is_over(&mut self) {
        let (world, id) = (&self.world, self.connected.tenant);
        let deleted = until(PATIENCE, async || tenant(world, id).await.state == TenantState::Deleted).await;
        let now = tenant(world, id).await;
        assert!(deleted, "{now:?}\n{}", world.complaints());
        let actions = [TWO_STEPS[0], TWO_STEPS[1], RevocationAction::PrincipalRemoved];
        assert!(all_done(&now.revocation, &actions), "{:?}", now.revocation);
        let times: Vec<_> = now.revocation.iter().map(|step| step.done_at).collect();
        assert!(times.is_sorted(), "one after the other: {times:?}");
        assert_eq!((now.name.as_str(), world.only_connection(id).await.state), ("Acme", ConnectionState::Revoked));
        told(world, Stream::TenantEvents, "tenant.deleted", id, 1).await;
        told(world, Stream::PrincipalEvents, "principal.removed", id, 1).await;
        assert_eq!(principal_in_iam(world, id).await, [false; 3]);
        let client = job(world).await;
        assert_eq!(refusal(client.issue(id, self.connection, Purpose::CostRead).await), ErrorCode::Denied);
        let lines = audit(world, id).await;
        for action in ["tenant.deleting", "tenant.deleted", "connection.revoked", "enrollment.cancelled"] {
            assert_eq!(lines.iter().filter(|(_, line)| line == action).count(), 1, "{action}: {lines:?}");
        }

        assert_eq!(principal_in_iam(world, self.other.0.tenant).await, [true; 3]);
        let other = client.issue(self.other.0.tenant, self.other.1, Purpose::CostRead).await;
        other.expect("the other tenant is served");
        world.quiet().await;
        assert_eq!(world.held(Stream::DeadLetters.name()).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_34_a_deleted_tenant_leaves_nothing_but_its_name_and_its_audit() {
    let mut ending = Ending::begin().await;
    let begun = ending.delete().await;
    assert!(matches!(begun.state, TenantState::Deleting | TenantState::Deleted), "{:?}", begun.state);
    ending.is_over().await;
    assert_eq!(ending.delete().await.state, TenantState::Deleted, "repeatable");

    // The offer was open when the tenant ended.
    let account = ending.world.customer().await;
    let launched = ending.world.launch(&account, ending.open.clone()).await;
    let state = ending.world.ended(&launched).await;
    let failure = state.failure.expect("a reason");
    assert_eq!((state.status.as_str(), failure.logical_id.as_str()), ("ROLLBACK_COMPLETE", "Connection"));
    assert!(failure.reason.contains("no longer"), "{}", failure.reason);
    let request = CreateEnrollmentRequest {
        kind: EnrollmentKind::Account,
        region: None,
        account: None,
        cost_export: None,
        expires_in_s: None,
    };
    let (world, id) = (&ending.world, ending.connected.tenant);
    let refused = world.bus.request::<CreateEnrollment>(CreateEnrollment::subject(id), &request, PATIENCE).await;
    assert!(refused.is_err(), "an offer of a tenant that is gone");
    let resumed = world.bus.request::<ResumeTenant>(ResumeTenant::subject(id), &because("a test"), PATIENCE).await;
    assert!(resumed.is_err(), "a tenant that is gone was resumed");

    // The stack of the customer who was connected can be deleted still.
    ending.connected.account.delete_stack(&ending.connected.stack).await.expect("a deletion begins");
    let gone = until(PATIENCE, async || {
        let state = ending.connected.account.stack(&ending.connected.stack).await.expect("an answer");
        state.is_none_or(|state| state.status == "DELETE_COMPLETE")
    });
    assert!(gone.await, "{}", ending.world.complaints());
    ending.is_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_31_a_tenant_is_deleted_though_the_broker_is_killed_in_the_middle() {
    let mut ending = Ending::begin().await;
    ending.delete().await;
    ending.world.kill(BROKER);
    let state = tenant(&ending.world, ending.connected.tenant).await.state;
    ending.world.start_again(BROKER).await;
    ending.is_over().await;
    assert_eq!(state, TenantState::Deleting, "the kill came in the middle");
}
