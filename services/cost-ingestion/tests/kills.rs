//! Killed before and after each thing that is written while a period is replaced: whoever comes next goes on, and totals and news are right.
//!
//! A program's runtime is thrown away with everything in it, as SIGKILL does, the moment its store has been asked for the n-th write, or has done it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod support;

use async_trait::async_trait;
use contracts::costs::{CostsIngested, CostsRestated, PeriodState};
use contracts::{CloudEvent, Message, Stream};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::decimal;
use support::report::item;
use support::yard::{Customer, Yard};
use tokio_util::sync::CancellationToken;

/// Dies at a write, and answers nothing any more.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn ObjectStore>,
    /// The write at which it dies, from 1.
    at: usize,
    /// Whether that write is done.
    after: bool,
    writes: AtomicUsize,
    wrote: Mutex<Vec<Path>>,
    dead: CancellationToken,
}

impl Mortal {
    fn new(inner: Arc<dyn ObjectStore>, at: usize, after: bool) -> Arc<Self> {
        let (writes, wrote, dead) = (AtomicUsize::new(0), Mutex::default(), CancellationToken::new());
        Arc::new(Self { inner, at, after, writes, wrote, dead })
    }

    async fn die(&self) {
        self.dead.cancel();
        std::future::pending::<()>().await;
    }

    async fn live(&self) {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.live().await;
        let write = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.wrote.lock().unwrap().push(location.clone());
        if write == self.at && !self.after {
            self.die().await;
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if write == self.at {
            self.die().await;
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.live().await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The distinct IDs and their contents of a customer's events.
async fn news<T: Message + Clone>(yard: &Yard, of: impl Fn(&T) -> bool) -> Vec<CloudEvent<T>> {
    let mut ids = BTreeSet::new();
    let events = yard.events::<T>().await.into_iter().filter(|event| of(&event.data));
    events.filter(|event| ids.insert(event.id.to_string())).collect()
}

/// Replaces a period while the program that does it dies; answers what it wrote, or none if it got to its end.
async fn replaced(yard: &Yard, at: usize, after: bool) -> Option<Vec<Path>> {
    let customer = Customer::new();
    let of = |tenant| tenant == customer.tenant;
    yard.put(customer, "b", "2018-11", &[item("AmazonEC2", "3"), item("AmazonS3", "1")]).await;
    let whole = yard.program(1, Arc::clone(&yard.store));
    yard.look(customer).await;
    yard.until_idle().await;
    drop(whole);
    assert_eq!(yard.billed(customer).await, decimal("4"));

    // A new version of it.
    yard.put(customer, "b", "2018-11", &[item("AmazonEC2", "2"), item("AmazonS3", "1"), item("AmazonSQS", "0.5")])
        .await;
    let store = Mortal::new(Arc::clone(&yard.store), at, after);
    let program = yard.program(1, store.clone());
    yard.look(customer).await;
    let died = tokio::select! {
        () = store.dead.cancelled() => true,
        () = yard.until_idle() => false,
    };
    drop(program);
    let billed = yard.billed(customer).await;
    assert!([decimal("4"), decimal("3.5")].contains(&billed), "before or after, never between: {billed}");

    let _next = yard.program(1, Arc::clone(&yard.store));
    yard.until_idle().await;
    let costs = yard.costs(customer).await;
    assert_eq!((costs.rows, support::billed(&costs)), (3, decimal("3.5")), "write {at}, after: {after}");
    let ingested = news::<CostsIngested>(yard, |event| of(event.tenant)).await;
    assert_eq!(ingested.iter().map(|event| event.data.rows).collect::<Vec<_>>(), [2, 3], "write {at}, after: {after}");
    let restated = news::<CostsRestated>(yard, |event| of(event.tenant)).await;
    assert_eq!(restated.len(), 1, "write {at}, after: {after}");
    assert_eq!((restated[0].data.before.rows, restated[0].data.now.rows), (2, 3));
    let mut lines: Vec<_> =
        restated[0].data.by_service.iter().map(|line| (line.service.as_str(), line.billed.decimal())).collect();
    lines.sort_unstable();
    assert_eq!(lines, [("AmazonEC2", decimal("-1")), ("AmazonSQS", decimal("0.5"))]);
    let shown = yard.exports(customer.tenant).await;
    assert_eq!((shown.len(), shown[0].state, shown[0].versions), (1, PeriodState::Done, 2));
    assert_eq!(yard.held(Stream::DeadLetters).await, 0);
    died.then(|| store.wrote.lock().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_each_write_of_a_replacement() {
    let yard = Yard::new().await;
    let mut wrote = Vec::new();
    for after in [false, true] {
        let mut at = 1;
        while let Some(writes) = replaced(&yard, at, after).await {
            wrote = writes;
            at += 1;
            assert!(at < 40, "it does not come to an end: {wrote:?}");
        }
        assert!(at > 6, "files, finding, try, data, what is pending, commit, entry: {wrote:?}");
    }
    let is = |part: &str| wrote.iter().any(|path| path.as_ref().contains(part));
    assert!(is("_delta_log/") && is(".zstd.parquet") && is("found.json") && is("2018-11.json"), "{wrote:?}");
}

/// The commit that takes another export's rows away, and what comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_commit_that_takes_another_exports_rows_away() {
    let yard = Yard::new().await;
    for after in [false, true] {
        let mut at = 1;
        loop {
            let customer = Customer::new();
            yard.put(customer, "b", "2018-11", &[item("AmazonEC2", "5")]).await;
            let whole = yard.program(1, Arc::clone(&yard.store));
            yard.look(customer).await;
            yard.until_idle().await;
            drop(whole);
            yard.put(customer, "a", "2018-11", &[item("AmazonEC2", "5.5")]).await;
            let store = Mortal::new(Arc::clone(&yard.store), at, after);
            let program = yard.program(1, store.clone());
            yard.look(customer).await;
            let died = tokio::select! {
                () = store.dead.cancelled() => true,
                () = yard.until_idle() => false,
            };
            drop(program);
            let billed = yard.billed(customer).await;
            assert!([decimal("5"), decimal("5.5")].contains(&billed), "one of the two, never both: {billed}");
            let _next = yard.program(1, Arc::clone(&yard.store));
            yard.until_idle().await;
            assert_eq!(yard.billed(customer).await, decimal("5.5"), "write {at}, after: {after}");
            if !died {
                assert!(at > 7, "there were {at} writes");
                break;
            }
            at += 1;
        }
    }
}
