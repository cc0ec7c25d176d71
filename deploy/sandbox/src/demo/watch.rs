//! Waiting for events, as a downstream team would.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use contracts::{
    CloudEvent, ConnectionId, Message as _, Stream, TenantId,
    connection::ConnectionVerified,
    costs::{CostsFailed, CostsIngested},
};
use futures::StreamExt as _;
use messaging::{
    Bus,
    async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig},
};

/// Reads the events from the streams' beginning, so that nothing is missed.
pub(crate) struct Watch {
    connections: Ordered,
    costs: Ordered,
}

impl Watch {
    pub(crate) async fn start(bus: &Bus) -> Result<Self> {
        Ok(Self {
            connections: read(bus, Stream::ConnectionEvents).await?,
            costs: read(bus, Stream::CostsEvents).await?,
        })
    }

    /// The connection of `tenant` that is verified next.
    pub(crate) async fn verified(&mut self, tenant: TenantId, within: Duration) -> Result<ConnectionId> {
        let next = async {
            while let Some(message) = self.connections.next().await.transpose()? {
                match CloudEvent::<ConnectionVerified>::decode(&message.payload) {
                    Ok(event) if event.data.tenant == tenant => return Ok(event.data.connection),
                    _ if message.subject.contains(&format!("connection.rejected.{tenant}.")) => {
                        bail!("the connection was rejected: {}", String::from_utf8_lossy(&message.payload));
                    }
                    _ => {}
                }
            }
            bail!("the subscription to connection events ended")
        };
        let waited = tokio::time::timeout(within, next).await;
        waited.with_context(|| format!("no {} event came within {} s", ConnectionVerified::TYPE, within.as_secs()))?
    }

    /// Waits until the costs of the connection are in the table.
    pub(crate) async fn costs(
        &mut self,
        (tenant, connection): (TenantId, ConnectionId),
        within: Duration,
    ) -> Result<()> {
        let next = async {
            while let Some(message) = self.costs.next().await.transpose()? {
                if let Ok(event) = CloudEvent::<CostsIngested>::decode(&message.payload)
                    && (event.data.tenant, event.data.connection) == (tenant, connection)
                {
                    return Ok(());
                }
                if let Ok(event) = CloudEvent::<CostsFailed>::decode(&message.payload) {
                    bail!("the export could not be read: {}", event.data.reason);
                }
            }
            bail!("the subscription to cost events ended")
        };
        let waited = tokio::time::timeout(within, next).await;
        waited.with_context(|| format!("no {} event came within {} s", CostsIngested::TYPE, within.as_secs()))?
    }
}

async fn read(bus: &Bus, stream: Stream) -> Result<Ordered> {
    let events = bus.jetstream().get_stream(stream.name()).await?;
    // Named, as permissions demand of readers on streams that services read too.
    let config = OrderedConfig { name: Some(format!("demo-{}", uuid::Uuid::now_v7())), ..OrderedConfig::default() };
    Ok(events.create_consumer(config).await?.messages().await?)
}
