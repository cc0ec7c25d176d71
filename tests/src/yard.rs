//! Customers of a system, made as the provider's person and the customer would; and connections that are granted without one.

use std::time::Duration;

use anyhow::{Result, ensure};
use contracts::{
    ConnectionId, ExternalId, TenantId,
    connection::{ConnectionState, Grant},
    costs::ExportLocation,
    enrollment::{CreateEnrollment, CreateEnrollmentRequest, EnrollmentKind, EnrollmentOffer},
};
use messaging::{Bus, event};
use sandbox::{Account, NatsUser, Operator, StackState, System};

/// Longer than anything takes on a loaded machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The stack that a customer launches.
pub const STACK: &str = "rolebridge";

/// A customer with an offer that is not taken up yet.
#[derive(Debug)]
pub struct Customer {
    pub tenant: TenantId,
    pub account: Account,
    pub offer: EnrollmentOffer,
}

impl Customer {
    /// A tenant whose customer has the AWS account `account`, with an offer; `cost_export` is where that customer's export lies, if there is one.
    ///
    /// # Errors
    /// Any step is refused.
    pub async fn make(system: &System, account: &str, cost_export: Option<ExportLocation>) -> Result<Self> {
        let bus = system.bus(NatsUser::Operator).await?;
        let operator = Operator::new(bus.clone());
        let tenant = operator.create_tenant(&format!("Customer {account}")).await?;
        let tenant = operator.principal_ready(tenant.tenant, PATIENCE).await?.tenant;
        let request = CreateEnrollmentRequest {
            kind: EnrollmentKind::Account,
            region: None,
            account: None,
            cost_export,
            expires_in_s: None,
        };
        let offer = bus.request::<CreateEnrollment>(CreateEnrollment::subject(tenant), &request, PATIENCE).await?;
        bus.close().await;
        Ok(Self { tenant, account: system.customer(account).await?, offer })
    }

    /// Launches the customer's template, and waits until CloudFormation has its answer.
    ///
    /// # Errors
    /// The stack is not complete in the end.
    pub async fn launch(&self) -> Result<()> {
        let request = System::customer_stack(STACK, &self.offer.parameters);
        let stack = self.account.create_stack(&request).await?;
        let state = self.account.wait_stack(&stack, PATIENCE, StackState::is_final).await?;
        ensure!(state.status == "CREATE_COMPLETE", "the stack is {}: {:?}", state.status, state.failure);
        Ok(())
    }
}

/// Says over the registry's own bus that credentials may be issued for a connection of `tenant`, which the registry itself knows nothing of: for parts that a
/// stand-in for STS serves, and more of them than could be connected.
///
/// # Errors
/// The stream does not take it.
pub async fn grant(registry: &Bus, tenant: TenantId) -> Result<ConnectionId> {
    let connection = ConnectionId::new();
    let grant = Grant {
        tenant,
        connection,
        state: ConnectionState::Verified,
        tenant_active: true,
        account: "222222222222".parse()?,
        region: "eu-central-1".parse()?,
        role_arn: format!("arn:aws:iam::222222222222:role/rolebridge/rolebridge-{connection}").parse()?,
        external_id: ExternalId::generate(),
        missing: Vec::new(),
        session_tags: false,
        revision: 1,
    };
    registry.publish(&event(grant)).await?;
    Ok(connection)
}
