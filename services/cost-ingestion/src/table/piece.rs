//! A piece of sorted rows as bytes, on its way through local space: what `sort` writes when memory is full, and reads back.
//!
//! Each column is a byte that says how it is kept, and its values. Texts are small numbers into the texts of the piece, so that a text that repeats is written
//! once. Nothing of this outlives the process that wrote it, so there is no version.

use super::held::{Dictionary, Numbers};
use super::run::{Held, Run};
use crate::source::Nullable as _;

/// A column of a piece.
pub(super) enum View<'a> {
    /// No row has a value.
    Nothing,
    /// Every row has this text.
    Text(&'a str),
    /// Texts by number; zero is none.
    Texts {
        keys: Keys<'a>,
        texts: Texts<'a>,
    },
    /// A text for each row.
    Unique(Texts<'a>),
    Amount(i128),
    Amounts(&'a [[u8; 16]]),
    Instant(i64),
    Instants(&'a [[u8; 8]]),
}

/// Numbers of one, two or four bytes.
pub(super) enum Keys<'a> {
    One(&'a [u8]),
    Two(&'a [[u8; 2]]),
    Four(&'a [[u8; 4]]),
}

impl Keys<'_> {
    pub(super) fn at(&self, row: usize) -> Option<u32> {
        match self {
            Self::One(all) => all.get(row).map(|key| u32::from(*key)),
            Self::Two(all) => all.get(row).map(|key| u32::from(u16::from_le_bytes(*key))),
            Self::Four(all) => all.get(row).map(|key| u32::from_le_bytes(*key)),
        }
    }
}

/// Texts one after the other.
pub(super) struct Texts<'a> {
    ends: &'a [[u8; 4]],
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn at(&self, at: usize) -> Option<&'a str> {
        let end = |at: usize| self.ends.get(at).map(|end| u32::from_le_bytes(*end) as usize);
        let start = if at == 0 { 0 } else { end(at - 1)? };
        std::str::from_utf8(self.bytes.get(start..end(at)?)?).ok()
    }
}

const NOTHING: u8 = 0;
const SAME: u8 = 1;
const ONE: u8 = 2;
const TWO: u8 = 3;
const FOUR: u8 = 4;
const EACH: u8 = 5;

/// Writes these rows of a run. `places` is room for numbers, kept from piece to piece: all [`u32::NONE`] before and after.
pub(super) fn write(run: &Run, rows: &[u32], places: &mut Vec<u32>, out: &mut Vec<u8>) {
    for held in run.columns() {
        match held {
            Held::Text(numbers, dictionary) | Held::Tags(numbers, dictionary) => match numbers {
                Numbers::Same(number, _) if *number == u32::NONE => out.push(NOTHING),
                Numbers::Same(number, _) => {
                    out.push(SAME);
                    texts(std::iter::once(dictionary.get(*number)), out);
                }
                Numbers::Each(all) => keyed(all, dictionary, rows, places, out),
            },
            Held::Unique { .. } => {
                out.push(EACH);
                texts(rows.iter().map(|row| run.unique(*row)), out);
            }
            Held::Amounts(Numbers::Same(units, _)) if *units == i128::NONE => out.push(NOTHING),
            Held::Amounts(Numbers::Same(units, _)) => {
                out.push(SAME);
                out.extend_from_slice(&units.to_le_bytes());
            }
            Held::Amounts(Numbers::Each(all)) => {
                out.push(EACH);
                let value = |row: &u32| all.get(*row as usize).copied().unwrap_or(i128::NONE);
                out.extend(rows.iter().flat_map(|row| value(row).to_le_bytes()));
            }
            Held::Instants(Numbers::Same(at, _)) => {
                out.push(SAME);
                out.extend_from_slice(&at.to_le_bytes());
            }
            Held::Instants(Numbers::Each(all)) => {
                out.push(EACH);
                let value = |row: &u32| all.get(*row as usize).copied().unwrap_or(i64::NONE);
                out.extend(rows.iter().flat_map(|row| value(row).to_le_bytes()));
            }
        }
    }
}

fn texts<'a>(all: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    let (mut ends, mut bytes) = (Vec::new(), Vec::new());
    for text in all {
        bytes.extend_from_slice(text.as_bytes());
        ends.push(bytes.len() as u32);
    }
    out.extend_from_slice(&(ends.len() as u32).to_le_bytes());
    ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
    out.extend_from_slice(&bytes);
}

fn keyed(all: &[u32], dictionary: &Dictionary, rows: &[u32], places: &mut Vec<u32>, out: &mut Vec<u8>) {
    places.resize(dictionary.len().max(places.len()), u32::NONE);
    let mut used = Vec::new();
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let number = all.get(*row as usize).copied().unwrap_or(u32::NONE);
        keys.push(match places.get_mut(number as usize) {
            None => 0,
            Some(place) => {
                if *place == u32::NONE {
                    used.push(number);
                    *place = used.len() as u32;
                }
                *place
            }
        });
    }
    for number in &used {
        if let Some(place) = places.get_mut(*number as usize) {
            *place = u32::NONE;
        }
    }
    match used.len() {
        0..=0xff => {
            out.push(ONE);
            out.extend(keys.iter().map(|key| *key as u8));
        }
        0x100..=0xffff => {
            out.push(TWO);
            out.extend(keys.iter().flat_map(|key| (*key as u16).to_le_bytes()));
        }
        _ => {
            out.push(FOUR);
            out.extend(keys.iter().flat_map(|key| key.to_le_bytes()));
        }
    }
    texts(used.iter().map(|number| dictionary.get(*number)), out);
}

/// The columns of a piece, as [`write`] wrote them of a run like this one. `None` if they are not.
pub(super) fn read<'a>(like: &Run, rows: usize, bytes: &'a [u8]) -> Option<Vec<View<'a>>> {
    let mut rest = Rest(bytes);
    let view = |held: &Held| {
        let [kind] = rest.array::<1>()?;
        Some(match (held, kind) {
            (_, NOTHING) => View::Nothing,
            (Held::Text(..) | Held::Tags(..), SAME) => View::Text(rest.texts()?.at(0)?),
            (Held::Text(..) | Held::Tags(..), ONE) => {
                View::Texts { keys: Keys::One(rest.take(rows)?), texts: rest.texts()? }
            }
            (Held::Text(..) | Held::Tags(..), TWO) => {
                View::Texts { keys: Keys::Two(rest.arrays(rows)?), texts: rest.texts()? }
            }
            (Held::Text(..) | Held::Tags(..), FOUR) => {
                View::Texts { keys: Keys::Four(rest.arrays(rows)?), texts: rest.texts()? }
            }
            (Held::Unique { .. }, EACH) => View::Unique(rest.texts()?),
            (Held::Amounts(_), SAME) => View::Amount(i128::from_le_bytes(rest.array()?)),
            (Held::Amounts(_), EACH) => View::Amounts(rest.arrays(rows)?),
            (Held::Instants(_), SAME) => View::Instant(i64::from_le_bytes(rest.array()?)),
            (Held::Instants(_), EACH) => View::Instants(rest.arrays(rows)?),
            _ => return None,
        })
    };
    like.columns().iter().map(view).collect()
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn arrays<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        Some(self.take(count.checked_mul(N)?)?.as_chunks().0)
    }

    fn texts(&mut self) -> Option<Texts<'a>> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        let ends: &[[u8; 4]] = self.arrays(count)?;
        let length = ends.last().map_or(0, |end| u32::from_le_bytes(*end) as usize);
        Some(Texts { ends, bytes: self.take(length)? })
    }
}
