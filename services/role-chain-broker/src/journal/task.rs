//! From the journal into the stream of events, and out of the journal when the stream has it.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use messaging::{Bus, RawMessage};
use tokio_util::sync::CancellationToken;

use super::{
    reader::{Batch, Lost, Reader},
    record::Millis,
    segment::Segment,
    writer::{Journal, now},
};
use crate::metrics::Metrics;

/// Between two looks at whether there is something new.
const LOOK: Duration = Duration::from_millis(200);
/// A segment is sealed when its minute is over: then the sums of that minute can be told.
const MINUTE: Millis = 60_000;
/// Or when it holds so many bytes.
const SEGMENT: u64 = 64 * 1024 * 1024;
/// Events that are sent to the stream without waiting for the one before.
const IN_FLIGHT: usize = 64;
/// How long the last word of an instance may take; what is left then is published by its next life.
const LAST_WORD: Duration = Duration::from_secs(8);
/// After a fault of the disk.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two words about the same trouble.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Where events go.
#[async_trait]
pub trait Events: Send + Sync {
    /// Whether it was acknowledged.
    async fn store(&self, event: &RawMessage) -> bool;
}

#[async_trait]
impl Events for Bus {
    async fn store(&self, event: &RawMessage) -> bool {
        let stored = self.publish_raw(event).await;
        stored
            .inspect_err(|error| tracing::debug!(error = ?error, "an event of the audit journal was not acknowledged"))
            .is_ok()
    }
}

