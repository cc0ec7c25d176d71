//! A slice's rows in one order, whatever their number: gathered, spilled as sorted runs, merged.
//!
//! Each thread gathers rows up to a bound of memory ([`Gatherer`]), sorts them by `ChargePeriodStart`, and puts them away as pieces of a few thousand rows, in local space
//! (`TMPDIR`) as soon as they are many. When all rows are in, the times of the pieces cut the slice into spans of about as many rows as memory may hold
//! ([`Sorted`]); each span is gathered from the runs, sorted, and written behind the one before it. So data files and row groups follow each other in time and
//! overlap in nothing but an equal start, and memory depends on the bounds alone. A start that very many rows have (a monthly export) is a span of its own, which needs
//! no order and is written as it comes.
//!
//! Texts do not travel: each gatherer numbers them, its pieces hold the numbers, and [`Gathered::sorted`] makes one dictionary of all gatherers', whose numbers the row groups are made
//! of. A column of too many texts for that (resources of a large account) carries those of each piece with it.
//!
//! The files of local space have no name: they are gone with the process, however it ends.

use super::held::{Dictionary, Words};
use super::piece::{self, View};
use super::run::Run;
use super::write::{FileWriter, Sums, Written};
use super::{CostTable, Slice, TableError};
use crate::focus;
use crate::source::Mapped;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Memory that the rows of one run, or of one span, may take.
const RUN_BYTES: usize = if cfg!(test) { 60 << 10 } else { 40 << 20 };
/// Memory that the dictionaries of a gatherer may take.
const WORDS_BYTES: usize = if cfg!(test) { 30 << 10 } else { 24 << 20 };
/// Rows of a piece: so few that a span reads little that is not its own.
const PIECE_ROWS: usize = if cfg!(test) { 20 } else { 1024 };
/// Rows of a span: two row groups.
const SPAN_ROWS: u64 = if cfg!(test) { 300 } else { 128 << 10 };
/// Rows that one thread takes on at a time: spans that follow each other.
const STRETCH_ROWS: u64 = if cfg!(test) { 900 } else { 800_000 };
/// Bytes of pieces that are held before they go to local space: of a small slice all are; of a larger one so few that they are written while they are in the processor's cache.
const HELD_BYTES: usize = if cfg!(test) { 4 << 10 } else { 8 << 20 };
const PASSING_BYTES: usize = 512 << 10;

/// Sorted rows of one run, put away.
#[derive(Clone, Copy)]
struct Piece {
    /// First and last start of a charge period.
    first: i64,
    last: i64,
    rows: usize,
    at: u64,
    length: usize,
}

/// Runs put away, one after the other.
#[derive(Default)]
struct Shelf {
    pieces: Vec<Piece>,
    held: Vec<u8>,
    file: Option<File>,
    /// Bytes in the file.
    filed: u64,
    /// Of each column the dictionary of the numbers in its pieces, until there is one for all shelves.
    words: Vec<Dictionary>,
    /// Of each column what those numbers are in the dictionary for all; empty where they are the same.
    meanings: Vec<Vec<u32>>,
}

impl Shelf {
    fn new() -> Self {
        let words = focus::COLUMNS.iter().map(|_| Dictionary::default()).collect();
        Self { words, ..Self::default() }
    }

    fn put(&mut self, run: &Run) -> Result<(), TableError> {
        let (order, mut places) = (run.order(), Vec::new());
        for rows in order.chunks(PIECE_ROWS) {
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
            let before = self.held.len();
            piece::write(run, rows, &mut places, &mut self.held);
            let (at, length) = (self.filed + before as u64, self.held.len() - before);
            self.pieces.push(Piece { first: run.start(*first), last: run.start(*last), rows: rows.len(), at, length });
            if self.held.len() >= if self.file.is_some() { PASSING_BYTES } else { HELD_BYTES } {
                self.file().map_err(scratch("writing to"))?;
            }
        }
        Ok(())
    }

    fn file(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.held)?;
        self.filed += self.held.len() as u64;
        self.held.clear();
        self.held.shrink_to(2 * PASSING_BYTES);
        Ok(())
    }

    /// The bytes of a piece, in `buffer` if they were not in memory.
    fn get<'a>(&'a self, piece: &Piece, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], TableError> {
        if let Some(held) = piece.at.checked_sub(self.filed) {
            let start = held as usize;
            return Ok(self.held.get(start..start + piece.length).unwrap_or_default());
        }
        buffer.resize(piece.length, 0);
        let Some(file) = &self.file else { return Ok(&[]) };
        file.read_exact_at(buffer, piece.at).map_err(scratch("reading from"))?;
        Ok(buffer)
    }
}

fn scratch(operation: &'static str) -> impl Fn(io::Error) -> TableError {
    move |source| TableError::Scratch { operation, source }
}

/// Takes rows of one slice in any order. Several of them may work side by side.
pub struct Gatherer {
    run: Run,
    gathered: Gathered,
}

