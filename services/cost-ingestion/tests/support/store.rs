//! A store that can be told to fail at the worst moment, and remembers what was read.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The process dies before the commit: nothing arrives.
    CommitFails,
    /// The commit arrives, and the reply does not: the client tries again and hears that it is there.
    ReplyLost,
}

#[derive(Debug)]
pub struct Troubled {
    inner: InMemory,
    trouble: Mutex<Trouble>,
    reads: Mutex<Vec<Path>>,
    pub commits: AtomicUsize,
}

impl Troubled {
    pub fn new() -> Self {
        Self {
            inner: InMemory::new(),
            trouble: Mutex::new(Trouble::None),
            reads: Mutex::default(),
            commits: AtomicUsize::new(0),
        }
    }

    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    pub fn take_reads(&self) -> Vec<Path> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

impl fmt::Display for Troubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("troubled")
    }
}

#[async_trait]
impl ObjectStore for Troubled {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let commit = location.as_ref().contains("_delta_log/") && location.as_ref().ends_with(".json");
        let trouble = if commit { *self.trouble.lock().unwrap() } else { Trouble::None };
        if trouble == Trouble::CommitFails {
            return Err(Error::Generic { store: "troubled", source: "the machine is gone".into() });
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        self.commits.fetch_add(usize::from(commit), Ordering::SeqCst);
        if trouble == Trouble::ReplyLost {
            self.set(Trouble::None);
            return Err(Error::AlreadyExists { path: location.to_string(), source: "412".into() });
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.lock().unwrap().push(location.clone());
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
