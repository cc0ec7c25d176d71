//! Bytes of a packed file as they are needed: ranges of an object, gunzipped or unzipped, with a bound on what they may become.
//!
//! Cost files unpack to ten to forty times their size. One that unpacks to more than the bounds say is refused at that point, long before memory or time
//! are gone: nothing here holds more than a few buffers.

use super::Limits;
use crate::object::ObjectFile;
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use tokio::runtime::Handle;

/// Bytes asked for at once.
const CHUNK: u64 = 4 << 20;
/// What may be unpacked whatever the file's size.
const FREE: u64 = 64 << 20;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zip,
}

impl Packing {
    /// By its first bytes.
    pub(super) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            _ => Self::Plain,
        }
    }
}

/// Says that a bound was broken, through the layers of readers.
#[derive(Debug, thiserror::Error)]
#[error("it unpacks to more than {0} bytes, which no cost file of its size does")]
pub(super) struct TooBig(pub(super) u64);

/// What is wrong with a packed file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadPacking(pub(super) &'static str);

/// The unpacked bytes of `file`.
pub(super) fn unpacked(file: ObjectFile, packing: Packing, limits: &Limits, runtime: &Handle) -> Box<dyn Read> {
    let limit = bound(file.size(), limits);
    let source = Ranges { file, runtime: runtime.clone(), at: 0, held: Bytes::new() };
    unpack(source, packing, limit)
}

/// What a file of this size may unpack to.
pub(super) fn bound(size: u64, limits: &Limits) -> u64 {
    size.saturating_mul(limits.unpack_factor).max(FREE).min(limits.unpacked_bytes)
}

/// The unpacked bytes of what is there of a file, to look at its beginning.
pub(super) fn unpack(source: impl BufRead + 'static, packing: Packing, limit: u64) -> Box<dyn Read> {
    let inner: Box<dyn Read> = match packing {
        Packing::Plain => Box::new(source),
        Packing::Gzip => Box::new(MultiGzDecoder::new(source)),
        Packing::Zip => Box::new(Zip::new(source)),
    };
    Box::new(Bounded { inner, left: limit, limit })
}

struct Bounded {
    inner: Box<dyn Read>,
    left: u64,
    limit: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(TooBig(self.limit)))?;
        Ok(read)
    }
}

/// An object, range after range, all of one version.
struct Ranges {
    file: ObjectFile,
    runtime: Handle,
    at: u64,
    held: Bytes,
}

impl BufRead for Ranges {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.held.is_empty() && self.at < self.file.size() {
            let end = self.at.saturating_add(CHUNK).min(self.file.size());
            self.held = self.runtime.block_on(self.file.range(self.at..end)).map_err(io::Error::other)?;
            self.at = end;
        }
        Ok(&self.held)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.held.split_to(amount.min(self.held.len()));
    }
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The one file of a zip archive, read from its beginning: the directory at the end is not needed for that, and its sizes are not believed.
/// <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>
struct Zip<R: BufRead> {
    state: State<R>,
    sum: flate2::Crc,
    header: Rc<Cell<(u32, bool)>>,
}

enum State<R: BufRead> {
    Header(R),
    Deflated(DeflateDecoder<R>),
    Stored(io::Take<R>),
    End,
}

impl<R: BufRead> Zip<R> {
    fn new(source: R) -> Self {
        Self { state: State::Header(source), sum: flate2::Crc::new(), header: Rc::default() }
    }

    fn begin(&mut self, mut source: R) -> io::Result<State<R>> {
        let mut fixed = [0_u8; 30];
        source.read_exact(&mut fixed)?;
        let short = |at: usize| {
            fixed.get(at..at + 2).map_or(0, |b| b.iter().rev().fold(0_u32, |n, b| (n << 8) | u32::from(*b)))
        };
        let long = |at: usize| short(at) | (short(at + 2) << 16);
        let bad = |why| Err(io::Error::other(BadPacking(why)));
        let (flags, method, sum, packed) = (short(6), short(8), long(14), long(18));
        if !fixed.starts_with(b"PK\x03\x04") {
            return bad("it is no zip archive");
        }
        if flags & 1 != 0 {
            return bad("the zip archive is encrypted");
        }
        let later = flags & 8 != 0;
        self.header.set((sum, later));
        let names = u64::from(short(26) + short(28));
        if io::copy(&mut source.by_ref().take(names), &mut io::sink())? != names {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match method {
            8 => Ok(State::Deflated(DeflateDecoder::new(source))),
            0 if !later => Ok(State::Stored(source.take(u64::from(packed)))),
            _ => bad("the zip archive is packed in a way that cost reports are not"),
        }
    }

    /// After the file: its checksum must fit, and nothing but the directory may follow.
    fn end(&mut self, mut source: R) -> io::Result<()> {
        let bad = |why| Err(io::Error::other(BadPacking(why)));
        let (mut sum, later) = self.header.get();
        let word = |source: &mut R| {
            let mut bytes = [0_u8; 4];
            source.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        };
        let mut next = word(&mut source)?;
        if later {
            // The descriptor may have a signature, and sizes of four or eight bytes.
            sum = if next == 0x0807_4b50 { word(&mut source)? } else { next };
            for _ in 0..5 {
                next = word(&mut source)?;
                if matches!(next, 0x0201_4b50 | 0x0403_4b50) {
                    break;
                }
            }
        }
        if next != 0x0201_4b50 {
            return bad("the zip archive holds more than one file, or is damaged");
        }
        if sum == self.sum.sum() { Ok(()) } else { bad("the zip archive is damaged: its checksum does not fit") }
    }
}

impl<R: BufRead> Read for Zip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self.state, State::Header(_))
            && let State::Header(source) = std::mem::replace(&mut self.state, State::End)
        {
            self.state = self.begin(source)?;
        }
        let read = match &mut self.state {
            State::Deflated(inner) => inner.read(buffer)?,
            State::Stored(inner) => inner.read(buffer)?,
            State::Header(_) | State::End => return Ok(0),
        };
        self.sum.update(buffer.get(..read).unwrap_or_default());
        if read == 0 && !buffer.is_empty() {
            match std::mem::replace(&mut self.state, State::End) {
                State::Deflated(inner) => self.end(inner.into_inner())?,
                State::Stored(inner) if inner.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                State::Stored(inner) => self.end(inner.into_inner())?,
                State::Header(_) | State::End => {}
            }
        }
        Ok(read)
    }
}

/// With a buffer of our size.
pub(super) fn buffered(source: Box<dyn Read>) -> BufReader<Box<dyn Read>> {
    BufReader::with_capacity(256 << 10, source)
}