/// Rows that were gathered.
#[derive(Default)]
pub struct Gathered {
    shelves: Vec<Shelf>,
    rows: u64,
    totals: BTreeMap<String, Sums>,
}

impl Default for Gatherer {
    fn default() -> Self {
        Self { run: Run::new(), gathered: Gathered { shelves: vec![Shelf::new()], ..Gathered::default() } }
    }
}

impl Gatherer {
    /// Takes rows.
    ///
    /// # Errors
    /// When there is no local space, or a sum has too many digits.
    pub fn take(&mut self, mapped: &Mapped) -> Result<(), TableError> {
        self.run.push(mapped);
        if self.run.bytes() >= RUN_BYTES { self.put_away() } else { Ok(()) }
    }

    fn put_away(&mut self) -> Result<(), TableError> {
        self.gathered.rows += self.run.rows() as u64;
        self.gathered.add(self.run.totals()?)?;
        if let Some(shelf) = self.gathered.shelves.first_mut() {
            bound_words(&mut self.run, shelf);
            shelf.put(&self.run)?;
        }
        self.run.clear();
        Ok(())
    }

    /// No more rows come.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn finish(mut self) -> Result<Gathered, TableError> {
        if self.run.rows() > 0 {
            self.put_away()?;
        }
        if let Some(shelf) = self.gathered.shelves.first_mut() {
            for (at, words) in self.run.words().filter(|(_, words)| !words.passing) {
                if let Some(of_shelf) = shelf.words.get_mut(at) {
                    *of_shelf = std::mem::take(words).into_own();
                }
            }
        }
        Ok(self.gathered)
    }
}

/// The largest dictionaries end with their rows, until the others are within their bound.
fn bound_words(run: &mut Run, shelf: &mut Shelf) {
    loop {
        let (mut bytes, mut largest) = (0, None);
        for (at, words) in run.words().filter(|(_, words)| !words.passing) {
            bytes += words.bytes();
            if largest.as_ref().is_none_or(|(_, known): &(usize, &mut Words)| known.bytes() < words.bytes()) {
                largest = Some((at, words));
            }
        }
        let Some((at, words)) = largest.filter(|_| bytes > WORDS_BYTES) else { return };
        if let Some(of_shelf) = shelf.words.get_mut(at) {
            *of_shelf = words.pass();
        }
    }
}

/// One dictionary for each column, in whose numbers all shelves' are told.
fn share(shelves: &mut [Shelf]) -> Vec<Arc<Dictionary>> {
    let mut column = |at: usize| {
        let mut shared = Dictionary::default();
        for shelf in shelves.iter_mut() {
            let own = shelf.words.get_mut(at).map(std::mem::take).unwrap_or_default();
            shelf.meanings.push(if shared.len() == 0 {
                shared = own;
                Vec::new()
            } else {
                (0..own.len() as u32).map(|number| shared.number(own.get(number))).collect()
            });
        }
        Arc::new(shared)
    };
    (0..focus::COLUMNS.len()).map(&mut column).collect()
}

impl Gathered {
    fn add(&mut self, totals: BTreeMap<String, Sums>) -> Result<(), TableError> {
        for (currency, sums) in totals {
            self.totals.entry(currency).or_default().add(sums.billed, sums.effective)?;
        }
        Ok(())
    }

    /// Puts what another gatherer of the same slice has to it.
    ///
    /// # Errors
    /// When a sum has too many digits.
    pub fn merge(&mut self, other: Self) -> Result<(), TableError> {
        self.shelves.extend(other.shelves);
        self.rows += other.rows;
        self.add(other.totals)
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Puts them in order.
    #[must_use]
    pub fn sorted(mut self) -> Sorted {
        let stretches = stretches(self.shelves.iter().flat_map(|shelf| &shelf.pieces));
        let words = share(&mut self.shelves);
        Sorted { gathered: self, words, stretches: Mutex::new(stretches) }
    }
}

/// Starts of charge periods from the first to the last, both of them in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: i64,
    last: i64,
}

/// All rows of a slice, on their way into data files in order.
pub struct Sorted {
    gathered: Gathered,
    words: Vec<Arc<Dictionary>>,
    stretches: Mutex<VecDeque<Vec<Span>>>,
}

