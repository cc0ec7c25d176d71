//! When exports are looked for: when a connection is verified, and then again and again.
//!
//! Several instances do this side by side and agree without talking: the moments follow from the connection's ID, and the job's message ID from both,
//! so that the stream keeps one of them. A job more than needed reads nothing twice.

use super::connections::{Book, BookError, Known, Readable};
use super::{moment, same_id};
use contracts::connection::{ConnectionDisconnected, ConnectionInsecure, ConnectionRevoked, ConnectionVerified};
use contracts::costs::DiscoverExports;
use contracts::{CloudEvent, ConnectionId, EventId, JobId, Message as _, Stream, TenantId, Timestamp};
use messaging::{ACK_WAIT, Backoff, Bus, ConsumerSpec, Disposition, PublishError, Router, event};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// The consumer of connection events.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    let filters = [
        ConnectionVerified::SUBJECT,
        ConnectionInsecure::SUBJECT,
        ConnectionDisconnected::SUBJECT,
        ConnectionRevoked::SUBJECT,
    ];
    ConsumerSpec {
        stream: Stream::ConnectionEvents,
        durable: "cost-ingestion-connections",
        filters: filters.map(str::to_owned).to_vec(),
        // One at a time: two words on one connection do not overtake each other here.
        in_flight: 1,
        ack_wait: ACK_WAIT,
        max_deliver: 20,
        backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) },
    }
}

/// Why an event could not be acted on. Trying again is right.
#[derive(Debug, thiserror::Error)]
enum NoteError {
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What is done with connection events. Acknowledged when the book is written and the job is in its stream.
#[must_use]
pub fn router(bus: Bus, book: Book) -> Router {
    let ended = |tenant: TenantId, connection: ConnectionId, as_of: Timestamp| Known {
        tenant,
        connection,
        as_of,
        export: None,
    };
    let (verified_bus, verified_book) = (bus, book.clone());
    let (insecure, disconnected, revoked) = (book.clone(), book.clone(), book);
    Router::new()
        .on(move |event: CloudEvent<ConnectionVerified>, _| {
            let (bus, book) = (verified_bus.clone(), verified_book.clone());
            async move { disposition(verified(&bus, &book, event).await) }
        })
        .on(move |event: CloudEvent<ConnectionInsecure>, _| {
            let (book, known) = (insecure.clone(), ended(event.data.tenant, event.data.connection, event.time));
            async move { disposition(book.keep(&known).await.map_err(NoteError::Book)) }
        })
        .on(move |event: CloudEvent<ConnectionDisconnected>, _| {
            let (book, known) = (disconnected.clone(), ended(event.data.tenant, event.data.connection, event.time));
            async move { disposition(book.keep(&known).await.map_err(NoteError::Book)) }
        })
        .on(move |event: CloudEvent<ConnectionRevoked>, _| {
            let (book, known) = (revoked.clone(), ended(event.data.tenant, event.data.connection, event.time));
            async move { disposition(book.keep(&known).await.map_err(NoteError::Book)) }
        })
}

fn disposition(result: Result<(), NoteError>) -> Disposition {
    match result {
        Ok(()) => Disposition::Done,
        Err(error) => {
            tracing::warn!(error = ?error, "a connection's event could not be acted on");
            Disposition::Retry { reason: error.to_string(), after: None }
        }
    }
}

async fn verified(bus: &Bus, book: &Book, event: CloudEvent<ConnectionVerified>) -> Result<(), NoteError> {
    let ConnectionVerified { tenant, connection, account, region, cost_export, .. } = event.data;
    let readable = Readable { account, region, location: cost_export };
    let known = Known { tenant, connection, as_of: event.time, export: Some(readable.clone()) };
    book.keep(&known).await?;
    let id = same_id(moment(event.id.as_uuid()), &["verified", &event.id.to_string()]);
    Ok(order(bus, &known, &readable, id).await?)
}

/// Puts a job into its stream.
async fn order(bus: &Bus, known: &Known, export: &Readable, id: EventId) -> Result<(), PublishError> {
    let job = DiscoverExports {
        job: JobId::from_uuid(id.as_uuid()),
        tenant: known.tenant,
        connection: known.connection,
        account: export.account.clone(),
        region: export.region.clone(),
        named: export.location.clone(),
    };
    bus.publish(&CloudEvent { id, ..event(job) }).await
}

/// Orders each known export again, once in each interval. Cancel: between two orders. Failure: none; what could not be done is done at the next look.
pub async fn repeat(bus: Bus, book: Book, interval: Duration, shutdown: CancellationToken) {
    let mut slots: HashMap<ConnectionId, u64> = HashMap::new();
    let look = (interval / 20).clamp(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(look) => {}
        }
        if let Err(error) = due(&bus, &book, interval, &mut slots, &shutdown).await {
            tracing::warn!(error = ?error, "exports could not be ordered again; tried at the next look");
        }
    }
}

async fn due(
    bus: &Bus,
    book: &Book,
    interval: Duration,
    slots: &mut HashMap<ConnectionId, u64>,
    shutdown: &CancellationToken,
) -> Result<(), NoteError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let readable = book.readable().await?;
    slots.retain(|connection, _| readable.iter().any(|(known, _)| known.connection == *connection));
    for (known, export) in readable {
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let slot = slot(known.connection, now, interval);
        // The slot in which it is first seen has passed already: it was read when it was verified, or by whoever was here before us.
        let before = *slots.entry(known.connection).or_insert(slot);
        if before != slot {
            let began = slot.saturating_mul(interval.as_secs()).saturating_mul(1000);
            let id = same_id(began, &["again", &known.connection.to_string(), &slot.to_string()]);
            order(bus, &known, &export, id).await?;
            slots.insert(known.connection, slot);
        }
    }
    Ok(())
}

/// The number of the interval that `now` is in, counted from a moment that differs for each connection, so that not all are read at once.
fn slot(connection: ConnectionId, now: Duration, interval: Duration) -> u64 {
    let interval = interval.as_secs().max(1);
    // The last eight bytes of a UUIDv7 are all but random.
    let (_, low) = connection.as_uuid().as_u64_pair();
    now.as_secs().saturating_sub(low % interval) / interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_last_an_interval_and_are_spread() {
        let interval = Duration::from_secs(3600);
        let now = Duration::from_secs(1_800_000_000);
        let (mut starts, id) = (std::collections::BTreeSet::new(), ConnectionId::new());
        assert_eq!(slot(id, now, interval) + 1, slot(id, now + interval, interval));
        for _ in 0..50 {
            let id = ConnectionId::new();
            let changes = (0..3600).filter(|s| {
                let at = now + Duration::from_secs(*s);
                slot(id, at, interval) != slot(id, at + Duration::from_secs(1), interval)
            });
            let changes: Vec<_> = changes.collect();
            assert_eq!(changes.len(), 1);
            starts.insert(changes[0] / 360);
        }
        assert!(starts.len() > 5, "spread over the hour: {starts:?}");
    }

    #[test]
    fn the_same_reason_gives_the_same_message() {
        assert_eq!(same_id(7, &["a", "b"]), same_id(7, &["a", "b"]));
        assert_ne!(same_id(7, &["a", "b"]), same_id(7, &["ab", ""]));
        assert_eq!(moment(same_id(1_800_000_000_123, &["a"]).as_uuid()), 1_800_000_000_123);
    }
}
