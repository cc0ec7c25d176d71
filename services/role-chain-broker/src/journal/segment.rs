//! One file of the journal.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::record::{HEADER, Header, Millis};

/// A segment of the journal. Written to by [`super::writer`] alone, under its lock.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    header: Header,
    path: PathBuf,
    file: File,
    /// Where the last whole record ends.
    length: AtomicU64,
    /// When its first record was written; while there is none, when it was begun (ms since 1970).
    since: AtomicU64,
    /// Up to where it is on the disk. Whoever has it synced holds the lock.
    synced: tokio::sync::Mutex<u64>,
    /// The disk did not take all of it: nothing more is written to it.
    failed: AtomicBool,
}

impl Segment {
    pub(super) fn new(number: u64, header: Header, path: PathBuf, file: File, length: u64) -> Self {
        let (since, synced) = (AtomicU64::new(header.begun), tokio::sync::Mutex::new(length));
        let (length, failed) = (AtomicU64::new(length), AtomicBool::new(false));
        Self { number, header, path, file, length, since, synced, failed }
    }

    /// A segment of an earlier life; `None` when the file does not begin like one.
    pub(super) fn left(number: u64, path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut header = [0; HEADER];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let length = file.metadata()?.len();
        Ok(Header::decode(&header).map(|header| Self::new(number, header, path.to_owned(), file, length)))
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn id(&self) -> Uuid {
        self.header.id
    }

    /// When its first record was written (ms since 1970); of one that an earlier life left, when it was begun.
    pub(super) fn since(&self) -> Millis {
        self.since.load(Ordering::Acquire)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of whole records, and of the header.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length() <= HEADER as u64
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Appends whole records, with one write. For one at a time.
    ///
    /// # Errors
    /// When the disk does not take all of it; then what it took is taken back, or nothing more is ever written to this segment.
    pub(super) fn append(&self, records: &[u8], at: Millis) -> io::Result<u64> {
        let before = self.length();
        if let Err(error) = (&self.file).write_all(records) {
            if self.file.set_len(before).is_err() {
                self.failed.store(true, Ordering::Release);
            }
            return Err(error);
        }
        if self.is_empty() {
            self.since.store(at, Ordering::Release);
        }
        let after = before + records.len() as u64;
        self.length.store(after, Ordering::Release);
        Ok(after)
    }

    /// Returns when everything up to `end` is on the disk. One sync serves all who wait.
    ///
    /// # Errors
    /// When the disk fails. What was written since the last sync may be lost then, whatever a later sync says: nothing more is written to this segment.
    pub(super) async fn durable(self: &Arc<Self>, end: u64) -> io::Result<()> {
        let mut synced = self.synced.lock().await;
        if *synced >= end {
            return Ok(());
        }
        if self.has_failed() {
            return Err(io::Error::other("the disk has failed before"));
        }
        let (this, length) = (self.clone(), self.length());
        let done = tokio::task::spawn_blocking(move || this.file.sync_data()).await;
        done.map_err(io::Error::other).flatten().inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        *synced = length;
        Ok(())
    }
}
