//! Whether an audit log is what was written: the chain of hashes, computed again by somebody who trusts nobody's word.
//!
//! What it finds: an entry that was changed, removed or put in between. What it cannot find by itself: entries cut off at the end, and a log whose hashes were
//! all computed anew. Both need a [`Mark`] that was noted earlier and kept elsewhere.

use std::{fmt, str::FromStr};

use super::{AuditEntry, GENESIS, chain};

/// An entry and its hash: enough to tell later whether the log up to there is still the same. Text: `SEQUENCE:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub sequence: i64,
    pub hash: String,
}

impl Mark {
    /// Where every log begins.
    fn genesis() -> Self {
        Self { sequence: 0, hash: GENESIS.to_owned() }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// The text is no mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mark is the number of an entry, a colon and its hash of 64 hexadecimal digits, as `rolebridge audit verify` prints it"
)]
pub struct ParseMarkError;

impl FromStr for Mark {
    type Err = ParseMarkError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, hash) = text.split_once(':').ok_or(ParseMarkError)?;
        let sequence: i64 = sequence.parse().map_err(|_| ParseMarkError)?;
        let digits = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if sequence < 1 || !digits {
            return Err(ParseMarkError);
        }
        Ok(Self { sequence, hash: hash.to_owned() })
    }
}

/// Where a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    #[error("entries {from} to {to} are missing: they were removed")]
    Removed { from: i64, to: i64 },
    #[error("entry {sequence} was put in: the entries around it fit each other without it")]
    Inserted { sequence: i64 },
    #[error("entry {sequence} is not what was written: it was changed, or put there by somebody else")]
    Changed { sequence: i64 },
    #[error("the hash of entry {sequence} was changed: its contents and the next entry agree on another one")]
    HashChanged { sequence: i64 },
    #[error("the log ends with entry {last}, but entry {} was there before: the end was cut off", noted.sequence)]
    CutOff { last: i64, noted: Mark },
    #[error("the log up to entry {} was written anew: every hash fits, but not the one that was noted", noted.sequence)]
    Rewritten { noted: Mark },
}

/// What a whole log that holds is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    /// The last entry; absent for an empty log.
    pub head: Option<Mark>,
}

/// Takes a log entry by entry, from the first, and says where it breaks. Keeps two entries at the most.
#[derive(Debug)]
pub struct Verifier {
    last: Mark,
    entries: u64,
    /// An entry that does not fit. The one after it tells what happened to it.
    suspect: Option<AuditEntry>,
    noted: Option<Mark>,
}

impl Verifier {
    /// `noted` is what an earlier verification printed, kept where whoever can change the log could not change it.
    #[must_use]
    pub fn new(noted: Option<Mark>) -> Self {
        Self { last: Mark::genesis(), entries: 0, suspect: None, noted }
    }

