//! A Parquet reader over an object store: ranges of one version of one object, with a bound on what is held.
//!
//! Lives here: requests for bytes. Must not live here: what the bytes mean.

use crate::pages;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that one page may unpack to. Writers make pages of about a megabyte.
const MAX_PAGE: usize = 128 << 20;
/// Bytes between two wanted ranges that are rather read than asked for again.
const GAP: u64 = 256 << 10;

/// Reads ranges of one version of one object: each request carries the ETag that was listed, so an object that is replaced meanwhile is an
/// error and never a mixture.
#[derive(Clone)]
pub struct ObjectFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    e_tag: Option<String>,
    max_read: u64,
}

impl ObjectFile {
    /// An object of this size in bytes; at most `max_read` bytes of it are asked for at once.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64, max_read: u64) -> Self {
        Self { store, path, size, e_tag: None, max_read }
    }

    /// The object as it was listed: exactly that version of it.
    #[must_use]
    pub fn listed(store: Arc<dyn ObjectStore>, object: &ObjectMeta, max_read: u64) -> Self {
        let (path, size, e_tag) = (object.location.clone(), object.size, object.e_tag.clone());
        Self { store, path, size, e_tag, max_read }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// These bytes of it.
    pub(crate) async fn range(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: self.e_tag.clone(), ..GetOptions::default() };
        self.store.get_opts(&self.path, options).await?.bytes().await
    }

    fn check(&self, ranges: &[Range<u64>]) -> Result<(), ParquetError> {
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let inside = ranges.iter().all(|range| range.start <= range.end && range.end <= self.size);
        if inside && bytes <= self.max_read {
            Ok(())
        } else {
            Err(ParquetError::General("the file points outside itself, or at too much".to_owned()))
        }
    }
}

impl AsyncFileReader for ObjectFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            self.check(std::slice::from_ref(&range))?;
            self.range(range).await.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            self.check(&ranges)?;
            let this = &*self;
            // Without a page index, which is never loaded, each range is a whole column chunk.
            let chunks = object_store::coalesce_ranges(&ranges, |range| this.range(range), GAP)
                .map_err(|error: object_store::Error| ParquetError::External(Box::new(error)))
                .await?;
            if chunks.iter().all(|chunk| pages::are_bounded(chunk, MAX_PAGE)) {
                Ok(chunks)
            } else {
                Err(ParquetError::General("a page has no header, or unpacks to more than 128 MiB".to_owned()))
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(64 << 10))
                .load_and_finish(self, size)
                .await
                .map(Arc::new)
        }
        .boxed()
    }
}
