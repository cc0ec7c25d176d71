//! The journal, as whoever answers sees it.

use std::{
    collections::VecDeque,
    hash::RandomState,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use contracts::{ErrorCode, ErrorReply, Timestamp};
use hashbrown::HashTable;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    answer::{Answer, Given, Refused},
    folder::{Folder, OpenError},
    record::{self, Millis, Single, Unwritable},
    segment::Segment,
    share::Shares,
};

/// Why an answer must not go out: it could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the audit journal is full: the stream of events has not taken what is in it for too long")]
    Full,
    #[error("the audit journal is filling up, and the answers to one user hold their share of it")]
    Share,
    #[error("the disk of the audit journal is slow, and too many wait for it already")]
    Slow,
    #[error("the audit journal has ended")]
    Ended,
    #[error("the disk of the audit journal does not take any more")]
    Disk(#[source] io::Error),
    #[error("an answer has no form in the audit journal: this is a bug, please report it")]
    Unwritable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<&JournalError> for ErrorReply {
    /// What the requester is told, whatever he would have been told otherwise.
    fn from(error: &JournalError) -> Self {
        if matches!(error, JournalError::Share) {
            let message = "so many answers to this NATS user wait to be written into the audit that no more go out for now: ask less often, and keep credentials for as long as they last";
            return Self::new(ErrorCode::Throttled, message).retry_after(5_000);
        }
        let message = "this answer could not be written into the broker's audit journal, and without that none goes out: try again; if it lasts, an operator must look at role-chain-broker's log";
        Self::new(ErrorCode::Unavailable, message).retry_after(2_000)
    }
}

impl From<JournalError> for ErrorReply {
    fn from(error: JournalError) -> Self {
        Self::from(&error)
    }
}

/// A write goes into the operating system's memory and takes some microseconds. One that takes so long waits for the disk.
const SLOW: Duration = Duration::from_millis(2);
/// For so long a thread of the runtime looks for the lock before it leaves its other tasks to another thread.
const LOOKS: Duration = Duration::from_micros(200);
/// Answers that wait for a slow disk at the same time, each with a thread; those beyond are told to come again.
const MOST_WAITING: usize = 64;

/// The journal of one instance. Cheap to clone.
///
/// A slow disk makes answers slow, or fewer, and stops nothing else: who waits for it leaves the other tasks of its thread to another one. Only the first
/// write that finds the disk slow keeps its thread from them.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    most: u64,
    state: Mutex<State>,
    hasher: RandomState,
    /// The last write waited for the disk.
    slow: AtomicBool,
    waiting: AtomicUsize,
    /// Answers that did not go out since somebody was told.
    refused: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Where everything is written to; none after the end.
    active: Option<Arc<Segment>>,
    /// In order: nothing is written to them any more.
    sealed: VecDeque<Arc<Segment>>,
    sealed_bytes: u64,
    /// The answers that the active segment has numbers for.
    known: HashTable<(Answer<'static>, u32)>,
    buffer: Vec<u8>,
    shares: Shares,
    /// Something had no room.
    full: bool,
}

impl Journal {
    /// Takes `folder`, with what earlier lives left there, for at most `most` bytes.
    ///
    /// # Errors
    /// When it is another's or cannot be used.
    pub fn open(folder: &Path, most: u64) -> Result<Self, OpenError> {
        let path = folder;
        let (folder, left) = Folder::open(path)?;
        let number = left.last().map_or(0, |segment| segment.number() + 1);
        let first = folder.begin(number, now());
        let first = first.map_err(|source| OpenError::Folder { folder: path.to_owned(), source })?;
        let state = State {
            active: Some(Arc::new(first)),
            sealed_bytes: left.iter().map(Segment::length).sum(),
            sealed: left.into_iter().map(Arc::new).collect(),
            known: HashTable::new(),
            buffer: Vec::new(),
            shares: Shares::default(),
            full: false,
        };
        let (state, hasher, refused) = (Mutex::new(state), RandomState::new(), AtomicU64::new(0));
        let (slow, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self(Arc::new(Inner { folder, most, state, hasher, slow, waiting, refused })))
    }

    /// A new session was begun. Returns when that is on the disk; one sync serves all who wait. Before that nobody may have the session.
    ///
    /// `answers` is 1 where a requester waits for it, and 0 where it was begun ahead of need.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn issued(&self, given: Given<'_>, answers: u64) -> Result<(), JournalError> {
        self.single(Answer::Given(given), answers).await
    }

    /// A session that was in the cache is given out. Waits for nobody; costs one small write into the operating system's memory.
    ///
    /// # Errors
    /// When it could not be written down.
    pub fn answered_from_cache(&self, given: Given<'_>) -> Result<(), JournalError> {
        self.again(&Answer::Given(given))
    }

    /// A request is refused. Returns when that is on the disk; one sync serves all who wait.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn denied(&self, refused: Refused<'_>) -> Result<(), JournalError> {
        self.single(Answer::Refused(refused), 1).await
    }

    /// A refusal is repeated out of memory. As of [`Journal::answered_from_cache`].
    ///
    /// # Errors
    /// When it could not be written down.
    pub fn denied_from_cache(&self, refused: Refused<'_>) -> Result<(), JournalError> {
        self.again(&Answer::Refused(refused))
    }

    async fn single(&self, answer: Answer<'_>, answers: u64) -> Result<(), JournalError> {
        let single = Single { at: now(), traceparent: telemetry::traceparent(), answers, answer };
        // A session is begun once for all who ask: it is within nobody's share.
        let bounded = matches!(single.answer, Answer::Refused(_));
        let written = self.0.written(|state| {
            record::write_single(state.empty_buffer(), &single).map_err(unwritable)?;
            state.append(&single.answer, bounded, single.at, self.0.most)
        });
        let durable =
            async |(segment, end): (Arc<Segment>, u64)| segment.durable(end).await.map_err(JournalError::Disk);
        let done = match written {
            Ok(written) => durable(written).await,
            Err(error) => Err(error),
        };
        self.counted(done)
    }

    fn again(&self, answer: &Answer<'_>) -> Result<(), JournalError> {
        let (hash, at) = (answer.hash(&self.0.hasher), now());
        let done = self.0.written(|state| state.again(answer, hash, at, self.0.most, &self.0.hasher));
        self.counted(done)
    }

    fn counted(&self, done: Result<(), JournalError>) -> Result<(), JournalError> {
        done.inspect_err(|_| {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.soon().unwrap_or_else(|| aside(|| self.0.lock()))
    }
}

/// Where it keeps no other task from its thread.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    // A runtime of one thread has no other place.
    match Handle::try_current().map(|here| here.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if whoever has it needs it for no longer than a write into memory.
    fn soon(&self) -> Option<MutexGuard<'_, State>> {
        let mut began = None;
        loop {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(state)) => return Some(state.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if began.get_or_insert_with(Instant::now).elapsed() > LOOKS {
                return None;
            }
            std::hint::spin_loop();
        }
    }

    /// Makes one write: here, or aside where it may wait for the disk.
    fn written<T>(&self, write: impl FnOnce(&mut State) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let ready = if self.slow.load(Ordering::Relaxed) { None } else { self.soon() };
        if let Some(mut state) = ready {
            return self.timed(&mut state, write);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(JournalError::Slow);
        }
        let written = aside(|| self.timed(&mut self.lock(), write));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        written
    }

    fn timed<T>(&self, state: &mut State, write: impl FnOnce(&mut State) -> T) -> T {
        let began = Instant::now();
        let written = write(state);
        self.slow.store(began.elapsed() >= SLOW, Ordering::Relaxed);
        written
    }
}