    /// # Errors
    /// At the first break. Nothing after it proves anything.
    pub fn push(&mut self, entry: AuditEntry) -> Result<(), Break> {
        if let Some(suspect) = self.suspect.take() {
            return Err(diagnose(&self.last, &suspect, Some(&entry)));
        }
        if !follows(&self.last, &entry) {
            self.suspect = Some(entry);
            return Ok(());
        }
        self.last = Mark { sequence: entry.sequence, hash: entry.hash };
        self.entries += 1;
        match &self.noted {
            Some(noted) if noted.sequence == self.last.sequence && noted.hash != self.last.hash => {
                Err(Break::Rewritten { noted: noted.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The end of the log.
    ///
    /// # Errors
    /// When it breaks at its last entry, or ends before the mark.
    pub fn finish(mut self) -> Result<Verified, Break> {
        if let Some(suspect) = self.suspect.take() {
            return Err(diagnose(&self.last, &suspect, None));
        }
        if let Some(noted) = self.noted.filter(|noted| noted.sequence > self.last.sequence) {
            return Err(Break::CutOff { last: self.last.sequence, noted });
        }
        Ok(Verified { entries: self.entries, head: (self.entries > 0).then_some(self.last) })
    }
}

/// Whether `entry` is what was written after `last`.
fn follows(last: &Mark, entry: &AuditEntry) -> bool {
    entry.sequence == last.sequence + 1 && chain(&last.hash, entry) == entry.hash
}

/// What happened to `suspect`, which does not follow `last`.
fn diagnose(last: &Mark, suspect: &AuditEntry, next: Option<&AuditEntry>) -> Break {
    let sequence = suspect.sequence;
    if sequence <= last.sequence || next.is_some_and(|next| fits_without(last, next)) {
        return Break::Inserted { sequence };
    }
    if sequence > last.sequence + 1 {
        return Break::Removed { from: last.sequence + 1, to: sequence - 1 };
    }
    let real = Mark { sequence, hash: chain(&last.hash, suspect) };
    if next.is_some_and(|next| follows(&real, next)) {
        return Break::HashChanged { sequence };
    }
    Break::Changed { sequence }
}

/// Whether `next` was written right after `last`, under its own number or under the one before (everything moved up to make room).
fn fits_without(last: &Mark, next: &AuditEntry) -> bool {
    let mut moved = next.clone();
    moved.sequence = last.sequence + 1;
    chain(&last.hash, &moved) == next.hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TenantId;

    fn log(length: i64) -> Vec<AuditEntry> {
        let (tenant, mut previous) = (TenantId::new(), GENESIS.to_owned());
        let entry = |sequence| {
            let mut entry = AuditEntry {
                sequence,
                at: "2026-11-03T10:15:38.274Z".parse().unwrap(),
                actor: "operator".to_owned(),
                user: Some("operator".to_owned()),
                action: "tenant.suspended".to_owned(),
                tenant: Some(tenant),
                enrollment: None,
                connection: None,
                reason: format!("reason {sequence}"),
                trace_id: None,
                hash: String::new(),
            };
            entry.hash = chain(&previous, &entry);
            previous = entry.hash.clone();
            entry
        };
        (1..=length).map(entry).collect()
    }

    fn verify(log: &[AuditEntry], noted: Option<Mark>) -> Result<Verified, Break> {
        let mut verifier = Verifier::new(noted);
        for entry in log {
            verifier.push(entry.clone())?;
        }
        verifier.finish()
    }

    fn mark(entry: &AuditEntry) -> Mark {
        Mark { sequence: entry.sequence, hash: entry.hash.clone() }
    }

    /// Hashes everything from `index` on anew, as somebody would who knows how.
    fn rehash(log: &mut [AuditEntry], index: usize) {
        for at in index..log.len() {
            let previous = if at == 0 { GENESIS.to_owned() } else { log[at - 1].hash.clone() };
            log[at].sequence = i64::try_from(at).unwrap() + 1;
            log[at].hash = chain(&previous, &log[at]);
        }
    }

    #[test]
    fn an_untouched_log_holds() {
        let log = log(9);
        for noted in [None, Some(mark(&log[3])), Some(mark(&log[8]))] {
            assert_eq!(verify(&log, noted), Ok(Verified { entries: 9, head: Some(mark(&log[8])) }));
        }
        assert_eq!(verify(&[], None), Ok(Verified { entries: 0, head: None }));
    }

    #[test]
    fn a_changed_entry_is_named_wherever_it_stands() {
        for at in [0, 4, 8] {
            let mut log = log(9);
            log[at].reason = "nothing happened".to_owned();
            assert_eq!(verify(&log, None), Err(Break::Changed { sequence: log[at].sequence }));
            // Its own hash made to fit: the next one tells.
            let previous = if at == 0 { GENESIS.to_owned() } else { log[at - 1].hash.clone() };
            log[at].hash = chain(&previous, &log[at]);
            match log.get(at + 1).map(|next| next.sequence) {
                Some(next) => assert_eq!(verify(&log, None), Err(Break::Changed { sequence: next })),
                None => assert!(verify(&log, None).is_ok(), "nothing follows the last one: that is what a mark is for"),
            }
        }
    }

    #[test]
    fn a_changed_hash_is_named() {
        let mut log = log(9);
        log[4].hash = "0".repeat(64);
        assert_eq!(verify(&log, None), Err(Break::HashChanged { sequence: 5 }));
    }

    #[test]
    fn removed_entries_are_named() {
        let whole = log(9);
        for (range, from, to) in [(0..1, 1, 1), (3..6, 4, 6)] {
            let mut log = whole.clone();
            log.drain(range);
            assert_eq!(verify(&log, None), Err(Break::Removed { from, to }));
        }
        // The gap closed by new numbers: the entry that follows is not what was written.
        let mut log = whole;
        log.remove(3);
        (3..8).for_each(|at| log[at].sequence = i64::try_from(at).unwrap() + 1);
        assert_eq!(verify(&log, None), Err(Break::Changed { sequence: 4 }));
    }

    #[test]
    fn an_inserted_entry_is_named() {
        let whole = log(9);
        let mut forged = whole[0].clone();
        forged.reason = "the customer asked for it".to_owned();
        for (at, sequence) in [(0, 0), (4, 5), (5, 5), (9, 9)] {
            let mut log = whole.clone();
            log.insert(at, AuditEntry { sequence, ..forged.clone() });
            assert_eq!(verify(&log, None), Err(Break::Inserted { sequence }), "at {at}");
        }
        // Everything behind it moved up by one.
        let mut log = whole.clone();
        log.insert(4, AuditEntry { sequence: 5, ..forged.clone() });
        (5..10).for_each(|at| log[at].sequence += 1);
        assert_eq!(verify(&log, None), Err(Break::Inserted { sequence: 5 }));
        // At the end, with a hash of no meaning.
        let mut log = whole;
        log.push(AuditEntry { sequence: 10, ..forged });
        assert_eq!(verify(&log, None), Err(Break::Changed { sequence: 10 }));
    }

    #[test]
    fn what_only_a_mark_finds() {
        let whole = log(9);
        let (early, late) = (mark(&whole[1]), mark(&whole[8]));
        assert!(verify(&whole[..6], None).is_ok());
        assert_eq!(verify(&whole[..6], Some(late.clone())), Err(Break::CutOff { last: 6, noted: late.clone() }));
        assert_eq!(verify(&[], Some(late.clone())), Err(Break::CutOff { last: 0, noted: late.clone() }));

        let mut anew = whole;
        anew[4].reason = "nothing happened".to_owned();
        rehash(&mut anew, 4);
        assert!(verify(&anew, None).is_ok());
        assert_eq!(verify(&anew, Some(late.clone())), Err(Break::Rewritten { noted: late }));
        assert!(verify(&anew, Some(early)).is_ok(), "the log up to the mark is the same");
    }

    #[test]
    fn a_mark_is_read_back() {
        let mark = mark(&log(3)[2]);
        assert_eq!(mark.to_string().parse(), Ok(mark.clone()));
        for wrong in [
            "",
            "3",
            "3:",
            "0:00",
            &format!("0:{}", mark.hash),
            &format!("-1:{}", mark.hash),
            &mark.to_string().to_uppercase(),
        ] {
            assert_eq!(wrong.parse::<Mark>(), Err(ParseMarkError), "{wrong}");
        }
    }
}
