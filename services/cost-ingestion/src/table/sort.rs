//! A slice's rows in one order, whatever their number: gathered, spilled as sorted runs, merged.
//!
//! Each thread gathers rows up to a bound of memory ([`Gatherer`]), sorts them by `ChargePeriodStart`, and puts them away as pieces of a few thousand rows, in local space
//! (`TMPDIR`) as soon as they are many. When all rows are in, the times of the pieces cut the slice into spans of about as many rows as memory may hold
//! ([`Sorted`]); each span is gathered from the runs, sorted, and written behind the one before it. So data files and row groups follow each other in time and
//! overlap in nothing but an equal start, and memory depends on the bounds alone. A start that very many rows have (a monthly export) is a span of its own, which needs
//! no order and is written as it comes.
//!
//! The files of local space have no name: they are gone with the process, however it ends.

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
const RUN_BYTES: usize = if cfg!(test) { 100 << 10 } else { 80 << 20 };
/// Rows of a piece: so few that a span reads little that is not its own.
const PIECE_ROWS: usize = if cfg!(test) { 20 } else { 2048 };
/// Rows of a span.
const SPAN_ROWS: u64 = if cfg!(test) { 300 } else { 200_000 };
/// Rows that one thread takes on at a time: spans that follow each other.
const STRETCH_ROWS: u64 = if cfg!(test) { 900 } else { 800_000 };
/// Bytes of pieces that are held before they go to local space.
const HELD_BYTES: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };

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
}