impl State {
    fn empty_buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.clear();
        &mut self.buffer
    }

    fn again(
        &mut self,
        answer: &Answer<'_>,
        hash: u64,
        at: Millis,
        most: u64,
        hasher: &RandomState,
    ) -> Result<(), JournalError> {
        let known = self.known.find(hash, |(known, _)| known == answer).map(|(_, number)| *number);
        let number = known.unwrap_or_else(|| u32::try_from(self.known.len()).unwrap_or(u32::MAX));
        let buffer = self.empty_buffer();
        if known.is_none() {
            record::write_known(buffer, number, answer).map_err(unwritable)?;
        }
        record::write_again(buffer, number, at).map_err(unwritable)?;
        self.append(answer, true, at, most)?;
        if known.is_none() {
            self.known.insert_unique(hash, (answer.clone().into_owned(), number), |(known, _)| known.hash(hasher));
        }
        Ok(())
    }

    /// Appends what is in the buffer, which is of `answer`, within its user's share if that is `bounded`; gives where it ends.
    fn append(
        &mut self,
        answer: &Answer<'_>,
        bounded: bool,
        at: Millis,
        most: u64,
    ) -> Result<(Arc<Segment>, u64), JournalError> {
        let active = self.active.as_ref().ok_or(JournalError::Ended)?;
        if active.has_failed() {
            return Err(JournalError::Disk(io::Error::other("the segment in use has failed")));
        }
        let (bytes, used) = (self.buffer.len() as u64, self.sealed_bytes + active.length());
        let Some(free) = most.checked_sub(used).filter(|free| bytes <= *free) else {
            self.full = true;
            return Err(JournalError::Full);
        };
        let user = answer.user();
        if bounded && !self.shares.has_room(user, bytes, free) {
            // What this segment holds leaves the journal sooner when it is sealed.
            self.full = active.length() > most / 8;
            return Err(JournalError::Share);
        }
        let end = active.append(&self.buffer, at).map_err(JournalError::Disk)?;
        self.shares.add(user, bytes);
        Ok((active.clone(), end))
    }
}

