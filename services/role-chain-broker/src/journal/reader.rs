//! Reading a segment, also a damaged one: whatever is a whole record is read, wherever it stands, and what is lost between is counted.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use messaging::RawMessage;

use super::{
    record::{self, FRAME, HEADER, MOST, Next},
    segment::Segment,
    sums::Sums,
};

/// Events that are read at once, at the most and about.
const BATCH: usize = 256;
/// Bytes that are read at once: several records of whatever length.
const CHUNK: u64 = 256 * 1024;
/// No record takes more bytes.
const LONGEST: usize = FRAME + MOST;

/// What a look into a segment gave.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<RawMessage>,
    /// There is nothing more before the length that was asked for.
    pub(super) at_end: bool,
}

/// What could not be read of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Bytes in which no whole record stands that this version knows.
    pub(super) bytes: u64,
    /// Answers out of memory of which only the number is left, since the record that spelled them out is gone.
    pub(super) answers: u64,
    /// It is more than what a crash leaves, which is one torn record at the end: an answer that never went out.
    pub(super) damaged: bool,
}

/// Reads one segment, from the first record on.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    sums: Sums,
    /// Where the next record begins.
    position: u64,
    lost: Lost,
}

impl Reader {
    pub(super) fn open(segment: &Segment) -> io::Result<Self> {
        let (file, sums) = (File::open(segment.path())?, Sums::new(segment.id()));
        Ok(Self { file, sums, position: HEADER as u64, lost: Lost::default() })
    }

    /// The next events before `length`, without sums. Reads the disk.
    ///
    /// # Errors
    /// When it cannot be read; to be tried again.
    pub(super) fn next(&mut self, length: u64) -> io::Result<Batch> {
        let mut batch = Batch::default();
        while batch.events.len() < BATCH {
            let (before, bytes) = (self.position, self.read(self.position, length)?);
            let torn = self.take_all(&bytes, &mut batch.events)?;
            if self.position == length {
                batch.at_end = true;
                break;
            }
            if !torn && self.position > before {
                continue;
            }
            let Some(next) = self.find(length)? else {
                self.lose_end(length)?;
                batch.at_end = true;
                break;
            };
            self.lost.bytes += next - self.position;
            self.lost.damaged = true;
            self.position = next;
        }
        Ok(batch)
    }

    /// What was lost up to here. To be asked for at the end, after the sums.
    pub(super) fn lost(&self) -> Lost {
        Lost { answers: self.sums.unknown(), damaged: self.lost.damaged || self.sums.unknown() > 0, ..self.lost }
    }

    fn read(&mut self, from: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(from))?;
        (&mut self.file).take(length.saturating_sub(from).min(CHUNK)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes all whole records; whether there is something else.
    fn take_all(&mut self, mut bytes: &[u8], events: &mut Vec<RawMessage>) -> io::Result<bool> {
        loop {
            let size = match record::next(bytes) {
                Next::Record(record, size) => {
                    events.extend(self.sums.take(record, self.position).map_err(io::Error::other)?);
                    size
                }
                Next::Foreign(size) => {
                    self.lost.bytes += size as u64;
                    self.lost.damaged = true;
                    size
                }
                Next::Short => return Ok(false),
                Next::Torn => return Ok(true),
            };
            self.position += size as u64;
            bytes = bytes.get(size..).unwrap_or_default();
        }
    }

    /// Where the next whole record begins, behind a place where none does. The checksum tells: by chance it is right once in four thousand million times.
    fn find(&mut self, length: u64) -> io::Result<Option<u64>> {
        let mut from = self.position + 1;
        while from < length {
            let bytes = self.read(from, length)?;
            let is_last = from + bytes.len() as u64 >= length || bytes.len() <= LONGEST;
            // What begins after that may end behind the chunk: it is looked at with the next one.
            let tried = if is_last { bytes.len() } else { bytes.len() - LONGEST };
            let begins = |at: &usize| {
                matches!(record::next(bytes.get(*at..).unwrap_or_default()), Next::Record(..) | Next::Foreign(_))
            };
            if let Some(at) = (0..tried).find(begins) {
                return Ok(Some(from + at as u64));
            }
            if is_last {
                break;
            }
            from += tried as u64;
        }
        Ok(None)
    }

    /// No whole record begins in the rest. Room that was never written to is no loss.
    fn lose_end(&mut self, length: u64) -> io::Result<()> {
        let (mut from, mut end) = (self.position, self.position);
        while from < length {
            let bytes = self.read(from, length)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = from + last as u64 + 1;
            }
            from += bytes.len() as u64;
        }
        let lost = end - self.position;
        self.lost.bytes += lost;
        self.lost.damaged |= lost > LONGEST as u64;
        self.position = length;
        Ok(())
    }

    /// The sums of everything that was read: to be asked for at the end of a segment that nothing is written to any more.
    ///
    /// # Errors
    /// When an event cannot be written as JSON, which happens to none of ours.
    pub(super) fn sums(&mut self) -> io::Result<Vec<RawMessage>> {
        self.sums.events().map_err(io::Error::other)
    }
}
