//! Looks from outside at what a system did: as a job, as an operator, as a reader of streams.

use client::{Client, IssueError};
use contracts::{ConnectionId, ErrorCode, PageRequest, Stream, TenantId, audit::ListAudit, credentials::Purpose};
use futures::StreamExt as _;
use messaging::{
    async_nats::jetstream::{Message, consumer::pull::OrderedConfig},
    header,
};
use sandbox::{NatsUser, Service};

use super::{PATIENCE, World};

pub(crate) async fn job(world: &World) -> Client {
    let bus = world.system.bus(NatsUser::Job).await.expect("a job connects");
    Client::new(bus, world.system.sealing_key().clone(), "flows").expect("a client")
}

pub(crate) fn refusal(result: Result<impl Sized, IssueError>) -> ErrorCode {
    match result {
        Err(IssueError::Request(error)) => error.refusal().expect("a refusal").code,
        Err(error) => panic!("no refusal: {error}"),
        Ok(_) => panic!("credentials were issued"),
    }
}

/// Nothing is issued for the connection, and nothing ever was granted.
pub(crate) async fn never_issued(world: &World, tenant: TenantId, connection: ConnectionId) {
    let asked = job(world).await.issue(tenant, connection, Purpose::CostRead).await;
    assert_eq!(refusal(asked), ErrorCode::NotFound, "nothing was ever granted");
    let grants = format!("rolebridge.internal.v1.grants.{tenant}.*");
    assert_eq!(world.held_on(Stream::Grants, &grants).await, 0, "grants of {tenant}");
}

/// Who did what, of the tenant's audit log.
pub(crate) async fn audit(world: &World, tenant: TenantId) -> Vec<(String, String)> {
    let page = world.bus.request::<ListAudit>(ListAudit::subject(tenant), &PageRequest::default(), PATIENCE).await;
    page.expect("the audit log").items.into_iter().map(|entry| (entry.actor, entry.action)).collect()
}

/// All messages of the stream, in order.
pub(crate) async fn messages(world: &World, stream: Stream) -> Vec<Message> {
    let count = usize::try_from(world.held(stream.name()).await).expect("few");
    if count == 0 {
        return Vec::new();
    }
    let stream = world.bus.jetstream().get_stream(stream.name()).await.expect("the stream");
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages").take(count);
    messages.map(|message| message.expect("a message")).collect().await
}

/// The reasons of all dead letters, in order.
pub(crate) async fn dead_letters(world: &World) -> Vec<String> {
    let reason = |message: Message| {
        let headers = message.headers.clone().expect("headers");
        headers.get(header::REASON).expect("a reason").to_string()
    };
    messages(world, Stream::DeadLetters).await.into_iter().map(reason).collect()
}

impl World {
    /// Starts `service` again with this variable changed.
    pub(crate) async fn restart_with(&mut self, service: Service, variable: &str, value: &str) {
        self.system.service(service).expect("a service").set_variable(variable, value);
        self.strike(service).await;
    }
}
