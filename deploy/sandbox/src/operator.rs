//! The provider's person at the command line, for the demo and the tests: the same endpoints that anybody has.

use std::time::{Duration, Instant};

use contracts::{
    ConnectionId, PageRequest, TenantId,
    connection::{Connection, ConnectionState, GetConnection, ListConnections, ListConnectionsRequest},
    costs::{ExportLocation, QueriedCosts, QueryCosts, QueryCostsRequest},
    enrollment::{CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
    tenant::{CreateTenant, CreateTenantRequest, Empty, GetTenant, Tenant},
};
use messaging::Bus;

use crate::error::{Result, SandboxError};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at something that takes a moment.
const GLANCE: Duration = Duration::from_millis(50);

/// A person of the provider, at the command line.
#[derive(Debug, Clone)]
pub struct Operator {
    bus: Bus,
}

impl Operator {
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn create_tenant(&self, name: &str) -> Result<Tenant> {
        let request = CreateTenantRequest { name: name.to_owned(), idempotency_key: None };
        Ok(self.bus.request::<CreateTenant>(CreateTenant::subject(), &request, TIMEOUT).await?)
    }

    /// The tenant, once its principal stands.
    ///
    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn principal_ready(&self, tenant: TenantId, within: Duration) -> Result<Tenant> {
        let until = Instant::now() + within;
        loop {
            let found = self.bus.request::<GetTenant>(GetTenant::subject(tenant), &Empty {}, TIMEOUT).await?;
            if found.principal_role.is_some() {
                return Ok(found);
            }
            if Instant::now() > until {
                return Err(SandboxError::NotYet {
                    what: format!("the principal of tenant {tenant} was not made"),
                    within,
                });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn offer(&self, tenant: TenantId, bucket: &str, prefix: &str) -> Result<EnrollmentOffer> {
        let request = CreateEnrollmentRequest {
            kind: EnrollmentKind::Account,
            region: None,
            account: None,
            cost_export: Some(ExportLocation { bucket: bucket.to_owned(), prefix: prefix.to_owned() }),
            expires_in_s: None,
        };
        Ok(self.bus.request::<CreateEnrollment>(CreateEnrollment::subject(tenant), &request, TIMEOUT).await?)
    }

    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn connection(&self, tenant: TenantId, connection: ConnectionId) -> Result<Connection> {
        Ok(self.bus.request::<GetConnection>(GetConnection::subject(tenant, connection), &Empty {}, TIMEOUT).await?)
    }

    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn connections(&self, tenant: TenantId) -> Result<Vec<Connection>> {
        let request = ListConnectionsRequest { state: None, page: PageRequest::default() };
        Ok(self.bus.request::<ListConnections>(ListConnections::subject(tenant), &request, TIMEOUT).await?.items)
    }

    /// The connection, once it is in `state`.
    ///
    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn in_state(
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
                return Err(SandboxError::NotYet {
                    what: format!("the connection {id} is {} and did not become {state}", found.state),
                    within,
                });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// # Errors
    /// The registry refuses, or does not answer.
    pub async fn costs(&self, tenant: TenantId) -> Result<QueriedCosts> {
        Ok(self.bus.request::<QueryCosts>(QueryCosts::subject(tenant), &QueryCostsRequest::default(), TIMEOUT).await?)
    }
}