impl Sorted {
    /// How many threads find something to do.
    #[must_use]
    pub fn stretches(&self) -> usize {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Writes data files until there is nothing left to write, or `stop`. Several threads do it side by side; each must be one that may block.
    ///
    /// # Errors
    /// When storage or local space fails. What was written before is in `written`, to be discarded.
    pub fn write(
        &self,
        table: &CostTable,
        slice: &Slice,
        runtime: &Handle,
        stop: &CancellationToken,
        written: &mut Written,
    ) -> Result<(), TableError> {
        let mut run = Run::sharing(&self.words);
        while let Some(spans) = self.next() {
            let mut writer = FileWriter::new(table, slice, runtime.clone())?;
            let result = self.stretch(&spans, &mut run, &mut writer, stop).and_then(|()| writer.end());
            written.files.append(&mut writer.files);
            result?;
        }
        Ok(())
    }

    /// What all of the files together hold.
    pub(super) fn describe(&self, written: &mut Written) {
        (written.rows, written.totals) = (self.gathered.rows, self.gathered.totals.clone());
    }

    fn next(&self) -> Option<Vec<Span>> {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn stretch(
        &self,
        spans: &[Span],
        run: &mut Run,
        writer: &mut FileWriter,
        stop: &CancellationToken,
    ) -> Result<(), TableError> {
        let mut buffer = Vec::new();
        for span in spans {
            if stop.is_cancelled() {
                return Ok(());
            }
            for shelf in &self.gathered.shelves {
                for piece in shelf.pieces.iter().filter(|piece| piece.first <= span.last && piece.last >= span.first) {
                    let bytes = shelf.get(piece, &mut buffer)?;
                    let damaged = || scratch("reading from")(io::ErrorKind::InvalidData.into());
                    copy(run, piece, *span, bytes, &shelf.meanings).ok_or_else(damaged)?;
                    if span.first == span.last && run.bytes() >= RUN_BYTES {
                        writer.write(run)?;
                        run.clear();
                    }
                }
            }
            writer.write(run)?;
            run.clear();
        }
        Ok(())
    }
}

/// Copies the piece's rows of the span.
fn copy(run: &mut Run, piece: &Piece, span: Span, bytes: &[u8], meanings: &[Vec<u32>]) -> Option<()> {
    let views = piece::read(run, piece.rows, bytes)?;
    let at = focus::COLUMNS.iter().position(|column| column.name == "ChargePeriodStart")?;
    let rows = match views.get(at)? {
        View::Instants(starts) => {
            let before = starts.partition_point(|start| i64::from_le_bytes(*start) < span.first);
            let until = starts.partition_point(|start| i64::from_le_bytes(*start) <= span.last);
            before..until
        }
        _ => 0..piece.rows,
    };
    run.push_piece(&views, rows, meanings)
}

/// Cuts time into spans of about [`SPAN_ROWS`], and these into stretches of about [`STRETCH_ROWS`].
fn stretches<'a>(pieces: impl Iterator<Item = &'a Piece>) -> VecDeque<Vec<Span>> {
    // By the middle of each piece: (rows, rows of pieces that have this start alone).
    let mut middles: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for piece in pieces {
        let middle = piece.first.midpoint(piece.last);
        let (rows, alike) = middles.entry(middle).or_default();
        *rows += piece.rows as u64;
        *alike += if piece.first == piece.last { piece.rows as u64 } else { 0 };
    }
    let (mut all, mut stretch) = (VecDeque::new(), Vec::new());
    let (mut first, mut in_span, mut in_stretch) = (i64::MIN, 0, 0);
    for (middle, (rows, alike)) in middles {
        in_stretch += rows;
        if alike >= SPAN_ROWS {
            if first < middle {
                stretch.push(Span { first, last: middle.saturating_sub(1) });
            }
            stretch.push(Span { first: middle, last: middle });
            in_span = 0;
        } else {
            in_span += rows;
            if in_span < SPAN_ROWS {
                continue;
            }
            stretch.push(Span { first, last: middle });
            in_span = 0;
        }
        first = middle.saturating_add(1);
        if in_stretch >= STRETCH_ROWS {
            all.push_back(std::mem::take(&mut stretch));
            in_stretch = 0;
        }
    }
    stretch.push(Span { first, last: i64::MAX });
    all.push_back(stretch);
    all
}

/// Writes what was sorted with this many threads at most; what was written, and the first failure.
pub async fn write(
    sorted: Arc<Sorted>,
    table: &Arc<CostTable>,
    slice: &Slice,
    threads: usize,
    stop: &CancellationToken,
) -> (Written, Result<(), TableError>) {
    let runtime = Handle::current();
    let threads = threads.min(sorted.stretches()).max(1);
    let all: Vec<_> = (0..threads)
        .map(|_| {
            let (sorted, table, slice) = (Arc::clone(&sorted), Arc::clone(table), slice.clone());
            let (runtime, stop, span) = (runtime.clone(), stop.clone(), tracing::Span::current());
            tokio::task::spawn_blocking(move || {
                span.in_scope(|| {
                    let mut written = Written::default();
                    let result = sorted.write(&table, &slice, &runtime, &stop, &mut written);
                    if result.is_err() {
                        stop.cancel();
                    }
                    (written, result)
                })
            })
        })
        .collect();
    let (mut written, mut result) = (Written::default(), Ok(()));
    for thread in all {
        match thread.await {
            Ok((more, of_thread)) => {
                written.files.extend(more.files);
                result = result.and(of_thread);
            }
            // Its files are lost to us, and seen by nobody.
            Err(error) => result = result.and(Err(scratch("writing to")(io::Error::other(error)))),
        }
    }
    sorted.describe(&mut written);
    (written, result)
}

#[cfg(test)]
pub(super) mod tests;