fn unwritable(error: Unwritable) -> JournalError {
    JournalError::Unwritable(Box::new(error))
}

/// Milliseconds since 1970.
pub(super) fn now() -> Millis {
    Millis::try_from(Timestamp::now().inner().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// What the journal's task does with it.
impl Journal {
    /// Seals the segment in use and begins another. Writes to the disk. An empty one goes on being used.
    ///
    /// # Errors
    /// When there can be no other; the one in use stays.
    pub(super) fn roll(&self) -> io::Result<Option<Arc<Segment>>> {
        let Some(number) =
            self.active().filter(|active| !active.is_empty() || active.has_failed()).map(|active| active.number())
        else {
            return Ok(None);
        };
        let next = Arc::new(self.0.folder.begin(number + 1, now())?);
        let mut state = self.state();
        let Some(sealed) = state.active.replace(next) else {
            // Ended meanwhile, and for good.
            state.active = None;
            return Ok(None);
        };
        state.seal(sealed.clone());
        Ok(Some(sealed))
    }

    /// As a disk that does not take a write until `on`.
    #[cfg(test)]
    pub(super) fn stands_still(&self, begun: &std::sync::mpsc::Sender<()>, on: &std::sync::mpsc::Receiver<()>) {
        let state = self.0.lock();
        let _ = begun.send(());
        let _ = on.recv();
        drop(state);
    }

    /// Whether something had no room in the segments there are.
    pub(super) fn is_full(&self) -> bool {
        self.state().full
    }

    /// Nothing more can be written down from now on.
    pub(super) fn end(&self) {
        let mut state = self.state();
        if let Some(last) = state.active.take() {
            state.seal(last);
        }
    }

    pub(super) fn active(&self) -> Option<Arc<Segment>> {
        self.state().active.clone()
    }

    /// The oldest segment that holds something, and whether it is sealed.
    pub(super) fn oldest(&self) -> Option<(Arc<Segment>, bool)> {
        let state = self.state();
        let sealed = state.sealed.front().map(|segment| (segment.clone(), true));
        sealed.or_else(|| state.active.clone().filter(|active| !active.is_empty()).map(|active| (active, false)))
    }

    /// The oldest sealed segment goes: everything in it was acknowledged, or it is `damaged` and kept beside the journal.
    ///
    /// # Errors
    /// When the file cannot be moved or removed; then it stays in the journal.
    pub(super) fn done(&self, segment: &Segment, damaged: bool) -> io::Result<()> {
        if damaged {
            let aside = self.0.folder.set_aside(segment)?;
            tracing::error!(file = %aside.display(), "a part of the audit journal cannot be read and was not published: keep this file, and have it looked at");
        } else {
            self.0.folder.remove(segment)?;
        }
        let mut state = self.state();
        if state.sealed.front().is_some_and(|first| first.number() == segment.number()) {
            state.sealed.pop_front();
            state.sealed_bytes = state.sealed_bytes.saturating_sub(segment.length());
            state.shares.done(segment.number());
        }
        Ok(())
    }

    /// Bytes that wait, and since when (ms since 1970) the oldest of them.
    pub(super) fn backlog(&self) -> (u64, Option<Millis>) {
        let oldest = self.oldest().map(|(segment, _)| segment.since());
        let state = self.state();
        (state.sealed_bytes + state.active.as_ref().map_or(0, |active| active.length()), oldest)
    }

    /// Answers that did not go out since this was asked for last.
    pub(super) fn refused(&self) -> u64 {
        self.0.refused.swap(0, Ordering::Relaxed)
    }
}

impl State {
    fn seal(&mut self, segment: Arc<Segment>) {
        self.sealed_bytes += segment.length();
        self.shares.seal(segment.number());
        self.sealed.push_back(segment);
        self.known = HashTable::new();
        self.full = false;
    }
}
