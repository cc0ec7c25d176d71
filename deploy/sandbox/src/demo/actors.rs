//! Who acts in the demo, over the same contracts that anybody has.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use contracts::{
    ConnectionId, PageRequest, TenantId,
    connection::{Connection, ConnectionState, GetConnection, ListConnections, ListConnectionsRequest},
    costs::{CostsByService, ExportLocation, QueryCosts, QueryCostsRequest},
    credentials::SealedCredentials,
    enrollment::{CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
    tenant::{CreateTenant, CreateTenantRequest, Empty, GetTenant, Tenant},
};
use messaging::Bus;
use sandbox::{CallerIdentity, NatsUser, REGION, System};

use super::{report::Report, screen::Screen};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at something that takes a moment.
const GLANCE: Duration = Duration::from_millis(50);

/// Mallory's template: no role of her own, only a custom resource that claims somebody else's. It takes the parameters of an offer as they are.
pub(crate) const CLAIM_ANOTHERS_ROLE: &str = include_str!("claim-anothers-role.yaml");

/// A person of the provider, at the command line.
pub(crate) struct Operator {
    bus: Bus,
}

impl Operator {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    pub(crate) async fn create_tenant(&self, name: &str) -> Result<Tenant> {
        let request = CreateTenantRequest { name: name.to_owned(), idempotency_key: None };
        Ok(self.bus.request::<CreateTenant>(CreateTenant::subject(), &request, TIMEOUT).await?)
    }

    /// The tenant, once its principal stands.
    pub(crate) async fn principal_ready(&self, tenant: TenantId, within: Duration) -> Result<Tenant> {
        let until = Instant::now() + within;
        loop {
            let found = self.bus.request::<GetTenant>(GetTenant::subject(tenant), &Empty {}, TIMEOUT).await?;
            if found.principal_role.is_some() {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("the broker did not make the principal of tenant {tenant} within {} s", within.as_secs());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    pub(crate) async fn offer(&self, tenant: TenantId, bucket: &str, prefix: &str) -> Result<EnrollmentOffer> {
        let request = CreateEnrollmentRequest {
            kind: EnrollmentKind::Account,
            region: None,
            account: None,
            cost_export: Some(ExportLocation { bucket: bucket.to_owned(), prefix: prefix.to_owned() }),
            expires_in_s: None,
        };
        Ok(self.bus.request::<CreateEnrollment>(CreateEnrollment::subject(tenant), &request, TIMEOUT).await?)
    }

    pub(crate) async fn connection(&self, tenant: TenantId, connection: ConnectionId) -> Result<Connection> {
        Ok(self.bus.request::<GetConnection>(GetConnection::subject(tenant, connection), &Empty {}, TIMEOUT).await?)
    }

    pub(crate) async fn connections(&self, tenant: TenantId) -> Result<Vec<Connection>> {
        let request = ListConnectionsRequest { state: None, page: PageRequest::default() };
        Ok(self.bus.request::<ListConnections>(ListConnections::subject(tenant), &request, TIMEOUT).await?.items)
    }

    /// The connection, once it is in `state`.
    pub(crate) async fn in_state(
        &self,
        tenant: TenantId,
        id: ConnectionId,
        state: ConnectionState,
        within: Duration,
    ) -> Result<Connection> {
        let until = Instant::now() + within;
        loop {
            let found = self.connection(tenant, id).await?;
            if found.state == state {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!(
                    "the connection {id} is {} and did not become {state} within {} s",
                    found.state,
                    within.as_secs()
                );
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    pub(crate) async fn costs(&self, tenant: TenantId) -> Result<CostsByService> {
        Ok(self.bus.request::<QueryCosts>(QueryCosts::subject(tenant), &QueryCostsRequest::default(), TIMEOUT).await?)
    }
}

/// Whom the credentials speak for, in STS's own words.
pub(crate) async fn caller_identity(system: &System, credentials: &SealedCredentials) -> Result<CallerIdentity> {
    let (secret, token) = (credentials.secret_access_key.expose(), credentials.session_token.expose());
    let key = aws_credential_types::Credentials::new(
        &credentials.access_key_id,
        secret,
        Some(token.to_owned()),
        None,
        "rolebridge",
    );
    Ok(system.emulator.caller_identity(REGION, key).await?)
}

/// What a person needs to go on alone.
pub(crate) fn how_to_reach(system: &System, report: &Report, screen: &mut Screen) -> Result<()> {
    let seed = system.nats.seed_file(NatsUser::Operator);
    screen.line("\neverything is left running; Ctrl-C ends it\n");
    screen.line(&format!(
        "  NATS             {} (nkey seeds: {}/<user>.nk)",
        system.nats.url(),
        seed.parent().unwrap_or(&seed).display()
    ));
    screen.line(&format!(
        "  AWS emulator     {} (an account's 12 digits are its root's access key)",
        system.emulator.endpoint()
    ));
    for (service, address) in system.health_addresses() {
        screen.line(&format!("  {:<16} http://{address}/readyz and /metrics", service.name()));
    }
    screen.line(&format!("  data             {}", system.folder().display()));
    let programs = std::env::current_exe()?;
    let programs = programs.parent().unwrap_or(&programs).display();
    screen.line("\ntry:");
    screen.line(&format!(
        "  export ROLEBRIDGE_NATS_URL={} ROLEBRIDGE_NATS_SEED_FILE={}",
        system.nats.url(),
        seed.display()
    ));
    screen.line(&format!("  export ROLEBRIDGE_SEALING_KEY={}", system.sealing_key()));
    screen.line(&format!("  {programs}/rolebridge tenants list"));
    screen.line(&format!("  {programs}/rolebridge connections list {}", report.tenant));
    screen.line(&format!(
        "  {programs}/rolebridge connections show {} {}",
        report.tenant, report.connection.connection_id
    ));
    screen.line(&format!("  {programs}/rolebridge costs {}", report.tenant));
    screen.line(&format!("  {programs}/rolebridge audit {}", report.tenant));
    Ok(())
}