/// Publishes what is written down, oldest first, and deletes it when the stream has acknowledged it.
///
/// Cancel (`answered`: nobody answers any more): everything is published, for at most [`LAST_WORD`]; the rest stays in the folder for the next life.
/// Failure: stream away: tried again for ever; the journal grows up to its bound, and is a metric. Disk: tried again; meanwhile nothing is issued.
///
/// # Errors
/// Never.
pub async fn keep(
    journal: Journal,
    events: impl Events,
    metrics: Metrics,
    answered: CancellationToken,
) -> Result<(), Infallible> {
    let ended = CancellationToken::new();
    let publishing = async {
        publish(&journal, &events, &metrics, &ended).await;
    };
    let rolling = async {
        let mut complaint = None;
        while !answered.is_cancelled() {
            roll(&journal).await;
            look(&journal, &metrics, &mut complaint);
            tokio::select! {
                () = answered.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        journal.end();
        ended.cancel();
        tokio::time::sleep(LAST_WORD).await;
    };
    tokio::select! {
        () = publishing => {}
        () = rolling => tracing::warn!(bytes = journal.backlog().0, "the audit journal could not be published to its end in time: keep its folder, the next start goes on"),
    }
    look(&journal, &metrics, &mut None);
    Ok(())
}

/// Seals the segment in use when its time has come.
async fn roll(journal: &Journal) {
    let Some(active) = journal.active() else { return };
    let over = active.since() / MINUTE != now() / MINUTE
        || active.length() >= SEGMENT
        || active.has_failed()
        || journal.is_full();
    if !over {
        return;
    }
    let rolling = journal.clone();
    match in_background(move || rolling.roll()).await {
        // Nobody waits for this one: the end of the minute is on the disk all the same.
        Ok(Some(sealed)) => drop(sealed.durable(sealed.length()).await),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the audit journal cannot begin another file: it is tried again"),
    }
}

fn look(journal: &Journal, metrics: &Metrics, complaint: &mut Option<std::time::Instant>) {
    let (bytes, since) = journal.backlog();
    metrics.journal(bytes, since.map_or(Duration::ZERO, |since| Duration::from_millis(now().saturating_sub(since))));
    if complaint.is_some_and(|then| then.elapsed() < COMPLAINTS) {
        return;
    }
    let refused = journal.refused();
    if refused > 0 {
        *complaint = Some(std::time::Instant::now());
        tracing::error!(
            refused,
            bytes,
            "answers did not go out because the audit journal takes no more: is the disk full, or the stream of events away?"
        );
    }
}

/// Until there is nothing left after the end.
async fn publish(journal: &Journal, events: &impl Events, metrics: &Metrics, ended: &CancellationToken) {
    let mut reader: Option<(u64, Reader)> = None;
    loop {
        let Some((segment, sealed)) = journal.oldest() else {
            if ended.is_cancelled() {
                return;
            }
            tokio::time::sleep(LOOK).await;
            continue;
        };
        match step(&segment, sealed, reader.take(), events).await {
            Ok((mut read, progress)) => {
                if progress.finished {
                    tell_lost(&segment, progress.lost, metrics);
                    take_away(journal, &segment, progress.lost.damaged).await;
                    continue;
                }
                if progress.idle {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = ended.cancelled(), if !sealed => {}
                    }
                }
                reader = read.take();
            }
            Err(error) => {
                tracing::error!(%error, file = %segment.path().display(), "a file of the audit journal cannot be read: it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Says what could not be read of a segment whose rest is published.
fn tell_lost(segment: &Segment, lost: Lost, metrics: &Metrics) {
    let (bytes, answers, file) = (lost.bytes, lost.answers, segment.path().display());
    if lost.damaged {
        tracing::error!(%file, bytes, answers, "a file of the audit journal is damaged: so many bytes could not be read, and so many answers lack what they were; all the rest is published");
    } else if bytes > 0 {
        tracing::warn!(%file, bytes, "the last record of a file of the audit journal is torn, as a crash leaves it: its answer did not go out, unless the machine lost its power");
    }
    metrics.journal_lost(bytes, lost.damaged);
}

/// Returns when the published segment is gone: published again, it would be in the stream twice.
async fn take_away(journal: &Journal, segment: &Arc<Segment>, damaged: bool) {
    loop {
        let (journal, gone) = (journal.clone(), segment.clone());
        let Err(error) = in_background(move || journal.done(&gone, damaged)).await else { return };
        tracing::error!(%error, file = %segment.path().display(), "a file of the audit journal could not be taken away: it is tried again");
        tokio::time::sleep(AGAIN).await;
    }
}

#[derive(Debug, Default)]
struct Progress {
    idle: bool,
    finished: bool,
    lost: Lost,
}

type Kept = Option<(u64, Reader)>;

/// Publishes the next events of `segment`, and its sums when it is sealed and at its end.
async fn step(segment: &Arc<Segment>, sealed: bool, kept: Kept, events: &impl Events) -> io::Result<(Kept, Progress)> {
    let this = segment.clone();
    let (reader, Batch { events: mut next, at_end }) = in_background(move || {
        let mut reader = match kept {
            Some((number, reader)) if number == this.number() => reader,
            _ => Reader::open(&this)?,
        };
        let mut batch = reader.next(this.length())?;
        if batch.at_end && sealed {
            batch.events.extend(reader.sums()?);
        }
        Ok((reader, batch))
    })
    .await?;
    let idle = next.is_empty() && at_end;
    store_all(&mut next, events).await;
    let finished = sealed && at_end;
    let lost = reader.lost();
    Ok((Some((segment.number(), reader)), Progress { idle, finished, lost }))
}

/// Returns when the stream has all of them.
async fn store_all(waiting: &mut Vec<RawMessage>, events: &impl Events) {
    let backoff = || {
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .build()
    };
    let mut pauses = backoff();
    while !waiting.is_empty() {
        let before = waiting.len();
        let storing: Vec<_> = waiting.iter().map(|event| events.store(event)).collect();
        let stored: Vec<bool> = futures::stream::iter(storing).buffered(IN_FLIGHT).collect().await;
        let mut stored = stored.into_iter();
        waiting.retain(|_| !stored.next().unwrap_or_default());
        if waiting.len() < before {
            pauses = backoff();
        }
        if !waiting.is_empty() {
            tracing::warn!(
                events = waiting.len(),
                "the stream of events does not take the audit journal: it is tried again"
            );
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
