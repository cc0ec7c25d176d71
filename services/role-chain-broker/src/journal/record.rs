//! How records lie in a segment: a header, then frames of `length | CRC-32C of length and contents | contents`, numbers little-endian.
//!
//! A segment can be read by itself: every answer that is summed up is spelled out once in it, under a number, and each further one costs 21 bytes.

use crc::{CRC_32_ISCSI, Crc, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer::Answer;

const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
/// The first bytes of a segment; the last two are the version of its form.
const MAGIC: &[u8; 8] = b"RBAUDT01";
/// Length of a header: magic, the segment's ID, when it was begun (ms), CRC.
pub(super) const HEADER: usize = 8 + 16 + 8 + 4;
/// Length and CRC before the contents.
pub(super) const FRAME: usize = 8;
/// Contents are shorter than this, in bytes; what says otherwise is no record.
pub(super) const MOST: usize = 64 * 1024;

/// Milliseconds since 1970, UTC.
pub(super) type Millis = u64;

/// What a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Random: the IDs of its events are made of it, so no two segments of whatever instance make the same.
    pub(super) id: Uuid,
    pub(super) begun: Millis,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let all = MAGIC.iter().chain(self.id.as_bytes()).copied().chain(self.begun.to_le_bytes());
        bytes.iter_mut().zip(all).for_each(|(into, byte)| *into = byte);
        let (contents, sum) = bytes.split_at_mut(HEADER - 4);
        sum.copy_from_slice(&CRC.checksum(contents).to_le_bytes());
        bytes
    }

    /// `None` when this is no header of ours.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (contents, sum) = bytes.split_last_chunk::<4>()?;
        let (magic, rest) = contents.split_first_chunk::<8>()?;
        let (id, begun) = rest.split_first_chunk::<16>()?;
        let right = magic == MAGIC && CRC.checksum(contents) == u32::from_le_bytes(*sum);
        let begun = Millis::from_le_bytes(begun.try_into().ok()?);
        right.then_some(Self { id: Uuid::from_bytes(*id), begun })
    }
}

/// One thing that was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// From here on in this segment, `number` stands for this answer.
    Known { number: u32, answer: Answer<'static> },
    /// An answer out of memory.
    Again { number: u32, at: Millis },
    /// An answer that is an event of its own.
    Single(Single<'static>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Single<'a> {
    pub(super) at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<String>,
    /// Of credentials: 0 where the session was begun ahead of need.
    pub(super) answers: u64,
    #[serde(borrow)]
    pub(super) answer: Answer<'a>,
}

const KNOWN: u8 = 1;
const AGAIN: u8 = 2;
const SINGLE: u8 = 3;

/// A record that cannot be written: it is longer than [`MOST`], or no JSON can be made of it. Neither happens to answers of the broker.
#[derive(Debug, thiserror::Error)]
#[error("a record of {0} bytes cannot be written")]
pub(super) struct Unwritable(usize);

/// Appends one frame around what `contents` appends.
fn frame(into: &mut Vec<u8>, contents: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<(), Unwritable> {
    let start = into.len();
    into.extend_from_slice(&[0; FRAME]);
    let written = contents(into);
    let length = into.len() - start - FRAME;
    let size = u32::try_from(length).ok().filter(|_| written && length < MOST).ok_or(Unwritable(length))?.to_le_bytes();
    let Some((head, contents)) = into.get_mut(start..).and_then(|all| all.split_first_chunk_mut::<FRAME>()) else {
        return Err(Unwritable(length));
    };
    let sum = checksum(size, contents).to_le_bytes();
    head.iter_mut().zip(size.into_iter().chain(sum)).for_each(|(into, byte)| *into = byte);
    Ok(())
}

fn checksum(size: [u8; 4], contents: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&size);
    digest.update(contents);
    digest.finalize()
}

fn json(into: &mut Vec<u8>, value: &impl Serialize) -> bool {
    serde_json::to_writer(into, value).is_ok()
}

pub(super) fn write_known(into: &mut Vec<u8>, number: u32, answer: &Answer<'_>) -> Result<(), Unwritable> {
    frame(into, |into| {
        into.push(KNOWN);
        into.extend_from_slice(&number.to_le_bytes());
        json(into, answer)
    })
}

pub(super) fn write_again(into: &mut Vec<u8>, number: u32, at: Millis) -> Result<(), Unwritable> {
    frame(into, |into| {
        into.push(AGAIN);
        into.extend_from_slice(&number.to_le_bytes());
        into.extend_from_slice(&at.to_le_bytes());
        true
    })
}

pub(super) fn write_single(into: &mut Vec<u8>, single: &Single<'_>) -> Result<(), Unwritable> {
    frame(into, |into| {
        into.push(SINGLE);
        json(into, single)
    })
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record, and how many bytes it took.
    Record(Record, usize),
    /// More bytes are needed to tell.
    Short,
    /// No whole record begins here: the end that a crash tore, or damage.
    Torn,
    /// A whole record of so many bytes, in words that this version does not know.
    Foreign(usize),
}

pub(super) fn next(bytes: &[u8]) -> Next {
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else { return Next::Short };
    let Ok(length @ 1..MOST) = usize::try_from(u32::from_le_bytes(*size)) else { return Next::Torn };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Next::Short };
    let Some(contents) = rest.get(..length) else { return Next::Short };
    if checksum(*size, contents) != u32::from_le_bytes(*sum) {
        return Next::Torn;
    }
    decode(contents).map_or(Next::Foreign(FRAME + length), |record| Next::Record(record, FRAME + length))
}

fn decode(contents: &[u8]) -> Option<Record> {
    let (kind, rest) = contents.split_first()?;
    match *kind {
        KNOWN => {
            let (number, answer) = rest.split_first_chunk::<4>()?;
            let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
            Some(Record::Known { number: u32::from_le_bytes(*number), answer: answer.into_owned() })
        }
        AGAIN => {
            let (number, at) = rest.split_first_chunk::<4>()?;
            let at = Millis::from_le_bytes(at.try_into().ok()?);
            Some(Record::Again { number: u32::from_le_bytes(*number), at })
        }
        SINGLE => {
            let Single { at, traceparent, answers, answer } = serde_json::from_slice(rest).ok()?;
            Some(Record::Single(Single { at, traceparent, answers, answer: answer.into_owned() }))
        }
        _ => None,
    }
}
