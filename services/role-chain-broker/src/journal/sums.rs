//! Records become events. No I/O.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest::{Context, SHA256};
use contracts::{CloudEvent, EventId, Message, Timestamp};
use messaging::{PublishError, RawMessage};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    answer::Answer,
    record::{Millis, Record, Single},
};

const MINUTE: Millis = 60_000;

/// Where in a segment an event comes from: with the segment's ID, what makes its own.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The record at this position.
    Record(u64),
    /// The sum of one minute, of this number.
    Sum { minute: u64, number: u32 },
}

/// The answers of one segment that are summed up.
#[derive(Debug)]
pub(super) struct Sums {
    segment: Uuid,
    known: HashMap<u32, Answer<'static>>,
    sums: BTreeMap<(u64, u32), Sum>,
    unknown: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    answers: u64,
    from: Millis,
    until: Millis,
}

impl Sums {
    pub(super) fn new(segment: Uuid) -> Self {
        Self { segment, known: HashMap::new(), sums: BTreeMap::new(), unknown: 0 }
    }

    /// Takes the record at `position` of the segment; gives its event, if it is one by itself.
    ///
    /// # Errors
    /// As of [`event`].
    pub(super) fn take(&mut self, record: Record, position: u64) -> Result<Option<RawMessage>, PublishError> {
        match record {
            Record::Known { number, answer } => {
                self.known.insert(number, answer);
                Ok(None)
            }
            Record::Again { number, at } => {
                let sum = self.sums.entry((at / MINUTE, number)).or_insert(Sum { answers: 0, from: at, until: at });
                sum.answers += 1;
                sum.from = sum.from.min(at);
                sum.until = sum.until.max(at);
                Ok(None)
            }
            Record::Single(Single { at, traceparent, answers, answer }) => {
                let id = self.id(Place::Record(position), at);
                let when = timestamp(at);
                let message = match answer {
                    Answer::Given(given) => event(id, when, traceparent, given.event(true, answers, when, when)),
                    Answer::Refused(refused) => event(id, when, traceparent, refused.event(answers, when, when)),
                };
                message.map(Some)
            }
        }
    }

    /// Answers of numbers that nothing spells out, as far as [`Sums::events`] came upon them.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The events of all sums. To be asked for when the segment has ended: a sum's ID does not tell how far it goes.
    ///
    /// # Errors
    /// As of [`event`].
    pub(super) fn events(&mut self) -> Result<Vec<RawMessage>, PublishError> {
        let sums = std::mem::take(&mut self.sums);
        let nobodys = sums.iter().filter(|((_, number), _)| !self.known.contains_key(number));
        self.unknown += nobodys.map(|(_, sum)| sum.answers).sum::<u64>();
        let events = sums.into_iter().filter_map(|((minute, number), sum)| {
            let answer = self.known.get(&number)?.clone();
            let id = self.id(Place::Sum { minute, number }, minute * MINUTE);
            let (from, until) = (timestamp(sum.from), timestamp(sum.until));
            Some(match answer {
                Answer::Given(given) => event(id, until, None, given.event(false, sum.answers, from, until)),
                Answer::Refused(refused) => event(id, until, None, refused.event(sum.answers, from, until)),
            })
        });
        events.collect()
    }

    /// A UUID of version 7: the record's time, and 74 bits of SHA-256 over its place. The same record has the same, at every reading.
    fn id(&self, place: Place, at: Millis) -> EventId {
        let mut digest = Context::new(&SHA256);
        digest.update(self.segment.as_bytes());
        match place {
            Place::Record(position) => {
                digest.update(b"record");
                digest.update(&position.to_le_bytes());
            }
            Place::Sum { minute, number } => {
                digest.update(b"sum");
                digest.update(&minute.to_le_bytes());
                digest.update(&number.to_le_bytes());
            }
        }
        let bits = digest.finish();
        let bits = bits.as_ref().first_chunk::<10>().copied().unwrap_or_default();
        EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(at, &bits).into_uuid())
    }
}

fn timestamp(at: Millis) -> Timestamp {
    let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    Timestamp::from(instant.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// # Errors
/// When no JSON can be made of it, which happens to none of ours.
fn event<T: Message>(
    id: EventId,
    time: Timestamp,
    traceparent: Option<String>,
    data: T,
) -> Result<RawMessage, PublishError> {
    RawMessage::encode(&CloudEvent { id, time, traceparent, ..CloudEvent::new(data) })
}
