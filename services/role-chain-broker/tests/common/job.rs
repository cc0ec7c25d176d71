//! A job that asks for credentials.

use std::time::Duration;

use contracts::{
    ExternalId,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose},
};
use messaging::{RequestError, seal::SealSeed};
use sandbox::NatsUser;

use super::{Tenant, World, bus, grant, only_with};

/// Asks for credentials by a connection that nobody has asked by before: its first hop is new, too, and needs the access key.
pub(crate) async fn issue_anew(
    world: &World,
    tenant: &Tenant,
    within: Duration,
) -> Result<IssuedCredentials, RequestError> {
    let id = ExternalId::generate();
    let role = world.role(&tenant.role, only_with(&id)).await;
    let grant = grant(tenant.id, &role, &id);
    world.publish(grant.clone()).await;
    let job = bus(&world.nats, NatsUser::Job).await;
    let request = IssueRequest {
        requester_key: SealSeed::generate().unwrap().public().clone(),
        requester: "nightly-costs".to_owned(),
        duration_s: None,
        min_remaining_s: None,
    };
    let subject = IssueCredentials::subject(Purpose::CostRead, grant.tenant, grant.connection);
    let issued = job.request::<IssueCredentials>(subject, &request, within).await;
    job.close().await;
    issued
}
