//! A piece of sorted rows as bytes, on its way through local space: what `sort` writes when memory is full, and reads back.
//!
//! Each column is a byte that says how it is kept, and its values. Texts whose dictionary outlives their run are its numbers alone; others are small numbers into the texts of
//! the piece, so that a text that repeats is written once. Nothing of this outlives the process that wrote it, so there is no version.

use super::held::{Amounts, Numbers, Words, lengthened};
use super::run::{Held, Run, text_of};
use crate::source::Nullable as _;
use std::ops::Range;

/// A column of a piece.
pub(super) enum View<'a> {
    /// No row has a value.
    Nothing,
    /// Every row has this text.
    Text(&'a [u8]),
    /// Numbers of a dictionary that outlives the piece, and one more; zero is none.
    Numbers(Keys<'a>),
    /// Texts by number; zero is none.
    Texts {
        keys: Keys<'a>,
        texts: Texts<'a>,
    },
    /// A text for each row.
    Unique(Texts<'a>),
    Amount(i128),
    /// Of 10^-10.
    Shorts(&'a [[u8; 8]]),
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
    /// Those of these rows, changed, behind `numbers`.
    pub(super) fn each(
        &self,
        rows: Range<usize>,
        change: impl Fn(u32) -> u32,
        numbers: &mut Numbers<u32>,
    ) -> Option<()> {
        match self {
            Self::One(all) => numbers.extend(all.get(rows)?.iter().map(|key| change(u32::from(*key)))),
            Self::Two(all) => {
                numbers.extend(all.get(rows)?.iter().map(|key| change(u32::from(u16::from_le_bytes(*key)))));
            }
            Self::Four(all) => numbers.extend(all.get(rows)?.iter().map(|key| change(u32::from_le_bytes(*key)))),
        }
        Some(())
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

    pub(super) fn at(&self, at: usize) -> Option<&'a [u8]> {
        let end = |at: usize| self.ends.get(at).map(|end| u32::from_le_bytes(*end) as usize);
        let start = if at == 0 { 0 } else { end(at - 1)? };
        self.bytes.get(start..end(at)?)
    }
}

const NOTHING: u8 = 0;
const SAME: u8 = 1;
const EACH: u8 = 2;
/// Of twice the size.
const LONG: u8 = 3;
/// With the bytes of a number, 1, 2 or 4, added.
const NUMBERS: u8 = 0x10;
const TEXTS: u8 = 0x20;

/// Writes these rows of a run. `places` is room for numbers, kept from piece to piece: all [`u32::NONE`] before and after.
pub(super) fn write(run: &Run, rows: &[u32], places: &mut Vec<u32>, out: &mut Vec<u8>) {
    for held in run.columns() {
        match held {
            Held::Text(numbers, words) | Held::Tags(numbers, words) => match numbers {
                Numbers::Same(number, _) if *number == u32::NONE => out.push(NOTHING),
                Numbers::Same(number, _) => {
                    out.push(SAME);
                    texts(std::iter::once(words.get(*number)), out);
                }
                Numbers::Each(all) if words.passing => keyed(all, words, rows, places, out),
                Numbers::Each(all) => {
                    let number = |row: &u32| all.get(*row as usize).map_or(0, |number| number.wrapping_add(1));
                    keys(NUMBERS, words.len(), rows.iter().map(number), out);
                }
            },
            Held::Unique { texts: all, ends } => {
                out.push(EACH);
                texts(rows.iter().map(|row| text_of(all, ends, *row)), out);
            }
            Held::Amounts(Amounts::Short(Numbers::Each(all))) => each(EACH, all, rows, i64::to_le_bytes, out),
            Held::Amounts(Amounts::Long(Numbers::Each(all))) => each(LONG, all, rows, i128::to_le_bytes, out),
            Held::Amounts(Amounts::Short(Numbers::Same(units, _))) => same_amount(lengthened(*units), out),
            Held::Amounts(Amounts::Long(Numbers::Same(units, _))) => same_amount(*units, out),
            Held::Instants(Numbers::Same(at, _)) => {
                out.push(SAME);
                out.extend_from_slice(&at.to_le_bytes());
            }
            Held::Instants(Numbers::Each(all)) => each(EACH, all, rows, i64::to_le_bytes, out),
        }
    }
}

fn same_amount(units: i128, out: &mut Vec<u8>) {
    if units == i128::NONE {
        out.push(NOTHING);
    } else {
        out.push(SAME);
        out.extend_from_slice(&units.to_le_bytes());
    }
}

fn each<T: Copy, const N: usize>(kind: u8, all: &[T], rows: &[u32], bytes: impl Fn(T) -> [u8; N], out: &mut Vec<u8>) {
    out.push(kind);
    out.reserve(rows.len() * N);
    rows.iter().filter_map(|row| all.get(*row as usize)).for_each(|value| out.extend_from_slice(&bytes(*value)));
}

fn texts<'a>(all: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let (mut ends, mut bytes) = (Vec::new(), Vec::new());
    for text in all {
        bytes.extend_from_slice(text);
        ends.push(bytes.len() as u32);
    }
    out.extend_from_slice(&(ends.len() as u32).to_le_bytes());
    ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
    out.extend_from_slice(&bytes);
}

/// Numbers up to `largest`, in as few bytes as that takes.
fn keys(kind: u8, largest: usize, all: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    match largest {
        0..=0xff => {
            out.push(kind + 1);
            out.extend(all.map(|key| key as u8));
        }
        0x100..=0xffff => {
            out.push(kind + 2);
            all.for_each(|key| out.extend_from_slice(&(key as u16).to_le_bytes()));
        }
        _ => {
            out.push(kind + 4);
            all.for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
        }
    }
}

fn keyed(all: &[u32], words: &Words, rows: &[u32], places: &mut Vec<u32>, out: &mut Vec<u8>) {
    places.resize(words.len().max(places.len()), u32::NONE);
    let mut used = Vec::new();
    let mut numbers = Vec::with_capacity(rows.len());
    for row in rows {
        let number = all.get(*row as usize).copied().unwrap_or(u32::NONE);
        numbers.push(match places.get_mut(number as usize) {
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
    keys(TEXTS, used.len(), numbers.into_iter(), out);
    texts(used.iter().map(|number| words.get(*number)), out);
}

/// The columns of a piece, as [`write`] wrote them of a run like this one. `None` if they are not.
pub(super) fn read<'a>(like: &Run, rows: usize, bytes: &'a [u8]) -> Option<Vec<View<'a>>> {
    let mut rest = Rest(bytes);
    let view = |held: &Held| {
        let [kind] = rest.array::<1>()?;
        Some(match (held, kind) {
            (_, NOTHING) => View::Nothing,
            (Held::Text(..) | Held::Tags(..), SAME) => View::Text(rest.texts()?.at(0)?),
            (Held::Text(..) | Held::Tags(..), kind) => {
                let keys = match kind & 0xf {
                    1 => Keys::One(rest.take(rows)?),
                    2 => Keys::Two(rest.arrays(rows)?),
                    4 => Keys::Four(rest.arrays(rows)?),
                    _ => return None,
                };
                match kind & 0xf0 {
                    NUMBERS => View::Numbers(keys),
                    TEXTS => View::Texts { keys, texts: rest.texts()? },
                    _ => return None,
                }
            }
            (Held::Unique { .. }, EACH) => View::Unique(rest.texts()?),
            (Held::Amounts(_), SAME) => View::Amount(i128::from_le_bytes(rest.array()?)),
            (Held::Amounts(_), EACH) => View::Shorts(rest.arrays(rows)?),
            (Held::Amounts(_), LONG) => View::Amounts(rest.arrays(rows)?),
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