impl Shelf {
    fn put(&mut self, run: &Run) -> Result<(), TableError> {
        let (order, mut places) = (run.order(), Vec::new());
        for rows in order.chunks(PIECE_ROWS) {
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
            let before = self.held.len();
            piece::write(run, rows, &mut places, &mut self.held);
            let (at, length) = (self.filed + before as u64, self.held.len() - before);
            self.pieces.push(Piece { first: run.start(*first), last: run.start(*last), rows: rows.len(), at, length });
            if self.held.len() >= HELD_BYTES {
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
        Self { run: Run::new(), gathered: Gathered { shelves: vec![Shelf::default()], ..Gathered::default() } }
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
        let run = std::mem::replace(&mut self.run, Run::new());
        self.gathered.rows += run.rows() as u64;
        self.gathered.add(run.totals()?)?;
        let shelf = self.gathered.shelves.first_mut();
        shelf.map_or(Ok(()), |shelf| shelf.put(&run))
    }

    /// No more rows come.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn finish(mut self) -> Result<Gathered, TableError> {
        if self.run.rows() > 0 {
            self.put_away()?;
        }
        Ok(self.gathered)
    }
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
    pub fn sorted(self) -> Sorted {
        let stretches = stretches(self.shelves.iter().flat_map(|shelf| &shelf.pieces));
        Sorted { gathered: self, stretches: Mutex::new(stretches) }
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
        while let Some(spans) = self.next() {
            let mut writer = FileWriter::new(table, slice, runtime.clone());
            let result = self.stretch(&spans, &mut writer, stop).and_then(|()| writer.end());
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

    fn stretch(&self, spans: &[Span], writer: &mut FileWriter, stop: &CancellationToken) -> Result<(), TableError> {
        let mut buffer = Vec::new();
        for span in spans {
            if stop.is_cancelled() {
                return Ok(());
            }
            let mut run = Run::new();
            for shelf in &self.gathered.shelves {
                for piece in shelf.pieces.iter().filter(|piece| piece.first <= span.last && piece.last >= span.first) {
                    let bytes = shelf.get(piece, &mut buffer)?;
                    let damaged = || scratch("reading from")(io::ErrorKind::InvalidData.into());
                    copy(&mut run, piece, *span, bytes).ok_or_else(damaged)?;
                    if span.first == span.last && run.bytes() >= RUN_BYTES {
                        writer.write(&std::mem::replace(&mut run, Run::new()))?;
                    }
                }
            }
            writer.write(&run)?;
        }
        Ok(())
    }
}

/// Copies the piece's rows of the span.
fn copy(run: &mut Run, piece: &Piece, span: Span, bytes: &[u8]) -> Option<()> {
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
    run.push_piece(&views, rows)
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
pub(super) mod tests {
    use super::*;
    use crate::export::Export;
    use crate::source::{Layout, recognise};
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::TimestampMicrosecondType;
    use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
    use contracts::{ConnectionId, TenantId};
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt as _};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::statistics::Statistics;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use url::Url;

    fn pieces(starts: &[(i64, i64, usize)]) -> Vec<Piece> {
        starts
            .iter()
            .map(|(first, last, rows)| Piece { first: *first, last: *last, rows: *rows, at: 0, length: 0 })
            .collect()
    }

    proptest! {
        #[test]
        fn every_instant_is_in_exactly_one_span(parts in proptest::collection::vec((0_i64..50, 0_i64..10, 1_usize..1000), 1..60)) {
            let parts: Vec<_> = parts.into_iter().map(|(first, more, rows)| (first, first + more, rows)).collect();
            let spans: Vec<Span> = stretches(pieces(&parts).iter()).into_iter().flatten().collect();
            prop_assert_eq!(spans.first().map(|span| span.first), Some(i64::MIN));
            prop_assert_eq!(spans.last().map(|span| span.last), Some(i64::MAX));
            prop_assert!(spans.iter().all(|span| span.first <= span.last));
            prop_assert!(spans.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
        }
    }

    /// Rows of a month in no order: hours all over it, and a third of them at its first instant.
    pub(in crate::table) fn rows(part: u64, count: u64) -> Mapped {
        let all = |text: &dyn Fn(u64) -> String| {
            Arc::new((0..count).map(|row| Some(text(row))).collect::<StringArray>()) as ArrayRef
        };
        let hour = |row: u64| if row.is_multiple_of(3) { 0 } else { (row * 7919 + part * 104_729) % 743 };
        let instant = |hour: u64| format!("2025-01-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
        let columns = vec![
            ("bill_payer_account_id", all(&|_| "111111111111".to_owned())),
            ("identity_line_item_id", all(&|row| format!("line-{part}-{row}"))),
            ("line_item_product_code", all(&|row| format!("Service{}", row % 400))),
            (
                "line_item_resource_id",
                all(&|row| if row.is_multiple_of(5) { String::new() } else { format!("r-{}", row % 70_000) }),
            ),
            ("line_item_unblended_cost", all(&|row| format!("0.{:018}", row + 1))),
            ("line_item_usage_end_date", all(&|row| instant(hour(row) + 1))),
            ("line_item_usage_start_date", all(&|row| instant(hour(row)))),
            ("resource_tags", all(&|row| format!("{{\"user_team\":\"t{}\"}}", row % 9))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let layout = Layout::new(&batch.schema());
        recognise(&layout).unwrap().map(&batch, &layout).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slice_of_many_runs_is_in_one_order_and_has_every_row_once() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let table = Arc::new(
            CostTable::with_store(Arc::clone(&store), &Url::parse("memory:///costs/").unwrap()).await.unwrap(),
        );
        let period = "2025-01".parse().unwrap();
        let slice =
            Slice { tenant: TenantId::new(), connection: ConnectionId::new(), export: Export::named("e"), period };
        let mut gathered = Gathered::default();
        for part in 0..4 {
            let mut gatherer = Gatherer::default();
            (0..6).for_each(|more| gatherer.take(&rows(part * 6 + more, 700)).unwrap());
            gathered.merge(gatherer.finish().unwrap()).unwrap();
        }
        assert!(gathered.shelves.iter().all(|shelf| shelf.file.is_some() && shelf.pieces.len() > 100));
        let totals = gathered.totals.clone();
        let (written, result) = write(Arc::new(gathered.sorted()), &table, &slice, 3, &CancellationToken::new()).await;
        result.unwrap();
        assert_eq!((written.rows, &written.totals), (24 * 700, &totals));

        let mut files = written.files.clone();
        files.sort_by_key(|file| file.starts);
        assert!(files.len() > 4, "{}", files.len());
        let (mut last, mut seen, mut tagged, mut groups) = (i64::MIN, BTreeSet::new(), 0, Vec::new());
        for file in files {
            let bytes = table.store().get(&file.path).await.unwrap().bytes().await.unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            for group in reader.metadata().row_groups() {
                let column =
                    group.columns().iter().find(|column| column.column_path().string() == "ChargePeriodStart").unwrap();
                let Some(Statistics::Int64(found)) = column.statistics() else { panic!("no statistics") };
                groups.push((*found.min_opt().unwrap(), *found.max_opt().unwrap()));
            }
            for batch in reader.build().unwrap() {
                let batch = batch.unwrap();
                let starts = batch
                    .column_by_name("ChargePeriodStart")
                    .unwrap()
                    .as_primitive::<TimestampMicrosecondType>()
                    .clone();
                let ids = batch.column_by_name("x_LineItemId").unwrap().as_string::<i32>().clone();
                let resources = batch.column_by_name("ResourceId").unwrap().as_string::<i32>().clone();
                let tags = batch.column_by_name("Tags").unwrap().as_map().clone();
                for row in 0..batch.num_rows() {
                    assert!(starts.value(row) >= last);
                    last = starts.value(row);
                    assert!(seen.insert(ids.value(row).to_owned()), "twice");
                    let number: u64 = ids.value(row).rsplit('-').next().unwrap().parse().unwrap();
                    assert_eq!(
                        resources.is_valid(row).then(|| resources.value(row).to_owned()),
                        (number % 5 != 0).then(|| format!("r-{number}"))
                    );
                    tagged += tags.value(row).len();
                }
            }
        }
        assert_eq!((seen.len(), tagged), (24 * 700, 24 * 700));
        assert!(groups.len() > 20 && groups.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{groups:?}");
    }

    #[test]
    fn a_start_of_very_many_rows_is_a_span_of_its_own() {
        let all: Vec<_> = (0..500).map(|_| (7, 7, PIECE_ROWS)).chain([(1, 20, PIECE_ROWS)]).collect();
        let spans: Vec<Span> = stretches(pieces(&all).iter()).into_iter().flatten().collect();
        assert!(spans.contains(&Span { first: 7, last: 7 }), "{spans:?}");
    }
}
