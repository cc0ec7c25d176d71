//! How far reading is: bytes that came from the bucket, rows that were mapped, and an event about it, at most one a second for each export.
//!
//! Progress is news for people, not for programs: an event that gets lost is lost.

use super::ledger::{FoundExport, FoundUnit, Ledger};
use crate::credentials::Scope;
use async_trait::async_trait;
use contracts::costs::CostsProgress;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use messaging::{Bus, event};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two events about one export.
const PACE: Duration = Duration::from_secs(1);

/// Tells how far reading is.
#[derive(Clone, Default)]
pub struct Progress {
    told: Arc<Mutex<HashMap<(Scope, String), Instant>>>,
}

/// A period that is being read.
pub(super) struct Reading {
    /// What is known of its export, without this period.
    pub(super) progress: CostsProgress,
    /// Rows of it so far.
    pub(super) rows: Arc<AtomicU64>,
    /// Bytes of it so far.
    pub(super) bytes: Arc<AtomicU64>,
}

impl Progress {
    /// What is done of an export beside this period. What the ledger does not tell counts as not done.
    pub(super) async fn of(
        &self,
        ledger: &Ledger,
        scope: Scope,
        export: &FoundExport,
        unit: &FoundUnit,
    ) -> CostsProgress {
        let mut progress = CostsProgress {
            tenant: scope.tenant,
            connection: scope.connection,
            export: export.export.clone(),
            period: unit.period.clone(),
            periods_done: 0,
            periods: 0,
            rows: 0,
            bytes: 0,
            bytes_total: 0,
            percent: 0,
        };
        for other in export.units.iter().filter(|unit| unit.superseded.is_none()) {
            progress.periods += 1;
            progress.bytes_total += other.bytes;
            let Some(fingerprint) = other.fingerprint.filter(|_| other.period != unit.period) else { continue };
            let Ok(entry) = ledger.entry(scope, &export.export, &other.period).await else { continue };
            if let Some(held) = entry.held().filter(|held| held.fingerprint == fingerprint) {
                progress.periods_done += 1;
                progress.rows += held.seen.rows;
                progress.bytes += other.bytes;
            }
        }
        progress
    }

    /// Tells about a reading until it has ended.
    pub(super) async fn during<T, E>(
        &self,
        bus: &Bus,
        reading: &Reading,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let mut work = std::pin::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(PACE) => self.tell(bus, reading, None).await,
            }
        };
        if done.is_ok() {
            let whole = reading.progress.bytes_total.saturating_sub(reading.progress.bytes);
            let others = reading.progress.periods.saturating_sub(reading.progress.periods_done);
            // Of the last period everything is read; of others what they hold, as far as it was counted.
            let bytes = if others == 1 { whole } else { reading.bytes.load(Ordering::Relaxed) };
            self.tell(bus, reading, Some(bytes)).await;
        }
        done
    }

    async fn tell(&self, bus: &Bus, reading: &Reading, whole: Option<u64>) {
        let key = (
            Scope { tenant: reading.progress.tenant, connection: reading.progress.connection },
            reading.progress.export.clone(),
        );
        if !self.may(key) {
            return;
        }
        let told = now(reading, whole);
        if let Err(error) = bus.publish(&event(told)).await {
            tracing::debug!(%error, "progress could not be told");
        }
    }

    /// Whether it is time. What is older than that is forgotten, so that the map stays as small as what is read.
    fn may(&self, key: (Scope, String)) -> bool {
        let (mut told, now) = (self.told.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        told.retain(|_, at| now.duration_since(*at) < PACE);
        if told.contains_key(&key) {
            return false;
        }
        told.insert(key, now);
        true
    }
}

/// As an event; `whole` are the bytes of a period that is read.
fn now(reading: &Reading, whole: Option<u64>) -> CostsProgress {
    let mut told = reading.progress.clone();
    told.periods_done += u32::from(whole.is_some());
    told.rows += reading.rows.load(Ordering::Relaxed);
    let read = whole.unwrap_or_else(|| reading.bytes.load(Ordering::Relaxed));
    told.bytes = (told.bytes + read).min(told.bytes_total);
    let percent = told.bytes.saturating_mul(100).checked_div(told.bytes_total).unwrap_or(100);
    told.percent = u8::try_from(percent).unwrap_or(100);
    told
}

/// A store that counts the bytes that are read from it.
pub(super) struct Metered {
    inner: Arc<dyn ObjectStore>,
    bytes: Arc<AtomicU64>,
}

impl Metered {
    /// A store over this one, and its count.
    pub(super) fn over(inner: Arc<dyn ObjectStore>) -> (Arc<dyn ObjectStore>, Arc<AtomicU64>) {
        let bytes = Arc::new(AtomicU64::new(0));
        (Arc::new(Self { inner, bytes: Arc::clone(&bytes) }), bytes)
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(location, options).await?;
        if let GetResultPayload::Stream(stream) = result.payload {
            let bytes = Arc::clone(&self.bytes);
            let counted = stream.inspect(move |chunk| {
                let read = chunk.as_ref().map_or(0, bytes::Bytes::len);
                bytes.fetch_add(read as u64, Ordering::Relaxed);
            });
            result.payload = GetResultPayload::Stream(counted.boxed());
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
